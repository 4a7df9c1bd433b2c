"""A claim and a renewal beside the store's own driver doing the same, and beside the ancestor's
`unique_service`."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import queue
import sqlite3
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from coord.core import history
from coord.core.operations import Answer, Claim, Release, Renew, Result
from coord.runtime import clock
from coord.stores import urls
from coord.stores.protocol import Store
from coord.stores.sqlite.worker import LoopWaker
from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting
from tests.benchmarks.turns import medians, seconds

BOUND = 1.25
WARM_UP = 20
RAW_UPDATE = "one conditional update, raw driver"


async def alternate(
    times: int,
    own_store: Callable[[int], Awaitable[Any]],
    other: Callable[[int], Awaitable[Any]],
    warm_up: int = WARM_UP,
) -> tuple[float, float]:
    """Medians in microseconds, in turns, and each first as often as second, so that the disk's
    moods hit both alike.

    On one loop: the other way would be to start a loop for each sample.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(times + warm_up):
        pair = list(zip((own_store, other), taken, strict=True))
        for work, kept in pair if number % 2 == 0 else reversed(pair):
            began = time.perf_counter()
            await work(number)
            if number >= warm_up:
                kept.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken[0]), statistics.median(taken[1])


def applied(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    assert result.applied, result
    return result


class CoordStore:
    def __init__(self, store: Store) -> None:
        self.store, self.beat, self.token = store, 0, 0

    async def claim(self, _: int) -> None:
        self.beat += 1
        self.token = applied(
            await self.store.claim(Claim("bench", "me", self.beat, 30.0), 5)
        ).lease.token

    async def renew(self, _: int) -> None:
        self.beat += 1
        (result,) = await self.store.renew([Renew("bench", "me", self.token, self.beat, 30.0)], 5)
        applied(result)

    async def release(self, _: int) -> None:
        self.beat += 1
        applied(await self.store.release(Release("bench", "me", self.token, self.beat), 5))


class RawSQLite:
    """The same transactions on rows of the same size through `sqlite3`, in one thread, blocking."""

    HISTORY = json.dumps(
        [history.Entry(token=1, holder="me", info={}, since=time.time(), until=1.0)]
        * history.MAX_TERMS
    )

    def __init__(self, path: Path, synchronous: str = "FULL") -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(f"PRAGMA synchronous={synchronous}")
        self.db.execute(
            "CREATE TABLE l (role TEXT PRIMARY KEY, holder TEXT, token INT, beat INT, ttl REAL, renewed_at REAL, "
            "runs_out REAL, clock TEXT, info TEXT, history TEXT)"
        )
        self.db.execute(
            "INSERT INTO l VALUES ('bench', 'me', 1, 1, 30, 0, 0, 'b', '{}', ?)", (self.HISTORY,)
        )

    def _row(
        self, columns: str = "role, holder, token, beat, ttl, renewed_at, runs_out, clock, info"
    ) -> Any:
        self.db.execute("BEGIN IMMEDIATE")
        return self.db.execute(f"SELECT {columns} FROM l WHERE role = ?", ("bench",)).fetchone()

    def claim(self, number: int) -> None:
        row = self._row("*")
        values = (
            "me",
            row[2] + 1,
            number,
            30.0,
            time.time(),
            clock.total_seconds() + 30,
            "b",
            "{}",
            row[9],
            "bench",
        )
        self.db.execute(
            "UPDATE l SET holder=?, token=?, beat=?, ttl=?, renewed_at=?, runs_out=?, clock=?, info=?, history=? "
            "WHERE role=?",
            values,
        )
        self.db.execute("COMMIT")

    def renew(self, number: int) -> None:
        self._row()
        values = ("me", number, 30.0, time.time(), clock.total_seconds() + 30, "b", "bench")
        self.db.execute(
            "UPDATE l SET holder=?, beat=?, ttl=?, renewed_at=?, runs_out=?, clock=? WHERE role=?",
            values,
        )
        self.db.execute("COMMIT")


def here(work: Callable[[int], None]) -> Callable[[int], Awaitable[None]]:
    """Do it on the loop, which waits for the disk meanwhile."""

    async def done(number: int) -> None:
        work(number)

    return done


class Thread:
    """A thread that is handed some work and hands it back: what any store costs at least that
    leaves the loop free."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[
            tuple[Callable[[int], None], int, asyncio.Future[None]] | None
        ]
        self._queue = queue.SimpleQueue()
        self._waker = LoopWaker(asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (handed := self._queue.get()) is not None:
            work, number, future = handed
            answer: Callable[[], None]
            try:
                work(number)
                answer = functools.partial(future.set_result, None)
            except Exception as err:  # the caller must not wait forever
                answer = functools.partial(future.set_exception, err)
            self._waker.wake(answer)

    def there(self, work: Callable[[int], None]) -> Callable[[int], Awaitable[None]]:
        """Have it done there."""

        def done(number: int) -> Awaitable[None]:
            future: asyncio.Future[None] = self._waker.loop.create_future()
            self._queue.put((work, number, future))
            return future

        return done

    def end(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._waker.close()


def figure(what: str, pair: tuple[float, float], against: str, bound: float = BOUND) -> Figure:
    return Figure(what, pair[0], "µs", (Aim("≤", bound, "ratio"),), Reference(against, pair[1]))


async def _sqlite(directory: Path, times: int) -> list[Figure]:
    store = urls.open_url(f"sqlite://{directory}/ours.db")
    await store.open(5)
    # Whose log has been through a checkpoint need not let it grow: a pair is of files that are
    # equally old.
    own_store, *raws = (
        CoordStore(store),
        *(RawSQLite(directory / f"raw{number}.db") for number in range(3)),
    )
    raw, there, beside = raws
    thread = Thread()
    claim = await alternate(times, own_store.claim, here(raw.claim))
    claim_there = await alternate(times, thread.there(there.claim), here(beside.claim))
    claim_beside = await alternate(times, own_store.claim, thread.there(beside.claim))
    renew = await alternate(times, own_store.renew, here(raw.renew))
    renew_there = await alternate(times, thread.there(there.renew), here(beside.renew))
    unsynced, unsynced_there = (
        RawSQLite(directory / f"unsynced{number}.db", "NORMAL") for number in range(2)
    )
    renew_unsynced = await alternate(times, own_store.renew, here(unsynced.renew))
    renew_unsynced_there = await alternate(
        times, thread.there(unsynced_there.renew), here(unsynced.renew)
    )
    thread.end()
    await store.close()
    for item in (*raws, unsynced, unsynced_there):
        item.db.close()
    same, unsafe = "the same transaction through sqlite3", "the same, not synced"
    return [
        figure("SQLite: claim", claim, same),
        Figure(
            f"SQLite: {same}, on a thread: claim",
            claim_there[0],
            "µs",
            (),
            Reference(same, claim_there[1]),
        ),
        # A store that leaves the loop free needs a thread, so this is the limit of a claim.
        figure("SQLite: claim, once more", claim_beside, f"{same}, on a thread"),
        figure("SQLite: renewal", renew, same),
        Figure(
            f"SQLite: {same}, on a thread: renewal",
            renew_there[0],
            "µs",
            (),
            Reference(same, renew_there[1]),
        ),
        Figure(
            "SQLite: renewal, once more",
            renew_unsynced[0],
            "µs",
            (),
            Reference(unsafe, renew_unsynced[1]),
        ),
        Figure(
            f"SQLite: {unsafe}, on a thread: renewal",
            renew_unsynced_there[0],
            "µs",
            (),
            Reference(unsafe, renew_unsynced_there[1]),
        ),
    ]


class RawRethinkDB:
    """One conditional update of one row through the driver, blocking, which is its quickest way."""

    def __init__(self, name: str, host: str, port: int) -> None:
        from rethinkdb import RethinkDB

        self._r = RethinkDB()
        self._connection = self._r.connect(host=host, port=port)
        if "raw" not in self._r.db(name).table_list().run(self._connection):
            self._r.db(name).table_create("raw").run(self._connection)
        self._table = self._r.db(name).table("raw")
        self._table.wait().run(self._connection)
        row = {"id": "bench", "holder": "me", "token": 1, "beat": 1}
        self._table.insert(row, conflict="replace").run(self._connection)

    def begin_again(self) -> None:
        """Let the numbers begin at 0 again."""
        self._table.get("bench").update({"beat": 1}).run(self._connection)

    def update(self, number: int) -> None:
        """One conditional update, and the row back."""
        is_holder = lambda old: (old["holder"] == "me") & (old["beat"] < number + 10)  # noqa: E731
        change = {"beat": number + 10, "renewed_at": self._r.now()}
        query = self._table.get("bench").update(
            lambda old: self._r.branch(is_holder(old), change, {}), return_changes="always"
        )
        result = query.run(self._connection)
        assert result["errors"] == 0

    def close(self) -> None:
        self._connection.close(noreply_wait=False)


async def _rethinkdb(url: str, host: str, port: int, times: int) -> list[Figure]:
    store = urls.open_url(url)
    await store.open(5)
    own_store = CoordStore(store)
    raw = RawRethinkDB(url.partition("?")[0].rsplit("/", 1)[1], host, port)
    claim = await alternate(times, own_store.claim, here(raw.update))
    raw.begin_again()
    renew = await alternate(times, own_store.renew, here(raw.update))
    raw.close()
    await store.close()
    return [
        figure("RethinkDB: claim", claim, RAW_UPDATE),
        figure("RethinkDB: renewal", renew, RAW_UPDATE),
    ]


def _ancestor(url: str, host: str, port: int, times: int) -> list[Figure]:
    """None where the ancestor is not installed: it cannot be on Python 3.12 and later."""
    try:
        import doublethink
    except ImportError:
        return []
    from coord import Coordinator

    name = url.partition("?")[0].rsplit("/", 1)[1]
    registry = doublethink.ServiceRegistry(
        doublethink.Rethinker(servers=[f"{host}:{port}"], db=name), table="ancestor"
    )
    raw, numbers = RawRethinkDB(name, host, port), itertools.count()
    with Coordinator(url) as coordinator:
        works = {
            "coord": lambda: (
                seconds(
                    lambda: coordinator.unique_service("bench-unique", {"ttl": 60, "node": "a"})
                )
                * 1e6
            ),
            "doublethink": lambda: (
                seconds(
                    lambda: registry.unique_service("bench", candidate={"ttl": 60, "node": "a"})
                )
                * 1e6
            ),
            "raw": lambda: seconds(lambda: raw.update(next(numbers))) * 1e6,
        }
        took = medians(works, times, warm_up=3)
    raw.close()
    what = "RethinkDB: unique_service, of a role that one has"
    ancestor = Reference("doublethink's", took["doublethink"])
    return [
        figure(what, (took["coord"], took["doublethink"]), "doublethink's", 1 / 7),
        # What any call costs at least that writes one row.
        Figure(f"RethinkDB: {RAW_UPDATE}, in the same turns", took["raw"], "µs", (), ancestor),
    ]


def sections(where: Setting) -> list[Section]:
    times = where.pick(1000, 40, 2)
    figures = asyncio.run(_sqlite(where.directory, times))
    if where.server is not None:
        url = where.rethinkdb("swaps")
        figures += asyncio.run(_rethinkdb(url, where.server.host, where.server.port, times))
        figures += _ancestor(url, where.server.host, where.server.port, max(10, times // 5))
    note = (
        f"Medians of {times} in turns, first and second as often, after {WARM_UP} that are not counted. Transactions "
        "through sqlite3 are synced, as SQLite has it unless told otherwise. Our claims are, too; our renewals need "
        "not be (docs/design-notes.md), so they stand once more beside one that is not."
    )
    return [Section("One swap", figures, note)]


if __name__ == "__main__":
    alone(sections)
