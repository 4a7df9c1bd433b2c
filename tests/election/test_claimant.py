"""The candidates of `unique_service`: who they are, what they are told, how they end; most of it on
virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import coord
from coord import AsyncCoordinator, Coordinator, HealthStatus, StoreUnavailable
from coord.api.default import default
from coord.core.lease import LossReason
from coord.core.operations import Renew, Result
from coord.election.unique_service import MAX_WAITING, UniqueServices
from coord.stores.memory.store import MemoryStore
from coord.testing import Fault, FaultyStore
from coord.testing.clocks import Machine, run
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]
TTL = 30.0


class Scene:
    """Two coordinators on one store, as two processes would have, on virtual time."""

    def __init__(self, machine: Machine, skew: float | None = 0.0) -> None:
        def seconds() -> float:
            return machine.now().total

        self.machine = machine
        self.memory = MemoryStore(now=seconds, wall=lambda: 1e9 + seconds())
        self.memory.max_clock_skew = skew
        self.store = FaultyStore(self.memory)
        self.a = AsyncCoordinator(store=self.store, now=machine.now)
        self.b = AsyncCoordinator(store=self.memory, now=machine.now)


def on_virtual_time(
    test: Callable[[Scene], Coroutine[Any, Any, None]], skew: float | None = 0.0
) -> None:
    async def main(machine: Machine) -> None:
        await test(Scene(machine, skew))

    run(main)


def candidate(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "ttl": TTL, **more}


# Who a candidate is.


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"id": "a"}, {"id": "b"}),
        ({"id": "7"}, {"id": 7}),
        ({"node": "a"}, {"node": "b"}),
        ({}, {"node": "b"}),
        ({"id": "a"}, {"node": "a"}),
        ({"up": 1}, {"up": True}),
        ({"up": ["x"]}, {"up": ["y"]}),
        ({"up": {"x": 1}}, {"up": [["x", 1]]}),
        ({"pid": 1}, {"pid": 2}),
    ],
)
def test_two_candidates_of_one_coordinator_never_lead_both(
    coordinator: Coordinator, first: dict[str, Any], second: dict[str, Any]
) -> None:
    for _ in range(2):
        for fields, leads in ((first, True), (second, False)):
            record = coordinator.unique_service("r", {"ttl": 5, **fields})
            assert record is not None
            assert (record["mine"], record["token"]) == (leads, 1)
            assert {name: record[name] for name in first} == first, "the record is the holder's"
    looked = coordinator.unique_service("r")
    assert looked is not None
    assert looked["mine"] is False, "a call without a candidate is nobody's"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"id": "a", "load": 1}, {"id": "a", "load": 2}),
        ({"node": "a"}, {"node": "a"}),
        ({"node": "a", "id": None}, {"node": "a"}),
        ({"tags": ["x"]}, {"tags": ("x",)}),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({"node": "a"}, {"node": "a", "pid": os.getpid(), "host": os.uname().nodename}),
        ({"node": "a"}, {"node": "a", "role": "r"}),
        ({"load": 1}, {"load": 1.0}),
    ],
)
def test_these_are_one_candidate(
    coordinator: Coordinator, first: dict[str, Any], second: dict[str, Any]
) -> None:
    for fields in (first, second):
        record = coordinator.unique_service("r", {"ttl": 5, **fields})
        assert record is not None
        assert (record["mine"], record["token"]) == (True, 1)
    if "load" in second:
        assert record["load"] == second["load"]


def test_a_record_may_be_passed_back(coordinator: Coordinator) -> None:
    """doublethink completes the dict of its caller, who then passes it again and again."""
    for fields in ({"node": "a"}, {"id": "b", "node": "b"}):
        record = coordinator.unique_service("r", {"ttl": 5, **fields})
        for _ in range(3):
            assert record is not None
            assert record["mine"]
            record = coordinator.unique_service("r", record)
        assert coordinator.release("r")


def test_two_coordinators_with_equal_candidates_are_rivals(two: Two) -> None:
    for fields in ({"id": "same"}, {"node": "same"}):
        answer = [c.unique_service("r", {"ttl": 5, **fields}) for c in two]
        assert [record and record["mine"] for record in answer] == [True, False]
        assert two[0].release("r")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"role": "other"}, r"candidate\['role'\] 'other': must be 'r', or absent"),
        ({"id": ["x"]}, r"candidate\['id'\] \['x'\]: must be a string or an int"),
        ({"id": True}, r"candidate\['id'\] True: must be a string or an int"),
        ({"ttl": None}, r"candidate\['ttl'\]"),
    ],
)
def test_bad_candidates(bad: dict[str, Any], message: str) -> None:
    with Coordinator("memory://") as c, pytest.raises(coord.BadArgument, match=message):
        c.unique_service("r", {"ttl": 5, **bad})


# The record.


def test_the_record(two: Two) -> None:
    a, b = two
    first = a.unique_service("r", {"id": "a:1", "ttl": 5, "port": 1, "tags": [["x"]]})
    assert first is not None
    assert set(first) == {
        *("id", "role", "ttl", "host", "pid", "first_heartbeat", "last_heartbeat"),
        *("port", "tags", "token", "holder", "mine"),
    }
    assert (first["id"], first["role"], first["ttl"]) == ("a:1", "r", 5)
    assert (first["host"], first["pid"]) == (os.uname().nodename, os.getpid())
    assert first["first_heartbeat"] == first["last_heartbeat"]
    assert abs((datetime.now(timezone.utc) - first["last_heartbeat"]).total_seconds()) < 60
    first["tags"][0].append("y")
    kept = a.unique_service("r", {"id": "a:1", "ttl": 5, "port": 1, "tags": [["x"]]})
    assert kept is not None
    assert kept["tags"] == [["x"]]
    assert kept["first_heartbeat"] == first["first_heartbeat"] < kept["last_heartbeat"]
    for looked in (b.unique_service("r"), b.unique_service("r", {"id": "b", "ttl": 5})):
        assert looked == {**kept, "mine": False}, "field for field what the holder has"


def test_the_record_of_a_leadership(two: Two) -> None:
    with two[0].leadership("r", ttl=5, info={"node": "n"}) as lead:
        assert lead.wait(5)
        record = two[1].unique_service("r")
    assert record is not None
    assert (record["id"], record["node"], record["mine"]) == ("r", "n", False)
    assert {"host", "pid", "first_heartbeat", "last_heartbeat"} < set(record)


# Truth.


def test_a_stale_observation_is_followed_by_a_second_look() -> None:
    """b looked, a renewed once more and fell silent past its ttl: b's next call wins."""

    async def test(scene: Scene) -> None:
        assert await scene.a.unique_service("r", candidate("a"))
        denied = await scene.b.unique_service("r", candidate("b"))
        assert denied is not None
        assert not denied["mine"]
        await asyncio.sleep(20)
        assert await scene.a.unique_service("r", candidate("a"))
        await asyncio.sleep(TTL + 1)
        record = await scene.b.unique_service("r", candidate("b"))
        assert record is not None
        assert (record["mine"], record["token"]) == (True, 2)

    on_virtual_time(test)


@pytest.mark.parametrize("cause", ["released", "expired"])
def test_a_renewal_that_is_refused_is_followed_by_a_claim(cause: str) -> None:
    """Another led meanwhile, and has gone."""

    async def test(scene: Scene) -> None:
        a, b = scene.a, scene.b
        assert await a.unique_service("r", candidate("a"))
        scene.memory._rows.clear()  # an operator deleted the row
        record = await b.unique_service("r", {"id": "b", "ttl": 1})
        assert record is not None
        assert record["mine"]
        if cause == "released":
            assert await b.release("r")
        else:
            await asyncio.sleep(1.5)
        record = await a.unique_service("r", candidate("a"))
        assert record is not None
        assert record["mine"]
        assert record["token"] >= 2

    on_virtual_time(test)


@pytest.mark.parametrize("skew", [None, 60.0])
def test_none_means_that_it_could_not_get_the_role_now(skew: float | None) -> None:
    """Where the store's clock is not trusted, a candidate has to observe a whole ttl."""

    async def test(scene: Scene) -> None:
        assert await scene.a.unique_service("r", candidate("a"))
        await asyncio.sleep(TTL + 1)
        assert await scene.b.unique_service("r", candidate("b")) is None
        await asyncio.sleep(TTL - 1)
        assert await scene.b.unique_service("r", candidate("b")) is None
        await asyncio.sleep(1)
        record = await scene.b.unique_service("r", candidate("b"))
        assert record is not None
        assert record["mine"]

    on_virtual_time(test, skew)


@pytest.mark.parametrize("skew", [None, 60.0])
def test_new_candidates_take_over_by_what_earlier_ones_observed(skew: float | None) -> None:
    """Each call is another candidate, as in a process that has no id of its own."""

    async def test(scene: Scene) -> None:
        assert await scene.a.unique_service("r", candidate("a"))
        for second in range(35):
            record = await scene.b.unique_service("r", candidate(f"b{second}"))
            if record and record["mine"]:
                break
            await asyncio.sleep(1)
        assert TTL <= second <= TTL + 1

    on_virtual_time(test, skew)


def test_a_deadline_counts_from_the_sending() -> None:
    """The answer to a claim takes longer than the margin: the term ends before its lease does."""

    async def test(scene: Scene) -> None:
        scene.store.slow("claim", after=4.0)
        began = scene.machine.now().total
        record = await scene.a.unique_service("r", candidate("a"))
        assert record is not None
        assert record["mine"]
        (claimant,) = scene.a.session.members
        assert claimant.term.deadline < began + TTL  # type: ignore[attr-defined]
        scene.store.slow("renew", after=4.0)
        began = scene.machine.now().total
        assert await scene.a.unique_service("r", candidate("a"))
        assert claimant.term.deadline < began + TTL  # type: ignore[attr-defined]

    on_virtual_time(test)


def test_an_answer_that_comes_too_late_is_no_term(caplog: pytest.LogCaptureFixture) -> None:
    async def test(scene: Scene) -> None:
        a = scene.a
        assert await a.unique_service("r", {"id": "a", "ttl": 6})
        renew = scene.memory.renew

        async def stopped_meanwhile(*args: Any) -> Any:
            answer = await renew(*args)
            scene.machine.world.time += 10  # the process stands still before it reads the answer
            return answer

        scene.memory.renew = stopped_meanwhile  # type: ignore[method-assign]
        record = await a.unique_service("r", {"id": "a", "ttl": 6})
        assert record is not None
        assert (record["mine"], record["token"]) == (True, 2), (
            "the term was over, and another began"
        )

    with caplog.at_level(logging.INFO, logger="coord"):
        on_virtual_time(test)
    assert [line.split()[0] for line in caplog.messages] == [
        *("leadership.elected", "leadership.lost", "leadership.elected")
    ]


def test_a_process_that_stops_after_the_answer_does_not_lead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(scene: Scene) -> None:
        leave = UniqueServices._leave

        def stopped(self: UniqueServices, claimant: Any) -> bool:
            scene.machine.world.time += 10  # longer than the term
            return leave(self, claimant)

        assert (await scene.a.unique_service("r", {"id": "a", "ttl": 6}) or {})["mine"]
        monkeypatch.setattr(UniqueServices, "_leave", stopped)
        record = await scene.a.unique_service("r", {"id": "a", "ttl": 6})
        assert record is not None
        assert (record["mine"], record["token"]) == (False, 1)

    on_virtual_time(test)


# The end.


def test_a_role_is_given_back_without_closing(two: Two) -> None:
    a, b = two
    assert a.release("r") is False
    for _ in range(2):
        record = a.unique_service("r", {"id": "a", "ttl": 60})
        assert record is not None
        assert record["mine"]
        assert b.release("r") is False, "not its role"
        assert a.release("r", {"id": "other", "ttl": 60}) is False
        assert a.leader("r") is not None
        assert a.release("r", {"id": "a", "ttl": 60}) is True
        assert a.leader("r") is None
        assert a.release("r") is False
    assert [term.reason for term in a.history("r")] == ["released", "released"]
    answer = b.unique_service("r", {"id": "b", "ttl": 60})
    assert answer is not None
    assert (answer["mine"], answer["token"]) == (True, 3)


def test_a_block_releases_at_its_end(two: Two) -> None:
    a, b = two
    with a.releasing("r"):
        assert a.unique_service("r", {"id": "a", "ttl": 60})
    assert b.leader("r") is None

    def work() -> None:
        with a.releasing("r"):
            assert a.unique_service("r", {"id": "a", "ttl": 60})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert b.leader("r") is None
    with pytest.raises(coord.BadArgument), a.releasing(""):
        pytest.fail("the block began")


def test_a_block_releases_at_its_end_async(url: str) -> None:
    async def main() -> None:
        async with AsyncCoordinator(url) as c:
            async with c.releasing("r"):
                assert await c.unique_service("r", {"id": "a", "ttl": 60})
            assert await c.leader("r") is None
            with pytest.raises(ZeroDivisionError):
                await work(c)
            assert await c.leader("r") is None

    async def work(c: AsyncCoordinator) -> None:
        async with c.releasing("r"):
            assert await c.unique_service("r", {"id": "a", "ttl": 60})
            raise ZeroDivisionError

    asyncio.run(main())


def test_the_default_coordinator() -> None:
    with Coordinator("memory://") as c, default.replaced_by(c):
        with coord.releasing("r"):
            record = coord.unique_service("r", {"id": "a", "ttl": 60})
            assert record is not None
            assert record["mine"]
            assert c.leader("r") is not None
        assert coord.unique_service("r") is None
        assert coord.unique_service("r", {"id": "a", "ttl": 60})
        assert coord.release("r", {"id": "a", "ttl": 60}) is True


def test_release_is_repeated_until_the_timeout() -> None:
    async def test(scene: Scene) -> None:
        a = scene.a
        assert await a.unique_service("r", candidate("a"))
        scene.store.fail("release", Fault.UNKNOWN_NOT_DONE, times=3)
        assert await a.release("r") is True
        assert await scene.b.leader("r") is None
        assert await a.unique_service("r", candidate("a"))
        scene.store.fail("release", Fault.UNKNOWN_NOT_DONE, times=None)
        with pytest.raises(StoreUnavailable):
            await a.release("r")
        assert await scene.b.leader("r") is not None
        record = await a.unique_service("r", candidate("a"))
        assert record is not None
        assert not record["mine"], "it has given the role up, although the lease still runs"

    on_virtual_time(test)


def test_a_call_that_waits_while_its_candidate_is_released_claims_again() -> None:
    async def test(scene: Scene) -> None:
        a = scene.a
        assert await a.unique_service("r", candidate("a"))
        scene.store.slow("renew", after=1.0)
        first = asyncio.ensure_future(a.unique_service("r", candidate("a")))
        await asyncio.sleep(0.1)
        released = asyncio.ensure_future(a.release("r"))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(a.unique_service("r", candidate("a")))
        assert [record and record["token"] for record in (await first, await second)] == [1, 2]
        assert await released is True

    on_virtual_time(test)


def test_what_was_claimed_is_given_back_when_the_coordinator_closes() -> None:
    async def test(scene: Scene) -> None:
        assert await scene.a.unique_service("r", candidate("a"))
        scene.store.slow("claim", after=1.0)
        late = asyncio.ensure_future(scene.a.unique_service("other", candidate("a")))
        await asyncio.sleep(0.1)
        await scene.a.close()
        assert await scene.b.leaders() == []
        await late

    on_virtual_time(test)


# As other candidates are.


def test_a_candidate_that_waits_is_listed() -> None:
    async def test(scene: Scene) -> None:
        a, b = scene.a, scene.b
        assert await a.unique_service("r", candidate("a"))
        assert await b.unique_service("r", candidate("b", node="n"))
        await asyncio.sleep(5)
        (waiting,) = await a.candidates("r")
        assert (waiting.info["id"], waiting.info["node"]) == ("b", "n")
        await a.release("r")
        record = await b.unique_service("r", candidate("b"))
        assert record is not None
        assert record["holder"] == waiting.id
        await asyncio.sleep(5)
        assert await a.candidates("r") == [], "it leads"
        assert await a.unique_service("r", candidate("a"))
        await asyncio.sleep(TTL - 1)
        assert len(await b.candidates("r")) == 1
        await asyncio.sleep(5)
        assert await b.candidates("r") == [], "nobody has called for it for a ttl"

    on_virtual_time(test)


def test_it_steps_down_in_its_next_call() -> None:
    async def test(scene: Scene) -> None:
        a, b = scene.a, scene.b
        assert await a.unique_service("r", candidate("a"))
        await b.request_step_down("r", by="ops")
        await asyncio.sleep(1)
        assert await b.leader("r") is not None, "the work goes on until the next call"
        assert await a.unique_service("r", candidate("a")) is None
        assert await a.unique_service("r", candidate("a")) is None, "it rests"
        ended = (await b.history("r"))[0]
        assert (ended.reason, ended.by, ended.info["id"]) == ("stepped_down", "ops", "a")
        record = await b.unique_service("r", candidate("b"))
        assert record is not None
        assert record["mine"]
        denied = await a.unique_service("r", candidate("a"))
        assert denied is not None
        assert (denied["id"], denied["mine"]) == ("b", False)
        await b.release("r")
        await asyncio.sleep(TTL)
        record = await a.unique_service("r", candidate("a"))
        assert record is not None
        assert record["mine"]

    on_virtual_time(test)


def test_an_exception_leaves_the_term_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """A caller that leads goes on after an exception. So a call in which its term ends returns."""

    async def test(scene: Scene) -> None:
        a, b = scene.a, scene.b
        assert await a.unique_service("r", candidate("a"))
        (claimant,) = a.session.members
        scene.store.fail("renew", Fault.UNKNOWN_NOT_DONE)
        with pytest.raises(StoreUnavailable):
            await a.unique_service("r", candidate("a"))
        assert claimant.term.held  # type: ignore[attr-defined]
        await b.request_step_down("r")
        await asyncio.sleep(1)
        scene.store.down(Fault.UNKNOWN_DONE)
        assert await a.unique_service("r", candidate("a")) is None
        assert await b.leader("r") is None
        assert not claimant.term.held  # type: ignore[attr-defined]
        scene.store.heal()
        assert await a.unique_service("s", candidate("a"))
        scene.memory._rows.clear()  # an operator deleted the rows
        assert await b.unique_service("s", candidate("b"))
        scene.store.fail("claim", Fault.UNKNOWN_NOT_DONE)
        denied = await a.unique_service("s", candidate("a"))
        assert denied is not None
        assert (denied["id"], denied["mine"]) == ("b", False)

    with caplog.at_level(logging.WARNING, logger="coord"):
        on_virtual_time(test)
    assert "leadership.not_released role='r'" in caplog.text


def test_it_hands_the_role_to_a_candidate_that_is_named_by_its_id() -> None:
    async def test(scene: Scene) -> None:
        a, b = scene.a, scene.b
        assert await a.unique_service("r", candidate("a"))
        assert await b.unique_service("r", candidate("b"))
        assert await b.unique_service("r", candidate("c"))
        await asyncio.sleep(5)
        await b.request_transfer("r", "c")
        await asyncio.sleep(1)
        assert await a.unique_service("r", candidate("a")) is None
        assert await b.unique_service("r", candidate("b")) is None, "it is kept for c"
        record = await b.unique_service("r", candidate("c"))
        assert record is not None
        assert (record["id"], record["mine"]) == ("c", True)

    on_virtual_time(test)


def test_a_preferred_leadership_gets_the_role_after_the_minimum_tenure() -> None:
    async def test(scene: Scene) -> None:
        a = scene.a
        assert await a.unique_service("r", candidate("a"))
        async with scene.b.leadership("r", ttl=TTL, priority=1) as preferred:
            for _ in range(20):
                await asyncio.sleep(TTL / 3)
                record = await a.unique_service("r", candidate("a"))
                if not (record and record["mine"]):
                    break
            term = (await a.history("r"))[-1]
            assert term.until is not None
            assert 3 * TTL <= term.until - term.since <= 4 * TTL
            assert await preferred.wait(5)

    on_virtual_time(test)


def test_calls_that_come_together_do_not_renew_one_by_one() -> None:
    """The first renewal leaves at once. Those that come meanwhile share one request."""

    async def test(scene: Scene) -> None:
        sizes: list[int] = []

        class Counts(FaultyStore):
            async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
                sizes.append(len(renewals))
                await asyncio.sleep(0.01)
                return await super().renew(renewals, timeout)

        coordinator = AsyncCoordinator(store=Counts(scene.memory), now=scene.machine.now)
        roles = [f"r{number}" for number in range(9)]
        for expected in ([], [1, 8]):
            records = await asyncio.gather(
                *(coordinator.unique_service(role, candidate("b")) for role in roles)
            )
            assert all(record and record["mine"] for record in records)
            assert sizes == expected
        assert await coordinator.unique_service("r0", candidate("b"))
        assert sizes == [1, 8, 1]

    on_virtual_time(test)


def test_metrics() -> None:
    async def test(scene: Scene) -> None:
        registry = CollectorRegistry()
        coord.metrics.enable(registry)

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, labels)

        try:
            assert await scene.a.unique_service("r", candidate("a"))
            assert value("coord_is_leader", role="r") == 1
            assert value("coord_elections_total", role="r") == 1
            assert value("coord_fencing_token", role="r") == 1
            assert await scene.a.unique_service("r", candidate("a"))
            assert value("coord_renewal_seconds_count") == 1
            await asyncio.sleep(TTL)
            assert value("coord_is_leader", role="r") == 0
            assert value("coord_losses_total", role="r", reason="expired") == 1
            assert await scene.a.unique_service("r", candidate("a"))
            assert await scene.a.release("r")
            assert value("coord_losses_total", role="r", reason="released") == 1
        finally:
            coord.metrics.disable()

    on_virtual_time(test)


def test_health() -> None:
    async def test(scene: Scene) -> None:
        a = scene.a
        assert coord.health(a).status is HealthStatus.IDLE
        assert await a.unique_service("r", candidate("a"))
        await asyncio.sleep(5)
        report = coord.health(a)
        assert (report.status, report.leads) == (HealthStatus.OK, True)
        (role,) = report.roles
        assert (role.role, role.token, role.renewal_age) == ("r", 1, pytest.approx(5, abs=0.1))
        assert 20 < role.remaining < TTL
        await scene.b.unique_service("r", candidate("b"))
        assert coord.health(scene.b).status is HealthStatus.STANDBY
        await asyncio.sleep(20)
        assert coord.health(a).status is HealthStatus.OK, "its caller may call later than a loop"
        await asyncio.sleep(4)
        assert coord.health(a).status is HealthStatus.STANDBY, "its lease ran out"
        await asyncio.sleep(5)
        assert coord.health(a).status is HealthStatus.IDLE, "nobody has called for a ttl"
        scene.store.down(Fault.NOT_DONE)
        with pytest.raises(StoreUnavailable):
            await a.unique_service("r", candidate("a"))
        assert coord.health(a).status is HealthStatus.TROUBLE

    on_virtual_time(test)


def test_a_loss_is_reported_when_it_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def test(scene: Scene) -> None:
        assert await scene.a.unique_service("r", candidate("a"))
        (claimant,) = scene.a.session.members
        await asyncio.sleep(20)
        assert await scene.a.unique_service("r", candidate("a"))
        assert caplog.messages == []
        scene.machine.suspend(2 * TTL)
        await asyncio.sleep(2)
        assert claimant.term.reason is LossReason.SUSPENDED  # type: ignore[attr-defined]

    with caplog.at_level(logging.WARNING, logger="coord"):
        on_virtual_time(test)
    assert [line.split()[0] for line in caplog.messages] == ["leadership.lost"]


# What it costs.


def test_candidates_that_do_not_lead_are_few() -> None:
    async def test(scene: Scene) -> None:
        a, b = scene.a, scene.b
        for number in range(MAX_WAITING + 10):
            assert await a.unique_service(f"held {number}", {"id": "a", "ttl": TTL})
        grown = []
        for begin in (0, 200, 400):
            for number in range(begin, begin + 200):
                assert await b.unique_service("held 1", {"id": str(number), "ttl": TTL})
                assert await b.unique_service("held 2", {"number": number, "ttl": TTL})
                assert await b.unique_service(f"none {number}") is None
                role = f"held {number % (MAX_WAITING + 10)}"
                assert await b.unique_service(role, {"id": "b", "ttl": TTL})
            await asyncio.sleep(1)
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0])
        assert grown[2] - grown[1] < 150_000, grown
        assert len(b.session.members) <= MAX_WAITING
        assert len(a.session.members) == MAX_WAITING + 10, "leaders are never forgotten"
        await asyncio.sleep(3 * TTL)
        assert not a.session.members
        assert not b.session.members

    tracemalloc.start()
    try:
        on_virtual_time(test)
    finally:
        tracemalloc.stop()


def test_a_forked_child_has_none_of_its_parents_candidates(url: str) -> None:
    if url.startswith("memory"):
        pytest.skip("a forked child has another memory")
    with Coordinator(url) as c:
        parent = c.unique_service("r", {"id": "a", "ttl": 60})
        assert parent is not None
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                record = c.unique_service("r", {"id": "a", "ttl": 60}) or {}
                released = c.release("r")
                output = (
                    f"{record.get('mine')} {record.get('holder') == parent['holder']} {released}"
                )
                os.write(write, output.encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            assert answers.read() == "False True False"
        os.waitpid(child, 0)
        kept = c.unique_service("r", {"id": "a", "ttl": 60})
        assert kept is not None
        assert (kept["mine"], kept["token"]) == (True, 1)


def test_sigterm_gives_the_role_back(two: Two) -> None:
    """`Coordinator.unique_service` has the process release what it holds when it ends."""
    from coord.runtime import process

    assert two[0].unique_service("r", {"id": "a", "ttl": 60})
    assert two[0] in process._closed_at_exit
    two[0].close_quickly()
    eventually(lambda: two[1].leader("r") is None)
