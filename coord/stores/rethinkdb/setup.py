"""Setting up a database: `coord init`, and what it is made of.

The parts, in this order: raising tokens after a restored backup, the write hook on the table of
leases, merging tables of one name, and `set_up`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from coord.core import validation
from coord.errors import BadArgument, NotSetUp, StoreUnavailable
from coord.runtime.retry import rng
from coord.runtime.timers import within
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import driver
from coord.stores.rethinkdb.errors import decoding, from_row, from_system_row
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.queries import rows as row_views
from coord.stores.rethinkdb.records import INDEX
from coord.stores.rethinkdb.url import (
    REQUIRED_SETTINGS,
    SERVICES_TABLE,
    RethinkURL,
    parse_url,
)


async def raise_token_floor(
    url: RethinkURL | str, token_floor: int, roles: Collection[str] = (), timeout: float = 60.0
) -> tuple[int, int]:
    """Raise every token below `token_floor` to it. Safe to repeat, also after an error.

    Nothing else of a lease changes. The renewal of a leader whose token was raised is refused, so
    its term ends (`LossReason.TAKEN`). Nobody takes its place any sooner.

    Args:
        url: The database.
        token_floor: The new least token.
        roles: Roles that get a vacant lease if they have none.
        timeout: Seconds that it may take.

    Returns:
        How many leases were raised, and how many were created. Each row is changed atomically.

    Raises:
        BadArgument: An argument is invalid.
        StoreUnavailable: No server answered in time.
        StoreRefused: The server refused.
    """
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
        "kept": "",
    }
    rows = [{**blank, "id": role, "renewed_at": r.now()} for role in named]
    made = table.insert(rows, durability="hard", conflict=lambda _id, old, _new: old)
    lifted = table.update(
        lambda row: r.branch(row_views.strict_view(row)["token"].lt(floor), {"token": floor}, {}),
        durability="hard",
    )
    pool = Pool(parsed)
    try:
        return await within(_both(pool, made if rows else None, lifted, timeout), timeout)
    except asyncio.TimeoutError:
        raise StoreUnavailable(
            f"raising the tokens of {parsed.redacted} did not end within {timeout:g} s"
        ) from None
    except RequestError as error:
        raise error.error() from None
    finally:
        await pool.close()


async def _both(pool: Pool, made: Any, lifted: Any, timeout: float) -> tuple[int, int]:
    counts = []
    for query, count in ((lifted, "replaced"), (made, "inserted")):
        report: dict[str, Any] = (
            {count: 0, "errors": 0} if query is None else await pool.query(query, timeout)
        )
        with decoding():
            if report["errors"]:
                raise from_row(report["first_error"])
            counts.append(int(report[count]))
    return counts[0], counts[1]


# The write hook, with which the server itself rejects deletes and falling tokens in the table of
# leases. coord never asks for either (rule 3), so the hook only stops others: a slip in the data
# explorer, a script, a restore that goes wrong. A user who may configure the table can remove it.
# The SQLite schema has triggers that do the same.

ROWS_STAY = "coord: a lease keeps its token, so its row stays"
NEVER_FALLS = "coord: a fencing token never falls"


def install_write_hook(table: Any) -> Any:
    """Return the query that installs coord's hook. It needs the permission `config`."""
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
    """Return the query that removes any hook from a table."""
    return table.set_write_hook(None)


def hook_of(config: Mapping[str, Any]) -> Literal["guard", "other"] | None:
    """Return whose write hook a table has, from its `config()`; None if it has none."""
    hook = config.get("write_hook")
    if not hook:
        return None
    return (
        "guard"
        if NEVER_FALLS in str(hook.get("query")) and ROWS_STAY in str(hook.get("query"))
        else "other"
    )


# Duplicate tables. RethinkDB can create several tables of one name, and no query can address
# them by that name. All but the first (by id) are renamed to `<name>_duplicate_<id>`, so that the
# name means one table again and each can be examined. An empty one is dropped. If the first is
# empty and one duplicate is not, that duplicate gets the name. If two hold records, people must
# decide, and `NotSetUp` says so. Until then a table with the name and records keeps both;
# otherwise no table has the name, because an empty table of leases would start to count its
# tokens from 1 again. Every process that does this comes to the same result, and no record is
# lost.

SETTLE = 0.3
"""Seconds between renaming a table and looking into it. A write that found the table under its old
name is done by then."""
READY_ATTEMPTS = 50
"""How often a table that was renamed a moment ago is asked whether it is empty."""


class QueryRunner(Protocol):
    """Runs the queries of `merge_duplicate_tables`."""

    url: RethinkURL
    r: Any
    system: Any

    async def run_query(self, term: Any) -> Any:
        """Return the answer to one query. Raises `RequestError`."""


def duplicate_name(name: str, table_id: str) -> str:
    """Return the name that a duplicate of the table `name` gets."""
    return f"{name}_duplicate_{table_id.replace('-', '')[:12]}"


async def merge_duplicate_tables(runner: QueryRunner, name: str) -> list[str]:
    """Merge tables of one name into one, and return the ids of the empty ones that were dropped.

    Raises:
        NotSetUp: More than one of them holds records.
        RequestError: A query failed.
    """
    tables = runner.system.table("table_config")
    of_database = tables.filter({"db": runner.url.database})
    rows = await runner.run_query(of_database.pluck("id", "name").coerce_to("array"))
    pattern = re.compile(re.escape(name) + r"_duplicate_[0-9a-f]{12}")
    named = sorted(table["id"] for table in rows if table["name"] == name)
    renamed = {table["id"] for table in rows if pattern.fullmatch(table["name"])}
    if len(named) < 2 and not renamed:
        return []
    for duplicate in named[1:]:
        await runner.run_query(
            tables.get(duplicate).update({"name": duplicate_name(name, duplicate)})
        )
    await asyncio.sleep(SETTLE)
    others = sorted(renamed.union(named[1:]))
    empty = {
        table_id for table_id in others if await _is_empty(runner, duplicate_name(name, table_id))
    }
    full = [table_id for table_id in others if table_id not in empty]
    if full and (not named or await _is_empty(runner, name)):
        if named:
            await runner.run_query(
                tables.get(named[0]).update({"name": duplicate_name(name, named[0])})
            )
            empty.add(named[0])
        if len(full) == 1:
            await runner.run_query(tables.get(full.pop()).update({"name": name}))
    for table_id in sorted(empty):
        await runner.run_query(tables.get(table_id).delete())
    if full:
        full_tables = ", ".join(duplicate_name(name, table_id) for table_id in full)
        raise NotSetUp(
            f"{runner.url.redacted} had several tables {name!r}, and more than one holds records: "
            f"look at {full_tables}, move the records that you want into one table {name} "
            f"(of two leases, the one with the higher token), and drop the others"
        )
    return sorted(empty)


async def _is_empty(runner: QueryRunner, name: str) -> bool:
    """Return whether a table is empty, or gone: then another process did the same work."""
    table = runner.r.db(runner.url.database).table(name)
    for _ in range(READY_ATTEMPTS):
        try:
            await runner.run_query(table.wait(wait_for="ready_for_reads", timeout=10))
            return bool(
                await runner.run_query(
                    runner.r.db(runner.url.database).table(name, read_mode="majority").is_empty()
                )
            )
        except RequestError as error:
            if "does not exist" in error.detail:
                return True
            if error.refusal is not None or not error.retryable:
                raise
            await asyncio.sleep(0.1)  # renamed a moment ago, not ready just yet
    return False


# Set-up. `table_create` is not exclusive: eight processes that run it at once make eight tables
# of one name, and every later query on that name fails as ambiguous.
#
# So one process does the work at a time. The lock is a database, `<database>__coord_setup`, since
# `db_create` rejects a name that exists, at least on one server. All processes use the first server
# of the URL that answers. When a process has waited for the same lock for `STALE` seconds by its
# own clock, it removes the lock: the owner has died.
#
# The lock saves work, and correctness does not depend on it: servers of a cluster that are cut off
# from each other would both grant it. Every run ends with merging duplicates, and every process
# does that in the same way. A run looks at each thing before it changes it, so a run may be
# repeated at any time, and completes what a killed run has left.

STALE = 20.0
"""Seconds after which a lock is removed."""
MAX_DEFAULT_REPLICAS = 3
"""Replicas of a new table, if there are so many servers."""
ATTEMPTS = 8
"""How often the set-up is tried when another process changes the same tables."""
POLL_INTERVAL = 0.05
"""Seconds between two attempts to get the lock."""


@dataclass
class Report:
    """What `set_up` did.

    Attributes:
        database: The name of the database.
        done: A line for each thing that was done; empty if nothing had to be done.
        notes: A line for each thing that people should look at.
    """

    database: str
    done: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def set_up(
    url: RethinkURL | str,
    timeout: float = 60.0,
    *,
    replicas: int | None = None,
    guard: bool | None = None,
    service_tables: Sequence[str] = (),
) -> Report:
    """Create the database, its tables and the indexes of the services, or complete them.

    Safe to repeat. Any number of processes may do this at once; each returns when all is ready.

    Args:
        url: The database.
        timeout: Seconds that it may take.
        replicas: Replicas of each new table; None means three, or one on each server if there are
            fewer servers. A table of leases that has fewer replicas gets more.
        guard: Whether the table of leases has the write hook that rejects deletes and falling
            tokens; None leaves that as it is.
        service_tables: More tables for service records, in addition to `services`.

    Raises:
        BadArgument: The URL or another argument is invalid.
        StoreUnavailable: No server answered in time.
        AccessDenied: The user lacks a permission.
        NotSetUp: Duplicate tables hold records, or the table of leases has another write hook.
    """
    parsed = parse_url(url) if isinstance(url, str) else url
    deadline = time.monotonic() + validation.number(timeout, "timeout", low=0, above=True)
    pool = Pool(parsed, in_order=True)
    named = (validation.table(name, "service_tables") for name in service_tables)
    services = tuple(dict.fromkeys((SERVICES_TABLE, *named)))
    if clash := {parsed.table, parsed.announcements_table}.intersection(services):
        name = clash.pop()
        raise BadArgument("service_tables", name, "must not be a table that coord uses otherwise")
    work = _SetUp(pool, deadline, replicas, guard, services)
    try:
        with decoding():
            return await within(work.run(), timeout)
    except asyncio.TimeoutError:
        raise StoreUnavailable(
            f"setting up {parsed.redacted} did not end within {timeout:g} s"
        ) from None
    except RequestError as error:
        raise error.error() from None
    finally:
        await pool.close()


class _SetUp:
    def __init__(
        self,
        pool: Pool,
        deadline: float,
        replicas: int | None,
        guard: bool | None,
        services: Sequence[str],
    ) -> None:
        self.pool, self.url, self.r = pool, pool.url, driver.reql()
        self._deadline, self._replicas, self._guard = deadline, replicas, guard
        self._services = services
        self.system = self.r.db("rethinkdb")
        self.report = Report(self.url.database)

    async def run(self) -> Report:
        async with self._lock():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await self._complete()
                except RequestError as error:
                    # Another process made or removed a duplicate meanwhile, or a table is not ready
                    # just yet, or somebody made or renamed one between our look and our change.
                    again = (
                        error.retryable
                        or error.refusal is NotSetUp
                        or "already exists" in error.detail
                    )
                    if attempt == ATTEMPTS or not again:
                        raise
                    await asyncio.sleep(rng.uniform(0.1, 0.3))  # two that collided part now
                else:
                    break
        return self.report

    async def _complete(self) -> None:
        if await self._create(self.r.db_create(self.url.database)):
            self.report.done.append(f"created the database {self.url.database}")
        replicas = self._replicas or min(
            MAX_DEFAULT_REPLICAS, await self.run_query(self.system.table("server_status").count())
        )
        for name in (self.url.table, self.url.announcements_table, *self._services):
            await self._table(name, replicas)
        for name in self._services:
            await self._index(name)

    async def run_query(self, term: Any) -> Any:
        """Return the answer to one query, within what is left of the time.

        Raises:
            RequestError: There is no answer, or the server did not change a row of a system table.
        """
        reply = await self.pool.query(term, max(self._deadline - time.monotonic(), 0.05))
        if isinstance(reply, dict) and reply.get("errors"):
            raise from_system_row(str(reply.get("first_error")))
        return reply

    async def _table(self, name: str, replicas: int) -> None:
        leases = name == self.url.table
        for duplicate in await merge_duplicate_tables(self, name):
            self.report.done.append(f"removed an empty duplicate of {name} ({duplicate})")
        if name not in await self.run_query(self.r.db(self.url.database).table_list()):
            # This is the server that has the lock, so no other process creates the table now.
            options = {"shards": 1, "replicas": replicas, "durability": "hard"}
            await self.run_query(self.r.db(self.url.database).table_create(name, **options))
            self.report.done.append(
                f"created the table {name} with {replicas} replica{'s' if replicas > 1 else ''}"
            )
            for duplicate in await merge_duplicate_tables(self, name):
                self.report.done.append(f"removed an empty duplicate of {name} ({duplicate})")
        table = self.r.db(self.url.database).table(name)
        await self.run_query(table.wait(wait_for="ready_for_writes", timeout=int(self._left())))
        if leases:
            await self._settings(table, replicas)
            await self._guarded(table)
        await self._all_replicas(table, name)

    async def _settings(self, table: Any, replicas: int) -> None:
        """Make acknowledged leases safe. The table of services keeps the settings of its owner."""
        config = await self.run_query(table.config())
        wrong = {name: right for name, right in REQUIRED_SETTINGS.items() if config[name] != right}
        if wrong:
            await self.run_query(table.config().update(wrong))
            self.report.done.append(
                f"set {', '.join(f'{a} to {b}' for a, b in wrong.items())} on {self.url.table}"
            )
        fewest = min(len(shard["replicas"]) for shard in config["shards"])
        if fewest < replicas:
            await self.run_query(table.reconfigure(shards=1, replicas=replicas))
            self.report.done.append(
                f"raised the replicas of {self.url.table} from {fewest} to {replicas}"
            )

    async def _guarded(self, table: Any) -> None:
        if self._guard is None:
            return
        hook = hook_of(await self.run_query(table.config()))
        if hook == "other":
            raise NotSetUp(
                f"the table {self.url.table} has a write hook that is not coord's: "
                "remove it, or omit --guard"
            )
        if self._guard and hook is None:
            await self.run_query(install_write_hook(table))
            self.report.done.append(
                f"installed the write hook on {self.url.table}: "
                "the server rejects deletes and falling tokens"
            )
        elif not self._guard and hook is not None:
            await self.run_query(remove_write_hook(table))
            self.report.done.append(f"removed the write hook from {self.url.table}")

    async def _all_replicas(self, table: Any, name: str) -> None:
        """Wait for the replicas, but not long: one server that is down must not stop the set-up."""
        try:
            await self.run_query(
                table.wait(wait_for="all_replicas_ready", timeout=int(min(self._left(), 10.0)))
            )
        except RequestError as error:
            if error.refusal is not None:
                raise
            self.report.notes.append(f"not every replica of {name} is ready yet ({error.detail})")

    async def _index(self, name: str) -> None:
        table = self.r.db(self.url.database).table(name)
        if INDEX not in await self.run_query(table.index_list()) and await self._create(
            table.index_create(INDEX)
        ):
            self.report.done.append(f"created the index {INDEX} on {name}")
        await self.run_query(table.index_wait(INDEX))

    async def _create(self, term: Any) -> bool:
        """Create something, and return whether it did not exist yet."""
        try:
            await self.run_query(term)
        except RequestError as error:
            if "already exists" in error.detail:
                return False
            raise
        return True

    def _left(self) -> float:
        return max(self._deadline - time.monotonic() - 1.0, 1.0)

    @contextlib.asynccontextmanager
    async def _lock(self) -> AsyncIterator[None]:
        name, databases = f"{self.url.database}__coord_setup", self.system.table("db_config")
        first_seen: dict[str, float] = {}
        while not await self._create(self.r.db_create(name)):
            now = time.monotonic()
            ids = await self.run_query(databases.filter({"name": name})["id"].coerce_to("array"))
            first_seen = {database_id: first_seen.get(database_id, now) for database_id in ids}
            for database_id, since in first_seen.items():
                if now - since > STALE:
                    await self.run_query(databases.get(database_id).delete())
                    self.report.done.append("removed the lock of a set-up that was killed")
            await asyncio.sleep(POLL_INTERVAL)
        own_ids = await self.run_query(databases.filter({"name": name})["id"].coerce_to("array"))
        try:
            yield
        finally:
            for database_id in own_ids:
                with contextlib.suppress(
                    RequestError
                ):  # then the next set-up finds that it is stale
                    await self.pool.query(databases.get(database_id).delete(), 5.0)
