"""Numbers that somebody else wrote are looked at before they are used: JSON holds some that no float can."""

from __future__ import annotations

import math

import pytest

from coord.candidate import Candidate
from coord.checks import is_number
from coord.lease import MAX_TOKEN
from coord.notice import CANDIDATE, REQUEST, Notice
from coord.orders import Order
from coord.past import terms

UNUSABLE = [10**400, -(10**400), math.inf, math.nan, True, None, "1"]


@pytest.mark.parametrize("bad", UNUSABLE)
def test_what_is_no_number_is_passed_over(bad: object) -> None:
    body = {"candidate": "c", "info": {}, "priority": 1, "since": bad}
    assert Candidate.of(Notice("k", "r", CANDIDATE, body, 1.0)) is None
    assert Order.of(Notice("k", "r", REQUEST, {"token": bad}, 1.0)) is None
    assert terms("r", [{"token": bad, "holder": "h", "since": 1.0}]) == []
    assert terms("r", [{"token": 1, "holder": "h", "since": bad}]) == []
    assert not is_number(bad)


def test_every_token_that_there_can_be_is_remembered() -> None:
    assert [term.token for term in terms("r", [{"token": MAX_TOKEN, "holder": "h", "since": 1.0}])] == [MAX_TOKEN]
