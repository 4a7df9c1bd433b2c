"""The terms in a row of a SQLite file: as coord writes them, and as somebody damaged them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coord.core.history import MAX_TERMS
from coord.stores.sqlite.schema import History


def term(token: int, until: float | None = 1.0) -> dict[str, Any]:
    end = {"until": until, "reason": "" if until is None else "expired", "by": ""}
    return {"token": token, "holder": 'a "b"', "info": {"is": '\n",\n{"'}, "since": 0.5, **end}


def after(output: object, *tokens: int) -> str:
    """Once these terms have begun, each at the end of the one before."""
    for token in tokens:
        history = History(output)
        history.close(1.0, "expired", "")
        history.begin(term(token, None))
        output = history.text()
    assert isinstance(output, str)
    return output


def test_what_is_written_is_json_and_is_read_back() -> None:
    output = after("[]", 1, 2)
    assert History(output).last == [term(2, None)]
    assert History(output).all() == json.loads(output) == [term(1), term(2, None)]


def test_a_term_ends_once() -> None:
    for first in (
        "[]",
        json.dumps([term(1, None)]),
        json.dumps([term(0), term(1, None)], separators=(",", ":")),
    ):
        history = History(after(first, *([1] if first == "[]" else [])))
        history.close(2.5, 'to "b"', "ann\n")
        ended = {**term(1), "until": 2.5, "reason": 'to "b"', "by": "ann\n"}
        history.close(3.5, "expired", "")
        assert History(history.text()).all()[-1] == json.loads(history.text())[-1] == ended


def test_a_term_without_info() -> None:
    history = History()
    history.begin({**term(7, None), "info": {}})
    assert History(history.text()).all() == [{**term(7, None), "info": {}}]


def test_the_oldest_go() -> None:
    output = "[]"
    for token in range(1, 3 * MAX_TERMS):
        output = after(output, token)
        assert [entry["token"] for entry in History(output).all()] == list(
            range(max(1, token - MAX_TERMS + 1), token + 1)
        )


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_a_list_on_one_line(separators: tuple[str, str]) -> None:
    terms = [*map(term, range(MAX_TERMS - 1)), term(MAX_TERMS - 1, None)]
    old = json.dumps(terms, separators=separators)
    assert History(old).last == History(old).all() == terms
    assert History(after(old, 99)).all() == [*map(term, range(1, MAX_TERMS)), term(99, None)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "nonsense",
        "{}",
        '{"until": 1}',
        "[1, null]",
        "[{}]",
        "[[]]",
        "[" * 100_000,
        b"[]",
        None,
        5,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_list_of_terms_is_nothing(text: object) -> None:
    assert History(text).last == History(text).all() == []
    assert json.loads(after(text, 1)) == [term(1, None)]


def test_a_damaged_term_is_passed_over() -> None:
    output = after("[]", 1, 2, 3).replace('"token":2', '"token":')
    assert History(output).all() == [term(1), term(3, None)]
    assert History(output).last == [term(3, None)]
