"""Rows are deleted and created again: every interleaving of claims and deletions, in the steps of
PostgreSQL, etcd and RethinkDB. Each rule is broken once.

The other models of this directory take a claim for one step. Here it takes as many as a server
lets others see: what one reads in a step may have changed before the next one. Two roles have the
same prefix. Each has a vacant row in the beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest

from tests.support.levels import LONG, deeper

FIRST = (5, 2)
"""The tokens of the rows in the beginning."""


class Row(NamedTuple):
    """The row of a role: a token, the number of the last write, and whether somebody leads."""

    token: int
    beat: int = 2
    held: bool = False
    retired: bool = False


class Process(NamedTuple):
    """A claimant, or an operator who retires a role, between two of its steps."""

    kind: str
    role: int
    at: int = 0
    row: Row | None = None
    floor: int = 0
    version: int = 0


@dataclass(frozen=True)
class State:
    """What the store has committed, what transactions have locked, and the processes.

    Attributes:
        rows: The row of each role.
        processes: All processes.
        last: The highest token that each role has had.
        floor: The floor of the prefix.
        version: How often the floor was written.
        locks: For each role the process whose transaction has locked or inserted the row.
        floor_lock: The process whose transaction has written the floor.
    """

    rows: tuple[Row | None, ...]
    processes: tuple[Process, ...]
    last: tuple[int, ...] = FIRST
    floor: int = 0
    version: int = 0
    locks: tuple[int | None, ...] = (None, None)
    floor_lock: int | None = None


class Repeated(AssertionError):
    """A token of a role is not above all its earlier ones."""


LEADS, DONE = 10, 11


def put(values: tuple, at: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:at], value, *values[at + 1 :])


def move(state: State, number: int, at: int, **changes: object) -> State:
    """The state in which a process goes on at another step."""
    process = state.processes[number]
    # A process that waits for nothing it has read forgets it, so that equal states are equal.
    process = Process(*process[:2], at) if at >= LEADS else process._replace(at=at, **changes)  # type: ignore[arg-type]
    return replace(state, processes=put(state.processes, number, process))


def write(state: State, role: int, row: Row | None) -> State:
    return replace(state, rows=put(state.rows, role, row))


def elect(state: State, number: int, token: int) -> State:
    """The state in which the claim of a process is applied."""
    role = state.processes[number].role
    if token <= state.last[role]:
        raise Repeated(f"role {role} gets token {token} after {state.last[role]}")
    state = replace(state, last=put(state.last, role, token))
    return move(write(state, role, Row(token, 1, held=True)), number, LEADS)


def release(state: State, number: int) -> State:
    role = state.processes[number].role
    row = state.rows[role]
    assert row is not None
    return move(write(state, role, Row(row.token)), number, DONE)


def postgresql(state: State, number: int, fault: str) -> Iterator[State]:
    """A transaction inserts the row, and then reads the floor; or deletes the row, with a floor."""
    process = state.processes[number]
    role, row, lock = process.role, state.rows[process.role], state.locks[process.role]
    free = lock in (None, number)
    if process.kind == "claim":
        if process.at == 0 and not (row and row.held):
            yield move(state, number, 1 if row else 2, row=row, floor=state.floor)
        elif process.at == 1 and free:
            yield (
                elect(state, number, row.token + 1)
                if row and row == process.row
                else move(state, number, 0)
            )
        elif process.at == 2 and free:
            if row:
                yield move(state, number, 0)
            else:
                yield move(replace(state, locks=put(state.locks, role, number)), number, 3)
        elif process.at == 3:
            early = fault == "the floor is read before the row is inserted"
            yield move(state, number, 4, floor=process.floor if early else state.floor)
        elif process.at == 4:
            unlocked = replace(state, locks=put(state.locks, role, None))
            yield elect(unlocked, number, process.floor + 1)
        return
    if process.at == 0 and row and not row.held:
        yield move(state, number, 1, row=row)
    elif process.at == 1:
        matches = row == process.row or (fault == "any row is deleted" and row and not row.held)
        if lock is None and matches:
            yield move(replace(state, locks=put(state.locks, role, number)), number, 2)
        else:
            yield move(state, number, DONE)
    elif process.at == 2 and state.floor_lock is None:
        yield move(replace(state, floor_lock=number), number, 3)
    elif process.at == 3:
        assert row
        deleted = replace(write(state, role, None), locks=put(state.locks, role, None))
        if fault == "the floor is raised in another transaction":
            yield move(deleted, number, 4)
        else:
            yield _with_floor(deleted, number, fault)
    elif process.at == 4:
        yield _with_floor(state, number, fault)


def _with_floor(state: State, number: int, fault: str) -> State:
    """The state with the floor of the row that a process deletes."""
    row = state.processes[number].row
    assert row
    floor = max(state.floor, row.token)
    if fault == "the floor is not raised":
        floor = state.floor
    if fault == "the floor falls":
        floor = row.token
    raised = replace(state, floor=floor, version=state.version + 1, floor_lock=None)
    return move(raised, number, DONE)


def etcd(state: State, number: int, fault: str) -> Iterator[State]:
    """A transaction compares what was read before, and then writes everything."""
    process = state.processes[number]
    role, row = process.role, state.rows[process.role]
    same_floor = state.version == process.version
    if process.at == 0:
        if not (row and row.held):
            snapshot = {"row": row, "floor": state.floor, "version": state.version}
            yield move(state, number, 1, **snapshot)
    elif process.kind == "claim":
        if row == process.row and (row or same_floor or fault == "a claim compares no floor"):
            yield elect(state, number, (row.token if row else process.floor) + 1)
        else:
            yield move(state, number, 0)
    elif process.row is None:
        yield move(state, number, DONE)
    elif not same_floor and fault != "a deletion compares no floor":
        yield move(state, number, 0)
    elif row == process.row or (fault == "any row is deleted" and row and not row.held):
        if fault == "a deletion compares no floor":
            state = replace(state, floor=process.floor)
        yield _with_floor(write(state, role, None), number, fault)
    else:
        yield move(state, number, DONE)


def rethinkdb(state: State, number: int, fault: str) -> Iterator[State]:
    """One document at a time. A claim may expect no row, as it was seen a step before."""
    process = state.processes[number]
    role, row = process.role, state.rows[process.role]
    if process.at == 0:
        if not (row and row.held):
            yield move(state, number, 1, row=row, floor=state.floor)
    elif process.kind == "claim":
        absent = row is None or row.retired
        expects_none = process.row is None or process.row.retired
        if row == process.row or (absent and expects_none):
            yield elect(state, number, (row.token if row else process.floor) + 1)
        else:
            yield move(state, number, 0)
    elif process.row is None or process.row.retired or row != process.row:
        yield move(state, number, DONE)
    elif fault == "the document is deleted":
        yield move(write(state, role, None), number, DONE)
    elif fault == "the floor is in another document":
        if process.at == 1:
            raised = replace(state, floor=max(state.floor, row.token))
            yield move(raised, number, 2, row=row)
        else:
            yield move(write(state, role, None), number, DONE)
    else:
        yield move(write(state, role, row._replace(retired=True)), number, DONE)


Design = Callable[[State, int, str], Iterator[State]]


def explore(design: Design, fault: str = "") -> int:
    """Visit every state, and return how many there are.

    Raises:
        Repeated: A role got a token that is not above its earlier ones.
    """
    kinds = [("claim", 0), ("claim", 0), ("retire", 0), ("retire", 0), ("retire", 1)]
    kinds += [("claim", 1)] if LONG else []
    first = State(tuple(Row(token) for token in FIRST), tuple(Process(*kind) for kind in kinds))
    states, queue = {first}, deque([first])
    while queue:
        state = queue.popleft()
        for number, process in enumerate(state.processes):
            if process.at == DONE:
                continue
            following = (
                [release(state, number)] if process.at == LEADS else design(state, number, fault)
            )
            for after in following:
                if after not in states:
                    states.add(after)
                    queue.append(after)
    return len(states)


@deeper
@pytest.mark.parametrize("design", [postgresql, etcd, rethinkdb], ids=lambda each: each.__name__)
def test_no_token_comes_twice(design: Design) -> None:
    assert explore(design) > 200


FAULTS = [
    (postgresql, "the floor is read before the row is inserted"),
    (postgresql, "the floor is raised in another transaction"),
    (postgresql, "the floor is not raised"),
    (postgresql, "the floor falls"),
    (postgresql, "any row is deleted"),
    (etcd, "a claim compares no floor"),
    (etcd, "a deletion compares no floor"),
    (etcd, "the floor is not raised"),
    (etcd, "the floor falls"),
    (etcd, "any row is deleted"),
    (rethinkdb, "the document is deleted"),
    (rethinkdb, "the floor is in another document"),
]


@pytest.mark.parametrize(("design", "fault"), FAULTS, ids=[f"{d.__name__}: {f}" for d, f in FAULTS])
def test_each_rule_is_needed(design: Design, fault: str) -> None:
    with pytest.raises(Repeated):
        explore(design, fault)
