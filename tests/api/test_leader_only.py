"""`@leader_only`: functions, methods and coroutines, on every store."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Collection
from typing import Any

import pytest

import coord
from coord import Coordinator, Lease, leader_only
from coord.core.operations import Claim, Failure, Result
from coord.stores.memory.store import MemoryStore
from coord.testing import FaultyStore
from tests.support.store_time import RealTime

Two = tuple[Coordinator, Coordinator]


def token() -> int:
    term = coord.current_term()
    assert term is not None
    return term.token


def test_the_first_call_runs_and_the_process_goes_on_holding(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    @leader_only("job", coordinator=two[0], ttl=3)
    def here(word: str, *, times: int = 1) -> tuple[str, int]:
        """Doc."""
        calls.append(word * times)
        return word, token()

    @leader_only("job", coordinator=two[1], ttl=3)
    def there() -> int:
        return token()

    assert (here.__name__, here.__doc__) == ("here", "Doc.")
    assert here("a") == ("a", 1)
    with caplog.at_level(logging.INFO, "coord"):
        assert there() is None
    (skipped,) = (
        record for record in caplog.records if "leadership.skipped" in record.getMessage()
    )
    assert "role='job'" in skipped.getMessage()
    assert skipped.levelno == logging.INFO  # the other coordinator leads, so nothing is wrong
    assert here("b", times=2) == ("b", 1)  # the same term
    assert calls == ["a", "bb"]
    two[0].close()
    deadline = time.monotonic() + 3
    while there() is None:  # it waited, and takes over
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert there() == 2


def test_otherwise_raise_and_wait(two: Two) -> None:
    holder = two[0].leadership("job", ttl=3)
    assert holder.acquire(timeout=5)

    @leader_only("job", coordinator=two[1], ttl=3, otherwise="raise")
    def raising() -> int:
        return token()

    @leader_only("job", coordinator=two[1], ttl=3, otherwise="wait", timeout=0.2)
    def impatient() -> int:
        return token()

    @leader_only("job", coordinator=two[1], ttl=3, otherwise="wait")
    def patient() -> int:
        return token()

    with pytest.raises(coord.NotLeader, match="job"):
        raising()
    with pytest.raises(coord.AcquireTimeout):
        impatient()
    threading.Timer(0.3, holder.release).start()
    assert patient() == 2


def test_methods_keep_their_self(coordinator: Coordinator) -> None:
    class Reports:
        def __init__(self, name: str) -> None:
            self.name = name

        @leader_only("job", coordinator=coordinator, ttl=3)
        def write(self, n: int) -> str:
            return f"{self.name}{n}:{token()}"

        @classmethod
        @leader_only("job", coordinator=coordinator, ttl=3)
        def all(cls) -> str:
            return cls.__name__

    assert Reports("x").write(2) == "x2:1"
    assert Reports.all() == "Reports"


def test_scope_call_releases_after_the_call(two: Two) -> None:
    inside = threading.Event()
    go_on = threading.Event()

    @leader_only("job", coordinator=two[0], ttl=3, scope="call")
    def slow() -> int:
        inside.set()
        go_on.wait(5)
        return token()

    @leader_only("job", coordinator=two[1], ttl=3, scope="call")
    def quick() -> int:
        return token()

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(slow()))
    thread.start()
    assert inside.wait(5)
    assert quick() is None
    go_on.set()
    thread.join()
    assert results == [1]
    assert quick() == 2
    assert quick() == 3
    assert two[0].leader("job") is None


def test_at_least_keeps_a_short_job_from_running_twice(store_time: RealTime, two: Two) -> None:
    @leader_only("job", coordinator=two[0], ttl=10, scope="call", at_least=1.0)
    def short() -> int:
        return token()

    @leader_only("job", coordinator=two[1], ttl=10, scope="call")
    def elsewhere() -> int:
        return token()

    began = store_time.now()
    assert short() == 1
    assert store_time.now() - began < 0.8  # the caller does not wait
    assert elsewhere() is None
    assert short() is None  # nor does it run twice here
    store_time.sleep(max(0.0, began + 1.3 - store_time.now()))
    if (
        two[0].session.max_clock_skew == 0
    ):  # exact on one machine; on a cluster the clock's skew comes on top
        assert elsewhere() == 2


def test_a_job_that_raises_passes_it_on_and_releases(coordinator: Coordinator) -> None:
    @leader_only("job", coordinator=coordinator, ttl=3, scope="call")
    def broken() -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside"):
        broken()
    assert coordinator.leader("job") is None


def test_a_coroutine_runs_and_is_cancelled_when_its_term_is_lost(coordinator: Coordinator) -> None:
    cleaned: list[int] = []

    @leader_only("job", coordinator=coordinator, ttl=3)
    async def quick() -> int:
        await asyncio.sleep(0)
        return token()

    @leader_only("job", coordinator=coordinator, ttl=3)
    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(token())

    async def main() -> None:
        assert await quick() == 1
        task = asyncio.ensure_future(endless())
        await asyncio.sleep(0.1)
        lead = coordinator.shared_leadership("job", 3)
        await asyncio.to_thread(lead.step_down, 0)
        with pytest.raises(coord.LeadershipLost, match="stepped_down"):
            await task
        assert await asyncio.to_thread(lead.wait, 5)
        outer = asyncio.ensure_future(endless())
        await asyncio.sleep(0.3)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    asyncio.run(main())
    assert cleaned == [1, 2]


def test_a_coroutine_with_scope_call(two: Two) -> None:
    @leader_only("job", coordinator=two[0], ttl=3, scope="call")
    async def job() -> int:
        return token()

    async def main() -> list[int]:
        return [await job(), await job()]

    assert asyncio.run(main()) == [1, 2]
    assert two[1].leader("job") is None


def test_a_plain_function_finds_out_through_the_term(coordinator: Coordinator) -> None:
    @leader_only("job", coordinator=coordinator, ttl=3)
    def careful() -> str:
        term = coord.current_term()
        assert term is not None
        lead = coordinator.shared_leadership("job", 3)
        threading.Thread(target=lead.step_down).start()
        assert term.lost.wait(5)
        with pytest.raises(coord.LeadershipLost):
            term.check()
        return "told"

    assert careful() == "told"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"otherwise": "maybe"}, "otherwise"),
        ({"scope": "world"}, "scope"),
        ({"at_least": 5}, "at_least"),
        ({"at_least": float("nan"), "scope": "call"}, "at_least"),
        ({"timeout": -1}, "timeout"),
        ({"coordinator": "sqlite:x"}, "coordinator"),
    ],
)
def test_bad_settings_are_refused_when_the_decorator_is_applied(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(coord.BadArgument, match=message):
        leader_only("job", **settings)


@pytest.mark.parametrize("scope", ["process", "call"])
def test_a_call_that_is_skipped_because_of_trouble_is_a_warning(
    caplog: pytest.LogCaptureFixture, scope: Any
) -> None:
    store = FaultyStore(MemoryStore())
    with Coordinator(store=store) as coordinator:
        job = leader_only("job", coordinator=coordinator, scope=scope)(token)
        store.down()
        with caplog.at_level(logging.DEBUG, "coord"):
            assert job() is None
        store.heal()
    (skipped,) = (
        record for record in caplog.records if "leadership.skipped" in record.getMessage()
    )
    assert skipped.levelno == logging.WARNING
    assert "trouble=" in skipped.getMessage()


def test_a_role_must_be_given() -> None:
    with pytest.raises(coord.BadArgument, match="role"):

        @leader_only  # type: ignore[arg-type]
        def forgot() -> None: ...


class Swallowing(MemoryStore):
    """A store behind a network that swallows packets, for as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.claims = 0

    async def claim(self, claim: Claim, timeout: float) -> Result:
        self.claims += 1
        await self._wait(timeout)
        return Failure(unknown=True, detail="no answer in time")

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        await self._wait(timeout)
        raise coord.StoreUnavailable("no answer in time")

    async def _wait(self, timeout: float) -> None:
        await asyncio.to_thread(self.answers.wait, timeout)


@pytest.mark.parametrize("scope", ["call", "process"])
@pytest.mark.parametrize("otherwise", ["skip", "raise", "wait"])
def test_a_store_that_swallows_packets_holds_a_call_up_for_its_timeout(
    scope: Any, otherwise: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = Swallowing()
    coordinator = Coordinator(store=store)
    # One attempt takes five minutes, so a call that does not wait for it is bounded.
    job = leader_only(
        "job", coordinator=coordinator, ttl=1800, scope=scope, otherwise=otherwise, timeout=0.2
    )(lambda: "ran")
    if otherwise == "skip":
        assert job() is None
        (record,) = [
            record for record in caplog.records if "leadership.skipped" in record.getMessage()
        ]
        assert "the store did not answer within 0.2 s" in record.getMessage()
        assert record.levelname == "WARNING"
    else:
        error = coord.NotLeader if otherwise == "raise" else coord.AcquireTimeout
        with pytest.raises(error, match=r"within 0\.[12]"):
            job()
    assert store.claims == 1
    store.answers.set()
    coordinator.close()


def test_a_coroutine_is_not_held_up_either() -> None:
    store = Swallowing()
    coordinator = Coordinator(store=store)

    @leader_only("job", coordinator=coordinator, ttl=1800, scope="call", timeout=0.2)
    async def job() -> str:
        return "ran"

    assert asyncio.run(job()) is None
    store.answers.set()
    coordinator.close()


def test_without_a_timeout_a_call_gives_a_silent_store_three_attempts() -> None:
    store = Swallowing()
    with Coordinator(store=store) as coordinator:
        job = leader_only("job", coordinator=coordinator, ttl=0.6, scope="call", otherwise="raise")
        with pytest.raises(coord.NotLeader, match="no answer in time"):
            job(lambda: None)()
    assert store.claims >= 1
