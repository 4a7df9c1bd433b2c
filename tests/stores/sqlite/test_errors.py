"""Locks, stuck threads, full disks, files that vanish: what the SQLite store answers, and what it
leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from coord.core.operations import Answer, Claim, Failure, Renew
from coord.errors import StoreUnavailable
from coord.stores.sqlite import SQLiteStore, errors, worker
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import Abandoned
from coord.stores.sqlite.worker import Job, LoopWaker, Stage


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "coord.db")


def run(path: str, body: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = SQLiteStore(path)
        try:
            await store.database.create(10)
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def tokens(path: str) -> dict[str, int]:
    conn = sqlite3.connect(path)
    try:
        return dict(conn.execute("SELECT role, token FROM coord_leases"))
    finally:
        conn.close()


def locked(path: str) -> sqlite3.Connection:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("BEGIN IMMEDIATE")
    return conn


def test_a_lock_that_does_not_go_away(path: str) -> None:
    async def body(store: SQLiteStore) -> None:
        other = locked(path)
        begun = time.monotonic()
        result = await store.claim(Claim("r", "a", 1, 30.0), 0.3)
        took = time.monotonic() - begun
        assert isinstance(result, Failure)
        assert (result.unknown, result.permanent) == (False, False)
        assert path in result.detail
        assert 0.2 < took < 1.5
        batch = await store.renew([Renew("r", "a", 1, 2, 30.0), Renew("s", "a", 1, 2, 30.0)], 0.1)
        assert [type(item) for item in batch] == [Failure, Failure]
        assert await store.read(None, 5) == []  # reading needs no lock
        other.execute("ROLLBACK")
        other.close()
        await asyncio.sleep(0.1)
        assert tokens(path) == {}  # what was given up did not come after all
        assert isinstance(await store.claim(Claim("r", "a", 2, 30.0), 5), Answer)

    run(path, body)


def test_a_lock_that_goes_away(path: str) -> None:
    async def body(store: SQLiteStore) -> None:
        other = locked(path)
        asyncio.get_running_loop().call_later(
            0.2, lambda: (other.execute("ROLLBACK"), other.close())
        )
        result = await store.claim(Claim("r", "a", 1, 30.0), 5)
        assert isinstance(result, Answer)
        assert result.applied

    run(path, body)


def test_a_cancelled_claim_is_not_applied_later(path: str) -> None:
    async def body(store: SQLiteStore) -> None:
        other = locked(path)
        task = asyncio.ensure_future(store.claim(Claim("r", "a", 1, 30.0), 30))
        queued = asyncio.ensure_future(store.claim(Claim("q", "a", 1, 30.0), 30))
        await asyncio.sleep(0.1)
        task.cancel(), queued.cancel()
        await asyncio.gather(task, queued, return_exceptions=True)
        other.execute("ROLLBACK")
        other.close()
        assert await store.read(None, 5) == []

    run(path, body)


def test_a_thread_that_hangs_before_commit(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller hears in time that nothing was done, nothing is done later, and others get a new
    thread."""
    hang, commit = threading.Event(), Job.commit

    def slow(job: Job[object], connection: Connection) -> None:
        monkeypatch.setattr(Job, "commit", commit)
        hang.wait(10)
        commit(job, connection)

    async def body(store: SQLiteStore) -> None:
        monkeypatch.setattr(Job, "commit", slow)
        stuck = asyncio.ensure_future(store.claim(Claim("stuck", "a", 1, 30.0), 0.3))
        await asyncio.sleep(0.1)
        behind = asyncio.ensure_future(store.read(None, 5))
        result = await stuck
        assert isinstance(result, Failure)
        assert not result.unknown  # it had not reached COMMIT, and now it never does
        assert await behind == []
        hang.set()
        assert isinstance(await store.claim(Claim("next", "a", 1, 30.0), 5), Answer)
        assert tokens(path) == {"next": 1}

    run(path, body)


class Grudging(sqlite3.Connection):
    """A connection whose COMMIT does as it is told."""

    on_commit: Callable[[sqlite3.Connection], None] | None = None

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:  # type: ignore[override]
        if sql == "COMMIT" and Grudging.on_commit is not None:
            Grudging.on_commit(self)
        return super().execute(sql, *args)  # type: ignore[arg-type]


@pytest.fixture
def grudging(monkeypatch: pytest.MonkeyPatch) -> type[Grudging]:
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kw: real(*args, factory=Grudging, **kw))
    monkeypatch.setattr(Grudging, "on_commit", None)
    return Grudging


def test_a_thread_that_hangs_in_commit(path: str, grudging: type[Grudging]) -> None:
    hang = threading.Event()

    async def body(store: SQLiteStore) -> None:
        grudging.on_commit = lambda conn: bool(hang.wait(10))  # type: ignore[assignment, return-value]
        result = await store.claim(Claim("r", "a", 1, 30.0), 0.2)
        grudging.on_commit = None
        assert isinstance(result, Failure)
        assert result.unknown
        assert await store.read(None, 5) == []
        hang.set()
        for _ in range(200):  # and so it was: it lands late
            if await store.read(None, 5):
                break
            await asyncio.sleep(0.01)
        assert tokens(path) == {"r": 1}

    run(path, body)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [("disk I/O error", True), ("database or disk is full", True), ("database is locked", False)],
)
def test_an_error_out_of_commit(
    path: str, text: str, unknown: bool, grudging: type[Grudging]
) -> None:
    codes = {"database is locked": sqlite3.OperationalError}

    def fail(conn: sqlite3.Connection) -> None:
        raise codes.get(text, sqlite3.OperationalError)(text)

    async def body(store: SQLiteStore) -> None:
        grudging.on_commit = fail
        # A locked database is tried again until little time is left, which a busy machine needs.
        result = await store.claim(Claim("r", "a", 1, 30.0), 0.2 if unknown else 1.0)
        assert isinstance(result, Failure)
        assert (result.unknown, result.permanent) == (unknown, False)
        grudging.on_commit = None
        assert isinstance(await store.claim(Claim("r", "a", 1, 30.0), 5), Answer)
        assert tokens(path) == {"r": 1}

    run(path, body)


def test_a_busy_commit_is_known_to_have_failed_when_the_thread_is_late(
    path: str, grudging: type[Grudging], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller gives up while it sleeps before the next attempt."""
    monkeypatch.setattr(worker, "ANSWER_MARGIN", -5.0)
    monkeypatch.setattr(errors.Busy, "pause", (1.0, 1.0))

    def fail(conn: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database is locked")

    async def body(store: SQLiteStore) -> None:
        grudging.on_commit = fail
        result = await store.claim(Claim("r", "a", 1, 30.0), 0.5)
        assert isinstance(result, Failure)
        assert (result.unknown, result.permanent) == (False, False)
        assert f"{path} is locked" in result.detail

    run(path, body)


def test_a_busy_commit_is_tried_again(path: str, grudging: type[Grudging]) -> None:
    failures = [3]

    def fail(conn: sqlite3.Connection) -> None:
        failures[0] -= 1
        if failures[0] >= 0:
            raise sqlite3.OperationalError("database is locked")

    async def body(store: SQLiteStore) -> None:
        grudging.on_commit = fail
        result = await store.claim(Claim("r", "a", 1, 30.0), 5)
        assert isinstance(result, Answer)
        assert (result.applied, result.lease.token, failures[0]) == (True, 1, -1)

    run(path, body)


def test_a_full_disk(path: str) -> None:
    """RLIMIT_FSIZE makes every write beyond so many bytes of a file fail, as a full disk does."""
    code = """
        import asyncio, resource, sys
        from coord.core.operations import Claim, Failure, Answer
        from coord.stores.sqlite import SQLiteStore
        async def main():
            store = SQLiteStore(sys.argv[1])
            await store.open(5)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
            for number in range(200):
                claim = Claim(f"r{number}", "a", 1, 30.0, info={"x": "y" * 9000})
                result = await store.claim(claim, 5)
                if isinstance(result, Failure):
                    break
            print(number, result.permanent, "full" in result.detail or "I/O" in result.detail)
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            result = await store.claim(Claim("after", "a", 1, 30.0), 5)
            print(isinstance(result, Answer) and result.applied)
            print(len(await store.read(None, 5)))
            await store.close()
        asyncio.run(main())
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, again, rows = done.stdout.splitlines()
    written, permanent, named = first.split()
    assert int(written) > 3
    assert (permanent, named, again) == ("False", "True", "True")
    assert int(rows) in (int(written) + 1, int(written) + 2)
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.close()


def test_a_file_that_is_deleted_or_replaced_is_left(path: str) -> None:
    """Others would elect a second leader in the new file: the leader in the old one must learn
    it."""

    async def body(store: SQLiteStore) -> None:
        assert isinstance(await store.claim(Claim("r", "a", 1, 30.0), 5), Answer)
        for file in Path(path).parent.iterdir():
            file.unlink()
        (result,) = await store.renew([Renew("r", "a", 1, 2, 30.0)], 5)
        assert isinstance(result, Answer)
        assert not result.applied
        assert result.lease.vacant
        assert await store.read(None, 5) == []
        assert isinstance(await store.claim(Claim("r", "b", 1, 30.0), 5), Answer)
        assert tokens(path) == {"r": 1}

    run(path, body)


def test_a_feed_of_a_file_that_cannot_be_ends_by_raising(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no database" * 500)

    async def main() -> None:
        with pytest.raises(StoreUnavailable, match="file"):
            async for _ in SQLiteStore(str(tmp_path / "file")).watch(["r"]):
                pass

    asyncio.run(main())


def test_closing_the_store_ends_its_feeds(path: str) -> None:
    async def body(store: SQLiteStore) -> None:
        async def listen() -> None:
            async for _ in store.watch(["r"]):
                pass

        task = asyncio.ensure_future(listen())
        await asyncio.sleep(0.05)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await asyncio.wait_for(task, 2)

    run(path, body)


def threads() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith("coord sqlite")
    ]


def until_no_threads() -> None:
    for _ in range(300):
        if not threads():
            return
        time.sleep(0.01)
    raise AssertionError(threads())


def test_threads_end(path: str) -> None:
    until_no_threads()

    async def closed() -> None:
        store = SQLiteStore(path)
        await store.database.create(5)
        feed = store.watch(["r"])
        waiting = asyncio.ensure_future(feed.__anext__())
        await asyncio.sleep(0.03)
        assert sorted(threads()) == ["coord sqlite", "coord sqlite feed"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await feed.aclose()  # type: ignore[attr-defined]
        await store.close()

    async def forgotten() -> None:
        await SQLiteStore(path).database.create(5)
        gc.collect()

    for body in (closed, forgotten):
        asyncio.run(body())
        until_no_threads()


def test_a_loop_that_is_closed_while_the_thread_works(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, commit = threading.Event(), Job.commit
    monkeypatch.setattr(
        Job, "commit", lambda job, connection: (hang.wait(10), commit(job, connection))[1]
    )
    store = SQLiteStore(path)
    loop = asyncio.new_event_loop()
    task = loop.create_task(store.claim(Claim("r", "a", 1, 30.0), 30))
    loop.run_until_complete(asyncio.sleep(0.1))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    hang.set()

    async def again() -> None:
        assert isinstance(await store.claim(Claim("s", "a", 1, 30.0), 5), Answer)
        await store.close()

    asyncio.run(again())
    assert tokens(path) == {"s": 1}


def test_a_stuck_thread_does_not_keep_the_interpreter(path: str) -> None:
    code = """
        import asyncio, sys, time
        from coord.core.operations import Claim
        from coord.stores.sqlite import SQLiteStore
        from coord.stores.sqlite.worker import Job
        Job.commit = lambda job, connection: time.sleep(60)
        async def main():
            store = SQLiteStore(sys.argv[1])
            print(type(await store.claim(Claim("r", "a", 1, 30.0), 0.2)).__name__)
            watch = store.watch(["r"])
            asyncio.ensure_future(watch.__anext__())
            await asyncio.sleep(0.05)
        asyncio.run(main())
    """
    begun = time.monotonic()
    run = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), path]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "Failure\n"
    assert done.stderr == ""
    assert time.monotonic() - begun < 20


def test_stages() -> None:
    loop = asyncio.new_event_loop()
    job: Job[int] = Job(lambda job, connection: 7, 5.0, LoopWaker(loop))
    assert job.abandon() is Stage.QUEUED
    job.run(Connection("/nowhere"))
    assert job.abandon() is Stage.DONE
    with pytest.raises(Abandoned):
        job.result()
    loop.close()
    assert not os.path.exists("/nowhere")
