"""`coord.health`: a leader that looks alive and does nothing is reported as wedged; a standby and
an outage are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence

import pytest

import coord
from coord import (
    AsyncCoordinator,
    Coordinator,
    Health,
    HealthStatus,
    StoreUnavailable,
    leader_only,
)
from coord.core.operations import Claim, Failure, Renew, Result
from coord.election.elector import Elector
from coord.runtime.threads import Latch
from coord.stores.memory.store import MemoryStore
from tests.support.store_time import RealTime


class Moody(MemoryStore):
    down = swallows = False

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return (
            Failure(unknown=False, detail="is down")
            if self.down
            else await super().claim(claim, timeout)
        )

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        if self.swallows:
            await asyncio.sleep(timeout + 0.1)
            return [Failure(unknown=True, detail="no answer in time")] * len(renewals)
        if self.down:
            return [Failure(unknown=False, detail="is down")] * len(renewals)
        return await super().renew(renewals, timeout)


@pytest.fixture
def store(store_time: RealTime) -> Moody:
    return Moody(store_time.total)


@pytest.fixture
def c(store_time: RealTime, store: Moody) -> Iterator[Coordinator]:
    coordinator = store_time.coordinator(store=store)
    yield coordinator
    store.down = False
    coordinator.close()


Reported = Callable[[Coordinator, Callable[[Health], bool]], Health]


@pytest.fixture
def reported(store_time: RealTime) -> Reported:
    """A function that returns the first health of a coordinator that is as wanted."""

    def wait(c: Coordinator, what: Callable[[Health], bool]) -> Health:
        reports: list[Health] = []

        def look() -> bool:
            reports[:] = [coord.health(c)]
            return what(reports[0])

        store_time.until(look, reports)
        return reports[0]

    return wait


def wedged(health: Health) -> bool:
    return health.status is HealthStatus.WEDGED


def test_a_leader_a_standby_and_nobody(
    store_time: RealTime, c: Coordinator, store: Moody, reported: Reported
) -> None:
    assert coord.health(c).status is HealthStatus.IDLE
    rival = store_time.coordinator(store=store)
    with c.leadership("a", ttl=3) as lead:
        assert lead.wait(5)
        with rival.leadership("a", ttl=3):
            health = coord.health(c)
            assert (health.status, health.healthy, health.leads, health.problems) == (
                HealthStatus.OK,
                True,
                True,
                (),
            )
            (role,) = health.roles
            assert (role.role, role.leads, role.token, role.jobs, role.problems) == (
                "a",
                True,
                1,
                0,
                (),
            )
            assert 1.0 < role.remaining <= 3
            assert role.renewal_age is not None
            assert 0 <= role.renewal_age < 2
            assert health.loop_lag < 1
            standby = reported(rival, lambda report: report.status is HealthStatus.STANDBY)
            assert (standby.healthy, standby.leads) == (True, False)
            assert standby.roles[0].token is None
            assert standby.roles[0].remaining == 0
            assert standby.roles[0].renewal_age is None
            both = coord.health()
            assert both.status is HealthStatus.OK
            assert [role.role for role in both.roles].count("a") == 2
            reports = json.loads(json.dumps(both.as_dict()))
            assert (reports["status"], reports["healthy"], reports["leads"]) == ("ok", True, True)
    rival.close()
    assert coord.health(c).status is HealthStatus.IDLE


def test_a_job_without_progress_is_wedged_until_it_returns(
    store_time: RealTime, c: Coordinator, reported: Reported
) -> None:
    go_on, inside = Latch(), Latch()

    @leader_only("a", coordinator=c, ttl=1.2, at_most=0.4, otherwise="wait")
    def job() -> None:
        inside.set()
        go_on.wait(20)

    ended = store_time.start(job)
    assert inside.wait(5)
    assert coord.health(c).roles[0].jobs == 1
    assert coord.health(c).healthy
    health = reported(c, wedged)
    assert "a: a job under token 1 shows no progress and has not returned" in health.problems
    assert not health.healthy
    assert not health.leads
    store_time.sleep(0.5)
    assert wedged(coord.health(c))
    go_on.set()
    ended()
    assert reported(c, lambda report: report.leads).status is HealthStatus.OK


@pytest.mark.parametrize("kind", ["lost", "new_leader"])
def test_a_callback_that_is_stuck_is_wedged(
    store_time: RealTime, c: Coordinator, reported: Reported, kind: str
) -> None:
    go_on = Latch()

    def stuck(*_: object) -> None:
        go_on.wait(20)

    settings = {f"on_{kind}": stuck}
    with c.leadership("a", ttl=1, drain_timeout=0.3, **settings) as lead:
        assert lead.wait(5)
        if kind == "lost":
            assert coord.health(c).healthy
            store_time.start(lead.step_down)
        health = reported(c, wedged)
        assert any(
            "stuck has run for" in problem for problem in health.problems
        ) or "has not ended" in str(health)
        go_on.set()
        reported(c, lambda report: report.healthy)


def test_an_on_elected_may_take_its_time_while_the_term_stands(
    store_time: RealTime, c: Coordinator, reported: Reported
) -> None:
    go_on = Latch()
    with c.leadership(
        "a", ttl=1, drain_timeout=0.2, on_elected=lambda term: go_on.wait(20)
    ) as lead:
        assert lead.wait(5)
        store_time.sleep(0.5)
        assert coord.health(c).status is HealthStatus.OK
        store_time.start(lead.step_down)
        reported(c, wedged)
        go_on.set()
        reported(c, lambda report: report.healthy)


def test_a_loop_that_does_not_turn_is_wedged(
    store_time: RealTime, c: Coordinator, reported: Reported
) -> None:
    with c.leadership("a", ttl=5) as lead:
        assert lead.wait(5)
        store_time.freeze(c, 1.6)
        store_time.until(lambda: wedged(coord.health(c, max_lag=0.4)))
        report = coord.health(c, max_lag=0.4)
        assert report.loop_lag > 0.4
        assert "loop has not turned" in report.problems[-1]
        reported(c, lambda item: item.loop_lag < 0.4)


def test_an_outage_is_trouble_and_never_wedged(
    c: Coordinator, store: Moody, reported: Reported
) -> None:
    with c.leadership("a", ttl=3, renew_every=0.3, attempt_timeout=0.5) as lead:
        assert lead.wait(5)
        store.down = True
        statuses = set[HealthStatus]()

        def over(health: Health) -> bool:
            statuses.add(health.status)
            return not health.leads

        health = reported(c, over)
        assert statuses == {HealthStatus.OK, HealthStatus.TROUBLE}
        assert (health.status, health.problems) == (HealthStatus.TROUBLE, ())
        assert health.store_trouble == "is down"
        store.down = False
        assert reported(c, lambda report: report.leads).status is HealthStatus.OK


def test_a_store_that_swallows_requests_is_trouble(
    c: Coordinator, store: Moody, reported: Reported
) -> None:
    with c.leadership("a", ttl=3, renew_every=0.3, attempt_timeout=0.9) as lead:
        assert lead.wait(5)
        store.swallows = True
        health = reported(c, lambda health: health.status is not HealthStatus.OK)
        assert health.status is HealthStatus.TROUBLE
        assert health.problems == ()
        store.swallows = False


def test_a_leader_that_is_not_renewed_although_the_store_answers_is_wedged(
    c: Coordinator, reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    with c.leadership("a", ttl=6, renew_every=0.3, attempt_timeout=0.5) as lead:
        assert lead.wait(5)
        monkeypatch.setattr(Elector, "wake", lambda self: None)  # its timers are lost
        health = reported(c, wedged)
        assert health.problems[0].startswith("a: not renewed for")
        monkeypatch.undo()


def test_the_largest_lag_of_several_loops_counts(store_time: RealTime, c: Coordinator) -> None:
    others = [store_time.coordinator(f"memory://{n}") for n in range(3)]
    every = [others[0], c, *others[1:]]
    leads = [first.leadership(f"r{n}", ttl=30) for n, first in enumerate(every)]
    for lead in leads:
        lead.start()
        assert lead.wait(5)
    for late in every:
        store_time.freeze(late, 1.2)
        store_time.until(lambda: coord.health().loop_lag >= 0.4)
        assert coord.health(late).loop_lag >= 0.4
        store_time.until(lambda: coord.health().loop_lag < 0.4)
    for other in others:
        other.close()


def test_a_stalled_job_of_a_term_that_has_drained_is_not_wedged(
    store_time: RealTime, c: Coordinator, reported: Reported
) -> None:
    go_on, began = Latch(), Latch()

    @leader_only("a", coordinator=c, ttl=0.6, at_most=0.2)
    def stalls() -> None:
        began.set()
        go_on.wait(30)

    ended = store_time.start(stalls)
    assert began.wait(10)
    assert "shows no progress" in reported(c, wedged).problems[0]
    go_on.set()
    ended()
    # It rests for a ttl, and its last term is still the one that stalled.
    health = reported(c, lambda report: report.healthy)
    assert health.status is HealthStatus.STANDBY


def test_on_the_applications_own_loop(store_time: RealTime) -> None:
    async def main() -> None:
        store = MemoryStore(now=store_time.total)
        async with store_time.async_coordinator(store=store) as c:
            async with c.leadership("a", ttl=3) as lead:
                assert await lead.wait(2)
                assert coord.health(c).status is HealthStatus.OK
                store_time.block(1.2)
                assert wedged(coord.health(c, max_lag=0.3))
                await asyncio.sleep(0.6)
                assert coord.health(c, max_lag=0.3).healthy
            await asyncio.sleep(0.6)
            assert coord.health(c).loop_lag == 0

    store_time.run(main)


def test_a_candidate_of_a_call_is_none_once_its_loop_was_closed() -> None:
    coordinators: list[AsyncCoordinator] = []

    async def main() -> None:
        coordinator = AsyncCoordinator(store=(store := Moody()))
        coordinators.append(coordinator)
        await coordinator.unique_service("a", {"id": "x", "ttl": 60})
        store.down = True
        with pytest.raises(StoreUnavailable):
            await coordinator.unique_service("b", {"id": "x", "ttl": 60})
        health = coord.health(coordinator)
        assert (health.status, len(health.roles)) == (HealthStatus.TROUBLE, 2)

    asyncio.run(main())  # it ends without a `close`
    health = coord.health(coordinators[0])
    assert (health.status, health.roles) == (HealthStatus.IDLE, ())


def test_bad_arguments(c: Coordinator) -> None:
    with pytest.raises(coord.BadArgument, match="coordinator"):
        coord.health("sqlite:x")  # type: ignore[arg-type]
    with pytest.raises(coord.BadArgument, match="max_lag"):
        coord.health(c, max_lag=0)
