"""Shards shared by processes that are really killed, with a resource that checks their tokens."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.recipes.workers import Workers, moved, workers
from tests.support import etcd_server, postgresql_server, redis_server, requirements
from tests.support import rethinkdb_server as rethinkdb
from tests.support.databases import Databases, new_sqlite_url
from tests.support.levels import LONG, LONGEST, deepest, some

SHARDS, WORKERS = (64, 8) if LONGEST else (16, 4)
TTL = 6.0 if LONG else 3.0
CHAOS = float(os.environ.get("COORD_CHAOS_SECONDS", "600"))


@contextlib.contextmanager
def _sqlite(tmp_path: Path) -> Iterator[str]:
    yield new_sqlite_url(tmp_path / "coord.db")


@contextlib.contextmanager
def _rethinkdb(tmp_path: Path) -> Iterator[str]:
    requirements.need("rethinkdb")
    with rethinkdb.Server() as server:
        databases = Databases(server)
        yield from databases.lent()


@contextlib.contextmanager
def _postgresql(tmp_path: Path) -> Iterator[str]:
    requirements.need("postgresql")
    with postgresql_server.Server() as server:
        yield set_up(server.url())


@contextlib.contextmanager
def _redis(tmp_path: Path) -> Iterator[str]:
    requirements.need("redis")
    with redis_server.Server() as server:
        yield redis_server.set_up(server.url())


@contextlib.contextmanager
def _etcd(tmp_path: Path) -> Iterator[str]:
    requirements.need("etcd")
    with etcd_server.Member() as server:
        yield set_up(server.url())


def set_up(url: str) -> str:
    import asyncio

    from coord.stores import urls

    asyncio.run(urls.open_admin(url).setup({}, 30.0))
    return url


STORES: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
    "sqlite": _sqlite,
    "rethinkdb": _rethinkdb,
    "postgresql": _postgresql,
    "redis": _redis,
    "etcd": _etcd,
}


@pytest.fixture(params=some(STORES, lambda store: store == "sqlite"))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with STORES[request.param](tmp_path) as url:
        yield url


def report(what: str, seconds: float, crew: Workers, moves: int | None = None) -> None:
    moved_text = "" if moves is None else f", {moves} moves"
    print(
        f"{crew.url.partition(':')[0]}: {what} after {seconds:.2f} s{moved_text}: {crew.counts()}"
    )


def steady(crew: Workers) -> float:
    """Wait until the shards are shared fairly, and stay so."""
    seconds = crew.until(crew.balanced)
    time.sleep(0.5)
    assert crew.balanced(), crew.counts()
    return seconds


@deepest
def test_workers_start_join_leave_and_are_killed(store_url: str, tmp_path: Path) -> None:
    with workers("share", store_url, tmp_path, TTL, SHARDS) as crew:
        crew.start(WORKERS - 1)
        report("all have started", steady(crew), crew)
        for number in (WORKERS, WORKERS + 1):
            before = crew.owners()
            crew.start()
            seconds = steady(crew)
            moves = moved(before, crew.owners())
            report(f"worker {number} has joined", seconds, crew, moves)
            assert moves == SHARDS // number, "a join moves what the new worker gets"
        before = crew.owners()
        victim = crew.processes[0]
        crew.kill(victim)
        seconds = steady(crew)
        share = len(before) // (WORKERS + 1)
        moves = moved(before, crew.owners())
        report("one was killed", seconds, crew, moves)
        assert moves in (share, share + 1), "a kill moves what the killed worker had"
        before = crew.owners()
        crew.leave(crew.processes[0])
        seconds = steady(crew)
        moves = moved(before, crew.owners())
        report("one has left", seconds, crew, moves)
        assert moves == SHARDS // WORKERS
        crew.until(lambda: len(crew.resource.writes) > 10 * SHARDS)
        assert crew.resource.problems() == []


def chaos(crew: Workers, seconds: float, seed: int) -> None:
    """Workers come, go, are killed and frozen; then all is fair again."""
    rnd, until = random.Random(seed), time.monotonic() + seconds
    faults = dict.fromkeys(("start", "kill", "leave", "freeze"), 0)
    while time.monotonic() < until:
        what = rnd.choice(list(faults))
        if what == "start" and len(crew.processes) <= WORKERS:
            crew.start()
        elif what != "start" and len(crew.processes) > 2:
            process = rnd.choice(crew.processes)
            if what == "freeze":
                crew.freeze(process)
                time.sleep(rnd.choice([0.5, TTL, 2 * TTL]))
                crew.thaw(process)
            else:
                crew.kill(process) if what == "kill" else crew.leave(process)
        else:
            continue
        faults[what] += 1
        time.sleep(rnd.choice([0.1, 1.0, TTL]))
    took = steady(crew)
    resource = crew.resource
    print(
        f"{crew.url.partition(':')[0]}: {seconds:g} s of chaos, {faults}; fair again after "
        f"{took:.2f} s; {len(resource.writes)} writes, {resource.refused} stale ones refused, "
        f"{len(resource.workers_of_tokens())} terms, problems: {resource.problems()}"
    )
    assert resource.problems() == []


@pytest.mark.longest
@pytest.mark.timeout(3600)
def test_ten_minutes_of_chaos(store_url: str, tmp_path: Path) -> None:
    with workers("share", store_url, tmp_path, 3.0, SHARDS) as crew:
        crew.start(WORKERS)
        chaos(crew, CHAOS, seed=1)
