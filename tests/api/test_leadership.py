"""`Leadership` from threads, on every store: who is told what, when, and on which thread."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

import coord
from coord import Coordinator, LossReason, Term
from coord.runtime.threads import Latch
from tests.support.store_time import RealTime
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]


def test_elected_and_lost_are_called_once_each_in_order_on_another_thread(
    store_time: RealTime, coordinator: Coordinator
) -> None:
    reports: list[tuple[Any, ...]] = []
    lead = coordinator.leadership(
        "r",
        ttl=1,
        on_elected=[
            lambda term: reports.append(("first", term.token)),
            lambda term: reports.append((threading.current_thread().name,)),
        ],
        on_lost=lambda term, why: reports.append(("lost", term.token, why)),
    )

    @lead.on_elected
    async def third(term: Term) -> None:
        current = coord.current_term()
        reports.append(("third", term.token, current is term))

    with lead:
        assert lead.wait(5)
        assert store_time.until(lambda: len(reports) == 3)
        store_time.sleep(0.8)  # renewals go by
        assert lead.is_leader
        assert lead.term.remaining > 0.1
    assert reports[0] == ("first", 1)
    assert reports[1][0].startswith("coord callbacks")
    assert reports[2:] == [("third", 1, True), ("lost", 1, LossReason.RELEASED)]
    assert not lead.is_leader
    with pytest.raises(coord.NotLeader):
        _ = lead.term


def test_a_standby_takes_over_at_once_with_a_higher_token(two: Two) -> None:
    a, b = (c.leadership("r", ttl=3) for c in two)
    with a:
        assert a.wait(5)
        first = a.term
        with b:
            assert not b.wait(0.3)
            a.stop()
            began = time.monotonic()
            assert b.wait(3)
            assert time.monotonic() - began < 1.0  # far below the ttl: it was told
            assert b.term.token == first.token + 1
            assert first.lost.wait(0)
            assert first.reason is LossReason.RELEASED
            with pytest.raises(coord.LeadershipLost, match="released"):
                first.check()


def test_new_leaders_are_reported(two: Two) -> None:
    reports: list[tuple[str, int]] = []
    a = two[0].leadership("r", ttl=2, info={"node": "a"})
    b = two[1].leadership(
        "r",
        ttl=2,
        on_new_leader=lambda lease: reports.append((lease.info.get("node"), lease.token)),
    )
    with a:
        assert a.wait(5)
        with b:
            assert eventually(lambda: ("a", 1) in reports)
            a.stop()
            assert b.wait(5)
            assert eventually(lambda: (None, 2) in reports)


def test_an_error_in_on_elected_ends_the_term_and_is_logged(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[LossReason] = []

    def broken(term: Term) -> None:
        raise RuntimeError("cannot start")

    lead = two[0].leadership(
        "r", ttl=2, on_elected=broken, on_lost=lambda term, why: lost.append(why)
    )
    with caplog.at_level(logging.ERROR, "coord"), lead:
        assert eventually(lambda: lost == [LossReason.CALLBACK_FAILED])
        assert eventually(lambda: two[1].leader("r") is None)
        assert lead.started  # the loop lives, and stands again after a rest
    record = next(r for r in caplog.records if "callback.failed" in r.getMessage())
    assert "token=1" in record.getMessage()
    assert "role='r'" in record.getMessage()
    assert record.exc_info is not None


def test_an_error_in_on_lost_or_on_new_leader_harms_nothing(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no")

    reports: list[str] = []
    lead = coordinator.leadership(
        "r",
        ttl=1,
        on_lost=[broken, lambda term, why: reports.append(str(why))],
        on_new_leader=broken,
    )
    with caplog.at_level(logging.CRITICAL, "coord"), lead:
        assert lead.wait(5)
        lead.step_down(cooldown=0)
        assert eventually(lambda: reports == ["stepped_down"])
        assert lead.wait(5)
        assert lead.term.token == 2


def test_acquire_and_release(two: Two) -> None:
    a, b = (c.leadership("r", ttl=2) for c in two)
    term = a.acquire(timeout=5)
    assert term is not None
    assert term.token == 1
    assert b.acquire(blocking=False) is None
    assert not b.started
    with pytest.raises(coord.AcquireTimeout, match=r"'r' within 0\.2 s"):
        b.acquire(timeout=0.2)
    a.release()
    second = b.acquire(timeout=5)
    assert second is not None
    assert second.token == 2
    assert two[0].leader("r").holder == second.holder  # type: ignore[union-attr]
    b.release()
    assert two[0].leader("r") is None


def test_run_gives_the_term_and_releases(two: Two) -> None:
    def job(word: str) -> tuple[str, int]:
        term = coord.current_term()
        assert term is not None
        return word, term.token

    assert two[0].leadership("r", ttl=2).run(job, "hello") == ("hello", 1)
    assert two[1].leader("r") is None
    assert coord.current_term() is None

    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        two[0].leadership("r", ttl=2).run(fails)
    assert two[1].leader("r") is None


def test_the_role_passes_on_only_when_the_work_has_ended(store_time: RealTime, two: Two) -> None:
    events: list[tuple[str, float]] = []

    def finish(term: Term, why: LossReason) -> None:
        store_time.sleep(1.0)
        events.append(("work ended", store_time.now()))

    a = two[0].leadership("r", ttl=2, on_lost=finish)
    b = two[1].leadership(
        "r", ttl=2, on_elected=lambda term: events.append(("elected", store_time.now()))
    )
    with a:
        assert a.wait(5)
        b.start()
        store_time.sleep(0.2)
        a.step_down()
        assert store_time.until(lambda: len(events) == 2)
        b.stop()
    assert [name for name, _ in events][:2] == ["work ended", "elected"]


def test_work_that_does_not_end_lets_the_lease_run_out(
    store_time: RealTime, two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    hang = Latch()
    a = two[0].leadership("r", ttl=1, drain_timeout=0.2, on_lost=lambda term, why: hang.wait(20))
    assert a.acquire(timeout=5)
    began = store_time.now()
    with caplog.at_level(logging.WARNING, "coord"):
        a.stop()
    assert store_time.now() - began < 2
    assert any("leadership.not_drained" in r.getMessage() for r in caplog.records)
    lease = two[1].leader("r")
    assert lease is None or lease.token == 1  # not released: it runs out
    with two[1].leadership("r", ttl=1) as b:
        assert b.wait(5)
        assert b.term.token == 2
    hang.set()


def test_a_callback_may_stop_its_own_leadership(coordinator: Coordinator) -> None:
    reasons: list[str] = []
    lead = coordinator.leadership("r", ttl=2, on_lost=lambda term, why: reasons.append(str(why)))

    @lead.on_elected
    def enough(term: Term) -> None:
        lead.stop()

    lead.start()
    assert eventually(lambda: not lead.started)
    assert eventually(lambda: reasons == ["released"])


def test_starting_twice_and_stopping_twice_is_fine_and_restart_is_a_new_candidate(
    coordinator: Coordinator,
) -> None:
    lead = coordinator.leadership("r", ttl=2)
    lead.start()
    lead.start()
    assert lead.wait(5)
    first = lead.term
    lead.stop()
    lead.stop()
    with lead:
        assert lead.wait(5)
        assert lead.term.token == first.token + 1
        assert lead.term.holder != first.holder


def test_roles_of_any_text(coordinator: Coordinator) -> None:
    for role in ["ünï çödé/☃", "quo\"te's", "a/b//c", "%s{x}", " ", "x" * 120, "📦" * 30]:
        with coordinator.leadership(role, ttl=2) as lead:
            assert lead.wait(5), role
            held = coordinator.leader(role)
            assert held is not None
            assert held.role == role
    assert coordinator.leaders() == []


def test_two_candidates_of_one_coordinator_are_rivals(coordinator: Coordinator) -> None:
    with coordinator.leadership("r", ttl=2) as a, coordinator.leadership("r", ttl=2) as b:
        assert eventually(lambda: a.is_leader or b.is_leader)
        time.sleep(0.2)
        assert a.is_leader != b.is_leader


def test_closing_a_coordinator_releases_everything(two: Two) -> None:
    leads = [two[0].leadership(f"r{n}", ttl=5) for n in range(20)]
    for lead in leads:
        lead.start()
    assert all(lead.wait(5) for lead in leads)
    assert len(two[1].leaders()) == 20
    two[0].close()
    assert two[1].leaders() == []
    assert not any(lead.is_leader for lead in leads)
