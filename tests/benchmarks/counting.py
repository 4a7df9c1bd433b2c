"""What a process asks of its store, by table: at RethinkDB's pool, and transactions at SQLite's
worker.

Call `watch` before the first coordinator is made. Changefeeds are told apart ("feed of …"): they
are asked for once and then only listened to. So is the check of a table's settings ("settings of
…"): each process reads them every 20 s, and no row. SQLite's feed reads `PRAGMA data_version` and takes no
lock; it is not counted."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

from coord.runtime import clock

TABLE = re.compile(rb'\[15,\[\[14,\["[^"]*"\]\],"([^"]+)"')
"""`r.db(…).table(name)` as it is sent: TABLE is term 15, DB is 14."""
CONFIG = b"[1,[174,"
"""How a query of a table's settings begins: CONFIG is term 174."""
LEASES = "coord_leases"
OF_MODULE = {
    "coord.stores.sqlite.store": LEASES,
    "coord.stores.sqlite.announcements": "coord_announcements",
    "coord.stores.sqlite.records": "services",
}
"""A transaction on SQLite is a function of the module that keeps the table."""

Report = Callable[[str, float], None]


def watch(reports: Report) -> Callable[[], None]:
    """Tell of each query of this process when it is put: what it is on, and when
    (`clock.total_seconds`).

    Returns what ends that.
    """
    ends = (_watch_rethinkdb(reports), _watch_sqlite(reports))

    def end() -> None:
        for end in ends:
            end()

    return end


class Counted:
    """A list of all queries of this process."""

    def __init__(self) -> None:
        self._all: list[tuple[float, str]] = []
        self.end = watch(lambda what, at: self._all.append((at, what)))

    def between(self, begin: float, end: float) -> Counter[str]:
        """By what they were on; times are `clock.total_seconds`."""
        return Counter(what for at, what in self._all if begin <= at < end)


def _watch_rethinkdb(reports: Report) -> Callable[[], None]:
    from coord.stores.rethinkdb import driver
    from coord.stores.rethinkdb.pool import Pool

    query, begin, feed = Pool.query, Pool.begin, Pool.feed

    def table(term: Any) -> str:
        message = term if isinstance(term, bytes) else driver.start(term, {})
        match = TABLE.search(message)
        name = match[1].decode() if match else "no table"
        return f"settings of {name}" if message.startswith(CONFIG) else name

    async def counted_query(self: Pool, term: Any, *args: Any, **options: Any) -> Any:
        reports(table(term), clock.total_seconds())
        return await query(self, term, *args, **options)

    def counted_begin(self: Pool, message: bytes, timeout: float) -> Any:
        at, sent = clock.total_seconds(), begin(self, message, timeout)
        if sent is not None:
            reports(table(message), at)
        return sent

    async def counted_feed(
        self: Pool, term: Any, *args: Any, **options: Any
    ) -> AsyncGenerator[Any, None]:
        reports(f"feed of {table(term)}", clock.total_seconds())
        async for item in feed(self, term, *args, **options):
            yield item

    def put(query: Any, begin: Any, feed: Any) -> None:
        Pool.query, Pool.begin, Pool.feed = query, begin, feed  # type: ignore[method-assign]

    put(counted_query, counted_begin, counted_feed)
    return lambda: put(query, begin, feed)


def _watch_sqlite(reports: Report) -> Callable[[], None]:
    from coord.stores.sqlite.worker import Worker

    put = Worker.put

    def counted_put(self: Worker, job: Any) -> None:
        module = job._work.__module__
        reports(OF_MODULE.get(module, module), clock.total_seconds())
        put(self, job)

    def set_put(put: Any) -> None:
        Worker.put = put  # type: ignore[method-assign]

    set_put(counted_put)
    return lambda: set_put(put)


class ServerTotal:
    """`queries_total` of a server, as it counts itself, less what this costs it."""

    def __init__(self, host: str, port: int) -> None:
        from rethinkdb import RethinkDB

        self._r = RethinkDB()
        self._connection = self._r.connect(host=host, port=port)
        first = self._read()
        self._own = self._read() - first
        self._reads = 0

    def _read(self) -> int:
        rows = self._r.db("rethinkdb").table("stats").run(self._connection)
        return sum(row["query_engine"]["queries_total"] for row in rows if row["id"][0] == "server")

    def read(self) -> int:
        total = self._read() - self._own * self._reads
        self._reads += 1
        return total

    def close(self) -> None:
        self._connection.close(noreply_wait=False)


def pause_until(moment: float) -> None:
    """Sleep until that moment of `clock.total_seconds`."""
    time.sleep(max(0.0, moment - clock.total_seconds()))
