"""A claim and a renewal beside the store's own driver doing the same, and beside the ancestor's `unique_service`."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from coord import clock, urls
from coord.operations import Answer, Claim, Release, Renew, Result
from coord.stores.protocol import Store
from tests.benchmarks.report import Row

BOUND = 1.15


async def _alternate(
    times: int, ours: Callable[[int], Awaitable[Any]], other: Callable[[int], Awaitable[Any]]
) -> tuple[float, float]:
    """Medians in microseconds, the two taking turns so that the disk's moods hit both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(times + 20):
        for work, kept in zip((ours, other), taken, strict=True):
            began = time.perf_counter()
            await work(number)
            if number >= 20:
                kept.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken[0]), statistics.median(taken[1])


def applied(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    assert result.applied, result
    return result


class Ours:
    def __init__(self, store: Store) -> None:
        self.store, self.beat, self.token = store, 0, 0

    async def claim(self, _: int) -> None:
        self.beat += 1
        self.token = applied(await self.store.claim(Claim("bench", "me", self.beat, 30.0), 5)).lease.token

    async def renew(self, _: int) -> None:
        self.beat += 1
        (result,) = await self.store.renew([Renew("bench", "me", self.token, self.beat, 30.0)], 5)
        applied(result)

    async def release(self, _: int) -> None:
        self.beat += 1
        applied(await self.store.release(Release("bench", "me", self.token, self.beat), 5))


class RawSQLite:
    """The same transactions through `sqlite3`, in one thread, blocking."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            "CREATE TABLE l (role TEXT PRIMARY KEY, holder TEXT, token INT, beat INT, ttl REAL, renewed_at REAL, "
            "runs_out REAL, boot_id TEXT, info TEXT)"
        )
        self.db.execute("INSERT INTO l VALUES ('bench', 'me', 1, 1, 30, 0, 0, 'b', '{}')")

    def _row(self) -> Any:
        self.db.execute("BEGIN IMMEDIATE")
        return self.db.execute("SELECT * FROM l WHERE role = ?", ("bench",)).fetchone()

    async def claim(self, number: int) -> None:
        row = self._row()
        values = ("me", row[2] + 1, number, 30.0, time.time(), clock.total_seconds() + 30, "b", "{}", "bench")
        self.db.execute(
            "UPDATE l SET holder=?, token=?, beat=?, ttl=?, renewed_at=?, runs_out=?, boot_id=?, info=? WHERE role=?",
            values,
        )
        self.db.execute("COMMIT")

    async def renew(self, number: int) -> None:
        self._row()
        values = ("me", number, 30.0, time.time(), clock.total_seconds() + 30, "b", "bench")
        self.db.execute(
            "UPDATE l SET holder=?, beat=?, ttl=?, renewed_at=?, runs_out=?, boot_id=? WHERE role=?", values
        )
        self.db.execute("COMMIT")


def row(what: str, ours: float, against: str, other: float, bound: float) -> Row:
    met = ours <= bound * other
    return Row(what, ours, "µs", against, other, f"≤ {bound:.2f}", met)


async def _sqlite(directory: Path, times: int) -> list[Row]:
    store = urls.make_store(f"sqlite://{directory}/ours.db")
    await store.open(5)
    ours, raw = Ours(store), RawSQLite(directory / "raw.db")
    claim = await _alternate(times, ours.claim, raw.claim)
    renew = await _alternate(times, ours.renew, raw.renew)
    await store.close()
    raw.db.close()
    return [
        row("SQLite: claim", claim[0], "the same transaction through sqlite3", claim[1], BOUND),
        row("SQLite: renewal", renew[0], "the same transaction through sqlite3", renew[1], BOUND),
    ]


async def _rethinkdb(url: str, host: str, port: int, times: int) -> list[Row]:
    from rethinkdb import RethinkDB

    store = urls.make_store(url)
    await store.open(5)
    ours = Ours(store)
    r = RethinkDB()
    connection = r.connect(host=host, port=port)  # blocking, which is the quickest way through the driver
    name = url.partition("?")[0].rsplit("/", 1)[1]
    if "raw" not in r.db(name).table_list().run(connection):
        r.db(name).table_create("raw").run(connection)
    table = r.db(name).table("raw")
    table.wait().run(connection)
    table.insert({"id": "bench", "holder": "me", "token": 1, "beat": 1}, conflict="replace").run(connection)

    async def raw(number: int) -> None:
        """One conditional update, and the row back."""
        mine = lambda old: (old["holder"] == "me") & (old["beat"] < number + 10)  # noqa: E731
        change = {"beat": number + 10, "renewed_at": r.now()}
        query = table.get("bench").update(lambda old: r.branch(mine(old), change, {}), return_changes="always")
        result = query.run(connection)
        assert result["errors"] == 0

    claim = await _alternate(times, ours.claim, raw)
    table.get("bench").update({"beat": 1}).run(connection)
    renew = await _alternate(times, ours.renew, raw)
    connection.close(noreply_wait=False)
    await store.close()
    return [
        row("RethinkDB: claim", claim[0], "one conditional update, raw driver", claim[1], BOUND),
        row("RethinkDB: renewal", renew[0], "one conditional update, raw driver", renew[1], BOUND),
    ]


def _ancestor(url: str, host: str, port: int, times: int) -> list[Row]:
    import doublethink

    from coord import Coordinator

    name = url.partition("?")[0].rsplit("/", 1)[1]
    registry = doublethink.ServiceRegistry(doublethink.Rethinker(servers=[f"{host}:{port}"], db=name), table="ancestor")
    registry.unique_service("bench", candidate={"ttl": 60, "node": "a"})
    coordinator = Coordinator(url)
    ours, theirs = [], []
    for _ in range(times):
        began = time.perf_counter()
        coordinator.unique_service("bench-unique", {"ttl": 60, "node": "a"})
        ours.append((time.perf_counter() - began) * 1e6)
        began = time.perf_counter()
        registry.unique_service("bench", candidate={"ttl": 60, "node": "a"})
        theirs.append((time.perf_counter() - began) * 1e6)
    coordinator.close()
    return [
        row("RethinkDB: unique_service", statistics.median(ours), "doublethink's", statistics.median(theirs), 1 / 6),
    ]


def raw_batch_rate(url: str, host: str, port: int, roles: int) -> float:
    """Renewals a second of the raw batch query on rows like ours."""
    from rethinkdb import RethinkDB

    r = RethinkDB()
    connection = r.connect(host=host, port=port)
    name = url.partition("?")[0].rsplit("/", 1)[1]
    if "raw_batch" not in r.db(name).table_list().run(connection):
        r.db(name).table_create("raw_batch").run(connection)
    table = r.db(name).table("raw_batch")
    table.wait().run(connection)
    keys = [f"role-{number}" for number in range(roles)]
    rows = [{"id": key, "holder": "me", "token": 1, "beat": 1, "ttl": 15, "info": {}} for key in keys]
    table.insert(rows, conflict="replace").run(connection)
    taken = []
    for beat in range(2, 7):
        began = time.perf_counter()
        change = {"beat": beat, "renewed_at": r.now()}
        table.get_all(*keys).update(lambda old, c=change: r.branch(old["holder"] == "me", c, {})).run(connection)
        taken.append(time.perf_counter() - began)
    connection.close()
    return roles / statistics.median(taken)


def raw_sqlite_rate(directory: Path, roles: int) -> float:
    """Renewals a second of one raw transaction that reads and updates as many rows."""
    db = sqlite3.connect(directory / "raw-batch.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE l (role TEXT PRIMARY KEY, holder TEXT, token INT, beat INT, ttl REAL, runs_out REAL)")
    db.executemany("INSERT INTO l VALUES (?, 'me', 1, 1, 15, 0)", [(f"role-{number}",) for number in range(roles)])
    taken = []
    for beat in range(2, 12):
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        mine = [row[0] for row in db.execute("SELECT role, holder, token, beat FROM l") if row[1] == "me"]
        db.executemany("UPDATE l SET beat = ?, runs_out = ? WHERE role = ?", [(beat, began, role) for role in mine])
        db.execute("COMMIT")
        taken.append(time.perf_counter() - began)
    db.close()
    return roles / statistics.median(taken)


def sqlite_rows(directory: Path, times: int) -> list[Row]:
    return asyncio.run(_sqlite(directory, times))


def rethinkdb_rows(url: str, host: str, port: int, times: int) -> list[Row]:
    return asyncio.run(_rethinkdb(url, host, port, times)) + _ancestor(url, host, port, max(50, times // 5))
