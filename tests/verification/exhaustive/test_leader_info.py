"""What a leader says during its term: every interleaving of changes, renewals, lost answers and
terms, and each rule broken once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from coord.core.info import InfoUpdates, ObservedInfo
from coord.core.lease import Lease

INFOS = ({"n": 0}, {"n": 1}, {"n": 0}, {"n": 2})
"""What the candidate says, change by change: once it goes back to what it said before."""


@dataclass(frozen=True)
class State:
    """A leader and the row of its role. Requests are answered in order, or not at all.

    Attributes:
        updates: What the leader keeps.
        row: What the row says, as an index in `INFOS`.
        wish: The index of what the leader wants to say: the number of changes.
        flying: The renewal under way: what it carries, and whether the store has applied it.
        late: What an unanswered renewal will still write.
        losses: How many answers may still be lost.
    """

    updates: InfoUpdates
    row: int = 0
    wish: int = 0
    flying: tuple[int | None, bool] | None = None
    late: int | None = None
    losses: int = 2


def index(info: Any) -> int | None:
    return None if info is None else max(i for i, first in enumerate(INFOS) if first == info)


def steps(state: State) -> Iterator[State]:
    updates = state.updates
    if state.wish + 1 < len(INFOS):
        yield replace(state, updates=updates.changed(), wish=state.wish + 1)
    if state.flying is None:
        sent, carried = updates.sending(INFOS[state.wish])
        # A later request has a higher beat, so a late one is refused once this one is applied.
        yield replace(state, updates=sent, flying=(index(carried), False))
        if state.late is not None:
            yield replace(state, row=state.late, late=None)
        return
    carried_index, applied = state.flying
    info = None if carried_index is None else INFOS[carried_index]
    if not applied:
        row = state.row if carried_index is None else carried_index
        yield replace(state, row=row, flying=(carried_index, True), late=None)
        if state.late is not None:
            yield replace(state, row=state.late, late=None)
        if state.losses:  # unanswered, and perhaps applied later
            lost = replace(state, updates=updates.failed(), flying=None, losses=state.losses - 1)
            yield lost
            if carried_index is not None:
                yield replace(lost, late=carried_index)
    else:
        yield replace(state, updates=updates.answered(info, True), flying=None)
        if state.losses:
            yield replace(state, updates=updates.failed(), flying=None, losses=state.losses - 1)


def wrong(state: State) -> str | None:
    updates = state.updates
    if updates.stored > updates.changes or updates.unanswered > updates.changes:
        return "acknowledges a change that was not made"
    if state.flying is None and updates.stored == updates.changes and state.late is None:
        if INFOS[state.row] != INFOS[state.wish]:
            return "acknowledges a change that the row lacks"
        if (
            updates.sending(INFOS[state.wish])[1] is not None
            and updates.unanswered < updates.stored
        ):
            return "sends again what is stored"
    return None


def explore(first: InfoUpdates) -> tuple[int, str | None]:
    initial = State(first.elected(INFOS[0], Lease("r", info=INFOS[0])))
    keys, waiting = {repr(initial)}, [initial]
    while waiting:
        state = waiting.pop()
        if (why := wrong(state)) is not None:
            return len(keys), why
        if not state.losses and state.flying is None and state.late is None:
            # Without further faults one renewal is enough.
            sent, carried = state.updates.sending(INFOS[state.wish])
            row = state.row if carried is None else state.wish
            done = sent.answered(carried, True)
            if INFOS[row] != INFOS[state.wish] or done.stored != done.changes:
                return len(keys), "a change is never stored"
            if done.sending(INFOS[state.wish])[1] is not None:
                return len(keys), "renewals are not silent"
        for new in steps(state):
            if repr(new) not in keys:
                keys.add(repr(new))
                waiting.append(new)
    return len(keys), None


def test_an_acknowledged_change_is_in_the_row_and_the_last_one_wins() -> None:
    states, why = explore(InfoUpdates())
    assert why is None
    assert states > 200


class ForgetsThatTheRowIsUnknown(InfoUpdates):
    def sending(self, info: Any) -> Any:
        new, carried = super().sending(info)
        return new._replace(row_info=self.row_info), carried


class CountsChangesDuringTheRequest(InfoUpdates):
    def answered(self, carried: Any, applied: bool) -> Any:
        return super().answered(carried, applied)._replace(stored=self.changes)


class TakesAFailureForAnAnswer(InfoUpdates):
    def failed(self) -> Any:
        return super().failed()._replace(stored=self.sent)


class SendsOnce(InfoUpdates):
    def sending(self, info: Any) -> Any:
        return (self, None) if self.sent == self.changes else super().sending(info)


class IsNeverSilent(InfoUpdates):
    def answered(self, carried: Any, applied: bool) -> Any:
        return super().answered(carried, applied)._replace(row_info=None)


@pytest.mark.parametrize(
    "mutant",
    [
        ForgetsThatTheRowIsUnknown,
        CountsChangesDuringTheRequest,
        TakesAFailureForAnAnswer,
        SendsOnce,
        IsNeverSilent,
    ],
)
def test_each_rule_is_needed(mutant: type[InfoUpdates]) -> None:
    assert explore(mutant())[1] is not None


def test_a_follower_hears_of_changes_within_a_term_only() -> None:
    def row(**info: Any) -> Lease:
        return Lease("r", "a", 1, 1, 30.0, info=info)

    observed, changed = ObservedInfo().after(row(n=1), same_term=False)
    assert not changed
    observed, changed = observed.after(row(n=1), same_term=True)
    assert not changed
    observed, changed = observed.after(row(), same_term=True)
    assert not changed, "a feed may leave the info out"
    observed, changed = observed.after(row(n=2), same_term=True)
    assert changed
    observed, changed = observed.after(row(n=3), same_term=False)
    assert not changed, "a new leader is no change of an info"
    observed, changed = observed.after(row(), same_term=False)
    observed, changed = observed.after(row(n=3), same_term=True)
    assert not changed, "the first info of a term is no change"
