"""Several processes on one SQLite file: races, kills, forks, and how soon one hears of another."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from coord.core.operations import Answer, Claim, Release
from coord.stores.sqlite import SQLiteStore, schema
from tests.support.forked import at_once


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "coord.db")


def start(code: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], timeout: float = 60) -> str:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, err
    return out


IMPORTS = """
    import asyncio, json
    from coord.core.operations import Answer, Claim
    from coord.errors import NotSetUp
    from coord.stores.sqlite import SQLiteStore
"""
HAMMER = """
    async def main(path, me, turns):
        store, won, failed, beat = SQLiteStore(path), [], 0, 0
        for _ in range(turns):
            beat += 1
            try:
                seen = {lease.role: lease for lease in await store.read(["r"], 30)}
            except NotSetUp:  # nobody has created the file yet
                seen = {}
            expected = seen["r"].revision if seen else None
            claim = Claim("r", me, beat, 30.0, expected, takeover=expected is not None)
            result = await store.claim(claim, 30)
            if not isinstance(result, Answer):
                failed += 1
            elif result.applied:
                won.append(result.lease.token)
        await store.close()
        print(json.dumps([won, failed]))
    asyncio.run(main(sys.argv[1], f"p{number}", 60))
"""


def test_no_two_processes_get_one_token(path: str) -> None:
    """They start on a file that is not there: making the table is part of the race."""
    results = [json.loads(line) for line in at_once(6, IMPORTS, HAMMER, path)]
    assert [failed for _, failed in results] == [0] * 6
    won = sorted(token for tokens, _ in results for token in tokens)
    assert won == list(range(1, len(won) + 1))  # none twice, none left out
    assert sum(bool(tokens) for tokens, _ in results) > 1


@pytest.mark.parametrize("exists", [False, True])
def test_many_open_the_file_at_once(path: str, exists: bool) -> None:
    """None of them may create the log while another has the file open, and all have to."""
    if exists:
        schema.connect(path).close()
        assert not Path(path + "-wal").exists()
    at_once(8, IMPORTS, "asyncio.run(SQLiteStore(sys.argv[1]).database.create(30))", path)


def test_kill_in_the_midst_of_commits_leaves_a_good_file(path: str) -> None:
    """What was acknowledged is there, and nothing is broken (`kill -9`, time after time, on the
    same file)."""
    code = """
        import asyncio, sys
        from coord.core.operations import Claim
        from coord.stores.sqlite import SQLiteStore
        async def main():
            store = SQLiteStore(sys.argv[1])
            for beat in range(1, 100000):
                claim = Claim("r", "a", beat, 30.0, takeover=True, info={"x": "y" * 3000})
                result = await store.claim(claim, 10)
                print(result.lease.token, flush=True)
        asyncio.run(main())
    """
    chance, acknowledged = random.Random(3), 0
    for _ in range(5):
        process = start(code, path)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(chance.uniform(0.02, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
        acknowledged = int((first + out).split()[-1])
        conn = sqlite3.connect(path)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (token,) = conn.execute("SELECT token FROM coord_leases").fetchone()
        conn.close()
        assert acknowledged <= token <= acknowledged + 1
    assert acknowledged > 20


FORK = """
    import asyncio, os, sqlite3, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: a fork with threads
    from coord.core.operations import Claim, Renew, Answer
    from coord.stores.sqlite import SQLiteStore
    path = sys.argv[1]
    def wait(pid):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert status == 0, status
                return
            time.sleep(0.005)
        os.kill(pid, 9)
        raise SystemExit("the child hangs")
    def child(work):
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
"""


def test_a_child_works_on_its_own_and_the_parent_too(path: str) -> None:
    """The parent goes away first. Without care (connection.py) it deletes the log under the child,
    whose
    commit is lost."""
    code = (
        FORK
        + """
    async def main():
        store = SQLiteStore(path)
        feed = store.watch(["r", "from child"])
        assert isinstance(await store.claim(Claim("r", "parent", 1, 30.0), 5), Answer)
        await feed.__anext__()
        go, gone = os.pipe()
        async def work():
            if sys.argv[2] == "abandon":
                store.abandon()
            assert (await store.claim(Claim("first", "child", 1, 30.0), 5)).applied
            os.read(go, 1)
            assert (await store.claim(Claim("from child", "child", 1, 30.0), 5)).applied
            assert (await store.renew([Renew("r", "parent", 1, 9, 30.0)], 5))[0].applied
        pid = child(work)
        assert (await store.renew([Renew("r", "parent", 1, 2, 30.0)], 5))[0].applied
        while (await feed.__anext__()).beat != 2:
            pass
        await feed.aclose()
        await store.close()
        await asyncio.sleep(0.1)
        os.write(gone, b"x")
        wait(pid)
    asyncio.run(main())
    print(sorted(sqlite3.connect(path).execute("SELECT role, beat FROM coord_leases")))
    """
    )
    for how in ("abandon", "by itself"):
        file = f"{path} {how}"
        assert finish(start(code, file, how)) == "[('first', 1), ('from child', 1), ('r', 9)]\n"


def test_many_forks_while_the_store_is_busy(path: str) -> None:
    """No child finds a lock of the parent's, neither SQLite's on the file nor a mutex inside the
    library."""
    code = (
        FORK
        + """
    async def main():
        store, stop = SQLiteStore(path), False
        async def hammer(name):
            beat = 0
            while not stop:
                beat += 1
                info = {"x": "y" * 500}
                claim = Claim(name, "parent", beat, 30.0, takeover=True, info=info)
                result = await store.claim(claim, 10)
                assert isinstance(result, Answer), result
        async def hear():
            async for _ in store.watch(["a", "b"]):
                pass
        tasks = [asyncio.ensure_future(hammer(name)) for name in "ab"]
        feed = asyncio.ensure_future(hear())
        await asyncio.sleep(0.05)
        async def work():
            result = await store.claim(Claim(f"child {os.getpid()}", "child", 1, 30.0), 10)
            assert isinstance(result, Answer) and result.applied, result
            await store.close()
        for turn in range(25):
            wait(await asyncio.sleep(0.003, child(work)))
        stop = True
        await asyncio.gather(*tasks)
        assert not feed.done()
        feed.cancel()
        await store.close()
    asyncio.run(main())
    count = "SELECT count(*) FROM coord_leases WHERE holder = 'child'"
    print(sqlite3.connect(path).execute(count).fetchone())
    print(sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone())
    """
    )
    assert finish(start(code, path)) == "(25,)\n('ok',)\n"


def test_a_child_of_a_fork_that_could_not_wait_refuses(path: str) -> None:
    code = (
        FORK
        + """
    from coord.stores.sqlite import connection
    from coord.stores.sqlite.worker import Job
    connection.FORK_WAIT = 0.05
    commit = Job.commit
    async def main():
        store = SQLiteStore(path)
        await store.open(5)
        Job.commit = lambda job, connection: (time.sleep(0.4), commit(job, connection))
        writing = asyncio.ensure_future(store.claim(Claim("r", "parent", 1, 30.0), 5))
        await asyncio.sleep(0.1)
        async def work():
            result = await store.claim(Claim("c", "child", 1, 30.0), 5)
            assert result.permanent and not result.unknown and "forked" in result.detail, result
            await store.close()
        wait(child(work))
        assert (await writing).applied
        await store.close()
    asyncio.run(main())
    print("well")
    """
    )
    assert finish(start(code, path)) == "well\n"


LISTENER = """
    import asyncio, sys, time
    from coord.stores.sqlite import SQLiteStore
    async def main():
        async for lease in SQLiteStore(sys.argv[1]).watch(["r"]):
            print(lease.beat, time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
            if lease.beat >= int(sys.argv[2]):
                return
    asyncio.run(main())
"""


def test_another_process_hears_soon(path: str) -> None:
    turns = 40

    async def main() -> dict[int, float]:
        store, sent = SQLiteStore(path), {}
        assert isinstance(await store.claim(Claim("r", "a", 1, 30.0), 5), Answer)
        process = start(LISTENER, path, str(turns * 2))
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        for turn in range(1, turns + 1):
            await asyncio.sleep(0.02)
            released = await store.release(Release("r", "a", turn, turn * 2), 5)
            assert isinstance(released, Answer)
            sent[turn * 2] = time.clock_gettime(time.CLOCK_MONOTONIC)
            if turn < turns:
                await asyncio.sleep(0.02)
                assert isinstance(await store.claim(Claim("r", "a", turn * 2 + 1, 30.0), 5), Answer)
        times = {int(beat): float(at) for beat, at in map(str.split, finish(process).splitlines())}
        await store.close()
        return {beat: times[beat] - at for beat, at in sent.items() if beat in times}

    delays = sorted(asyncio.run(main()).values())
    assert len(delays) > turns / 2
    print(
        f"heard after {statistics.median(delays) * 1e3:.1f} ms at the median, "
        f"{delays[-1] * 1e3:.1f} ms at most"
    )
    assert statistics.median(delays) < 0.025  # about 3 ms on a machine at rest
