"""Numbers that somebody else wrote are looked at before they are used: JSON holds some that no
float can."""

from __future__ import annotations

import math

import pytest

from coord.core.announcements import CANDIDATE, REQUEST, Announcement, Candidate, HandoverRequest
from coord.core.history import parse
from coord.core.lease import MAX_TOKEN
from coord.core.validation import is_number

UNUSABLE = [10**400, -(10**400), math.inf, math.nan, True, None, "1"]


@pytest.mark.parametrize("bad", UNUSABLE)
def test_what_is_no_number_is_passed_over(bad: object) -> None:
    body = {"candidate": "c", "info": {}, "priority": 1, "since": bad}
    assert Candidate.of(Announcement("k", "r", CANDIDATE, body, 1.0)) is None
    assert HandoverRequest.of(Announcement("k", "r", REQUEST, {"token": bad}, 1.0)) is None
    assert parse("r", [{"token": bad, "holder": "h", "since": 1.0}]) == []
    assert parse("r", [{"token": 1, "holder": "h", "since": bad}]) == []
    assert not is_number(bad)


def test_every_token_that_there_can_be_is_remembered() -> None:
    assert [
        term.token for term in parse("r", [{"token": MAX_TOKEN, "holder": "h", "since": 1.0}])
    ] == [MAX_TOKEN]


@pytest.mark.parametrize(
    ("ended", "until", "reason"),
    [
        ([3.0, "taken"], 3.0, "taken"),
        (
            [9.0, "expired"],
            5.0,
            "expired",
        ),  # its lease would have run on, had nobody else got the role
        (None, 5.0, "expired"),
        ([True, 7], 5.0, "expired"),
        ([10**400, "taken"], 5.0, "taken"),
        ([3.0], 5.0, "expired"),
        ("nonsense", 5.0, "expired"),
    ],
)
def test_the_end_of_a_term_may_stand_with_the_next(
    ended: object, until: float, reason: str
) -> None:
    first = {"token": 1, "holder": "a", "since": 1.0, "until": None, "reason": ""}
    second = {"token": 2, "holder": "b", "since": 5.0, "until": None, "reason": "", "ended": ended}
    later, earlier = parse("r", [first, second])
    assert (earlier.until, earlier.reason) == (until, reason)
    assert (later.until, later.reason) == (None, "")
    closed = {**first, "until": 2.0, "reason": "released"}
    assert parse("r", [closed, second])[1].until == 2.0


def test_a_term_that_is_kept_as_lines_of_json() -> None:
    began = '{"token":1,"holder":"a","info":{"name":"A"},"since":1.5}'
    ended = '{"until":2.5,"reason":"released","by":"me"}'
    (first,) = parse("r", [f"{began}\n{ended}"])
    assert (first.token, first.since, first.until, first.reason, first.by) == (
        1,
        1.5,
        2.5,
        "released",
        "me",
    )
    assert first.info == {"name": "A"}
    (again,) = parse("r", [f'{began}\n{ended}\n{{"until":9.0,"reason":"expired"}}'])
    assert again == first
    assert parse("r", [began])[0].until is None
    assert parse("r", []) == parse("r", None) == []
    for nonsense in ("", "{", "7", "[]", "null", f"{began}\n{{", "[" * 100_000):
        assert parse("r", [nonsense]) == []
