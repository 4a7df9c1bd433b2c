"""`once`: every interleaving of callers that crash, that are frozen past their lease, and whose
records are lost or late; and each rule broken once.

The lease is taken for right here, as the explorer of elections shows: a role passes on only when its
holder has stopped believing, or is frozen or dead. The ledger is the real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from coord.core.ticks import Entry, Ledger

BELIEVES = ("claimed", "running", "ended", "sent")
"""What a caller does while it holds the role, as far as it knows."""
GIVES_UP = ("dead", "frozen", "late", "gone", "idle", "done", "refused", "told")
"""What the holder of the row does when its lease may run out."""


@dataclass(frozen=True)
class Rules:
    """The rules of `coord/api/once.py`, and what breaks when one is missing.

    Attributes:
        retry: Whether a run that has begun is repeated.
        look_again: Look into the ledger under the new token, and decide by that.
        guarded: A record is written under its token only.
        with_release: The record travels with the release, or before it.
        begin_first: Without `retry` the begin is recorded before the run.
        forgets: A tick that is no longer kept is not run.
        keep: How many ticks are kept.
    """

    retry: bool = True
    look_again: bool = True
    guarded: bool = True
    with_release: bool = True
    begin_first: bool = True
    forgets: bool = True
    keep: int = 2


@dataclass(frozen=True)
class Caller:
    """One caller of one tick: what it does, and under which token."""

    tick: int
    does: str = "idle"
    token: int = 0


@dataclass(frozen=True)
class State:
    """The row, its ledger, the callers, the requests under way, and what has happened so far.

    Attributes:
        callers: The callers.
        holder: The caller that the row names.
        token: The token of the row.
        ledger: The ledger of the job.
        net: The records under way: caller and token.
        begun: For each run that began, in order: its tick.
        crashes, freezes, losses: Faults that are left.
        wrong: What must never be, and was.
    """

    callers: tuple[Caller, ...]
    holder: int | None = None
    token: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    net: frozenset[tuple[int, int]] = frozenset()
    begun: tuple[int, ...] = ()
    crashes: int = 1
    freezes: int = 1
    losses: int = 1
    wrong: str = ""

    def with_caller(self, index: int, does: str, token: int | None = None) -> State:
        caller = self.callers[index]
        new = replace(caller, does=does, token=caller.token if token is None else token)
        return replace(self, callers=(*self.callers[:index], new, *self.callers[index + 1 :]))


def steps(state: State, rules: Rules) -> Iterator[State]:
    for index, caller in enumerate(state.callers):
        yield from _caller_steps(state, rules, index, caller)
        if caller.does in BELIEVES and state.crashes:
            yield replace(state.with_caller(index, "dead"), crashes=state.crashes - 1)
        if caller.does == "running" and state.freezes:
            yield replace(state.with_caller(index, "frozen"), freezes=state.freezes - 1)
    for record in state.net:
        yield from _record_steps(state, rules, record)
    if state.holder is not None and state.callers[state.holder].does in GIVES_UP:
        yield replace(state, holder=None)


def _known_outcome(state: State, tick: int, rules: Rules, *, claimed: bool) -> str | None:
    """What the ledger says of a tick; None if it may be run."""
    entry = state.ledger.get(tick)
    if entry is not None and not entry.begun:
        return "told"
    if rules.forgets and state.ledger.is_forgotten(tick):
        return "refused"
    if entry is not None and claimed and not rules.retry:
        return "refused"
    return None


def _caller_steps(state: State, rules: Rules, index: int, caller: Caller) -> Iterator[State]:
    does, token = caller.does, caller.token
    if does == "idle":
        answer = _known_outcome(state, caller.tick, rules, claimed=False)
        yield state.with_caller(index, answer or "waits")
    elif does == "waits" and state.holder is None:
        won = replace(state, holder=index, token=state.token + 1)
        yield won.with_caller(index, "claimed", state.token + 1)
    elif does == "claimed":
        answer = (
            _known_outcome(state, caller.tick, rules, claimed=True) if rules.look_again else None
        )
        if answer is not None:
            yield replace(state.with_caller(index, answer), holder=None)
        else:
            yield _begins(state, rules, index, caller)
    elif does == "running":
        yield state.with_caller(index, "ended")
        # It raises: the role is released, and nothing is recorded.
        yield replace(state.with_caller(index, "done"), holder=None)
    elif does == "frozen":
        yield state.with_caller(index, "late")
    elif does in ("ended", "late"):
        if rules.with_release:
            sent = state.with_caller(index, "sent" if does == "ended" else "gone")
            yield replace(sent, net=state.net | {(index, token)})
        elif does == "ended":
            yield replace(state.with_caller(index, "records"), holder=None)
    elif does == "records":
        yield replace(state.with_caller(index, "gone"), net=state.net | {(index, token)})
    elif does == "sent" and (index, token) not in state.net:
        yield state.with_caller(index, "ended")  # it was lost: it is sent again


def _begins(state: State, rules: Rules, index: int, caller: Caller) -> State:
    tick, entry = caller.tick, state.ledger.get(caller.tick)
    wrong = state.wrong
    if entry is not None and not entry.begun:
        wrong = "a run begins after its tick was recorded"
    elif state.ledger.is_forgotten(tick):
        wrong = "a run begins of a tick that is no longer known"
    elif not rules.retry and tick in state.begun:
        wrong = "a run begins twice"
    ledger = state.ledger
    if not rules.retry and rules.begin_first:
        ledger = ledger.with_entry(Entry(tick, caller.token, 0.0, begun=True), rules.keep)
    new = replace(state, begun=(*state.begun, tick), ledger=ledger, wrong=wrong)
    return new.with_caller(index, "running")


def _record_steps(state: State, rules: Rules, record: tuple[int, int]) -> Iterator[State]:
    index, token = record
    caller, current = state.callers[index], (state.holder, state.token) == record
    arrived = replace(state, net=state.net - {record})
    waits = caller == Caller(caller.tick, "sent", token)
    if current or not rules.guarded or not rules.with_release:
        entry, before = Entry(caller.tick, token, 0.0), state.ledger.get(caller.tick)
        wrong = state.wrong
        if before is not None and not before.begun:
            wrong = "a record is replaced"
        written = replace(
            arrived,
            ledger=state.ledger.with_entry(entry, rules.keep),
            holder=None if current else state.holder,
            wrong=wrong,
        )
        yield written.with_caller(index, "done") if waits else written
        if waits and state.losses:  # the answer is lost
            yield replace(written.with_caller(index, "gone"), losses=state.losses - 1)
    else:
        yield arrived.with_caller(index, "gone") if waits else arrived
    if state.losses:
        yield replace(arrived, losses=state.losses - 1)


def wrong(state: State, rules: Rules, *, ends: bool) -> str:
    if state.wrong:
        return state.wrong
    if sum(caller.does in BELIEVES for caller in state.callers) > 1:
        return "two callers believe"
    for caller in state.callers:
        entry = state.ledger.get(caller.tick)
        recorded = entry is not None and not entry.begun
        if caller.does == "told" and not (recorded or state.ledger.is_forgotten(caller.tick)):
            return "a caller is told of a record that is not there"
        if ends and caller.does in ("waits", "claimed", "running", "ended", "sent"):
            return f"a caller never ends: it {caller.does}"
    return ""


def explore(first: State, rules: Rules, most: int = 400_000) -> tuple[int, str]:
    visited, stack = {first}, [first]
    while stack and len(visited) < most:
        state = stack.pop()
        following = list(steps(state, rules))
        violation = wrong(state, rules, ends=not following)
        if violation:
            return len(visited), violation
        for new in following:
            if new not in visited:
                visited.add(new)
                stack.append(new)
    return len(visited), "" if not stack else "cut off"


SAME = State(tuple(Caller(1) for _ in range(3)))
OTHERS = State((Caller(1), Caller(1), Caller(2)))
OLD = State((Caller(1), Caller(2), Caller(3), Caller(1)), crashes=0, freezes=1, losses=0)
ONCE = Rules(retry=False)
SOUND = {
    "three callers of a tick": (SAME, Rules()),
    "two faults of each kind": (replace(SAME, crashes=2, freezes=2, losses=2), Rules()),
    "two ticks": (OTHERS, Rules()),
    "ticks that are forgotten": (OLD, Rules(keep=1)),
    "at most once": (SAME, ONCE),
    "at most once, two ticks": (OTHERS, ONCE),
    "at most once, forgotten": (OLD, replace(ONCE, keep=1)),
}


@pytest.mark.parametrize("name", SOUND)
def test_every_interleaving(name: str) -> None:
    first, rules = SOUND[name]
    states, violation = explore(first, rules)
    print(f"{name}: {states:,} states")
    assert not violation
    assert states > 500


BROKEN = {
    "it decides by the read before the claim": (
        SAME,
        Rules(look_again=False),
        "a run begins after its tick was recorded",
    ),
    "a record is not guarded by its token": (SAME, Rules(guarded=False), "a record is replaced"),
    "the role is released first, and the record follows": (
        SAME,
        Rules(with_release=False),
        "a record is replaced",
    ),
    "without retry, the begin is not recorded": (
        SAME,
        replace(ONCE, begin_first=False),
        "a run begins twice",
    ),
    "without retry, it decides by the read before the claim": (
        SAME,
        replace(ONCE, look_again=False),
        "a run begins",
    ),
    "a tick that is no longer kept is run": (
        OLD,
        Rules(keep=1, forgets=False),
        "a run begins of a tick that is no longer known",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_is_needed(name: str) -> None:
    first, rules, expected = BROKEN[name]
    states, violation = explore(first, rules)
    print(f"{name}: {violation}, after {states:,} states")
    assert expected in violation
