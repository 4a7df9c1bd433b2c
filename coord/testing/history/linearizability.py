"""Checks whether a history is linearizable: whether an order of the operations, each at one moment
between its invoke and its outcome, explains every answer.

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
"""How many configurations are kept at most; a good history needs far fewer."""


class Undecided(Exception):
    """The search gave up because too many operations with unknown outcomes overlap. The history may
    be good or bad."""


class Register(Protocol[State]):
    """A sequential model: what operations do when they run one after the other."""

    @property
    def initial(self) -> State:
        """The state before the first operation."""

    def after(self, state: State, operation: Operation) -> Iterable[State]:
        """Return the states that `operation` may turn `state` into; none if its answer is
        impossible there.

        If the outcome is unknown, only the states that it may change to: that it may change nothing
        is understood.
        """

    def spent(self, state: State, operation: Operation) -> bool:
        """Return whether an operation with an unknown outcome can change nothing from `state`
        on."""


def unexplained(
    operations: Sequence[Operation], register: Register[State], most: int = MOST_CONFIGURATIONS
) -> Operation | None:
    """Return the first operation whose answer no order explains; None for a linearizable history.

    Args:
        operations: The operations on one register.
        register: What the operations do.
        most: How many configurations to keep at most.

    Raises:
        Undecided: The search needs more than `most` configurations.
    """
    waiting = [operation for operation in operations if operation.outcome != "fail"]
    marks = sorted(
        [(operation.called, False, index) for index, operation in enumerate(waiting)]
        + [
            (operation.returned, True, index)
            for index, operation in enumerate(waiting)
            if operation.returned is not None
        ]
    )
    open_ended = frozenset(
        index for index, operation in enumerate(waiting) if operation.returned is None
    )
    configurations: set[tuple[State, frozenset[int]]] = {(register.initial, frozenset())}
    for _, ends, index in marks:
        if not ends:
            configurations = {(state, pending | {index}) for state, pending in configurations}
            continue
        survivors: set[tuple[State, frozenset[int]]] = set()
        visited, stack = set(configurations), list(configurations)
        while stack:
            state, pending = stack.pop()
            if index not in pending:
                survivors.add((state, pending))
                continue
            for chosen in pending:
                for after in register.after(state, waiting[chosen]):
                    remaining = pending - {chosen}
                    remaining -= {
                        other
                        for other in remaining & open_ended
                        if register.spent(after, waiting[other])
                    }
                    if (after, remaining) not in visited:
                        visited.add((after, remaining))
                        stack.append((after, remaining))
            if len(visited) > most:
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
    """Drop each configuration that another one makes superfluous: one with the same state, in which
    more unknown operations may still take effect."""
    groups: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = {}
    for state, pending in configurations:
        groups.setdefault((state, pending - open_ended), []).append(pending & open_ended)
    return {
        (state, pending | free)
        for (state, pending), frees in groups.items()
        for free in frees
        if not any(free < other for other in frees)
    }
