"""Timings are checked against each other, and what callers give is checked where it is given."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from coord.core import validation
from coord.core.lease import Lease
from coord.core.timing import Timing, default_margin
from coord.errors import BadArgument


def test_timings_that_do_not_fit_are_refused_with_the_numbers() -> None:
    with pytest.raises(BadArgument, match=re.escape("10 + 2 * 9 + 3 = 31 s")) as caught:
        Timing.of(30, renew_every=10, attempt_timeout=9, margin=3)
    assert caught.value.argument == "ttl"


@pytest.mark.parametrize("ttl", [0.1, 1, 3.5, 10, 30, 3600, 31 * 86_400])
def test_the_defaults_fit_every_ttl(ttl: float) -> None:
    timing = Timing.of(ttl)
    assert timing.renew_every + 2 * timing.attempt_timeout + timing.margin <= ttl * (1 + 1e-9)
    assert timing.margin == default_margin(ttl) > 0


@pytest.mark.parametrize(
    "bad", [0, -1, 0.0999, 32 * 86_400, math.nan, math.inf, True, "30", None, 10**400]
)
def test_a_bad_ttl(bad: Any) -> None:
    with pytest.raises(BadArgument, match=r"^invalid ttl "):
        validation.ttl(bad)
    if bad is not None:
        with pytest.raises(BadArgument, match=r"^invalid ttl "):
            Timing.of(bad)


@pytest.mark.parametrize("name", ["renew_every", "attempt_timeout", "margin"])
@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, True, "1"])
def test_a_bad_duration(name: str, bad: Any) -> None:
    with pytest.raises(BadArgument, match=f"^invalid {name} "):
        Timing.of(30, **{name: bad})


@pytest.mark.parametrize("bad", ["", "a\0b", "\ud800", "x" * 10_240, "é" * 61, None, 7, b"role"])
def test_a_bad_role(bad: Any) -> None:
    with pytest.raises(BadArgument, match=r"^invalid role ") as caught:
        validation.role(bad)
    assert len(str(caught.value)) < 400


def test_a_good_role() -> None:
    for good in ("a", "x" * 120, "é" * 60, "news/de berlin", " "):
        assert validation.role(good) == good


NOT_STORABLE = [{"a": "\ud800"}, {"\udfff": 1}, {"a": [{"$reql_type$": "TIME"}]}]


@pytest.mark.parametrize(
    "bad",
    [
        {"a": object()},
        {"a": math.nan},
        {"a": [{"b": 10**400}]},
        {1: "a"},
        {"a": "x" * 16_384},
        [1],
        "text",
        {"a": {1, 2}},
        *NOT_STORABLE,
    ],
)
def test_info_that_json_cannot_hold(bad: Any) -> None:
    with pytest.raises(BadArgument, match=r"^invalid info "):
        validation.info(bad)


def test_info_is_copied() -> None:
    info = {"a": [1]}
    kept = validation.info(info)
    info["a"].append(2)
    assert kept == {"a": [1]}
    assert validation.info(None) == {}


def test_info_that_holds_itself() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(BadArgument, match=r"^invalid info "):
        validation.info(loop)


def test_within_a_term_a_handover_comes_after_its_holder_and_before_nobody() -> None:
    held, handed, vacant = Lease("r", "a", 7, 9), Lease("r", "b", 7, 0), Lease("r", None, 7, 1)
    for older, newer in ((held, handed), (handed, vacant), (held, vacant)):
        assert older.older_than(newer)
        assert not newer.older_than(older)
    assert handed.older_than(Lease("r", "b", 8, 1))
    assert handed.reserved
    assert not Lease("r", "b", 7, 0, remaining=5.0).led
    assert Lease("r", "b", 8, 1, remaining=5.0).led
