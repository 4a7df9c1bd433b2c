"""The terms in a row of a SQLite file: as coord writes them, as an earlier one did, and as somebody damaged them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coord.past import KEPT
from coord.stores.sqlite.history import History


def term(token: int, until: float | None = 1.0) -> dict[str, Any]:
    return {"token": token, "holder": "a", "info": {"is": '\n",\n{"'}, "since": 0.5, "until": until}


def test_what_is_written_is_json_and_is_read_back() -> None:
    said = History().then([term(1, None)])
    said = History(said).then([term(1), term(2, None)])
    assert History(said).last == [term(2, None)]
    assert History(said).all() == json.loads(said) == [term(1), term(2, None)]


def test_the_oldest_go() -> None:
    said = "[]"
    for token in range(1, 3 * KEPT):
        said = History(said).then([*History(said).last, term(token)])
        assert [one["token"] for one in History(said).all()] == list(range(max(1, token - KEPT + 1), token + 1))


def test_a_list_on_one_line() -> None:
    old = History(json.dumps([term(number) for number in range(KEPT)]))
    assert old.last == old.all() == [term(number) for number in range(KEPT)]
    assert json.loads(old.then([*old.last, term(99)]))[0] == term(1)


@pytest.mark.parametrize(
    "said", ["", "[", "nonsense", "{}", '{"until": 1}', "[1, null]", "[{}]", "[[]]", b"[]", None, 5]
)
def test_what_is_no_list_of_terms_is_nothing(said: object) -> None:
    assert History(said).last == History(said).all() == []
    assert json.loads(History(said).then([term(1)])) == [term(1)]


def test_a_damaged_term_is_passed_over() -> None:
    said = History().then([term(1), term(2), term(3)]).replace('"token":2', '"token":')
    assert History(said).all() == [term(1), term(3)]
    assert History(said).last == [term(3)]
