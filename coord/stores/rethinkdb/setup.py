"""Raising the tokens of a table that was restored from a backup: `coord init --token-floor`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from coord.core import validation
from coord.errors import NotSetUp, StoreUnavailable
from coord.stores.rethinkdb import driver
from coord.stores.rethinkdb.errors import QueryError, from_row
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.queries import rows as row_views
from coord.stores.rethinkdb.url import REQUIRED_SETTINGS, SERVICES_TABLE, RethinkURL, parse_url


async def raise_token_floor(
    url: RethinkURL | str, token_floor: int, roles: Collection[str] = (), timeout: float = 60.0
) -> tuple[int, int]:
    """Lift every token below `token_floor` to it, and make a vacant lease for each of `roles` that
    has none.

    How many were (lifted, made); atomic for each row. Nothing else of a lease changes: a leader
    whose token was lifted finds its renewal refused, loses its term (`LossReason.TAKEN`), and
    nobody takes its place any sooner. Doing it again, or over after an error, does no harm.
    `timeout` is in seconds. Raises `BadArgument`, `StoreUnavailable` or `StoreRefused`."""
    floor, named = validation.token_floor(token_floor), [validation.role(role) for role in roles]
    parsed, r = parse_url(url) if isinstance(url, str) else url, driver.reql()
    table = r.db(parsed.database).table(parsed.table)
    blank: dict[str, Any] = {
        "holder": None,
        "token": floor,
        "beat": 0,
        "ttl": 0,
        "since": 0,
        "info": {},
        "history": [],
    }
    rows = [{**blank, "id": role, "renewed_at": r.now()} for role in named]
    made = table.insert(rows, durability="hard", conflict=lambda _id, old, _new: old)
    lifted = table.update(
        lambda row: r.branch(row_views.strict_view(row)["token"].lt(floor), {"token": floor}, {}),
        durability="hard",
    )
    pool = Pool(parsed)
    try:
        return await asyncio.wait_for(_both(pool, made if rows else None, lifted, timeout), timeout)
    except asyncio.TimeoutError:
        raise StoreUnavailable(
            f"raising the tokens of {parsed.redacted} did not end within {timeout:g} s"
        ) from None
    except QueryError as error:
        raise error.error() from None
    finally:
        await pool.close()


async def _both(pool: Pool, made: Any, lifted: Any, timeout: float) -> tuple[int, int]:
    counts = []
    for query, count in ((lifted, "replaced"), (made, "inserted")):
        report: dict[str, Any] = (
            {count: 0, "errors": 0} if query is None else await pool.query(query, timeout)
        )
        if report["errors"]:
            raise from_row(report["first_error"])
        counts.append(int(report[count]))
    return counts[0], counts[1]


# -- A write hook on the table of leases, by which the server itself refuses deletes and falling
# tokens. What coord asks for never needs either (rule 3), so it only stops others: a person's slip
# in the data explorer, a script, a restore that goes wrong. Whoever may configure the table can
# take it away. The SQLite schema has triggers that do the same, always.
#

ROWS_STAY = "coord: a lease keeps its token, so its row stays"
NEVER_FALLS = "coord: a fencing token never falls"


def install_write_hook(table: Any) -> Any:
    """The query that puts the guard on a table, which needs the right to configure it."""
    r = driver.reql()

    def kind(row: Any) -> Any:
        return row["token"].default(None).type_of()

    def guard(_context: Any, old: Any, new: Any) -> Any:
        falls = r.or_(kind(new).ne("NUMBER"), new["token"].lt(old["token"]))
        return r.branch(
            old.eq(None),
            new,
            new.eq(None),
            r.error(ROWS_STAY),
            r.and_(kind(old).eq("NUMBER"), falls),
            r.error(NEVER_FALLS),
            new,
        )

    return table.set_write_hook(guard)


def remove_write_hook(table: Any) -> Any:
    """The query that takes away whatever hook the table has."""
    return table.set_write_hook(None)


def hook_of(config: Mapping[str, Any]) -> Literal["guard", "other"] | None:
    """Whose write hook a table has, by its `config()`."""
    hook = config.get("write_hook")
    if not hook:
        return None
    return (
        "guard"
        if NEVER_FALLS in str(hook.get("query")) and ROWS_STAY in str(hook.get("query"))
        else "other"
    )


# -- Tables of one name: which one stays. Everybody who looks comes to the same result, and no
# record is ever lost. Twins cannot be addressed by their name, so each but the first by id is
# renamed to `<name>_duplicate_<id>`; from then on the name means one table again, and the renamed can be
# looked into. An empty one is dropped, by its id. If the first is empty and one duplicate is not, that
# duplicate gets the name. If two hold records, people must decide, and `NotSetUp` says so: a table that
# has the name and records keeps both, otherwise nothing has the name until they did, for an empty
# table of leases would count its tokens from 1 again.
#

SETTLE = 0.3
"""Seconds between renaming and looking: a write that found the table by its old name is done by
then."""


class Asker(Protocol):
    """What runs the queries."""

    url: RethinkURL
    r: Any
    system: Any

    async def ask(self, term: Any) -> Any:
        """One query."""


def duplicate_name(name: str, table_id: str) -> str:
    """What a duplicate is called once it is known as one."""
    return f"{name}_duplicate_{table_id.replace('-', '')[:12]}"


async def merge_duplicate_tables(asker: Asker, name: str) -> list[str]:
    """Leave one table called `name` at most; the ids of those that were dropped. Raises `NotSetUp`,
    `Trouble`."""
    tables = asker.system.table("table_config")
    mine = tables.filter({"db": asker.url.database})
    found = await asker.ask(mine.pluck("id", "name").coerce_to("array"))
    pattern = re.compile(re.escape(name) + r"_duplicate_[0-9a-f]{12}")
    named = sorted(one["id"] for one in found if one["name"] == name)
    renamed = {one["id"] for one in found if pattern.fullmatch(one["name"])}
    if len(named) < 2 and not renamed:
        return []
    for duplicate in named[1:]:
        await asker.ask(tables.get(duplicate).update({"name": duplicate_name(name, duplicate)}))
    await asyncio.sleep(SETTLE)
    others = sorted(renamed.union(named[1:]))
    empty = {one for one in others if await _is_empty(asker, duplicate_name(name, one))}
    full = [one for one in others if one not in empty]
    if full and (not named or await _is_empty(asker, name)):
        if named:
            await asker.ask(tables.get(named[0]).update({"name": duplicate_name(name, named[0])}))
            empty.add(named[0])
        if len(full) == 1:
            await asker.ask(tables.get(full.pop()).update({"name": name}))
    for one in sorted(empty):
        await asker.ask(tables.get(one).delete())
    if full:
        left = ", ".join(duplicate_name(name, one) for one in full)
        raise NotSetUp(
            f"there were tables of one name {name!r} in {asker.url.redacted}, and more than one holds records: "
            f"look at {left}, move what is wanted of it into one table called {name} "
            f"(of leases, the higher token), drop the rest"
        )
    return sorted(empty)


async def _is_empty(asker: Asker, name: str) -> bool:
    """A table that is gone counts as empty: somebody else did the same work."""
    table = asker.r.db(asker.url.database).table(name)
    for _ in range(50):
        try:
            await asker.ask(table.wait(wait_for="ready_for_reads", timeout=10))
            return bool(
                await asker.ask(
                    asker.r.db(asker.url.database).table(name, read_mode="majority").is_empty()
                )
            )
        except QueryError as error:
            if "does not exist" in error.detail:
                return True
            if error.permanent is not None or not error.retryable:
                raise
            await asyncio.sleep(0.1)  # renamed a moment ago, not ready just yet
    return False


# -- Making the database and its tables, and mending what is half made. `coord init` and `await
# set_up(url)` do this. `table_create` is not exclusive: eight at once make eight tables of one
# name, and every later query on it fails as ambiguous. So one process does the work at a time, and
# duplicates that are there all the same are brought together:
# * The lock is a database, `<database>__coord_setup`: `db_create` refuses a name that is taken, on
# one server at least, and all who set up the same URL go to the first of its servers that answers.
# A lock that has stood for `STALE` seconds on the clock of one who waits is taken down by its id:
# its owner has died.
# * The lock is a courtesy, not what makes it right (servers of a cluster that are cut off from each
# other would both create it). What makes it right is that duplicates are merged at the end of every run,
# by everybody in the same way: `duplicates.py`. Everything is looked at before it is changed, so that it
# can be run again at any time, and finishes what a run that was killed has left.
#

STALE = 20.0
MOST_REPLICAS = 3
ATTEMPTS = 8
_POLL = 0.05


@dataclass
class Report:
    """What `set_up` did, line by line, and what it would have people look at. Nothing done: all was
    well."""

    database: str
    done: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def set_up(
    url: RethinkURL | str,
    timeout: float = 60.0,
    *,
    replicas: int | None = None,
    guard: bool | None = None,
) -> Report:
    """Make the database, the tables of leases and of the board, and that of services with its
    index, or mend them.

    `replicas`: of each new table; without it three, or as many as there are servers if they are
    fewer. A table of leases that has fewer gets them. `guard`: have the server refuse deletes and
    falling tokens in the table of leases (`guard.py`), or no longer; None leaves that as it is.
    Idempotent. Any number of processes may do this at once; each returns when all is ready.
    `timeout` is in seconds. Raises `StoreUnavailable`, `AccessDenied` or `NotSetUp` (duplicates that
    both hold records; a write hook of somebody else's in the guard's place)."""
    parsed = parse_url(url) if isinstance(url, str) else url
    deadline = time.monotonic() + validation.number(timeout, "timeout", low=0, above=True)
    pool = Pool(parsed, in_order=True)
    work = _SetUp(pool, deadline, replicas, guard)
    try:
        return await asyncio.wait_for(work.run(), timeout)
    except asyncio.TimeoutError:
        raise StoreUnavailable(
            f"setting up {parsed.redacted} did not end within {timeout:g} s"
        ) from None
    except QueryError as error:
        raise error.error() from None
    finally:
        await pool.close()


class _SetUp:
    def __init__(
        self, pool: Pool, deadline: float, replicas: int | None, guard: bool | None
    ) -> None:
        self.pool, self.url, self.r = pool, pool.url, driver.reql()
        self._deadline, self._replicas, self._guard = deadline, replicas, guard
        self.system = self.r.db("rethinkdb")
        self.report = Report(self.url.database)

    async def run(self) -> Report:
        async with self._lock():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await self._mend()
                except QueryError as error:
                    # Somebody else's duplicate came up or went away meanwhile, or a table is not ready
                    # just yet, or somebody made or renamed one between our look and our change.
                    again = (
                        error.retryable
                        or error.permanent is NotSetUp
                        or "already exists" in error.detail
                    )
                    if attempt == ATTEMPTS or not again:
                        raise
                    await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 # so that two who collide do not again
                else:
                    break
        return self.report

    async def _mend(self) -> None:
        if await self._create(self.r.db_create(self.url.database)):
            self.report.done.append(f"created the database {self.url.database}")
        replicas = self._replicas or min(
            MOST_REPLICAS, await self.ask(self.system.table("server_status").count())
        )
        for name in dict.fromkeys((self.url.table, SERVICES_TABLE, self.url.announcements_table)):
            await self._table(name, replicas)
        await self._index()

    async def ask(self, term: Any) -> Any:
        """One query, within what is left of the time."""
        return await self.pool.query(term, max(self._deadline - time.monotonic(), 0.05))

    async def _table(self, name: str, replicas: int) -> None:
        leases = name == self.url.table
        for duplicate in await merge_duplicate_tables(self, name):
            self.report.done.append(f"removed an empty duplicate of the table {name} ({duplicate})")
        if name not in await self.ask(self.r.db(self.url.database).table_list()):
            # Asked of the server that has the lock: nobody else creates it meanwhile.
            options = {"shards": 1, "replicas": replicas, "durability": "hard"}
            await self.ask(self.r.db(self.url.database).table_create(name, **options))
            self.report.done.append(
                f"created the table {name} with {replicas} replica{'s' if replicas > 1 else ''}"
            )
            for duplicate in await merge_duplicate_tables(self, name):
                self.report.done.append(
                    f"removed an empty duplicate of the table {name} ({duplicate})"
                )
        table = self.r.db(self.url.database).table(name)
        await self.ask(table.wait(wait_for="ready_for_writes", timeout=int(self._left())))
        if leases:
            await self._settings(table, replicas)
            await self._guarded(table)
        await self._all_replicas(table, name)

    async def _settings(self, table: Any, replicas: int) -> None:
        """What makes an acknowledged lease a safe one. The services' table is left as its owner
        wants it."""
        config = await self.ask(table.config())
        wrong = {name: right for name, right in REQUIRED_SETTINGS.items() if config[name] != right}
        if wrong:
            await self.ask(table.config().update(wrong))
            self.report.done.append(
                f"set {', '.join(f'{a} to {b}' for a, b in wrong.items())} on {self.url.table}"
            )
        fewest = min(len(shard["replicas"]) for shard in config["shards"])
        if fewest < replicas:
            await self.ask(table.reconfigure(shards=1, replicas=replicas))
            self.report.done.append(
                f"raised the replicas of {self.url.table} from {fewest} to {replicas}"
            )

    async def _guarded(self, table: Any) -> None:
        if self._guard is None:
            return
        hook = hook_of(await self.ask(table.config()))
        if hook == "other":
            raise NotSetUp(
                f"the table {self.url.table} has a write hook that is not coord's: it was left as it is"
            )
        if self._guard and hook is None:
            await self.ask(install_write_hook(table))
            self.report.done.append(
                f"guarded {self.url.table}: the server refuses deletes and falling tokens"
            )
        elif not self._guard and hook is not None:
            await self.ask(remove_write_hook(table))
            self.report.done.append(f"took the guard off {self.url.table}")

    async def _all_replicas(self, table: Any, name: str) -> None:
        """A server that is down must not keep the others from being used."""
        try:
            await self.ask(
                table.wait(wait_for="all_replicas_ready", timeout=int(min(self._left(), 10.0)))
            )
        except QueryError as error:
            if error.permanent is not None:
                raise
            self.report.notes.append(f"not every replica of {name} is ready yet ({error.detail})")

    async def _index(self) -> None:
        table = self.r.db(self.url.database).table(SERVICES_TABLE)
        if "role" not in await self.ask(table.index_list()) and await self._create(
            table.index_create("role")
        ):
            self.report.done.append(f"created the index role on {SERVICES_TABLE}")
        await self.ask(table.index_wait("role"))

    async def _create(self, term: Any) -> bool:
        """Whether it was made now; False when it is there already."""
        try:
            await self.ask(term)
        except QueryError as error:
            if "already exists" in error.detail:
                return False
            raise
        return True

    def _left(self) -> float:
        return max(self._deadline - time.monotonic() - 1.0, 1.0)

    @contextlib.asynccontextmanager
    async def _lock(self) -> AsyncIterator[None]:
        name, databases = f"{self.url.database}__coord_setup", self.system.table("db_config")
        seen: dict[str, float] = {}
        while not await self._create(self.r.db_create(name)):
            now = time.monotonic()
            standing = await self.ask(databases.filter({"name": name})["id"].coerce_to("array"))
            seen = {one: seen.get(one, now) for one in standing}
            for one, since in seen.items():
                if now - since > STALE:
                    await self.ask(databases.get(one).delete())
                    self.report.done.append("removed the lock of a set-up that did not end")
            await asyncio.sleep(_POLL)
        mine = await self.ask(databases.filter({"name": name})["id"].coerce_to("array"))
        try:
            yield
        finally:
            for one in mine:
                with contextlib.suppress(QueryError):  # then the next set-up finds that it is stale
                    await self.pool.query(databases.get(one).delete(), 5.0)
