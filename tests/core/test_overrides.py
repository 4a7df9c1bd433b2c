"""What operators do to a row, and how a candidate sees it (rule 11)."""

from __future__ import annotations

import pytest

from coord.core import swaps
from coord.core.actions import Lost
from coord.core.lease import MIN_TTL, PAUSED, REVOKED, LossReason
from coord.core.operations import Answer, Claim, Override, Read, Release, Renew
from coord.core.phases import Phase
from tests.core.test_election import TTL, at, elected, following, lease, sent, waits


@pytest.mark.parametrize(
    ("holder", "reason"), [(REVOKED, LossReason.EVICTED), (PAUSED, LossReason.PAUSED)]
)
def test_a_leader_learns_why_its_lease_is_gone(holder: str, reason: LossReason) -> None:
    election = elected()
    election.reply(sent(election, 10), Answer(False, lease(holder, 1, 99)), at(10), at(10))
    (lost,) = (event for event in election.take_events() if isinstance(event, Lost))
    assert (lost.token, lost.reason, election.phase) == (1, reason, Phase.FOLLOWING)


def test_a_leader_that_hears_of_an_override_asks_the_store_at_once() -> None:
    election = elected()
    election.hint(lease(REVOKED, 1, 99), at(5))
    assert isinstance(sent(election, 5).operation, Renew)


def test_an_override_of_an_earlier_term_does_not_end_a_later_one() -> None:
    election = elected(token=5)
    election.hint(lease(REVOKED, 4, 99), at(5))
    assert waits(election, 5) > 0
    election.reply(sent(election, 10), Answer(False, lease(REVOKED, 6, 99)), at(10), at(10))
    (lost,) = election.take_events()
    assert lost.reason is LossReason.TAKEN  # type: ignore[union-attr]


def test_a_revoked_lease_is_taken_when_it_was_watched_for_its_ttl() -> None:
    election = following(lease(REVOKED, 3, 99), max_clock_skew=None)
    assert waits(election, 0) == TTL
    operation = sent(election, TTL).operation
    assert isinstance(operation, Claim)
    assert (operation.expected, operation.takeover) == ((REVOKED, 3, 99), True)


def test_a_paused_role_is_read_once_a_ttl_and_never_claimed() -> None:
    election = following(lease(PAUSED, 3, 99, ttl=MIN_TTL, remaining=-1000.0))
    assert election.paused
    assert not election.claims_now(at(10_000))
    for turn in range(1, 4):
        now = turn * TTL
        assert waits(election, now - 1) == 1
        send = sent(election, now)
        assert isinstance(send.operation, Read)
        election.reply(send, Answer(False, lease(PAUSED, 3, 99, ttl=MIN_TTL)), at(now), at(now))
    assert election.take_events() == ()
    election.try_now()
    send = sent(election, 100)
    assert isinstance(send.operation, Read)
    resumed = lease(REVOKED, 3, 100, ttl=MIN_TTL, remaining=MIN_TTL)
    election.reply(send, Answer(False, resumed), at(100), at(100))
    assert not election.paused
    assert isinstance(sent(election, 100 + MIN_TTL).operation, Claim)


def test_a_feed_that_repeats_old_rows_does_not_hide_overrides() -> None:
    led, paused, vacant = lease("a", 3, 7), lease(PAUSED, 3, 50), lease(None, 3, 8)
    reserved, revoked = lease("b", 3, 0), lease(REVOKED, 3, 40)
    for before in (led, reserved):
        for after in (paused, revoked):
            assert before.older_than(after)
            assert not after.older_than(before)
    for override in (paused, revoked):
        assert not override.older_than(vacant)
        assert not override.older_than(lease(override.holder, 3, 99))
        assert override.older_than(lease("c", 4, 1))


def test_an_override_keeps_what_a_leader_may_rely_on() -> None:
    row = lease("a", 3, 7, remaining=12.0)
    revoked = swaps.override(row, Override("r", row.revision, REVOKED, 50, by="ann"), 1.0)
    assert revoked is not None
    assert (revoked.token, revoked.ttl, revoked.remaining) == (3, TTL, 12.0)
    assert swaps.renew(revoked, Renew("r", "a", 3, 8, TTL), 1.0) is None
    assert swaps.release(revoked, Release("r", "a", 3, 8), 1.0) is None
    late = Override("r", lease("a", 3, 6).revision, REVOKED, 51)
    assert swaps.override(row, late, 1.0) is None


def test_a_leader_that_is_asked_to_pause_releases_to_nobody() -> None:
    election = elected()
    election.resign(at(5), LossReason.PAUSED, to=PAUSED, by="ann")
    election.drained(at(6))
    operation = sent(election, 6).operation
    assert isinstance(operation, Release)
    assert (operation.to, operation.linger, operation.reason) == (PAUSED, MIN_TTL, "paused")
    paused = swaps.release(lease("me", 1, 1), operation, 6.0)
    assert paused is not None
    assert paused.paused
    assert [paused.reserved, paused.led, paused.vacant] == [False, False, False]
    assert swaps.claim(paused, Claim("r", "b", 1, TTL, takeover=True, skew=0.0), 9.0) is None
