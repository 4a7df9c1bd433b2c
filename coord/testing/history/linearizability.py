"""Is there an order in which these operations, each at one moment between its invoke and its
outcome, make sense?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) in the just-in-time
form of Lowe ("Testing for linearizability", 2017): it walks the history once and keeps every
configuration that can explain it so far, a state with the set of operations that have begun and not
yet taken effect. At an `ok` only those survive in which that operation has taken effect. Operations
with an unknown outcome stay pending to the end: they may take effect at any later time, or never.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol, TypeVar

from coord.testing.history.events import Operation

State = TypeVar("State", bound=Hashable)
MOST_CONFIGURATIONS = 200_000


class Undecided(Exception):
    """The search was given up: too many operations with unknown outcomes overlap. Says nothing
    about the history."""


class Register(Protocol[State]):
    """The sequential meaning of the operations."""

    @property
    def initial(self) -> State: ...

    def after(self, state: State, operation: Operation) -> Iterable[State]:
        """The states in which `operation` may leave `state`: none, when its answer is impossible
        there.

        For an unknown outcome: what it may change. That it changes nothing need not be said.
        """

    def spent(self, state: State, operation: Operation) -> bool:
        """Whether an operation with an unknown outcome can never change anything any more, from
        `state` on."""


def unexplained(
    operations: Sequence[Operation], register: Register[State], most: int = MOST_CONFIGURATIONS
) -> Operation | None:
    """The first operation whose answer no order explains, or None: the history is linearizable.

    Raises `Undecided` when more than `most` configurations would have to be kept.
    """
    waiting = [one for one in operations if one.outcome != "fail"]
    marks = sorted(
        [(one.called, False, index) for index, one in enumerate(waiting)]
        + [
            (one.returned, True, index)
            for index, one in enumerate(waiting)
            if one.returned is not None
        ]
    )
    open_ended = frozenset(index for index, one in enumerate(waiting) if one.returned is None)
    configurations: set[tuple[State, frozenset[int]]] = {(register.initial, frozenset())}
    for _, ends, index in marks:
        if not ends:
            configurations = {(state, pending | {index}) for state, pending in configurations}
            continue
        survivors: set[tuple[State, frozenset[int]]] = set()
        known, stack = set(configurations), list(configurations)
        while stack:
            state, pending = stack.pop()
            if index not in pending:
                survivors.add((state, pending))
                continue
            for one in pending:
                for after in register.after(state, waiting[one]):
                    left = pending - {one}
                    left -= {
                        other
                        for other in left & open_ended
                        if register.spent(after, waiting[other])
                    }
                    if (after, left) not in known:
                        known.add((after, left))
                        stack.append((after, left))
            if len(known) > most:
                raise Undecided(
                    f"more than {most:,} ways to explain the history up to {waiting[index]}"
                )
        if not survivors:
            return waiting[index]
        configurations = _best(survivors, open_ended)
    return None


def _best(
    configurations: set[tuple[State, frozenset[int]]], open_ended: frozenset[int]
) -> set[tuple[State, frozenset[int]]]:
    """Without those that another one can stand for: same state, and no fewer unknown operations
    still free to act."""
    groups: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = {}
    for state, pending in configurations:
        groups.setdefault((state, pending - open_ended), []).append(pending & open_ended)
    return {
        (state, pending | free)
        for (state, pending), frees in groups.items()
        for free in frees
        if not any(free < other for other in frees)
    }
