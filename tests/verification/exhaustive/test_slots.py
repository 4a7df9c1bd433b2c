"""A role with several slots: every interleaving of a few candidates, crashes and lost answers, and
each rule broken once.

A slot is a role, and its lease is taken for right here: the row of a holder becomes free only when
it releases, or some time after it has stopped believing. The other models of this directory show
that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest


class Candidate(NamedTuple):
    """A candidate.

    Attributes:
        alive: Whether its process lives.
        holds: The slots that it believes to hold.
        asks: The slot that it has claimed without an answer so far; None if it has not.
        unknown: Whether it has given up to wait for that answer.
    """

    alive: bool = True
    holds: frozenset[int] = frozenset()
    asks: int | None = None
    unknown: bool = False


@dataclass(frozen=True)
class State:
    """All rows, candidates, and claims that may still be applied.

    Attributes:
        rows: Who holds each slot.
        number: How many slots the candidates have agreed on; 0 before the first.
        candidates: The candidates.
        claims: Claims on their way: a candidate and a slot.
        crashes: How many may still crash.
        losses: How many answers may still be lost.
    """

    rows: tuple[int | None, ...]
    number: int
    candidates: tuple[Candidate, ...]
    claims: frozenset[tuple[int, int]]
    crashes: int
    losses: int


@dataclass(frozen=True)
class Rules:
    """The rules, or with one of them broken."""

    settles: bool = True
    """Whether a claim of unknown outcome is settled before another slot is claimed."""
    any_slot: bool = True
    """Whether a candidate claims every slot that is free."""
    agrees: bool = True
    """Whether the candidates agree on the number of slots first."""


@dataclass(frozen=True)
class World:
    """A role, and what each candidate was told about its number of slots."""

    numbers: tuple[int, ...]
    rules: Rules = Rules()
    crashes: int = 1
    losses: int = 1

    def initial(self) -> State:
        candidates = tuple(Candidate() for _ in self.numbers)
        rows = (None,) * max(self.numbers)
        return State(rows, 0, candidates, frozenset(), self.crashes, self.losses)

    def steps(self, state: State) -> Iterator[State]:
        for number, candidate in enumerate(state.candidates):
            if candidate.alive and self.admitted(state, number):
                yield from self.actions(state, number, candidate)
        for number, slot in state.claims:
            yield self.arrives(state, number, slot)
        for slot, holder in enumerate(state.rows):
            if holder is not None:
                first = state.candidates[holder]
                asks = first.asks == slot and not first.unknown
                if not (first.alive and (slot in first.holds or asks)):
                    yield replace(state, rows=put(state.rows, slot, None))

    def admitted(self, state: State, number: int) -> bool:
        return not (self.rules.agrees and state.number) or self.numbers[number] == state.number

    def actions(self, state: State, number: int, first: Candidate) -> Iterator[State]:
        def become(new: Candidate, state: State = state) -> State:
            return replace(state, candidates=put(state.candidates, number, new))

        if first.asks is None and not first.holds:
            agreed = replace(state, number=state.number or self.numbers[number])
            for slot in range(self.numbers[number]):
                free = state.rows[slot] in (None, number)
                if free and (self.rules.any_slot or slot == number % self.numbers[number]):
                    claimed = replace(agreed, claims=state.claims | {(number, slot)})
                    yield become(first._replace(asks=slot, unknown=False), claimed)
        if first.asks is not None and first.unknown:
            yield from self.settle(state, number, first, first.asks)
        elif first.asks is not None and state.losses:
            yield become(first._replace(unknown=True), replace(state, losses=state.losses - 1))
        for slot in first.holds:
            released = replace(state, rows=put(state.rows, slot, None))
            yield become(first._replace(holds=first.holds - {slot}), released)
        if state.crashes:
            yield become(Candidate(alive=False), replace(state, crashes=state.crashes - 1))

    def settle(self, state: State, number: int, first: Candidate, slot: int) -> Iterator[State]:
        """Read the row: give it back, see that the claim was refused, or claim that slot again,
        which makes a claim that is still on its way come to nothing."""
        done = put(state.candidates, number, first._replace(asks=None, unknown=False))
        claims = state.claims - {(number, slot)}
        if not self.rules.settles:
            yield replace(state, candidates=done)
        elif state.rows[slot] == number:
            rows = put(state.rows, slot, None)
            yield replace(state, rows=rows, candidates=done, claims=claims)
        elif (number, slot) not in state.claims:
            yield replace(state, candidates=done)
        else:
            again = put(state.candidates, number, first._replace(unknown=False))
            yield replace(state, candidates=again)

    def arrives(self, state: State, number: int, slot: int) -> State:
        first, claims = state.candidates[number], state.claims - {(number, slot)}
        waits = first.alive and first.asks == slot and not first.unknown
        if state.rows[slot] is None:
            rows = put(state.rows, slot, number)
            new = first._replace(holds=first.holds | {slot}, asks=None) if waits else first
        else:
            rows, new = state.rows, first._replace(asks=None) if waits else first
        candidates = put(state.candidates, number, new)
        return replace(state, rows=rows, candidates=candidates, claims=claims)

    def wrong(self, state: State) -> str | None:
        if sum(len(candidate.holds) for candidate in state.candidates) > min(self.numbers):
            return "more hold the role than it has slots"
        for number, first in enumerate(state.candidates):
            if any(state.rows[slot] not in (None, number) for slot in first.holds):
                return "two in a slot"
            if first.alive and state.rows.count(number) > 1:
                return "one takes up two slots"
            waits = first.alive and not first.holds and first.asks is None
            can = any(new.candidates[number].asks is not None for new in self.steps(state))
            free = None in state.rows[: self.numbers[number]]
            if waits and free and self.admitted(state, number) and not can:
                return "one waits while a slot is free"
        return None


def put(values: tuple, at: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:at], value, *values[at + 1 :])


def explore(world: World) -> tuple[int, str | None]:
    initial = world.initial()
    states, waiting = {initial}, deque([initial])
    while waiting:
        state = waiting.popleft()
        if (why := world.wrong(state)) is not None:
            return len(states), why
        for new in world.steps(state):
            if new not in states:
                states.add(new)
                waiting.append(new)
    return len(states), None


@pytest.mark.parametrize(
    "world",
    [
        World((2, 2, 2)),
        World((2, 2, 2), crashes=2, losses=2),
        World((1, 1, 1), crashes=1, losses=2),
        World((2, 2, 3)),
    ],
)
def test_never_more_hold_the_role_than_it_has_slots(world: World) -> None:
    states, why = explore(world)
    assert why is None
    assert states > 50


@pytest.mark.parametrize(
    ("world", "wrong"),
    [
        (World((2, 2, 2), Rules(settles=False)), "one takes up two slots"),
        (World((2, 2, 2), Rules(any_slot=False)), "one waits while a slot is free"),
        (World((2, 2, 3), Rules(agrees=False)), "more hold the role than it has slots"),
    ],
)
def test_each_rule_is_needed(world: World, wrong: str) -> None:
    assert explore(world)[1] == wrong
