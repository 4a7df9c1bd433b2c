"""A table that may lose what it acknowledges is refused at every entrance, also when somebody
weakens it under a leader."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

import coord
from coord.core.operations import Claim, Release, Renew
from coord.errors import NotSetUp, StoreRefused
from coord.stores.rethinkdb import parse_url, settings
from coord.stores.rethinkdb.setup import set_up
from coord.stores.rethinkdb.store import RethinkDBStore
from coord.stores.rethinkdb.url import REQUIRED_SETTINGS
from coord.testing.clocks import Machine
from coord.testing.clocks import run as virtual_time
from tests.stores.rethinkdb.kit import answered, ask, db, failed, opened, r, run

pytestmark = pytest.mark.rethinkdb
WEAK = [{"durability": "soft"}, {"write_acks": "single"}]


def configure(url: str, **values: str) -> None:
    table = db(url).table("coord_leases")
    ask(url, table.config().update(values), table.wait(wait_for="all_replicas_ready"))


def strengthen(url: str) -> None:
    configure(url, durability="hard", write_acks="majority")


@pytest.fixture(params=WEAK, ids=["soft", "single"])
def weak_url(request: pytest.FixtureRequest, rethinkdb_url: str) -> str:
    configure(rethinkdb_url, **request.param)
    return rethinkdb_url


def test_connect_refuses_a_weak_table(weak_url: str) -> None:
    with pytest.raises(NotSetUp, match="may lose what it has acknowledged"):
        coord.connect(weak_url)


def test_leadership_refuses_a_weak_table(weak_url: str) -> None:
    with unchecked(weak_url) as coordinator:
        leadership = coordinator.leadership("role", ttl=5)
        leadership.start()
        assert not leadership.wait(1)
        with pytest.raises(NotSetUp, match="may lose what it has acknowledged"):
            coordinator.leadership("other", ttl=5).acquire(timeout=30)
        strengthen(weak_url)
        assert leadership.wait(60)


@contextlib.contextmanager
def unchecked(url: str) -> Iterator[coord.Coordinator]:
    """A coordinator that does not check the store before its first use."""
    coordinator = coord.Coordinator(url)
    try:
        yield coordinator
    finally:
        coordinator.close()


def test_unique_service_refuses_a_weak_table(weak_url: str) -> None:
    with unchecked(weak_url) as coordinator:
        for _ in range(2):
            with pytest.raises(StoreRefused, match="coord init"):
                coordinator.unique_service("role", {"id": "a", "ttl": 5})
        assert coordinator.unique_service("role") is None
        strengthen(weak_url)
        time.sleep(settings.WEAK_CHECK_INTERVAL)
        record = coordinator.unique_service("role", {"id": "a", "ttl": 5})
        assert record is not None
        assert record["mine"]


def test_leader_only_refuses_a_weak_table(weak_url: str) -> None:
    code = (
        "import coord\n"
        "for scope in ('call', 'process'):\n"
        "    @coord.leader_only('role', scope=scope)\n"
        "    def work(): print('ran')\n"
        "    try:\n"
        "        work()\n"
        "    except coord.CoordError as error:\n"
        "        print(scope, error)\n"
    )
    done = python(weak_url, "-c", code)
    first, second = done.stdout.splitlines()  # without "ran"
    for line, scope in ((first, "call"), (second, "process")):
        assert line.startswith(scope)
        assert "may lose what it has acknowledged" in line


def test_coord_run_refuses_a_weak_table(weak_url: str) -> None:
    done = python(weak_url, "-m", "coord", "run", "role", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (78, "")
    assert "may lose what it has acknowledged" in done.stderr


def python(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"COORD_URL": url, "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_swap_is_refused_but_a_release(weak_url: str) -> None:
    async def body() -> None:
        async with opened(weak_url) as store:
            claim = Claim("role", "a", 1, 30.0)
            assert store.begin(claim, 5) is None
            renewal = Renew("role", "a", 1, 2, 30.0)
            assert store.begin(renewal, 5) is None
            several = [Claim(f"role {number}", "a", 1, 30.0) for number in range(9)]
            refusals = [
                await store.claim(claim, 5),
                *await store.renew([renewal], 5),
                *await store.swap_all(several, 5),
            ]
            for refusal in map(failed, refusals):
                assert (refusal.unknown, refusal.permanent) == (False, True)
            assert await store.read(None, 5) == []
            release = Release("role", "a", 1, 3)
            assert not answered(await store.release(release, 5)).applied

    run(body)


def test_a_table_that_is_weakened_under_a_leader(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so before the next renewal, renewals are refused, and all go on once the table
    has its settings again."""
    assert settings.CHECK_INTERVAL + settings.CHECK_TIMEOUT < 60
    monkeypatch.setattr(settings, "CHECK_INTERVAL", 0.2)

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            assert answered(await store.claim(Claim("role", "a", 1, 600.0), 5)).applied
            renewal = [Renew("role", "a", 1, 2, 600.0)]
            assert answered((await store.renew(renewal, 5))[0]).applied
            await asyncio.to_thread(configure, rethinkdb_url, durability="soft")
            await until(lambda: "store.weakened" in caplog.text)
            refusal = failed((await store.renew([Renew("role", "a", 1, 3, 600.0)], 5))[0])
            assert (refusal.unknown, refusal.permanent) == (False, True)
            assert "durability is soft" in refusal.detail
            assert failed(await store.claim(Claim("other", "a", 1, 600.0), 5)).permanent
            await asyncio.to_thread(strengthen, rethinkdb_url)
            await until(lambda: store._settings.acceptable)
            assert answered((await store.renew([Renew("role", "a", 1, 4, 600.0)], 5))[0]).applied
            await asyncio.to_thread(configure, rethinkdb_url, write_acks="single")
            await until(lambda: caplog.text.count("store.weakened") == 2)

    with caplog.at_level(logging.WARNING, logger="coord"):
        run(body)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 30 s")


def test_a_leader_of_a_weakened_table_loses_its_term_when_its_lease_ends(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CHECK_INTERVAL", 0.2)
    with unchecked(rethinkdb_url) as coordinator:
        leadership = coordinator.leadership("role", ttl=3)
        leadership.start()
        assert leadership.wait(30)
        term = leadership.term
        assert term is not None
        configure(rethinkdb_url, durability="soft")
        assert term.lost.wait(30)
        assert term.reason is coord.LossReason.STORE_UNREACHABLE
        strengthen(rethinkdb_url)
        assert leadership.wait(60)
        assert leadership.term is not None
        assert leadership.term.token == term.token + 1


def test_a_table_that_was_dropped_is_used_again(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
            await asyncio.to_thread(
                ask, rethinkdb_url, db(rethinkdb_url).table_drop("coord_leases")
            )
            for _ in range(2):
                refusal = failed(await store.claim(Claim("role", "a", 2, 30.0), 5))
                assert (refusal.unknown, refusal.permanent) == (False, True)
                assert "coord_leases` does not exist" in refusal.detail
                assert "coord init" in refusal.detail
                with pytest.raises(NotSetUp, match="does not exist"):
                    await store.read(None, 5)
            await set_up(rethinkdb_url)
            assert answered(await store.claim(Claim("role", "a", 3, 30.0), 5)).applied

    run(body)


def test_a_leader_follows_a_table_that_was_dropped_and_is_back(rethinkdb_url: str) -> None:
    with unchecked(rethinkdb_url) as coordinator:
        leader, other = (coordinator.leadership("role", ttl=3) for _ in range(2))
        leader.start()
        assert leader.wait(30)
        other.start()
        ask(rethinkdb_url, db(rethinkdb_url).table_drop("coord_leases"))
        assert leader.term is not None
        assert leader.term.lost.wait(30)
        asyncio.run(set_up(rethinkdb_url))
        deadline = time.monotonic() + 60
        while not (leader.is_leader or other.is_leader):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_settings_are_read_once_and_then_now_and_then(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    real = settings.weak_settings

    def counted(config: dict[str, object]) -> str:
        nonlocal reads
        reads += 1
        return real(config)

    monkeypatch.setattr(settings, "weak_settings", counted)

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            claims = [store.claim(Claim(f"role {n}", "a", 1, 30.0), 5) for n in range(20)]
            for result in await asyncio.gather(*claims):
                assert answered(result).applied
            assert reads == 1
            monkeypatch.setattr(settings, "CHECK_INTERVAL", 0.05)
            await store.open(5)
            await until(lambda: reads > 4)
        closed_at = reads
        await asyncio.sleep(0.3)
        assert reads == closed_at

    run(body)


def test_a_store_that_is_dropped_without_a_close_is_checked_no_more(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CHECK_INTERVAL", 0.1)

    async def body() -> None:
        store = RethinkDBStore(parse_url(rethinkdb_url))
        assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
        reference = weakref.ref(store._settings)
        del store
        for _ in range(300):
            gc.collect()
            if reference() is None:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the timer keeps it alive")

    run(body)


def test_a_user_who_may_not_read_the_settings_may_lead(rethinkdb_url: str) -> None:
    """Nothing can be known then: `coord doctor` of an administrator tells."""
    configure(rethinkdb_url, durability="soft")
    users = r.db("rethinkdb").table("users")
    ask(
        rethinkdb_url,
        users.insert({"id": "few", "password": "rights"}, conflict="replace"),
        db(rethinkdb_url).table("coord_leases").grant("few", {"read": True, "write": True}),
    )

    async def body() -> None:
        async with opened(rethinkdb_url.replace("://", "://few:rights@")) as store:
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied

    run(body)


def test_processes_that_start_together_check_at_different_times() -> None:
    """All at once they would take the time of a server that a failover needs."""
    checks: list[list[float]] = [[] for _ in range(8)]

    class Strong:
        def __init__(self, times: list[float]) -> None:
            self._times = times

        async def query(self, _term: object, _timeout: float) -> dict[str, object]:
            self._times.append(asyncio.get_running_loop().time())
            return dict(REQUIRED_SETTINGS)

    async def main(_machine: Machine) -> None:
        tables = []
        for times in checks:
            pool: Any = Strong(times)
            tables.append(settings.TableSettings(pool, parse_url("rethinkdb://127.0.0.1/any")))
            await tables[-1].require(1)
        await asyncio.sleep(100)
        for table in tables:
            table.close()

    virtual_time(main)
    for times in checks:
        gaps = [after - before for before, after in pairwise(times)]
        assert len(gaps) >= 4
        assert max(gaps) <= settings.CHECK_INTERVAL + 0.01
    assert len({round(times[4]) for times in checks}) >= 3
