"""Making the database and its tables, and mending what is half made. `coord init` and `await set_up(url)` do this.

`table_create` is not exclusive: eight at once make eight tables of one name, and every later query on it fails as
ambiguous. So one process does the work at a time, and twins that are there all the same are brought together:

* The lock is a database, `<database>__coord_setup`: `db_create` refuses a name that is taken, on one server at least,
  and all who set up the same URL go to the first of its servers that answers. A lock that has stood for `STALE` seconds
  on the clock of one who waits is taken down by its id: its owner has died.
* The lock is a courtesy, not what makes it right (servers of a cluster that are cut off from each other would both
  create it). What makes it right is that twins are merged at the end of every run, by everybody in the same way:
  `twins.py`.

Everything is looked at before it is changed, so that it can be run again at any time, and finishes what a run that was
killed has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from coord import checks
from coord.errors import NotSetUp, StoreUnavailable
from coord.stores.rethinkdb import driver, guard
from coord.stores.rethinkdb.connection import Pool
from coord.stores.rethinkdb.errors import Trouble
from coord.stores.rethinkdb.store import SETTINGS
from coord.stores.rethinkdb.twins import merge_twins
from coord.stores.rethinkdb.url import RethinkURL, parse_url

SERVICES = "services"
"""The table of the service registry, which doublethink uses by the same name."""
STALE = 20.0
MOST_REPLICAS = 3
ATTEMPTS = 8
_POLL = 0.05


@dataclass
class Report:
    """What `set_up` did, line by line, and what it would have people look at. Nothing done: all was well."""

    database: str
    done: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def set_up(
    url: RethinkURL | str, timeout: float = 60.0, *, replicas: int | None = None, guard: bool | None = None
) -> Report:
    """Make the database, the tables of leases and of the board, and that of services with its index, or mend them.

    `replicas`: of each new table; without it three, or as many as there are servers if they are fewer. A table of
    leases that has fewer gets them. `guard`: have the server refuse deletes and falling tokens in the table of leases
    (`guard.py`), or no longer; None leaves that as it is. Idempotent. Any number of processes may do this at once; each
    returns when all is ready. `timeout` is in seconds. Raises `StoreUnavailable`, `AccessDenied` or `NotSetUp` (twins
    that both hold records; a write hook of somebody else's in the guard's place).
    """
    parsed = parse_url(url) if isinstance(url, str) else url
    deadline = time.monotonic() + checks.number(timeout, "timeout", low=0, above=True)
    pool = Pool(parsed, in_order=True)
    work = _SetUp(pool, deadline, replicas, guard)
    try:
        return await asyncio.wait_for(work.run(), timeout)
    except asyncio.TimeoutError:
        raise StoreUnavailable(f"setting up {parsed.redacted} did not end within {timeout:g} s") from None
    except Trouble as trouble:
        raise trouble.error() from None
    finally:
        await pool.close()


class _SetUp:
    def __init__(self, pool: Pool, deadline: float, replicas: int | None, guard: bool | None) -> None:
        self.pool, self.url, self.r = pool, pool.url, driver.reql()
        self._deadline, self._replicas, self._guard = deadline, replicas, guard
        self.system = self.r.db("rethinkdb")
        self.report = Report(self.url.database)

    async def run(self) -> Report:
        async with self._lock():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await self._mend()
                except Trouble as trouble:
                    # Somebody else's twin came up or went away meanwhile, or a table is not ready just yet, or somebody
                    # made or renamed one between our look and our change.
                    again = trouble.elsewhere or trouble.refused is NotSetUp or "already exists" in trouble.detail
                    if attempt == ATTEMPTS or not again:
                        raise
                    await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 # so that two who collide do not again
                else:
                    break
        return self.report

    async def _mend(self) -> None:
        if await self._create(self.r.db_create(self.url.database)):
            self.report.done.append(f"created the database {self.url.database}")
        replicas = self._replicas or min(MOST_REPLICAS, await self.ask(self.system.table("server_status").count()))
        for name in dict.fromkeys((self.url.table, SERVICES, self.url.board)):
            await self._table(name, replicas)
        await self._index()

    async def ask(self, term: Any) -> Any:
        """One query, within what is left of the time."""
        return await self.pool.run(term, max(self._deadline - time.monotonic(), 0.05))

    async def _table(self, name: str, replicas: int) -> None:
        leases = name == self.url.table
        for twin in await merge_twins(self, name):
            self.report.done.append(f"removed an empty twin of the table {name} ({twin})")
        if name not in await self.ask(self.r.db(self.url.database).table_list()):
            # Asked of the server that has the lock: nobody else creates it meanwhile.
            options = {"shards": 1, "replicas": replicas, "durability": "hard"}
            await self.ask(self.r.db(self.url.database).table_create(name, **options))
            self.report.done.append(f"created the table {name} with {replicas} replica{'s' if replicas > 1 else ''}")
            for twin in await merge_twins(self, name):
                self.report.done.append(f"removed an empty twin of the table {name} ({twin})")
        table = self.r.db(self.url.database).table(name)
        await self.ask(table.wait(wait_for="ready_for_writes", timeout=int(self._left())))
        if leases:
            await self._settings(table, replicas)
            await self._guarded(table)
        await self._all_replicas(table, name)

    async def _settings(self, table: Any, replicas: int) -> None:
        """What makes an acknowledged lease a safe one. The services' table is left as its owner wants it."""
        config = await self.ask(table.config())
        wrong = {name: right for name, right in SETTINGS.items() if config[name] != right}
        if wrong:
            await self.ask(table.config().update(wrong))
            self.report.done.append(f"set {', '.join(f'{a} to {b}' for a, b in wrong.items())} on {self.url.table}")
        fewest = min(len(shard["replicas"]) for shard in config["shards"])
        if fewest < replicas:
            await self.ask(table.reconfigure(shards=1, replicas=replicas))
            self.report.done.append(f"raised the replicas of {self.url.table} from {fewest} to {replicas}")

    async def _guarded(self, table: Any) -> None:
        if self._guard is None:
            return
        hook = guard.hook_of(await self.ask(table.config()))
        if hook == "other":
            raise NotSetUp(f"the table {self.url.table} has a write hook that is not coord's: it was left as it is")
        if self._guard and hook is None:
            await self.ask(guard.guarded(table))
            self.report.done.append(f"guarded {self.url.table}: the server refuses deletes and falling tokens")
        elif not self._guard and hook is not None:
            await self.ask(guard.unguarded(table))
            self.report.done.append(f"took the guard off {self.url.table}")

    async def _all_replicas(self, table: Any, name: str) -> None:
        """A server that is down must not keep the others from being used."""
        try:
            await self.ask(table.wait(wait_for="all_replicas_ready", timeout=int(min(self._left(), 10.0))))
        except Trouble as trouble:
            if trouble.refused is not None:
                raise
            self.report.notes.append(f"not every replica of {name} is ready yet ({trouble.detail})")

    async def _index(self) -> None:
        table = self.r.db(self.url.database).table(SERVICES)
        if "role" not in await self.ask(table.index_list()) and await self._create(table.index_create("role")):
            self.report.done.append(f"created the index role on {SERVICES}")
        await self.ask(table.index_wait("role"))

    async def _create(self, term: Any) -> bool:
        """Whether it was made now; False when it is there already."""
        try:
            await self.ask(term)
        except Trouble as trouble:
            if "already exists" in trouble.detail:
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
                with contextlib.suppress(Trouble):  # then the next set-up finds that it is stale
                    await self.pool.run(databases.get(one).delete(), 5.0)
