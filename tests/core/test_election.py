"""The rules of the core, in their order, as short stories of a single candidate; then the table of its
phases."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coord.core.actions import Done, Elected, InfoObserved, LeaderObserved, Lost, Send, Wait
from coord.core.election import Election
from coord.core.lease import MAX_TOKEN, Lease, LossReason, Revision
from coord.core.operations import Answer, Claim, Failure, Read, Release, Renew
from coord.core.phases import HOLDING, TRANSITIONS, Cue, ImpossibleCue, Phase
from coord.core.timing import Instant, Timing

TTL, MARGIN = 30.0, 3.0


def at(seconds: float, asleep: float = 0.0) -> Instant:
    """That many seconds after the start, of which some were slept through."""
    return Instant(seconds - asleep, seconds)


def candidate(**more: Any) -> Election:
    return Election("r", "me", Timing.of(TTL, margin=MARGIN), **more)


def lease(holder: str | None, token: int, beat: int, **more: Any) -> Lease:
    return Lease("r", holder, token, beat, **{"ttl": TTL, "remaining": TTL, **more})


def sent(election: Election, now: float, asleep: float = 0.0) -> Send:
    action = election.step(at(now, asleep))
    assert isinstance(action, Send), action
    return action


def waits(election: Election, now: float, asleep: float = 0.0) -> float:
    action = election.step(at(now, asleep))
    assert isinstance(action, Wait), action
    return action.seconds


def elected(token: int = 1, **more: Any) -> Election:
    """A candidate that asked at 0, was answered at 1, and leads until 27."""
    election = candidate(**more)
    send = sent(election, 0)
    election.reply(send, Answer(True, lease("me", token, send.operation.beat)), at(0), at(1))  # type: ignore[union-attr]
    assert [type(event) for event in election.take_events()] == [LeaderObserved, Elected]
    return election


def following(lease: Lease, now: float = 0, **more: Any) -> Election:
    election = candidate(**more)
    election.reply(sent(election, now), Answer(False, lease), at(now), at(now))
    election.take_events()
    assert election.phase is Phase.FOLLOWING
    return election


def refused(election: Election, now: float, row: Lease) -> None:
    election.reply(sent(election, now), Answer(False, row), at(now), at(now))


def test_a_first_claim_expects_nothing_and_takes_nothing_over() -> None:
    claim = sent(candidate(max_clock_skew=2.0), 0).operation
    assert isinstance(claim, Claim)
    assert (claim.expected, claim.takeover, claim.skew, claim.beat) == (None, False, 2.0, 1)


def test_the_answer_to_a_lost_first_claim_is_the_first_sight() -> None:
    election = following(lease("you", 7, 3), max_clock_skew=None)
    assert election.token_floor == 7
    assert waits(election, 0) == TTL


def test_a_later_claim_expects_what_was_seen() -> None:
    election = following(lease(None, 7, 3))
    claim = sent(election, 1).operation
    assert isinstance(claim, Claim)
    assert claim.expected == Revision(None, 7, 3)
    assert claim.floor == 7


def test_a_claim_that_was_asked_for_takes_nothing_over() -> None:
    election = following(lease("you", 7, 3), max_clock_skew=None)
    election.try_now()
    claim = sent(election, 1).operation
    assert isinstance(claim, Claim)
    assert not claim.takeover


def test_the_floor_stays_below_the_highest_token() -> None:
    assert following(lease("you", MAX_TOKEN, 1)).token_floor == MAX_TOKEN - 1


def test_a_leader_renews_after_renew_every_counted_from_the_request() -> None:
    election = elected()
    assert waits(election, 4) == 6
    assert sent(election, 10).operation == Renew("r", "me", 1, 2, TTL)


def test_a_renewal_that_was_refused_ends_the_term() -> None:
    election = elected()
    refused(election, 10, lease("you", 2, 1))
    assert Lost(1, LossReason.TAKEN) in election.take_events()
    assert not election.leads(at(10))


def test_no_renewal_is_sent_for_a_term_that_has_ended() -> None:
    election = elected()
    assert waits(election, 27) == math.inf  # not drained yet
    assert election.take_events() == (Lost(1, LossReason.EXPIRED),)


def test_a_lease_is_released_when_the_work_has_ended() -> None:
    election = elected()
    election.stop(at(2))
    assert election.take_events() == (Lost(1, LossReason.RELEASED),)
    assert not election.leads(at(2))
    assert waits(election, 2) == 8  # it still renews
    assert isinstance(sent(election, 10).operation, Renew)
    election.drained(at(11))
    election.reply(election.in_flight, Failure(unknown=True), at(10), at(12))  # type: ignore[arg-type]
    release = sent(election, 12)
    assert release.operation == Release("r", "me", 1, 3)
    election.reply(release, Answer(True, lease(None, 1, 3)), at(12), at(12))
    assert isinstance(election.step(at(12)), Done)
    assert election.phase is Phase.STOPPED


def test_work_that_will_not_end_lets_the_lease_run_out() -> None:
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN)
    election.abandon(at(3))
    assert election.phase is Phase.FOLLOWING
    assert waits(election, 3) == math.inf
    election.drained(at(50))
    assert isinstance(sent(election, 50).operation, Claim)


def test_nothing_is_claimed_before_the_work_has_ended() -> None:
    election = elected()
    refused(election, 10, lease(None, 2, 9))
    assert waits(election, 10) == math.inf
    election.drained(at(20))
    assert isinstance(sent(election, 20).operation, Claim)


def test_a_loss_is_reported_once_even_if_the_lease_is_taken_while_the_work_drains() -> None:
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN)
    refused(election, 10, lease("you", 2, 1))
    assert [event for event in election.take_events() if isinstance(event, Lost)] == [
        Lost(1, LossReason.STEPPED_DOWN)
    ]
    assert election.phase is Phase.FOLLOWING


def test_who_stepped_down_rests() -> None:
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN, rest=20)
    election.drained(at(2))
    election.reply(sent(election, 2), Answer(True, lease(None, 1, 2)), at(2), at(2))
    assert waits(election, 3) == 19
    assert isinstance(sent(election, 22).operation, Claim)


def test_a_lease_may_linger() -> None:
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN, linger=8)
    election.drained(at(4))
    assert sent(election, 4).operation == Release("r", "me", 1, 2, linger=6, reason="stepped_down")


def handing_over(to: str = "you") -> Election:
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN, to=to, by="ann")
    election.drained(at(4))
    return election


def test_a_role_is_handed_to_the_candidate_that_was_named_and_not_before_the_work_has_ended() -> (
    None
):
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN, to="you", by="ann")
    assert waits(election, 3) > 0
    election.drained(at(4))
    release = sent(election, 4).operation
    assert release == Release(
        "r", "me", 1, 2, linger=1.0, to="you", reason="stepped_down", by="ann"
    )


def test_who_hands_over_is_a_candidate_again_and_takes_the_role_that_nobody_claims() -> None:
    election = handing_over()
    election.reply(
        sent(election, 4), Answer(True, lease("you", 1, 0, ttl=10.0, remaining=10.0)), at(4), at(5)
    )
    assert not any(
        isinstance(event, LeaderObserved) and event.lease.token == 1
        for event in election.take_events()[2:]
    )
    assert waits(election, 6) > 0
    claim = sent(election, 15).operation
    assert isinstance(claim, Claim)
    assert claim.expected == Revision("you", 1, 0)


def test_a_role_is_not_handed_to_oneself() -> None:
    release = sent(handing_over(to="me"), 4).operation
    assert isinstance(release, Release)
    assert release.to is None


def test_the_next_loss_is_not_handed_to_the_one_named_before() -> None:
    election = handing_over()
    election.reply(sent(election, 4), Answer(True, lease("you", 1, 0, ttl=10.0)), at(4), at(5))
    claim = sent(election, 15)
    election.reply(claim, Answer(True, lease("me", 2, claim.operation.beat)), at(15), at(16))  # type: ignore[union-attr]
    election.stop(at(17))
    election.drained(at(17))
    release = sent(election, 17).operation
    assert isinstance(release, Release)
    assert (release.to, release.by, release.reason) == (None, "", "released")


def test_who_is_named_claims_at_once_under_a_new_token_and_whatever_it_rested_from() -> None:
    election = following(lease("you", 7, 3))
    election.resign(at(1), LossReason.STEPPED_DOWN, rest=500)
    election.hint(lease("me", 7, 0, ttl=10.0), at(3))
    claim = sent(election, 3).operation
    assert isinstance(claim, Claim)
    assert claim.expected == Revision("me", 7, 0)
    assert not claim.takeover
    assert not election.leads(at(3))


def test_a_claim_says_why_the_last_term_ended() -> None:
    election = elected()
    refused(election, 10, lease("you", 2, 1))
    election.drained(at(11))
    election.hint(lease(None, 2, 2), at(12))
    claim = sent(election, 12).operation
    assert isinstance(claim, Claim)
    assert claim.lost == (1, "taken")


def test_a_claim_that_came_through_when_nobody_wants_it_is_given_back_unbelieved() -> None:
    election = candidate()
    claim = sent(election, 0)
    election.stop(at(1))
    election.reply(claim, Answer(True, lease("me", 1, 1)), at(0), at(2))
    assert election.phase is Phase.RELEASING
    assert not election.leads(at(2))
    assert isinstance(sent(election, 2).operation, Release)
    assert [type(event) for event in election.take_events()] == [LeaderObserved]


def test_takeover_is_due_when_one_sight_was_seen_for_the_rows_whole_ttl() -> None:
    election = following(lease("you", 7, 3, ttl=12.0), max_clock_skew=None, takeover_delay=0.5)
    assert waits(election, 11.9) == pytest.approx(0.6)
    claim = sent(election, 12.5).operation
    assert isinstance(claim, Claim)
    assert claim.takeover
    assert claim.expected == Revision("you", 7, 3)


def test_the_count_starts_when_the_row_is_received_not_when_it_was_requested() -> None:
    election = candidate(max_clock_skew=None)
    election.reply(sent(election, 0), Answer(False, lease("you", 7, 3)), at(0), at(4))
    assert waits(election, 4) == TTL


def test_a_new_beat_starts_the_count_again() -> None:
    election = following(lease("you", 7, 3), max_clock_skew=None)
    election.hint(lease("you", 7, 4), at(29))
    assert waits(election, 31) == 28


def test_the_same_sight_again_does_not_start_it_again_nor_does_an_older_one() -> None:
    election = following(lease("you", 7, 3), max_clock_skew=None)
    election.hint(lease("you", 7, 3), at(10))
    election.hint(lease("you", 7, 2), at(11))
    election.hint(lease("them", 6, 9), at(12))
    assert waits(election, 12) == TTL - 12


def test_the_stores_clock_tells_when_to_ask_and_the_store_decides() -> None:
    election = following(lease("you", 7, 3, remaining=2.0), max_clock_skew=1.0)
    claim = sent(election, 3).operation
    assert isinstance(claim, Claim)
    assert (claim.takeover, claim.skew) == (False, 1.0)


def test_a_leader_counts_from_before_its_request() -> None:
    election = elected()  # asked at 0, answered at 1
    assert election.deadline == TTL - MARGIN
    assert election.leads(at(26.9))
    assert not election.leads(at(27))


def test_an_answer_that_comes_after_its_own_deadline_makes_no_leader() -> None:
    election = candidate()
    claim = sent(election, 0)
    election.reply(claim, Answer(True, lease("me", 1, 1)), at(0), at(27))
    assert election.phase is Phase.FOLLOWING
    assert isinstance(sent(election, 27).operation, Claim)  # again, for a new token


def test_the_deadline_never_moves_back() -> None:
    election = elected()
    renewal = sent(election, 10)
    election.reply(renewal, Answer(True, lease("me", 1, 2)), at(-5), at(11))
    assert election.deadline == 27


def test_a_passed_deadline_is_final() -> None:
    election = elected()
    sent(election, 26)
    election.reply(election.in_flight, Answer(True, lease("me", 1, 2)), at(26), at(27))  # type: ignore[arg-type]
    assert not election.leads(at(27))
    assert election.take_events() == (Lost(1, LossReason.EXPIRED),)
    assert election.phase is Phase.FOLLOWING


def test_no_request_of_a_leader_outlasts_its_deadline() -> None:
    assert sent(elected(), 25).timeout == 2


def test_a_term_that_was_reported_to_be_over_is_over() -> None:
    election = elected()
    election.expire_now(at(5))
    assert election.take_events() == (Lost(1, LossReason.EXPIRED),)
    assert not election.leads(at(5))


def test_a_leader_that_slept_past_its_deadline_has_lost() -> None:
    election = elected()
    assert election.leads(at(26, asleep=20))
    assert not election.leads(at(28, asleep=20))
    election.step(at(28, asleep=20))
    assert election.take_events() == (Lost(1, LossReason.SUSPENDED),)


def test_a_challenger_that_slept_has_not_waited() -> None:
    election = following(lease("you", 7, 3), max_clock_skew=None)
    assert waits(election, 100, asleep=95) == TTL - 5


def test_after_an_unknown_claim_comes_a_look_and_a_row_of_mine_is_claimed_again() -> None:
    election = candidate()
    election.reply(sent(election, 0), Failure(unknown=True), at(0), at(5), retry_in=1)
    assert waits(election, 5) == 1
    look = sent(election, 6)
    assert look.operation == Read("r")
    election.reply(look, Answer(False, lease("me", 1, 1)), at(6), at(6))
    assert not election.leads(at(6))
    claim = sent(election, 6).operation
    assert isinstance(claim, Claim)
    assert claim.expected == Revision("me", 1, 1)
    assert claim.beat == 2


def test_after_a_claim_that_failed_for_certain_comes_another() -> None:
    election = candidate()
    election.reply(sent(election, 0), Failure(unknown=False), at(0), at(1))
    assert isinstance(sent(election, 1).operation, Claim)


def test_a_late_answer_is_ignored() -> None:
    election = candidate()
    claim = sent(election, 0)
    election.reply(claim, Failure(unknown=True), at(0), at(5))
    election.reply(claim, Answer(True, lease("me", 1, 1)), at(0), at(6))
    assert election.phase is Phase.UNSEEN


def test_a_feed_that_says_that_i_hold_the_lease_is_not_believed() -> None:
    election = following(lease("you", 7, 3))
    election.hint(lease("me", 8, 1), at(1))
    assert not election.leads(at(1))
    assert isinstance(sent(election, 1).operation, Claim)


def test_a_feed_that_shows_a_newer_token_makes_a_leader_ask() -> None:
    election = elected()
    election.hint(lease("you", 2, 1), at(2))
    assert election.leads(at(2))
    assert isinstance(sent(election, 2).operation, Renew)


def test_a_stopped_candidate_reads_once_after_an_unknown_claim_and_releases_what_it_finds() -> None:
    election = candidate()
    claim = sent(election, 0)
    election.stop(at(1))
    election.reply(claim, Failure(unknown=True), at(0), at(5))
    election.reply(sent(election, 5), Answer(False, lease("me", 1, 1)), at(5), at(5))
    assert isinstance(sent(election, 5).operation, Release)
    other = candidate()
    other.reply(sent(other, 0), Failure(unknown=True), at(0), at(5))
    other.stop(at(5))
    other.reply(sent(other, 5), Failure(unknown=False), at(5), at(6))
    assert isinstance(other.step(at(6)), Done)


def test_every_attempt_has_a_beat_of_its_own() -> None:
    election = elected()
    beats = []
    for now in (10.0, 13.0, 16.0):
        renewal = sent(election, now)
        beats.append(renewal.operation.beat)  # type: ignore[union-attr]
        election.reply(renewal, Failure(unknown=True), at(now), at(now + 2))
    assert beats == [2, 3, 4]


def test_the_second_attempt_is_in_time_whatever_the_shell_asks() -> None:
    election = elected()
    election.reply(sent(election, 10), Failure(unknown=True), at(10), at(15), retry_in=60)
    assert waits(election, 15) == pytest.approx(1.5)


@pytest.mark.parametrize("phase", Phase)
def test_what_is_not_in_the_table_cannot_happen(phase: Phase) -> None:
    for cue in set(Cue) - set(TRANSITIONS[phase]):
        election = candidate()
        election.phase = phase
        with pytest.raises(ImpossibleCue, match=f"{cue.name} while {phase.name}"):
            election._go(cue)
        assert election.phase is phase


def test_only_leading_leads() -> None:
    election = candidate()
    election.deadline = math.inf
    for phase in Phase:
        election.phase = phase
        assert election.leads(at(0)) is (phase is Phase.LEADING)
    assert Phase.LEADING in HOLDING


def test_a_lease_that_is_left_to_run_out_is_remembered_so() -> None:
    election = elected()
    election.resign(at(2), LossReason.STEPPED_DOWN, to="you")
    election.abandon(at(3))
    election.drained(at(4))
    claim = sent(election, 40).operation
    assert isinstance(claim, Claim)
    assert claim.lost == (1, "expired")


@pytest.mark.parametrize(
    ("renew_every", "hold", "linger"), [(10, None, 1.0), (0.5, None, 0.5), (10, 7.0, 7.0)]
)
def test_a_role_is_reserved_for_a_second_at_most_unless_somebody_says_so(
    renew_every: float, hold: float | None, linger: float
) -> None:
    election = elected()
    election.timing = Timing.of(TTL, renew_every=renew_every)
    election.resign(at(5), LossReason.STEPPED_DOWN, to="b", hold=hold)
    election.drained(at(6))
    operation = sent(election, 6).operation
    assert isinstance(operation, Release)
    assert (operation.to, operation.linger) == ("b", linger)


def test_an_answer_is_no_news_where_a_feed_was_faster() -> None:
    """A follower was told an older info after a newer one, and an older leader after a newer."""
    election = following(lease("you", 1, 3, info={"n": 7}))
    election.try_now()
    claim = sent(election, 1)
    election.hint(lease("you", 1, 4, info={"n": 8}), at(2))
    assert [type(event) for event in election.take_events()] == [InfoObserved]
    election.reply(claim, Answer(False, lease("you", 1, 3, info={"n": 7})), at(1), at(3))
    assert election.take_events() == ()
    assert election.observed == lease("you", 1, 4)
    election.try_now()
    claim = sent(election, 4)
    election.hint(lease("she", 2, 1), at(5))
    election.reply(claim, Answer(False, lease("you", 1, 4)), at(4), at(6))
    assert election.take_events() == (LeaderObserved(lease("she", 2, 1)),)
    assert waits(election, 6) == TTL - 1  # counted from the row of the feed


def test_an_answer_counts_where_a_feed_had_shown_a_write_that_was_lost() -> None:
    election = following(lease("you", 1, 3))
    election.hint(lease("she", 2, 1), at(1))
    election.try_now()
    claim = sent(election, 2)
    election.reply(claim, Answer(False, lease("you", 1, 4)), at(2), at(3))
    assert election.observed == lease("you", 1, 4)


def test_a_look_is_no_news_where_a_feed_was_faster() -> None:
    election = following(lease("you", 1, 3), max_clock_skew=0.0)
    election.try_now()
    election.reply(sent(election, 1), Failure(unknown=True), at(1), at(2))
    look = sent(election, 3)
    assert isinstance(look.operation, Read)
    election.hint(lease("she", 2, 1), at(4))
    election.reply(look, Answer(False, lease("you", 1, 3)), at(3), at(5))
    assert election.observed == lease("she", 2, 1)
    assert isinstance(sent(election, 5 + TTL).operation, Claim)  # the unknown claim is settled
