"""Other programs that hold a lock of the file: a reader whose log grows, a writer that is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import coord
from coord.core.operations import Answer, Claim, Failure, Renew
from coord.stores import urls
from coord.stores.protocol import Finding
from coord.stores.sqlite import SQLiteStore, doctor, growth, identity, locks, schema, worker
from tests.support.databases import new_sqlite_url
from tests.support.waits import eventually

pytestmark = pytest.mark.skipif(not Path(locks.LOCKS).exists(), reason="needs /proc/locks")
Program = Callable[[str], "subprocess.Popen[str]"]
READS = "BEGIN; SELECT * FROM coord_leases"
WRITES = "BEGIN IMMEDIATE"


@pytest.fixture
def path(tmp_path: Path) -> str:
    new_sqlite_url(tmp_path / "coord.db")
    return str(tmp_path / "coord.db")


@pytest.fixture
def program(path: str) -> Iterator[Program]:
    """Starts a program that executes statements on the file, and keeps its transaction open."""
    code = (
        "import sqlite3, sys; conn = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2].split('; '): conn.execute(statement).fetchall()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    started: list[subprocess.Popen[str]] = []

    def start(statements: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, path, statements],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in started:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def run(path: str, body: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = SQLiteStore(path)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


async def write(store: SQLiteStore, beat: int, size: int = 20_000) -> None:
    info = {"x": f"{beat}" * (size // len(str(beat)))}
    assert isinstance(await store.claim(Claim("r", "a", 1, 30.0, info=info), 20), Answer)
    (result,) = await store.renew([Renew("r", "a", 1, beat, 30.0, info)], 20)
    assert isinstance(result, Answer)


def findings(path: str) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor.check(path)}


def test_a_log_that_grows_is_reported_with_the_process_that_reads(
    path: str, program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(growth, "MAX_WAL_SIZE", 200_000)
    monkeypatch.setattr(schema, "MAX_WAL_SIZE", 200_000)
    monkeypatch.setattr(growth, "MIN_TRANSACTION", 0.01)
    monkeypatch.setattr(identity, "NAMES_INTERVAL", 0.0)

    def warnings() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "sqlite.log_grows" in record.message]

    async def body(store: SQLiteStore) -> None:
        await write(store, 2)
        reader = program(READS)
        for beat in range(3, 250):
            await write(store, beat)
        assert os.path.getsize(path + "-wal") > 5_000_000  # noqa: ASYNC240
        assert 2 <= len(warnings()) <= 8  # whenever it has doubled
        for warning in warnings():
            fields = warning.coord  # type: ignore[attr-defined]
            assert fields["path"] == path
            assert fields["readers"].startswith(f"pid {reader.pid} (python")
        end(reader)
        for beat in range(250, 260):  # a report of the reader may still be on its way
            await write(store, beat)
        await asyncio.sleep(0.5)
        caplog.clear()
        for beat in range(260, 270):
            await write(store, beat)
        assert os.path.getsize(path + "-wal") < 2_000_000  # noqa: ASYNC240
        assert not warnings()

    run(path, body)


def test_a_log_that_is_long_from_before_is_not_reported(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(store: SQLiteStore) -> None:
        for beat in range(2, 40):
            await write(store, beat)
        assert os.path.getsize(path + "-wal") > 200_000  # noqa: ASYNC240
        monkeypatch.setattr(growth, "MAX_WAL_SIZE", 200_000)
        monkeypatch.setattr(growth, "MIN_TRANSACTION", 0.0)
        monkeypatch.setattr(identity, "NAMES_INTERVAL", 0.0)
        other = SQLiteStore(path)
        for beat in range(40, 43):
            await write(other, beat)
        await other.close()
        assert not caplog.records

    run(path, body)


def test_doctor_names_a_process_that_keeps_a_transaction_open(path: str, program: Program) -> None:
    assert findings(path)["log"].level == "ok"
    reader = program(READS)
    problem = findings(path)["log"]
    assert problem.level == "warn"
    assert f"open in pid {reader.pid} (python" in problem.detail
    end(reader)
    assert findings(path)["log"].level == "ok"


def test_a_stopped_process_that_has_the_write_lock_is_named(path: str, program: Program) -> None:
    async def body(store: SQLiteStore) -> None:
        writer = program(WRITES)
        os.kill(writer.pid, signal.SIGSTOP)
        eventually(lambda: ", stopped)" in locks.describe(writer.pid))
        result = await store.claim(Claim("r", "a", 1, 30.0), 2.0)
        assert isinstance(result, Failure)
        assert (result.permanent, result.unknown) == (False, False)
        assert f"{path} is locked: pid {writer.pid} (python" in result.detail
        assert ", stopped) has had its write lock for at least " in result.detail
        problem = findings(path)["write"]
        assert problem.level == "error"
        assert f"locked by pid {writer.pid} (python" in problem.detail
        os.kill(writer.pid, signal.SIGCONT)
        eventually(lambda: ", stopped)" not in locks.describe(writer.pid))
        result = await store.claim(Claim("r", "a", 1, 30.0), 2.0)
        assert isinstance(result, Failure)
        assert f"is locked: pid {writer.pid} (python" in result.detail
        assert ", stopped)" not in result.detail
        end(writer)
        assert isinstance(await store.claim(Claim("r", "a", 1, 30.0), 20), Answer)

    run(path, body)


def test_a_thread_that_is_late_leaves_the_reason(
    path: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it sleeps longer between two attempts than its caller waits."""
    monkeypatch.setattr(worker, "ANSWER_MARGIN", -5.0)

    async def body(store: SQLiteStore) -> None:
        writer = program(WRITES)
        result = await store.claim(Claim("r", "a", 1, 30.0), 0.5)
        assert isinstance(result, Failure)
        assert (result.permanent, result.unknown) == (False, False)
        assert f"{path} is locked: pid {writer.pid} (python" in result.detail

    run(path, body)


def test_without_the_list_of_locks_the_lock_is_named_all_the_same(
    path: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "writer", lambda *_: None)

    async def body(store: SQLiteStore) -> None:
        program(WRITES)
        result = await store.claim(Claim("r", "a", 1, 30.0), 2.0)
        assert isinstance(result, Failure)
        assert f"{path} is locked: another process has had its write lock" in result.detail
        assert f"Find it with fuser {path}" in result.detail

    run(path, body)


def test_health_tells_a_stopped_writer_from_other_trouble(path: str, program: Program) -> None:
    with coord.connect(f"sqlite://{path}") as c, c.leadership("r", ttl=2):
        writer = program(WRITES)
        os.kill(writer.pid, signal.SIGSTOP)
        eventually(lambda: ", stopped)" in coord.health(c).store_trouble)
        assert f"pid {writer.pid} (python" in coord.health(c).store_trouble
        end(writer)
        eventually(lambda: coord.health(c).store_trouble == "")


def test_a_process_in_a_frozen_control_group_is_stopped(program: Program) -> None:
    """As `docker pause` freezes it."""
    group = Path(f"/sys/fs/cgroup/freezer/coord-test-{os.getpid()}")
    process = program(WRITES)
    assert ", stopped)" not in locks.describe(process.pid)
    try:
        group.mkdir()
    except OSError:
        pytest.skip("needs a control group that can be frozen")
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / "freezer.state").write_text("FROZEN")
        eventually(lambda: ", stopped)" in locks.describe(process.pid))
    finally:
        with contextlib.suppress(OSError):
            (group / "freezer.state").write_text("THAWED")
        end(process)
        eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_processes_that_are_gone_are_described_by_their_number() -> None:
    assert locks.describe(2**22 + 1) == f"pid {2**22 + 1}"


def test_the_admin_reports_what_the_doctor_finds(path: str) -> None:
    admin = urls.open_admin(f"sqlite://{path}")
    assert "log" in {finding.what for finding in asyncio.run(admin.check(10))}
