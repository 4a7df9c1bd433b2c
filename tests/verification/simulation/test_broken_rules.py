"""Mutation tests of the simulation: with one rule of the production code broken on purpose, the
random scenes find a broken promise.

A mutant has to break its rule and nothing else. A mutant that raises (because the function that it
replaces has another signature now) leaves the role without a leader, which looks as if the scenes
had caught it. So each mutant must elect a leader where nothing fails, and no task may die.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from coord.core import swaps
from coord.core.election import Election
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Operation, Renew
from coord.core.timing import Instant
from coord.election.elector import Elector
from coord.election.lifecycle import TermLifecycle
from coord.election.session import Session
from coord.election.term import Term
from coord.testing.clocks import Machine
from tests.verification.simulation.claimants import Scene
from tests.verification.simulation.drive import drive, quiet

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}
FIRST = {
    "a_candidate_that_stops_trying_after_a_refusal": 3,
    "a_deadline_from_the_reply": 178,
    "a_deadline_on_the_clock_that_sleeps": 3,
    "a_renewal_that_names_no_token": 26,
    "a_term_that_does_not_read_the_clock": 3,
    "an_unknown_outcome_taken_for_success": 2,
}
"""The first scene to try, so that one that shows the fault is found soon."""


def mutant(make: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS[make.__name__] = make
    return make


@mutant
def a_term_that_does_not_read_the_clock(patch: Patch) -> None:
    patch.setattr(Term, "held", property(lambda self: not self._over))


@mutant
def a_deadline_from_the_reply(patch: Patch) -> None:
    reply = Election.reply

    def late(
        self: Election,
        send: Any,
        result: Any,
        sent_at: Instant,
        now: Instant,
        retry_in: float = 0.0,
    ) -> None:
        reply(self, send, result, now, now, retry_in)

    patch.setattr(Election, "reply", late)


@mutant
def an_unknown_outcome_taken_for_success(patch: Patch) -> None:
    submit = Session.submit

    async def hopeful(
        self: Session, operation: Operation, timeout: float, on_sent: Any = lambda: None
    ) -> Any:
        result = await submit(self, operation, timeout, on_sent)
        if isinstance(result, Failure) and result.unknown and isinstance(operation, Renew):
            row = Lease(
                operation.role,
                operation.holder,
                operation.token,
                operation.beat,
                operation.ttl,
                remaining=30.0,
            )
            return Answer(True, row)
        return result

    patch.setattr(Session, "submit", hopeful)


@mutant
def no_comparison_in_the_claim(patch: Patch) -> None:
    claim = swaps.claim

    def blind(row: Lease, request: Claim, wall: float) -> Lease | None:
        return claim(row, replace(request, expected=None) if request.takeover else request, wall)

    patch.setattr(swaps, "claim", blind)


@mutant
def a_renewal_that_names_no_token(patch: Patch) -> None:
    renew = swaps.renew

    def unguarded(row: Lease, request: Renew, wall: float) -> Lease | None:
        return renew(row, replace(request, token=row.token, holder=row.holder or ""), wall)

    patch.setattr(swaps, "renew", unguarded)


@mutant
def a_fork_that_forgets_nothing(patch: Patch) -> None:
    patch.setattr(Session, "after_fork", lambda self: None)


@mutant
def a_deadline_on_the_clock_that_sleeps(patch: Patch) -> None:
    now = Machine.now

    def awake(self: Machine) -> Instant:
        reading = now(self).awake
        return Instant(reading, reading)

    patch.setattr(Machine, "now", awake)


@mutant
def a_loss_that_is_told_twice(patch: Patch) -> None:
    tell = TermLifecycle._apply

    def twice(self: TermLifecycle, event: Any) -> None:
        tell(self, event)
        if type(event).__name__ == "Lost":
            tell(self, event)

    patch.setattr(TermLifecycle, "_apply", twice)


@mutant
def a_candidate_that_stops_trying_after_a_refusal(patch: Patch) -> None:
    answer = Elector._apply_result

    def sulk(self: Elector, send: Any, result: Any) -> None:
        answer(self, send, result)
        if isinstance(result, Failure) and result.permanent:
            self.election._retry_at = float("inf")

    patch.setattr(Elector, "_apply_result", sulk)


@pytest.fixture(autouse=True)
def no_task_dies(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test if a task of its scenes died of an exception that nobody looked at.

    asyncio reports such a task when it is collected. It is collected here, and not at some later
    moment: inside `ast.parse`, Python 3.11 raises SystemError when the report, which shows a
    traceback, calls `ast.parse` once more. What was there before need not be looked through.
    """
    gc.freeze()
    yield
    gc.collect()
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [record.getMessage() for record in records if record.name == "asyncio"] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_elects_a_leader_where_nothing_fails(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS[name](monkeypatch)
    scene = Scene(2, 0, 0.0)
    try:
        with quiet():
            scene.somebody_leads()
            scene.check_callbacks()
    finally:
        scene.close()


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    first = FIRST.get(name, 0)
    for seed in range(first, first + 120):
        try:
            drive(seed, edits=seed % 2 == 1)
        except AssertionError as err:
            print(f"{name}: {err}")
            return
    pytest.fail("120 scenes saw nothing wrong")
