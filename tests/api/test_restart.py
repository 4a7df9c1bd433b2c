"""`start`, `stop` and `wait` in unusual orders: a candidate does what the last call said."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, LossReason, Term
from tests.support.waits import eventually


def test_start_after_a_stop_that_did_not_drain(coordinator: Coordinator) -> None:
    go_on, lost = threading.Event(), threading.Event()

    def on_lost(_: Term, __: LossReason) -> None:
        lost.set()
        go_on.wait(30)

    lead = coordinator.leadership("r", ttl=1, drain_timeout=0.1, on_lost=on_lost)
    lead.start()
    assert lead.wait(10)
    token = lead.term.token
    lead.stop()
    assert not lead.started
    assert lead.candidate is None
    lead.start()
    assert lead.started
    assert not lead.wait(0.3)  # its old work goes on (rule 3)
    go_on.set()
    assert lead.wait(20)
    assert lead.term.token > token
    lead.stop()


def test_start_during_a_stop(coordinator: Coordinator) -> None:
    draining, go_on = threading.Event(), threading.Event()

    def on_lost(_: Term, __: LossReason) -> None:
        draining.set()
        go_on.wait(30)

    lead = coordinator.leadership("r", ttl=2, drain_timeout=30, on_lost=on_lost)
    lead.start()
    assert lead.wait(10)
    stopping = threading.Thread(target=lead.stop)
    stopping.start()
    assert draining.wait(10)
    lead.start()
    assert lead.started
    stopping.join(0.2)
    assert stopping.is_alive()  # the work has not ended
    go_on.set()
    stopping.join(20)
    assert not stopping.is_alive()
    assert lead.wait(20)
    lead.stop()
    assert not lead.started


def test_start_in_on_lost(coordinator: Coordinator) -> None:
    tokens: list[int] = []
    lead = coordinator.leadership("r", ttl=2, on_elected=lambda term: tokens.append(term.token))

    @lead.on_lost
    def again(_: Term, __: LossReason) -> None:
        if len(tokens) < 3:
            lead.start()

    lead.start()
    for count in (1, 2):
        eventually(lambda count=count: len(tokens) == count)  # type: ignore[misc]
        lead.stop()
    eventually(lambda: len(tokens) == 3)
    lead.stop()
    assert not lead.started
    assert tokens == sorted(set(tokens))


def test_start_after_a_stop_that_was_cancelled() -> None:
    async def main() -> None:
        async with AsyncCoordinator("memory://") as c:
            go_on = asyncio.Event()

            async def on_lost(_: Term, __: LossReason) -> None:
                await go_on.wait()

            lead = c.leadership("r", ttl=2, drain_timeout=30, on_lost=on_lost)
            await lead.start()
            assert await lead.wait(10)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(lead.stop(), 0.05)
            await lead.start()
            assert lead.started
            go_on.set()
            assert await lead.wait(20)

    asyncio.run(main())


def test_stop_ends_the_wait_of_another_thread(coordinator: Coordinator) -> None:
    other = coordinator.leadership("r", ttl=5)
    assert other.acquire()
    lead, results = coordinator.leadership("r", ttl=5), list[bool]()
    lead.start()
    waiting = threading.Thread(target=lambda: results.append(lead.wait()))
    waiting.start()
    lead.stop()
    waiting.join(20)
    assert results == [False]


def test_wait_needs_a_start(coordinator: Coordinator) -> None:
    lead = coordinator.leadership("r", ttl=5)
    with pytest.raises(coord.CoordError, match=r"cannot wait for the role 'r': .* call start\(\)"):
        lead.wait(1)
    lead.start()
    assert lead.wait(10)
    lead.stop()
    assert not lead.wait(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_has_not_started_what_its_parent_started(coordinator: Coordinator) -> None:
    lead = coordinator.leadership("r", ttl=5)
    lead.start()
    assert lead.wait(10)
    pid = os.fork()
    if pid == 0:
        try:
            lead.wait(1)
        except coord.CoordError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_on_elected_that_is_added_while_leading_is_called(coordinator: Coordinator) -> None:
    calls: list[str] = []
    lead = coordinator.leadership("r", ttl=5, on_elected=lambda _: calls.append("first"))
    lead.on_elected(lambda _: calls.append("second"))
    lead.start()
    assert lead.wait(10)
    lead.on_elected(lambda term: calls.append(f"third {term.token}"))
    eventually(lambda: calls == ["first", "second", "third 1"])
    lead.stop()
    lead.on_elected(lambda _: calls.append("fourth"))
    assert len(calls) == 3
    lead.start()
    assert lead.wait(10)
    eventually(lambda: calls[3:] == ["first", "second", "third 2", "fourth"])
    lead.stop()


def test_the_first_on_elected_that_is_added_while_leading_is_called(
    coordinator: Coordinator,
) -> None:
    lead, terms = coordinator.leadership("r", ttl=5), list[Term]()
    lead.start()
    assert lead.wait(10)
    lead.on_elected(terms.append)
    eventually(lambda: terms == [lead.term])

    @lead.on_elected
    def fails(_: Term) -> None:
        raise ValueError("the term is resigned")

    term = terms[0]
    eventually(lambda: term.reason is LossReason.CALLBACK_FAILED)
    lead.stop()


def test_on_elected_that_is_added_on_a_loop_is_called() -> None:
    async def main() -> None:
        async with AsyncCoordinator("memory://") as c, c.leadership("r", ttl=5) as lead:
            assert await lead.wait(10)
            called = asyncio.get_running_loop().create_future()
            lead.on_elected(called.set_result)
            assert await asyncio.wait_for(called, 10) is lead.term

    asyncio.run(main())
