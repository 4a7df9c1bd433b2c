"""Logs that are deleted or replaced while processes use the database."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from coord.core.operations import Answer, Claim, Release, Renew, Result
from coord.stores.sqlite import SQLiteStore, feed, locks, schema, worker
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import FileReplaced, LogRemoved
from coord.stores.sqlite.filesystems import MOUNTS, file_system
from coord.stores.sqlite.identity import (
    DATED_FILE_SYSTEMS,
    Directory,
    look,
    refuse_second_log,
)
from tests.support.waits import eventually

needs_locks = pytest.mark.skipif(not Path(locks.LOCKS).exists(), reason="needs /proc/locks")
REMOVALS = [("-wal",), ("-shm",), ("-wal", "-shm")]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "coord.db")


def remove(path: str, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        os.unlink(path + suffix)


def exists(path: str) -> bool:
    return os.path.exists(path)


def run(path: str, body: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = SQLiteStore(path)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


async def claim(store: SQLiteStore, holder: str, timeout: float = 20) -> Result:
    return await store.claim(Claim("r", holder, 1, 30.0), timeout)


async def renew(store: SQLiteStore, beat: int) -> Result:
    return (await store.renew([Renew("r", "a", 1, beat, 30.0)], 20))[0]


async def claim_elsewhere(path: str, timeout: float, refused: str = "") -> str:
    """Return what a claim in another process gives.

    If it is to be refused with the text `refused`, and the process had no time to learn the reason,
    it claims again with twice the timeout.
    """
    code = """
        import asyncio, sys
        from coord.core.operations import Answer, Claim
        from coord.stores.sqlite import SQLiteStore
        async def main():
            store = SQLiteStore(sys.argv[1])
            timeout, refused = float(sys.argv[2]), sys.argv[3]
            result = await store.claim(Claim("r", "b", 1, 30.0), timeout)
            while refused and not isinstance(result, Answer) and timeout < 20:
                if refused in result.detail:
                    break
                timeout *= 2
                result = await store.claim(Claim("r", "b", 1, 30.0), timeout)
            if isinstance(result, Answer):
                print(result.applied, result.lease.holder, result.lease.token)
            else:
                print(result.permanent, result.unknown, result.detail)
            await store.close()
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), path, str(timeout), refused]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    return str(done.stdout).strip()


@pytest.mark.parametrize("removed", REMOVALS, ids="+".join)
def test_nobody_joins_while_a_process_uses_a_removed_log(
    removed: tuple[str, ...], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader finds out at its next renewal, stays the leader, and its token is not lost."""
    monkeypatch.setattr(worker, "IDLE_CHECK_INTERVAL", 600)

    async def body(store: SQLiteStore) -> None:
        assert isinstance(await claim(store, "a"), Answer)
        remove(path, removed)
        reason = "was deleted while other processes had the database open"
        output = await claim_elsewhere(path, 0.3, reason)
        assert output.startswith("False False")
        assert reason in output
        assert not exists(path + removed[0])
        renewed = await renew(store, 2)
        assert isinstance(renewed, Answer)
        assert renewed.applied
        assert exists(path + removed[0])
        assert await claim_elsewhere(path, 20) == "False a 1"

    run(path, body)


@pytest.mark.parametrize("removed", REMOVALS, ids="+".join)
def test_an_idle_store_lets_go_of_a_removed_log(removed: tuple[str, ...], path: str) -> None:
    async def body(store: SQLiteStore) -> None:
        assert isinstance(await claim(store, "a"), Answer)
        remove(path, removed)
        assert await claim_elsewhere(path, 30) == "False a 1"  # `store` is not used meanwhile

    run(path, body)


@pytest.mark.parametrize("removed", REMOVALS, ids="+".join)
def test_all_connections_of_a_process_change_together(
    removed: tuple[str, ...], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed, an idle store and a store that renews, all in one process. The first that notices
    closes the others."""
    monkeypatch.setattr(worker, "IDLE_CHECK_INTERVAL", 600)
    monkeypatch.setattr(feed, "FILE_CHECK_INTERVAL", 600)

    async def body(store: SQLiteStore) -> None:
        assert isinstance(await claim(store, "a"), Answer)
        idle = SQLiteStore(path)
        assert len(await idle.read(None, 5)) == 1
        watching = store.watch(["r"])
        assert (await watching.__anext__()).beat == 1
        remove(path, removed)
        renewed = await renew(store, 2)
        assert isinstance(renewed, Answer)
        assert renewed.applied
        while (await asyncio.wait_for(watching.__anext__(), 20)).beat != 2:
            pass
        other = await claim(idle, "b")
        assert isinstance(other, Answer)
        assert (other.applied, other.lease.holder, other.lease.token) == (False, "a", 1)
        await watching.aclose()  # type: ignore[attr-defined]
        await idle.close()

    run(path, body)


@needs_locks
def test_a_log_that_another_program_created_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log exists again, but is not that of the leader. Nobody may join it."""
    monkeypatch.setattr(worker, "IDLE_CHECK_INTERVAL", 600)

    async def body(store: SQLiteStore) -> None:
        assert isinstance(await claim(store, "a"), Answer)
        remove(path, ("-wal", "-shm"))
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version')"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, path], check=True)
        assert exists(path + "-wal")
        reason = "was deleted while other processes"
        assert reason in await claim_elsewhere(path, 0.3, reason)
        renewed = await renew(store, 2)
        assert isinstance(renewed, Answer)
        assert renewed.applied
        assert await claim_elsewhere(path, 20) == "False a 1"

    run(path, body)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_commit_does_not_count_once_a_file_is_replaced(suffix: str, path: str) -> None:
    connection = Connection(path)
    with connection:
        connection.sqlite(create=True)
        connection.check_file()
        Path(path + ".new").write_bytes(Path(path + suffix).read_bytes())
        os.replace(path + ".new", path + suffix)
        with pytest.raises(FileReplaced, match=f"coord.db{suffix} was deleted or replaced"):
            connection.check_file()
        connection.close()


@pytest.fixture
def dated(tmp_path: Path) -> None:
    if file_system(str(tmp_path), MOUNTS) not in DATED_FILE_SYSTEMS:
        pytest.skip(f"the file system of {tmp_path} may not change the times of a directory")


def wait_until_trusted(connection: Connection) -> None:
    """Wait until the next commit looks at the directory only."""
    directory = connection.directory
    assert directory is not None
    while not directory.is_unchanged():
        time.sleep(0.005)
        connection.check_file()


@pytest.mark.usefixtures("dated")
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_the_directory_tells_that_a_file_is_gone(suffix: str, replaced: bool, path: str) -> None:
    connection = Connection(path)
    with connection:
        connection.sqlite(create=True)
        Path(path + ".new").write_bytes(Path(path + suffix).read_bytes())
        wait_until_trusted(connection)
        if replaced:
            os.replace(path + ".new", path + suffix)
        else:
            os.unlink(path + suffix)
        with pytest.raises(FileReplaced, match=f"coord.db{suffix} was deleted or replaced"):
            connection.check_file()
        connection.close()


@pytest.mark.usefixtures("dated")
def test_a_directory_that_is_replaced(tmp_path: Path) -> None:
    """Its names lead to the same database and to another log."""
    old, other = tmp_path / "a", tmp_path / "b"
    old.mkdir()
    other.mkdir()
    connection = Connection(str(old / "coord.db"))
    with connection:
        connection.sqlite(create=True)
        os.link(old / "coord.db", other / "coord.db")
        wait_until_trusted(connection)
        old.rename(tmp_path / "c")
        other.rename(old)
        with pytest.raises(FileReplaced, match=r"coord\.db-wal was deleted"):
            connection.check_file()
        connection.close()


@pytest.mark.usefixtures("dated")
def test_a_second_change_in_one_tick_of_the_clock_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system would give it the same time as the first."""
    path = str(tmp_path / "coord.db")
    directory, changed = Directory(path, path), tmp_path.stat().st_ctime_ns
    for clock, trusted in ((changed, False), (changed + 10**6, True), (changed - 1, False)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "clock_gettime_ns", lambda _, clock=clock: clock)
            assert (directory.look() is not None) is trusted


@pytest.mark.usefixtures("dated")
def test_the_names_are_read_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount over one of them does not change the directory."""
    path = str(tmp_path / "coord.db")
    directory = Directory(path, path)
    while (state := directory.look()) is None:
        time.sleep(0.005)
    directory.remember(state)
    assert directory.is_unchanged()
    later = time.monotonic() + 1.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not directory.is_unchanged()


@pytest.mark.usefixtures("dated")
def test_a_directory_that_proves_nothing(tmp_path: Path) -> None:
    """Its file system is not known to date changes, or a link leads to the database. A link in the
    same directory may lead there by way of another."""
    path, mounts = str(tmp_path / "coord.db"), tmp_path / "mounts"
    mounts.write_text("1 1 0:1 / / rw - vfat none rw\n")
    linked, beside = str(tmp_path / "elsewhere" / "coord.db"), str(tmp_path / "link.db")
    links = Directory(linked, path), Directory(beside, path)
    eventually(lambda: Directory(path, path).look() is not None)
    for directory in (Directory(path, path, str(mounts)), *links):
        assert directory.look() is None
        directory.remember(directory.look())
        assert not directory.is_unchanged()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_is_removed_while_it_is_opened(
    suffix: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Connection(path)
    with other:
        other.sqlite(create=True)
        connect = schema.connect

        def remove_first(name: str) -> sqlite3.Connection:
            os.unlink(path + suffix)
            monkeypatch.undo()
            return connect(name)

        monkeypatch.setattr(schema, "connect", remove_first)
        connection = Connection(path)
        with connection:
            # SQLite itself refuses an empty log beside an index that this process shares.
            with pytest.raises((FileReplaced, sqlite3.OperationalError)):
                connection.sqlite()
            connection.close()
            with pytest.raises((FileReplaced, LogRemoved)):
                connection.sqlite()
            other.close()
            connection.sqlite()
            connection.close()


def test_a_connection_of_another_process_is_seen_without_a_log(path: str) -> None:
    """The check that needs no list of locks."""
    conn = schema.connect(path)
    missing = look(path, path)._replace(wal=None)
    with pytest.raises(LogRemoved, match=r"fuser .*coord\.db"):
        refuse_second_log(path, missing)
    conn.close()
    refuse_second_log(path, missing)
    refuse_second_log(path, look(path, path))


def test_a_symbolic_link_leads_to_the_same_log(path: str, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)

    async def body(store: SQLiteStore) -> None:
        assert isinstance(await claim(store, "a"), Answer)
        by_link = SQLiteStore(str(link))
        other = await claim(by_link, "b")
        assert isinstance(other, Answer)
        assert other.lease.holder == "a"
        assert isinstance(await by_link.release(Release("r", "a", 1, 2), 5), Answer)
        link.unlink()
        link.symlink_to(tmp_path / "other.db")
        (tmp_path / "other.db").touch()
        result = await claim(by_link, "c")
        assert isinstance(result, Answer)
        assert (result.applied, result.lease.token) == (True, 1)
        await by_link.close()

    run(path, body)
    assert not list(link.parent.glob("*-wal"))


def test_the_list_of_locks(tmp_path: Path) -> None:
    listed = tmp_path / "locks"
    listed.write_text(
        "1: POSIX  ADVISORY  READ 11 fe:00:500 1073741826 1073742335\n"
        "2: POSIX  ADVISORY  READ 12 fe:00:500 1073741826 1073742335\n"
        "3: POSIX  ADVISORY  READ 11 fe:00:501 128 128\n"
        "4: FLOCK  ADVISORY  WRITE 13 fe:00:501 0 EOF\n"
        "5: POSIX  ADVISORY  WRITE 14 fe:01:501 0 EOF\n"
        "5: -> POSIX  ADVISORY  WRITE 15 fe:01:501 0 EOF\n"
        "6: POSIX  ADVISORY  READ 16 <none>:0 0 EOF\n"
        "nonsense\n"
    )
    main, shm = (os.makedev(0xFE, 0), 500), (os.makedev(0xFE, 0), 501)
    assert [lock.pid for lock in locks.held(str(listed))] == [11, 12, 11, 14]
    assert locks.users_of_another_index(main, shm, str(listed))
    assert not locks.users_of_another_index(shm, main, str(listed))
    listed.write_text(listed.read_text() + "7: POSIX  ADVISORY  READ 12 fe:00:501 128 128\n")
    assert not locks.users_of_another_index(main, shm, str(listed))
    assert not locks.users_of_another_index(main, shm, str(tmp_path / "missing"))
