"""What `@leader_only` can decorate: every kind of function runs under the term, or is refused. A call
inside of another one runs under the outer term. Decorated functions can be pickled."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import coord
from coord import Coordinator, leader_only
from tests.support.waits import eventually

Scope = Literal["process", "call"]
Otherwise = Literal["skip", "wait", "raise"]
pytestmark = pytest.mark.on_memory
SCOPES = pytest.mark.parametrize("scope", ["process", "call"])


@pytest.fixture
def c(url: str) -> Iterator[Coordinator]:
    with Coordinator(url) as coordinator:
        yield coordinator


def held() -> bool:
    """Whether the calling code runs under a term that is held."""
    term = coord.current_term()
    return term is not None and term.held


async def held_later() -> bool:
    await asyncio.sleep(0)
    return held()


class Call:
    def __call__(self) -> bool:
        return held()


class AsyncCall:
    async def __call__(self) -> bool:
        return await held_later()


class GeneratorCall:
    def __call__(self) -> Iterator[bool]:
        yield held()


def generator() -> Iterator[bool]:
    yield held()


async def async_generator() -> AsyncIterator[bool]:
    yield held()


ASYNC: list[Any] = [
    held_later,
    AsyncCall(),
    functools.partial(held_later),
    functools.partial(AsyncCall()),
]


@SCOPES
@pytest.mark.parametrize("function", [held, Call(), functools.partial(held), lambda: held()])
def test_a_plain_callable_runs_under_the_term(c: Coordinator, scope: Scope, function: Any) -> None:
    assert leader_only("r", coordinator=c, scope=scope)(function)() is True


@SCOPES
@pytest.mark.parametrize("function", [*ASYNC, lambda: held_later()])
def test_a_coroutine_runs_under_the_term(c: Coordinator, scope: Scope, function: Any) -> None:
    job = leader_only("r", coordinator=c, scope=scope)(function)

    async def main() -> list[Any]:
        return [await job(), await job()]

    assert asyncio.run(main()) == [True, True]
    assert (c.leader("r") is not None) == (scope == "process")


@pytest.mark.parametrize("function", ASYNC)
def test_a_coroutine_function_stays_one(c: Coordinator, function: Any) -> None:
    import inspect

    assert inspect.iscoroutinefunction(leader_only("r", coordinator=c)(function))


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        GeneratorCall(),
        functools.partial(generator),
        functools.partial(GeneratorCall()),
        staticmethod(generator),
    ],
)
def test_a_generator_function_is_refused_when_it_is_decorated(function: Any) -> None:
    with pytest.raises(coord.BadArgument, match="must not be a generator function"):
        leader_only("r")(function)


def test_methods_of_every_kind_run_under_the_term(c: Coordinator) -> None:
    guard: Any = leader_only("r", coordinator=c)

    class Job:
        @guard
        @staticmethod
        def inner_static(value: int) -> tuple[bool, int]:
            return held(), value

        @staticmethod
        @guard
        def outer_static(value: int) -> tuple[bool, int]:
            return held(), value

        @guard
        @classmethod
        def inner_class(cls, value: int) -> tuple[bool, int]:
            return held() and cls is Job, value

        @classmethod
        @guard
        def outer_class(cls, value: int) -> tuple[bool, int]:
            return held() and cls is Job, value

    for name in ("inner_static", "outer_static", "inner_class", "outer_class"):
        assert getattr(Job, name)(7) == getattr(Job(), name)(7) == (True, 7)


@SCOPES
def test_a_returned_coroutine_is_cancelled_when_its_term_is_lost(
    c: Coordinator, scope: Scope
) -> None:
    async def endless() -> None:
        await asyncio.sleep(600)

    job = leader_only("r", coordinator=c, scope=scope)(lambda: endless())

    async def main() -> None:
        running = asyncio.ensure_future(job())
        await asyncio.sleep(0)
        await asyncio.to_thread(c.request_step_down, "r", cooldown=0)
        with pytest.raises(coord.LeadershipLost):
            await running
        # One that begins after the loss does not run at all.
        if scope == "process":
            waiting = await asyncio.to_thread(late)
            await asyncio.to_thread(c.shared_leadership("r", 30).step_down, 60)
            with pytest.raises(coord.LeadershipLost):
                await waiting

    def late() -> Any:
        assert c.shared_leadership("r", 30).wait(60)
        return job()

    asyncio.run(main())


def test_a_returned_coroutine_that_nobody_awaits_gives_the_role_back(c: Coordinator) -> None:
    job: Any = leader_only("r", coordinator=c, scope="call")(lambda: held_later())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        dropped = job()
        assert c.leader("r") is not None
        del dropped
        gc.collect()
    eventually(lambda: c.leader("r") is None)


@SCOPES
@pytest.mark.parametrize("otherwise", ["skip", "wait", "raise"])
def test_a_call_inside_of_another_runs_under_its_term(
    c: Coordinator, scope: Scope, otherwise: Otherwise
) -> None:
    guard: Any = leader_only("r", coordinator=c, scope=scope, otherwise=otherwise)

    @guard
    def inner() -> int:
        return coord.require_term().token

    @guard
    def outer() -> list[Any]:
        first = [inner(), inner()]
        term = coord.require_term()
        return [*first, term.token, term.held, within_a_loop()]

    def within_a_loop() -> int:
        async def main() -> int:
            return int(await asyncio.wait_for(async_inner(), 60))

        return asyncio.run(main())

    @guard
    async def async_inner() -> int:
        return coord.require_term().token

    @guard
    async def async_outer() -> list[int]:
        return [await async_inner(), inner(), coord.require_term().token]

    @guard
    def factorial(number: int) -> int:
        return 1 if number == 0 else number * factorial(number - 1)

    assert outer() == [1, 1, 1, True, 1]
    token = 1 if scope == "process" else 2
    assert asyncio.run(async_outer()) == [token] * 3
    assert factorial(5) == 120


def test_a_call_inside_of_run_or_of_a_callback_runs_under_its_term(c: Coordinator) -> None:
    inner: Any = leader_only("r", coordinator=c, scope="call", otherwise="raise")(
        lambda: coord.require_term().token
    )
    lead, reports = c.leadership("r"), []
    assert lead.run(lambda: [inner(), lead.run(inner), coord.require_term().held]) == [1, 1, True]
    assert not lead.started
    with c.leadership("r", on_elected=lambda _: reports.append(inner())):
        eventually(lambda: reports == [2])

    async def main() -> list[Any]:
        async with coord.AsyncCoordinator("memory://") as coordinator:
            first = coordinator.leadership("r")

            async def outer() -> list[Any]:
                return [await first.run(held_later), held(), first.started]

            return [*(await first.run(outer)), first.started]

    assert asyncio.run(main()) == [True, True, True, False]


@SCOPES
def test_a_call_inside_of_one_that_has_lost_its_term_raises(c: Coordinator, scope: Scope) -> None:
    guard: Any = leader_only("r", coordinator=c, scope=scope, otherwise="wait")

    @guard
    def outer() -> None:
        term = coord.require_term()
        c.request_step_down("r")
        assert term.lost.wait(60)
        inner()

    @guard
    def inner() -> None:
        raise AssertionError("it ran after the loss")

    with pytest.raises(coord.LeadershipLost):
        outer()
    lead = c.leadership("s")

    def lose() -> None:
        term = coord.require_term()
        c.request_step_down("s")
        assert term.lost.wait(60)
        lead.run(inner)

    with pytest.raises(coord.LeadershipLost):
        lead.run(lose)


def test_another_role_or_coordinator_is_not_the_same_term(c: Coordinator) -> None:
    with Coordinator("memory://") as other:
        roles: Any = leader_only("s", coordinator=c)(lambda: coord.require_term().role)
        stores: Any = leader_only("r", coordinator=other, scope="call")(
            lambda: other.leader("r") is not None and c.leader("r") is not None
        )
        outer: Any = leader_only("r", coordinator=c)(lambda: [roles(), stores()])
        assert outer() == ["s", True]


def test_an_interrupted_call_gives_the_role_back(c: Coordinator) -> None:
    job: Any = leader_only("r", coordinator=c, scope="call", otherwise="wait")(held_later)

    async def main() -> None:
        for pause in range(60):
            running = asyncio.ensure_future(job())
            await asyncio.sleep(pause / 20_000)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    eventually(lambda: c.leader("r") is None)
    eventually(lambda: not c.session.members)


# The functions that other processes get. They use the default coordinator.


@leader_only("ship")
def shipped(value: int, *, more: int = 2) -> int:
    """Doc."""
    assert held()
    return value + more


class Ship:
    @leader_only("method")
    def method(self, value: int) -> int:
        assert held()
        return value


@pytest.fixture
def default_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    url = f"sqlite://{tmp_path}/coord.db"
    monkeypatch.setenv("COORD_URL", url)
    return url


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_decorated_function_runs_in_a_pool(method: Any, default_url: str) -> None:
    assert copy.deepcopy(shipped) is pickle.loads(pickle.dumps(shipped)) is shipped
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(shipped, (1,), {"more": 3}).get(120) == 4
        assert pool.apply_async(Ship().method, (7,)).get(120) == 7


BY_VALUE = """
import sys, cloudpickle, coord, asyncio

@coord.leader_only("by-value", ttl=5)
def job(x):
    return x if coord.current_term() else -1

@coord.leader_only("by-value", ttl=5)
async def async_job(x):
    return x if coord.current_term() else -1

before = cloudpickle.dumps([job, async_job])
assert job(1) == 1 and asyncio.run(async_job(2)) == 2
after = cloudpickle.dumps([job, async_job, lambda: job(3)])
try:
    cloudpickle.dumps(coord.leader_only("own", coordinator=coord.connect())(lambda: 1))
except coord.BadArgument as err:
    assert "set COORD_URL" in str(err)
else:
    raise AssertionError("a coordinator was pickled")
sys.stdout.buffer.write(cloudpickle.dumps((before, after)))
"""
LOADED = """
import sys, pickle, asyncio
for one in pickle.loads(sys.stdin.buffer.read()):
    job, async_job, *more = pickle.loads(one)
    assert job(4) == 4, job(4)
    assert asyncio.run(async_job(5)) == 5
    assert [call() for call in more] in ([], [3])
print("ran")
"""


@pytest.mark.needs("cloudpickle")
def test_a_decorated_function_can_be_pickled_by_value(default_url: str) -> None:
    def run(code: str, data: bytes = b"") -> bytes:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            input=data,
            capture_output=True,
            timeout=120,
            env={**os.environ, "COORD_URL": default_url},
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    assert run(LOADED, run(BY_VALUE)) == b"ran\n"


def test_a_thread_of_the_job_is_not_inside_of_it(c: Coordinator) -> None:
    inner: Any = leader_only("r", coordinator=c, scope="call")(lambda: "ran")
    results: list[Any] = []

    @leader_only("r", coordinator=c, scope="call")
    def outer() -> None:
        thread = threading.Thread(target=lambda: results.append(inner()))
        thread.start()
        thread.join(60)

    outer()
    assert results == [None]
