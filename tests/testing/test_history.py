"""The history checker refuses what is wrong, each for the right reason, and accepts what is
right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coord.core.lease import PAUSED, REVOKED
from coord.testing.history import History, judge
from coord.testing.history.checkers import BadHistory
from coord.testing.history.events import Event, MalformedHistory
from coord.testing.history.linearizability import Undecided, unexplained
from coord.testing.history.registers import LeaseRegister

Row = list[Any]
NONE: Row = [None, 0, 0]


class Tale:
    """Writes a history by hand: `at` moves time on, one operation a line."""

    def __init__(self) -> None:
        self.time = 0.0
        ticks = itertools.count()
        self.history = History(now=lambda: self.time + next(ticks) * 1e-6)

    def at(self, time: float) -> Tale:
        self.time = time
        return self

    def does(self, process: str, action: str, role: str = "r", **value: Any) -> tuple[str, int]:
        return self.history.invoke(process, action, role, **value)

    def claim(
        self,
        who: str,
        row: Row | None,
        token_row: Row,
        applied: bool = True,
        skew: float | None = 0.0,
    ) -> None:
        key = self.does(
            who, "claim", holder=who, beat=token_row[2], expected=row, skew=skew, floor=0
        )
        self.history.ok(key, applied=applied, row=token_row)

    def ask_claim(
        self, who: str, beat: int, row: Row | None = None, skew: float | None = 0.0
    ) -> tuple[str, int]:
        return self.does(who, "claim", holder=who, beat=beat, expected=row, skew=skew, floor=0)

    def renew(self, who: str, token: int, beat: int, row: Row, applied: bool = True) -> None:
        self.history.ok(
            self.does(who, "renew", holder=who, token=token, beat=beat), applied=applied, row=row
        )

    def release(self, who: str, token: int, beat: int, row: Row, applied: bool = True) -> None:
        self.history.ok(
            self.does(who, "release", holder=who, token=token, beat=beat), applied=applied, row=row
        )

    def hand_over(self, who: str, token: int, beat: int, to: str, row: Row) -> None:
        key = self.does(who, "release", holder=who, token=token, beat=beat, linger=0.5, to=to)
        self.history.ok(key, applied=True, row=row)

    def override(self, expected: Row, row: Row, applied: bool = True) -> None:
        key = self.does("op", "override", expected=expected, holder=row[0], beat=row[2])
        self.history.ok(key, applied=applied, row=row)

    def retire(self, expected: Row, applied: bool = True) -> None:
        self.history.ok(self.does("op", "retire", expected=expected), applied=applied)

    def read(self, who: str, row: Row) -> None:
        self.history.ok(self.does(who, "read"), row=row)

    def write(self, who: str, token: int, accepted: bool) -> None:
        self.history.ok(self.does(who, "write", "file", token=token), accepted=accepted)

    def look(self, who: str, token: int | None) -> None:
        self.history.ok(self.does(who, "held"), token=token)


Script = Callable[[Tale], None]
GOOD: dict[str, Script] = {}
BAD: dict[str, tuple[str, Script]] = {}


def good(script: Script) -> Script:
    GOOD[script.__name__] = script
    return script


def bad(rule: str) -> Callable[[Script], Script]:
    def keep(script: Script) -> Script:
        BAD[script.__name__] = (rule, script)
        return script

    return keep


@good
def nothing_at_all(t: Tale) -> None:
    """An empty history."""


@good
def a_whole_life(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    first = t.does("a", "believe", token=1)
    t.renew("a", 1, 2, ["a", 1, 2])
    t.claim("b", None, ["a", 1, 2], applied=False)
    t.write("a", 1, True)
    t.at(1).history.ok(first)
    t.release("a", 1, 3, [None, 1, 3])
    t.claim("b", [None, 1, 3], ["b", 2, 2])
    t.does("b", "believe", token=2)  # to the end
    t.write("b", 2, True)
    t.write("a", 1, False)


@good
def an_acknowledged_release_is_lost(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.does("store", "lose", released=[None, 1, 2], row=["a", 1, 1])
    t.read("b", [None, 1, 2])
    t.claim("b", None, ["a", 1, 1], applied=False)
    t.claim("b", None, ["b", 2, 1])


@good
def a_leader_is_evicted_and_a_role_paused_and_resumed(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.override(["a", 1, 1], [REVOKED, 1, 7])
    t.renew("a", 1, 2, [REVOKED, 1, 7], applied=False)
    t.claim("b", [REVOKED, 1, 7], ["b", 2, 1])
    t.override(["b", 2, 1], [PAUSED, 2, 3])
    t.claim("a", [PAUSED, 2, 3], [PAUSED, 2, 3], applied=False)
    t.override([PAUSED, 2, 3], [REVOKED, 2, 2])
    t.claim("a", [REVOKED, 2, 2], ["a", 3, 9])


@good
def an_unknown_eviction_that_is_done_later(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.history.unknown(t.does("op", "override", expected=["a", 1, 2], holder=REVOKED, beat=5))
    t.renew("a", 1, 2, ["a", 1, 2])
    t.read("b", [REVOKED, 1, 5])


@good
def a_role_is_retired_and_its_tokens_go_on(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.retire([None, 1, 2])
    t.read("b", NONE)
    t.retire([None, 1, 2], applied=False)
    t.claim("b", NONE, ["b", 5, 1])  # the floor of its prefix


@good
def a_first_token_is_above_those_of_retired_roles(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.retire([None, 1, 2])
    key = t.does("b", "claim", "r2", holder="b", beat=1, expected=None, skew=0.0, floor=0)
    t.history.ok(key, applied=True, row=["b", 2, 1])


@good
def an_unknown_claim_of_a_missing_row_after_it_was_retired(t: Tale) -> None:
    t.history.unknown(t.ask_claim("c", 1, NONE))
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.retire([None, 1, 2])
    t.read("b", ["c", 2, 1])


@good
def an_unknown_claim_that_was_done(t: Tale) -> None:
    t.history.unknown(t.ask_claim("a", 1))
    t.read("a", ["a", 1, 1])


@good
def an_unknown_claim_that_was_not_done(t: Tale) -> None:
    t.history.unknown(t.ask_claim("a", 1))
    t.read("a", NONE)
    t.claim("b", NONE, ["b", 1, 1])


@good
def an_unknown_claim_that_is_done_much_later(t: Tale) -> None:
    t.history.unknown(t.ask_claim("a", 1))
    t.read("b", NONE)
    t.at(50).claim("b", NONE, ["b", 1, 1])
    t.release("b", 1, 2, [None, 1, 2])
    t.at(99).read("b", ["a", 2, 1])


@good
def a_request_without_an_outcome_that_was_done(t: Tale) -> None:
    t.ask_claim("a", 1)
    t.read("b", ["a", 1, 1])


@good
def an_unknown_renewal_between_two_reads(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.history.unknown(t.does("a", "renew", holder="a", token=1, beat=2))
    t.read("b", ["a", 1, 1])
    t.read("b", ["a", 1, 2])


@good
def two_claims_at_once_in_either_order(t: Tale) -> None:
    first, two = t.ask_claim("a", 1), t.ask_claim("b", 1, skew=None)
    t.history.ok(first, applied=False, row=["b", 1, 1])
    t.history.ok(two, applied=True, row=["b", 1, 1])


@good
def one_process_leads_two_roles(t: Tale) -> None:
    t.does("a", "believe", "r", token=1)
    t.does("a", "believe", "s", token=7)


@good
def belief_that_ends_where_the_next_begins(t: Tale) -> None:
    key = t.does("a", "believe", token=1)
    t.at(5).history.ok(key)
    t.does("b", "believe", token=2)


@good
def a_leader_that_was_killed(t: Tale) -> None:
    t.at(2).history.unknown(t.does("a", "believe", token=1))
    t.at(3).does("b", "believe", token=2)


@good
def looks_that_do_not_prove_an_overlap(t: Tale) -> None:
    slow = t.does("a", "held")
    t.at(5).look("b", 2)
    t.at(6).look("b", 2)
    t.at(7).history.ok(slow, token=1)  # it may have believed at any one moment from 0 to 7


@good
def a_deletion_by_hand(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.history.ok(t.does("operator", "put", row=None))
    t.claim("a", NONE, ["a", 1, 2])


@good
def handed_over_and_claimed(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.at(1).history.ok(t.does("a", "believe", token=1))
    t.at(2).hand_over("a", 1, 2, "b", ["b", 1, 0])
    t.claim("b", ["b", 1, 0], ["b", 2, 7])
    t.at(3).history.ok(t.does("b", "believe", token=2))


@good
def handed_over_to_one_that_is_late(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.hand_over("a", 1, 2, "b", ["b", 1, 0])
    t.at(1).claim("c", ["b", 1, 0], ["c", 2, 1])
    t.claim("b", ["b", 1, 0], ["c", 2, 1], applied=False)


@good
def handed_over_to_one_that_gives_it_back(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.hand_over("a", 1, 5, "b", ["b", 1, 0])
    t.release("b", 1, 3, [None, 1, 3])
    t.claim("c", [None, 1, 3], ["c", 2, 1])


@good
def a_claim_of_what_a_feed_showed_too_early(t: Tale) -> None:
    """The hand-over was shown before it was done; then a renewal got in first, and the claim
    last."""
    t.claim("a", None, ["a", 1, 1])
    t.history.unknown(t.ask_claim("b", 1, ["b", 1, 0]))
    t.renew("a", 1, 2, ["a", 1, 2])
    t.hand_over("a", 1, 3, "b", ["b", 1, 0])
    t.at(9).read("c", ["b", 2, 1])


@good
def an_unknown_write_at_the_resource(t: Tale) -> None:
    t.history.unknown(t.does("b", "write", "file", token=2))
    t.write("a", 1, True)
    t.write("a", 1, False)  # now it has arrived


@bad("exclusion")
def two_believe_at_once(t: Tale) -> None:
    first = t.does("a", "believe", token=1)
    two = t.at(4.9).does("b", "believe", token=2)
    t.at(5).history.ok(first)
    t.at(9).history.ok(two)


@bad("exclusion")
def a_short_term_within_a_long_one(t: Tale) -> None:
    t.does("a", "believe", token=1)
    t.at(1).history.ok(t.does("b", "believe", token=2))
    two = t.at(2).does("c", "believe", token=3)
    t.at(3).history.ok(two)


@bad("exclusion")
def two_believe_to_the_end(t: Tale) -> None:
    t.does("a", "believe", token=1)
    t.at(1).does("b", "believe", token=2)
    t.at(2).read("c", NONE)


@bad("exclusion")
def looks_that_prove_an_overlap(t: Tale) -> None:
    t.look("a", 1)
    t.at(1).look("b", 2)
    t.at(2).look("b", 2)
    t.at(3).look("a", 1)


@bad("exclusion")
def one_process_with_two_terms_at_once(t: Tale) -> None:
    t.does("a", "believe", token=1)
    t.at(1).does("a", "believe", token=2)
    t.at(2).read("c", NONE)


@bad("tokens")
def a_token_for_two_holders(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.claim("b", None, ["b", 1, 1])


@bad("tokens")
def a_later_term_with_a_lower_token(t: Tale) -> None:
    t.at(1).history.ok(t.does("a", "believe", token=5))
    t.at(2).history.ok(t.does("b", "believe", token=4))


@bad("tokens")
def two_terms_with_one_token(t: Tale) -> None:
    t.at(1).history.ok(t.does("a", "believe", token=5))
    t.at(2).history.ok(t.does("a", "believe", token=5))


@bad("tokens")
def a_token_that_falls_in_reads(t: Tale) -> None:
    t.read("a", [None, 5, 5])
    t.read("a", [None, 4, 4])


@bad("tokens")
def a_single_look_at_a_later_term_with_a_lower_token(t: Tale) -> None:
    t.look("a", 2)
    t.at(1).look("b", 1)


@bad("linearizability")
def a_stale_read(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.renew("a", 1, 2, ["a", 1, 2])
    t.read("b", ["a", 1, 1])


@bad("linearizability")
def a_claim_against_what_is_no_more(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.renew("a", 1, 2, ["a", 1, 2])
    t.claim("b", ["a", 1, 1], ["b", 2, 1])


@bad("linearizability")
def a_claim_of_what_is_held_without_any_ground(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.claim("b", None, ["b", 2, 1], skew=None)


@bad("linearizability")
def a_claim_that_skips_a_token(t: Tale) -> None:
    t.claim("a", None, ["a", 2, 1])


@bad("linearizability")
def a_claim_that_is_refused_though_nobody_leads(t: Tale) -> None:
    t.claim("a", None, NONE, applied=False)


@bad("linearizability")
def a_renewal_that_revives(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.renew("a", 1, 3, ["a", 1, 3])


@bad("linearizability")
def a_release_of_anothers_lease(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("b", 1, 2, [None, 1, 2])


@bad("linearizability")
def a_release_that_forgets_the_token(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, NONE)


@bad("tokens")
def leads_in_a_row_that_was_handed_over(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.history.ok(t.does("a", "believe", token=1))
    t.at(1).hand_over("a", 1, 2, "b", ["b", 1, 0])
    t.at(2).does("b", "believe", token=1)


@bad("linearizability")
def renews_a_row_that_was_handed_over(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.hand_over("a", 1, 2, "b", ["b", 1, 0])
    t.renew("a", 1, 3, ["a", 1, 3])


@bad("linearizability")
def hands_over_what_another_has(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.hand_over("c", 1, 2, "b", ["b", 1, 0])


@bad("linearizability")
def hands_over_and_keeps_the_beat(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.hand_over("a", 1, 2, "b", ["b", 1, 2])


@bad("linearizability")
def is_handed_over_twice(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.history.unknown(t.does("a", "release", holder="a", token=1, beat=2, linger=0.5, to="b"))
    t.read("c", ["b", 1, 0])
    t.claim("b", ["b", 1, 0], ["b", 2, 1])
    t.read("c", ["b", 2, 0])


@bad("linearizability")
def a_late_renewal_that_takes_effect_twice(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.history.unknown(t.does("a", "renew", holder="a", token=1, beat=2))
    t.read("b", ["a", 1, 2])
    t.renew("a", 1, 3, ["a", 1, 3])
    t.read("b", ["a", 1, 2])


@bad("linearizability")
def an_effect_of_what_was_surely_not_done(t: Tale) -> None:
    t.history.fail(t.ask_claim("a", 1))
    t.read("b", ["a", 1, 1])


@bad("linearizability")
def an_effect_before_its_cause(t: Tale) -> None:
    t.read("b", ["a", 1, 1])
    t.claim("a", None, ["a", 1, 1])


@bad("linearizability")
def an_unknown_claim_seen_and_unseen(t: Tale) -> None:
    t.history.unknown(t.ask_claim("a", 1))
    t.read("b", ["a", 1, 1])
    t.read("b", NONE)


@bad("linearizability")
def both_of_two_claims_against_one_sight(t: Tale) -> None:
    first, two = t.ask_claim("a", 1, NONE), t.ask_claim("b", 1, NONE)
    t.history.ok(first, applied=True, row=["a", 1, 1])
    t.history.ok(two, applied=True, row=["b", 2, 1])


@bad("linearizability")
def a_release_is_lost_after_the_next_claim(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.does("store", "lose", released=[None, 1, 2], row=["a", 1, 1])
    t.claim("b", None, ["b", 2, 1])
    t.read("c", ["a", 1, 1])


@bad("linearizability")
def a_release_is_lost_that_may_not_be(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.read("b", ["a", 1, 1])


@bad("linearizability")
def an_evicted_leader_renews(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.override(["a", 1, 1], [REVOKED, 1, 7])
    t.renew("a", 1, 2, ["a", 1, 2])


@bad("linearizability")
def a_paused_role_is_claimed(t: Tale) -> None:
    t.override(NONE, [PAUSED, 0, 7])
    t.claim("a", [PAUSED, 0, 7], ["a", 1, 1])


@bad("linearizability")
def an_eviction_of_another_term(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.claim("b", None, ["b", 2, 1])
    t.override(["a", 1, 1], [REVOKED, 2, 7])


@bad("exclusion")
def an_eviction_that_passes_the_role_on_at_once(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.does("a", "believe", token=1)  # to the end: its lease has not run out
    t.at(1).override(["a", 1, 1], [REVOKED, 1, 7])
    t.claim("b", [REVOKED, 1, 7], ["b", 2, 1])
    t.at(2).does("b", "believe", token=2)
    t.at(3).read("c", ["b", 2, 1])


@bad("linearizability")
def a_role_is_retired_while_it_is_held(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.retire(["a", 1, 1])


@bad("tokens")
def a_token_comes_twice_after_the_role_was_retired(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.retire([None, 1, 2])
    t.claim("b", NONE, ["b", 1, 1])


@bad("linearizability")
def a_token_is_raised_though_the_row_was_not_missing(t: Tale) -> None:
    t.claim("a", None, ["a", 1, 1])
    t.release("a", 1, 2, [None, 1, 2])
    t.retire([None, 1, 2])
    t.claim("b", NONE, ["b", 5, 1])
    t.release("b", 5, 2, [None, 5, 2])
    t.claim("c", None, ["c", 9, 1])


@bad("fencing")
def an_old_token_is_let_in(t: Tale) -> None:
    t.write("b", 2, True)
    t.write("a", 1, True)


@bad("fencing")
def the_newest_token_is_kept_out(t: Tale) -> None:
    t.write("a", 1, True)
    t.write("b", 2, False)


def history_of(script: Script) -> History:
    tale = Tale()
    script(tale)
    return tale.history


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    history_of(GOOD[name]).verify()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused_for_the_right_reason(name: str) -> None:
    rule, script = BAD[name]
    history = history_of(script)
    violations = judge(history)
    assert rule in {row.rule for row in violations}
    # Nothing but what follows from the same fault: a token that falls has no order either, and the
    # other way round.
    alike = {"linearizability", "tokens"}
    assert {row.rule for row in violations} <= (alike if rule in alike else {rule})
    with pytest.raises(BadHistory, match=rule):
        history.verify()


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_files_say_the_same(name: str, tmp_path: Path) -> None:
    history = history_of(GOOD[name] if name in GOOD else BAD[name][1])
    history.write(tmp_path / "h.jsonl")
    again = History.read(tmp_path / "h.jsonl")
    assert again.events == history.events
    assert [str(item) for item in judge(again)] == [str(item) for item in judge(history)]


def test_files_of_several_processes_are_put_together_by_time(tmp_path: Path) -> None:
    first, two = Tale(), Tale()
    first.at(0).claim("a", None, ["a", 1, 1])
    first.at(2).renew("a", 1, 2, ["a", 1, 2])
    two.at(1).read("b", ["a", 1, 1])
    two.at(3).read("b", ["a", 1, 1])
    first.history.write(tmp_path / "1")
    two.history.write(tmp_path / "2")
    assert [v.rule for v in judge(History.read(tmp_path / "1", tmp_path / "2"))] == [
        "linearizability"
    ]
    assert judge(History.read(tmp_path / "1")) == []


@pytest.mark.parametrize(
    "events",
    [
        [Event("ok", 0, "a", 1, "read", "r", {"row": NONE})],
        [Event("invoke", 0, "a", 1, "read", "r"), Event("invoke", 1, "a", 1, "read", "r")],
        [Event("invoke", 0, "a", 1, "read", "r"), *[Event("unknown", 1, "a", 1, "read", "r")] * 2],
        [Event("invoke", 1, "a", 1, "read", "r"), Event("invoke", 0, "a", 2, "read", "r")],
    ],
)
def test_what_no_run_can_have_produced_is_refused(events: list[Event]) -> None:
    with pytest.raises(MalformedHistory):
        History(events).violations()


@pytest.mark.parametrize("line", ["", "{}", "[1]", "no json", '{"kind": "perhaps"}'])
def test_a_line_that_is_no_event_is_named(line: str, tmp_path: Path) -> None:
    wrong = '{"kind": "perhaps", "at": 0, "process": "a", "op": 1, "action": "read", "role": "r", "value": {}}'
    (tmp_path / "h").write_text(f"\n{line or wrong}\n")
    with pytest.raises(MalformedHistory, match=r"h:2"):
        History.read(tmp_path / "h")


def test_a_long_history_is_judged_quickly() -> None:
    """3,000 operations of two hundred terms, a tenth of them unknown and done later or never."""
    t = Tale()
    row: Row = list(NONE)
    beat = 0
    for term in range(200):
        who = "ab"[term % 2]
        t.history.unknown(
            t.ask_claim("c", term + 1, list(row))
        )  # never done: the sight has passed by
        beat += 1
        t.at(term).claim(who, list(row), ["ab"[term % 2], term + 1, beat])
        for _ in range(10):
            beat += 1
            row = [who, term + 1, beat]
            if beat % 5 == 0:
                t.history.unknown(t.does(who, "renew", holder=who, token=term + 1, beat=beat))
            else:
                t.renew(who, term + 1, beat, row)
            t.read("c", row)
        beat += 1
        row = [None, term + 1, beat]
        t.release(who, term + 1, beat, row)
    t.history.verify()


def test_a_search_that_grows_without_bound_says_so() -> None:
    t = Tale()
    for n in range(12):
        t.ask_claim(f"p{n}", 1, skew=0.0)
    t.read("x", NONE)
    t.read("x", ["p3", 9, 1])
    with pytest.raises(Undecided):
        unexplained(t.history.operations(), LeaseRegister(), most=2_000)


def test_a_store_may_raise_tokens_by_itself_if_that_is_said() -> None:
    tale = Tale()
    tale.claim("a", None, ["a", 1, 1])
    tale.release("a", 1, 2, [None, 1, 2])
    tale.claim("b", None, ["b", 2000, 1])
    tale.release("b", 2000, 2, [None, 2000, 2])
    lost = tale.ask_claim("c", 1)  # its answer is lost, and the floor had risen again
    tale.history.unknown(lost)
    tale.renew("c", 3000, 2, ["c", 3000, 2])
    assert judge(tale.history, floors=True) == []
    (wrong,) = judge(tale.history)
    assert wrong.rule == "linearizability"
    tale.claim("d", ["c", 3000, 2], ["d", 2500, 1])
    rules = {item.rule for item in judge(tale.history, floors=True)}
    assert {"tokens", "linearizability"} <= rules
