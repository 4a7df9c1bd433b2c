"""Checks of everything that leases in RethinkDB depend on, for `coord doctor`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from coord.errors import AccessDenied, CoordError, StoreRefused, command
from coord.stores.protocol import Finding, Level
from coord.stores.rethinkdb import driver, setup
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.setup import MAX_DEFAULT_REPLICAS
from coord.stores.rethinkdb.url import (
    REQUIRED_SETTINGS,
    SERVICES_TABLE,
    Address,
    RethinkURL,
    parse_url,
)

ADMIN = "admin"
"""The account that a new server has, without a password."""
OLDEST = (2, 4)
"""The oldest version of a server that coord was tested with."""


async def check(url: RethinkURL | str, timeout: float = 10.0) -> list[Finding]:
    """Check servers, clocks and tables. Changes nothing.

    A user who may only read and write the tables gets a warning for each thing that only an admin
    can see.

    Args:
        url: The database.
        timeout: Seconds that each query may take.

    Raises:
        BadArgument: The URL is invalid. Nothing else is raised.
    """
    return [
        finding
        async for finding in _Checkup(
            parse_url(url) if isinstance(url, str) else url, timeout
        ).run()
    ]


class _Checkup:
    def __init__(self, url: RethinkURL, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.init = f"run `{command('init --url', url.redacted)}`"

    async def run(self) -> AsyncIterator[Finding]:
        try:
            self.r = driver.reql()
        except StoreRefused as err:
            yield Finding("error", "driver", str(err), "install it")
            return
        alone = [replace(self.url, hosts=(host,)) for host in self.url.hosts]
        pools = [Pool(url) for url in alone]
        try:
            hosts = await asyncio.gather(*(self._host(pool) for pool in pools))
            for findings, _ in hosts:
                for finding in findings:
                    yield finding
            reached = [
                (pool, offset)
                for pool, (_, offset) in zip(pools, hosts, strict=True)
                if offset is not None
            ]
            if not reached:
                return
            for finding in self._clocks([offset for _, offset in reached]):
                yield finding
            self.pool = reached[0][0]
            async for finding in self._servers():
                yield finding
            for finding in await self._admin():
                yield finding
            for name in dict.fromkeys(
                (self.url.table, SERVICES_TABLE, self.url.announcements_table)
            ):
                async for finding in self._table(name):
                    yield finding
        finally:
            for pool in pools:
                await pool.close()

    async def _read(self, term: Any) -> Any:
        return await self.pool.read(term, self.timeout)

    async def _host(self, pool: Pool) -> tuple[list[Finding], tuple[Address, float, float] | None]:
        """Return the findings about one server of the URL, and how many seconds its clock is ahead
        of ours, with the uncertainty of that number."""
        host = pool.url.hosts[0]
        what = f"connection to {host}"
        try:
            await pool.run(self.r.expr(1), self.timeout)
            before = time.time()
            server_time = await pool.run(self.r.now().to_epoch_time(), self.timeout)
            after = time.time()
        except CoordError as error:
            advice = (
                "check user, password and TLS"
                if isinstance(error, StoreRefused)
                else "check that the server runs, and the address"
            )
            return [Finding("error", what, str(error), advice)], None
        offset = (host, server_time - (before + after) / 2, (after - before) / 2)
        return [
            Finding(
                "ok",
                what,
                f"logged in as {self.url.user}, {(after - before) * 1000:.1f} ms a query",
            )
        ], offset

    def _clocks(self, offsets: list[tuple[Address, float, float]]) -> list[Finding]:
        """Return how far the clocks of the servers are apart: `r.now()` is the clock of the server
        that received the query."""
        spread = max(offset for _, offset, _ in offsets) - min(offset for _, offset, _ in offsets)
        farthest = max((abs(offset) for _, offset, _ in offsets), default=0.0)
        unsure = max(uncertainty for _, _, uncertainty in offsets)
        skew = self.url.max_clock_skew
        detail = f"{farthest:.3f} s from this machine's at most (±{unsure:.3f} s)"
        if len(offsets) > 1:
            detail = f"{spread:.3f} s between servers, {detail}"
        if skew is None:
            judge = "the clock of each watching machine judges leases (max_clock_skew=off)"
            return [Finding("ok", "clocks", f"{judge}; servers: {detail}")]
        detail = f"the servers' clocks judge leases: {detail}, of {skew:g} s allowed"
        if max(spread, farthest) - unsure > skew / 2:
            advice = f"run NTP on all machines, or raise max_clock_skew in the URL ({skew:g} s)"
            return [Finding("warn", "clocks", detail, advice)]
        return [Finding("ok", "clocks", detail)]

    async def _servers(self) -> AsyncIterator[Finding]:
        self.servers: int | None = None
        try:
            rows = await self._read(
                self.r.db("rethinkdb").table("server_status").pluck("name", {"process": "version"})
            )
        except CoordError as error:
            yield self._unseen("servers", error)
            return
        self.servers = len(rows)
        versions = sorted({str(row["process"]["version"]) for row in rows})
        shown = ", ".join(version.partition(" (")[0] for version in versions)
        old = [version for version in versions if _version(version) < OLDEST]
        if old or len(versions) > 1:
            advice = "bring all servers to one version, 2.4 or later"
            yield Finding("warn", "servers", f"{len(rows)}: {shown}", advice)
        else:
            yield Finding("ok", "servers", f"{len(rows)}: {shown}")
        if len(rows) == 2:
            yield Finding(
                "warn",
                "servers",
                "with two servers, neither can continue without the other",
                "use one server, or three",
            )

    async def _admin(self) -> list[Finding]:
        """Return a warning if every client of the port may do everything."""
        if self.url.user != ADMIN or self.url.password:
            users = self.r.db("rethinkdb").table("users")
            # What the server shows of a password is whether there is one. Only an admin sees it.
            if await self._or_nothing(users.get(ADMIN)["password"].default(True)) is not False:
                return []
        detail = "the account admin has no password: every client of the port may do everything"
        advice = "set one: update its row in the table users of the database rethinkdb"
        return [Finding("warn", "accounts", detail, advice)]

    async def _table(self, name: str) -> AsyncIterator[Finding]:
        what, table = f"table {name}", self.r.db(self.url.database).table(name)
        try:
            await self._read(
                table.get(["coord", "doctor"]).replace(lambda row: row)
            )  # There is no such row, so nothing is written.
            yield Finding("ok", what, "exists, and can be read and written")
        except CoordError as error:
            level: Level = "error" if name == self.url.table else "warn"
            advice = "grant it read and write" if isinstance(error, AccessDenied) else self.init
            yield Finding(
                level,
                what,
                str(error),
                advice if isinstance(error, StoreRefused) else "see the server's log",
            )
            return
        async for finding in self._replicas(what, table):
            yield finding
        if name == SERVICES_TABLE and "role" not in await self._or_nothing(table.index_list()):
            yield Finding(
                "error", what, "has no index role: services cannot be looked up", self.init
            )
        try:
            config = await self._read(table.config())
        except CoordError as error:
            yield self._unseen(f"settings of {name}", error)
            return
        wrong = [
            f"{key} is {config[key]}"
            for key, right in REQUIRED_SETTINGS.items()
            if config[key] != right
        ]
        if wrong and name == self.url.table:
            yield Finding(
                "error",
                what,
                f"{', '.join(wrong)}: a server that is killed loses tokens",
                self.init,
            )
        elif not wrong:
            yield Finding("ok", what, "acknowledges when a majority has it on disk")
        if name == self.url.table:
            yield self._hook(what, config)

    def _hook(self, what: str, config: dict[str, Any]) -> Finding:
        hook = setup.hook_of(config)
        if hook == "other":
            return Finding(
                "warn",
                what,
                "has a write hook that is not coord's",
                "check that it accepts the writes of coord",
            )
        if hook is None:
            return Finding(
                "ok",
                what,
                "has no write hook against deletes and falling tokens (coord init --guard)",
            )
        return Finding(
            "ok", what, "has the write hook: the server rejects deletes and falling tokens"
        )

    async def _replicas(self, what: str, table: Any) -> AsyncIterator[Finding]:
        status = await self._or_nothing(table.status())
        if not status:
            return
        states = status["status"]
        replicas = min(len(shard["replicas"]) for shard in status["shards"])
        if not states["ready_for_writes"]:
            yield Finding("error", what, "has no primary that can write", "start its servers again")
        elif not states["all_replicas_ready"]:
            yield Finding("warn", what, "not every replica is ready", "check that all servers run")
        target = min(MAX_DEFAULT_REPLICAS, self.servers or 0)
        if replicas < target:
            yield Finding(
                "warn",
                what,
                f"has {replicas} replicas of {target} that the servers allow",
                self.init,
            )
        elif replicas == 1 and what == f"table {self.url.table}":
            detail = "has one replica: without its server there are no leaders, and if it is lost, "
            yield Finding(
                "warn",
                what,
                f"{detail}so are the fencing tokens",
                "use three servers, and run `coord init` again",
            )
        else:
            yield Finding("ok", what, f"has {replicas} replica{'s' if replicas > 1 else ''}")

    async def _or_nothing(self, term: Any) -> Any:
        try:
            return await self._read(term)
        except CoordError:
            return []

    def _unseen(self, what: str, error: CoordError) -> Finding:
        if isinstance(error, AccessDenied):
            return Finding(
                "warn",
                what,
                f"{self.url.user} may not see them",
                "run coord doctor as an admin to check them",
            )
        return Finding("warn", what, str(error))


def _version(text: str) -> tuple[int, ...]:
    words = text.split()
    digits = words[1].split(".") if len(words) > 1 else []
    return tuple(int(digit) for digit in digits if digit.isdigit())
