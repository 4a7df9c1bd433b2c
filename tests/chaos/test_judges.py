"""The judges of the features refuse what is wrong, and accept what is right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from coord.testing.history import History
from tests.chaos.jobs import KEEP, ROLE
from tests.chaos.judges import counted, judged

Script = Callable[["Tale"], None]


class Tale:
    """Writes a history by hand."""

    def __init__(self) -> None:
        ticks = itertools.count()
        self.history = History(now=lambda: float(next(ticks)))

    def call(self, tick: int, retry: bool = True) -> tuple[str, int]:
        return self.history.invoke("w", "once", "nightly", tick=tick, retry=retry)

    def run(self, tick: int, token: int, result: str, process: str = "w") -> None:
        key = self.history.invoke(process, "run", "nightly", tick=tick, token=token, result=result)
        self.history.ok(key)

    def done(self, key: tuple[str, int], token: int, result: str, ran: bool = False) -> None:
        self.history.ok(key, result=result, ran=ran, token=token)

    def once(self, tick: int, token: int, result: str) -> None:
        """A call that runs the tick."""
        key = self.call(tick)
        self.run(tick, token, result)
        self.done(key, token, result, ran=True)

    def update(self, number: int, token: int = 1) -> None:
        key = self.history.invoke("a", "update", ROLE, token=token, number=number)
        self.history.ok(key)

    def read(self, number: int, token: int = 1, name: str = "a") -> None:
        info: dict[str, Any] = {"name": name, **({"number": number} if number else {})}
        key = self.history.invoke("b", "read", ROLE)
        self.history.ok(key, row=["id", token, 1], info=info)

    def held(self, role: str) -> None:
        self.history.ok(self.history.invoke("w", "held", role), token=1)


def ticks_run_once(t: Tale) -> None:
    t.once(1, 1, "a/1")
    t.done(t.call(1), 1, "a/1")
    crashed = t.call(2)
    t.run(2, 2, "b/1")
    t.history.unknown(crashed)
    t.once(2, 3, "c/1")


def an_older_tick_that_is_still_known(t: Tale) -> None:
    for tick in range(2, KEEP + 2):
        t.once(tick, tick, f"a/{tick}")
    t.once(1, 99, "a/1")


def infos_that_change(t: Tale) -> None:
    t.read(0)
    t.update(1)
    t.read(1)
    key = t.history.invoke("a", "update", ROLE, token=1, number=2)
    t.read(1)
    t.read(2)
    t.history.unknown(key)
    t.read(2, token=2, name="a")
    t.read(0, token=3, name="c")


def three_slots(t: Tale) -> None:
    for slot in range(3):
        t.held(f"crawl#{slot}")


@pytest.mark.parametrize(
    "script",
    [ticks_run_once, an_older_tick_that_is_still_known, infos_that_change, three_slots],
)
def test_a_good_history_is_accepted(script: Script) -> None:
    tale = Tale()
    script(tale)
    assert judged(tale.history.operations(), ("once", "info", "slots")) == []


def a_tick_with_two_results(t: Tale) -> None:
    t.once(1, 1, "a/1")
    t.run(1, 2, "b/1")
    t.done(t.call(1), 2, "b/1")


def two_calls_that_ran_it(t: Tale) -> None:
    first, second = t.call(1), t.call(1)
    t.run(1, 1, "a/1")
    t.done(first, 1, "a/1", ran=True)
    t.done(second, 1, "a/1", ran=True)


def a_result_from_nowhere(t: Tale) -> None:
    t.run(1, 1, "a/1")
    t.done(t.call(1), 1, "a/2")


def a_run_after_the_result_is_known(t: Tale) -> None:
    t.once(1, 1, "a/1")
    t.run(1, 2, "b/1")


def a_second_run_without_retry(t: Tale) -> None:
    t.history.unknown(t.call(1, retry=False))
    t.run(1, 1, "a/1")
    t.run(1, 2, "b/1")


def a_forgotten_tick_is_run(t: Tale) -> None:
    for tick in range(2, KEEP + 3):
        t.once(tick, tick, f"a/{tick}")
    t.once(1, 99, "a/1")


def an_info_from_nowhere(t: Tale) -> None:
    t.update(1)
    t.read(2)


def an_info_of_the_future(t: Tale) -> None:
    t.read(1)
    t.update(1)


def an_acknowledged_info_is_lost(t: Tale) -> None:
    t.update(1)
    t.update(2)
    t.read(1)


def an_info_goes_back(t: Tale) -> None:
    t.update(1)
    key = t.history.invoke("a", "update", ROLE, token=1, number=2)
    t.read(2)
    t.read(1)
    t.history.unknown(key)


def a_fourth_slot(t: Tale) -> None:
    three_slots(t)
    t.held("crawl#3")


@pytest.mark.parametrize(
    ("feature", "script", "reason"),
    [
        ("once", a_tick_with_two_results, "more than one outcome"),
        ("once", two_calls_that_ran_it, "more than one outcome"),
        ("once", a_result_from_nowhere, "no run returned"),
        ("once", a_run_after_the_result_is_known, "run again when its result was known"),
        ("once", a_second_run_without_retry, "was run 2 times"),
        ("once", a_forgotten_tick_is_run, "when it was forgotten"),
        ("info", an_info_from_nowhere, "nobody has published"),
        ("info", an_info_of_the_future, "nobody has published"),
        ("info", an_acknowledged_info_is_lost, "older than number 2"),
        ("info", an_info_goes_back, "older than number 2"),
        ("slots", a_fourth_slot, "crawl#3"),
    ],
)
def test_a_bad_history_is_refused(feature: str, script: Script, reason: str) -> None:
    tale = Tale()
    script(tale)
    operations = tale.history.operations()
    assert any(reason in problem for problem in judged(operations, (feature,)))
    assert judged(operations, {"once", "info", "slots"} - {feature}) == []


def test_what_features_did_is_counted() -> None:
    tale = Tale()
    ticks_run_once(tale)
    tale.held("crawl#0")
    assert counted(tale.history.operations()) == {
        "roles that somebody held": 1,
        "terms of all roles": 1,
        "ticks run": 2,
        "of these run more than once, as `retry` allows": 1,
        "ticks whose outcome was learned": 2,
        "calls of once": 4,
    }
