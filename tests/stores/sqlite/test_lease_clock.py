"""By which clock a lease expires: equal names compare, a proven restart ends it, and what is unknown
is watched for a ttl."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coord.core.lease import PAUSED, REVOKED
from coord.core.operations import Answer, Claim, Override
from coord.runtime.clock import UNKNOWN
from coord.stores.sqlite import SQLiteStore, StoreClock
from coord.stores.sqlite.lease_clock import LeaseClock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has boot ids")


def named(name: str, total: float = 1000.0) -> StoreClock:
    return StoreClock(total=lambda: total, wall=lambda: total, name=name)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "coord.db"
    file.touch(0o640)
    return str(file)


@contextmanager
def clock_of(path: str, name: str) -> Iterator[LeaseClock]:
    clock = LeaseClock(path, named(name))
    yield clock
    clock.close()


def test_equal_names_compare(path: str) -> None:
    with clock_of(path, "one") as clock, clock_of(path, "one") as other:
        assert clock.remaining(other.stamp(), 1007.0, 30.0, 1000.0) == 7.0
        assert clock.remaining("one", 990.0, 30.0, 1000.0) == -10.0  # its writer had no lock


def test_another_name_is_unknown_while_its_writer_lives(path: str) -> None:
    with clock_of(path, "two") as clock:
        with clock_of(path, "one") as other:
            stamp = other.stamp()
            assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0
            clock.stamp()  # with its own descriptor of the file, too
            assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == float("-inf")
        with clock_of(path, "one") as other:
            other.stamp()
            assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0


@pytest.mark.parametrize(
    ("stamp", "own_name"),
    [
        ("one", "two"),  # its writer had no lock
        (f"{UNKNOWN}1 5", "two"),  # a process that was killed is no restart
        ("one 5", f"{UNKNOWN}1"),
        (f"{UNKNOWN}1 5", f"{UNKNOWN}2"),
        ("", "two"),
        (None, "two"),
        (b"one 5", "two"),
        ("one 5", ""),
        ("", ""),
    ],
)
def test_what_proves_nothing(path: str, stamp: object, own_name: str) -> None:
    with clock_of(path, "one") as other:
        other.stamp()
    number = os.stat(f"{path}-lock").st_ino
    if isinstance(stamp, str):
        stamp = stamp.replace("5", str(number))
    with clock_of(path, own_name) as clock:
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0


def test_a_file_of_locks_that_was_replaced_proves_nothing(path: str) -> None:
    with clock_of(path, "one") as other, clock_of(path, "two") as clock:
        stamp = other.stamp()
        os.rename(f"{path}-lock", f"{path}-old")
        clock.stamp()
        assert os.path.exists(f"{path}-lock")
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0


def test_where_there_are_no_locks_nothing_is_proven(path: str) -> None:
    os.mkdir(f"{path}-lock")
    with clock_of(path, "one") as clock, clock_of(path, "two") as other:
        assert not clock.can_prove_restart()
        assert (clock.stamp(), other.stamp()) == ("one", "two")
        assert clock.remaining(other.stamp(), 5.0, 30.0, 1000.0) == 30.0


def test_the_file_of_locks_has_the_rights_of_the_database(path: str) -> None:
    with clock_of(path, "one") as clock:
        assert clock.can_prove_restart()
    assert os.stat(f"{path}-lock").st_mode & 0o777 == 0o640
    assert os.stat(f"{path}-lock").st_size == 0


def test_a_symbolic_link_leads_to_the_same_locks(path: str) -> None:
    os.symlink(path, f"{path}-link")
    with clock_of(f"{path}-link", "one") as other, clock_of(path, "two") as clock:
        stamp = other.stamp()
        assert clock.stamp().split()[1] == stamp.split()[1]
        assert not os.path.exists(f"{path}-link-lock")
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0


def test_a_forked_child_leaves_the_lock_to_its_parent(path: str) -> None:
    with clock_of(path, "one") as other, clock_of(path, "two") as clock:
        stamp = other.stamp()
        child = os.fork()
        if child == 0:
            other.abandon()
            # A lock of its own: closing it again leaves that of the parent alone.
            other.stamp()
            other.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0


def test_a_killed_process_leaves_no_lock(path: str) -> None:
    code = (
        "import sys, time\n"
        "from coord.runtime.clock import StoreClock\n"
        "from coord.stores.sqlite.lease_clock import LeaseClock\n"
        "clock = LeaseClock(sys.argv[1], StoreClock(name='one'))\n"
        "print(clock.stamp(), flush=True); time.sleep(600)\n"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process,
        clock_of(path, "two") as clock,
    ):
        assert process.stdout is not None
        stamp = process.stdout.readline().decode().strip()
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == 30.0
        process.kill()
        process.wait()
        assert clock.remaining(stamp, 5.0, 30.0, 1000.0) == float("-inf")


async def claimed(store: SQLiteStore, holder: str, **more: object) -> Answer:
    result = await store.claim(Claim("r", holder, 1, 30.0, skew=0.0, **more), 10)  # type: ignore[arg-type]
    assert isinstance(result, Answer)
    return result


@pytest.mark.parametrize("holder", [REVOKED, PAUSED])
def test_operators_may_change_a_lease_that_a_restart_has_ended(path: str, holder: str) -> None:
    async def main() -> None:
        first = SQLiteStore(path, clock=named("one", 5000.0))
        two = SQLiteStore(path, clock=named("two", 5.0))
        lease = (await claimed(first, "a")).lease
        await first.close()
        result = await two.override(Override("r", lease.revision, holder, 7), 10)
        assert isinstance(result, Answer)
        assert result.applied
        (row,) = await two.read(None, 10)
        assert (row.holder, row.token) == (holder, 1)
        if holder == PAUSED:
            assert not (await claimed(two, "b")).applied
            result = await two.override(Override("r", row.revision, REVOKED, 8), 10)
            assert isinstance(result, Answer)
            assert result.applied
        again = await claimed(two, "b")  # it has run out
        assert (again.applied, again.lease.token) == (True, 2)
        await two.close()

    asyncio.run(main())


def test_a_lease_of_an_unknown_clock_is_taken_only_by_watching(path: str) -> None:
    async def main() -> None:
        first = SQLiteStore(path, clock=named(f"{UNKNOWN}1", 5000.0))
        two = SQLiteStore(path, clock=named("two", 5.0))
        assert (await claimed(first, "a")).applied
        await first.close()
        lease = await claimed(two, "b")
        assert (lease.applied, lease.lease.remaining) == (False, 30.0)
        (row,) = await two.read(None, 10)
        assert (row.led, row.remaining) == (True, 30.0)
        again = await claimed(two, "b", expected=lease.lease.revision, takeover=True)
        assert (again.applied, again.lease.token) == (True, 2)
        await two.close()

    asyncio.run(main())


def test_every_row_says_by_which_clock_it_was_written(path: str) -> None:
    async def main() -> None:
        store = SQLiteStore(path, clock=named("one"))
        assert (await claimed(store, "a")).applied
        await store.close()

    asyncio.run(main())
    with sqlite3.connect(path) as db:
        ((stamp,),) = db.execute("SELECT clock FROM coord_leases").fetchall()
    db.close()
    assert stamp == f"one {os.stat(f'{path}-lock').st_ino}"


LEADER = """
import sys, time, coord
c = coord.connect("sqlite://" + sys.argv[1])
lead = c.leadership("r", ttl=30)
assert lead.acquire()
print(lead.term.token, flush=True)
time.sleep(600)
"""
CALLER = """
import sys, coord
c = coord.connect("sqlite://" + sys.argv[1])
lead = c.leadership("r", ttl=30)
term = lead.acquire(blocking=False)
lease = c.leader("r")
print("taken" if term else f"refused {lease.token} {lease.remaining <= 30}", flush=True)
c.close()
"""
NAMESPACES = {
    "another boot id": (
        ["unshare", "-m", "sh", "-c"],
        'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"',
    ),
    "no boot id": (
        ["unshare", "-m", "sh", "-c"],
        'mount -t proc -o subset=pid proc /proc && exec "$@"',
    ),
    "a clock ahead": (["unshare", "-T", "--boottime", "100000", "sh", "-c"], 'exec "$@"'),
    "a clock behind": (["unshare", "-T", "--boottime", "-20", "sh", "-c"], 'exec "$@"'),
}


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_process_with_another_view_of_the_clock_takes_no_live_lease(
    path: str, tmp_path: Path, name: str
) -> None:
    words, script = NAMESPACES[name]
    fake = tmp_path / "id"
    fake.write_text("11111111-2222-3333-4444-555555555555\n")
    command = [*words, script, str(fake)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False).returncode
    ):
        pytest.skip("this user or kernel cannot make the namespace")
    with subprocess.Popen(
        [sys.executable, "-c", LEADER, path], stdout=subprocess.PIPE, text=True
    ) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "1\n"
        answer = subprocess.run(
            [*command, sys.executable, "-c", CALLER, path],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.stdout == "refused 1 True\n"
        leader.kill()
