"""A leader names its successor from a list that may be out of date: every interleaving of candidates
that wait, are slow or have died, and each rule broken once.

The release is the one that the core sends, and the rows change as the core says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from coord.core import swaps
from coord.core.actions import Send
from coord.core.election import Election
from coord.core.lease import Lease, LossReason
from coord.core.operations import Answer, Claim, Release
from coord.core.timing import Instant, Timing

TTL, END = 12, 11
"""The ttl of each lease, and the time at which the search ends, both in ticks of half a second: no
lease runs out, which other models show."""
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class State:
    """The row, and the candidates that wait.

    Attributes:
        now: The time, in ticks.
        row: The row; its `remaining` is that at `written`.
        written: When the row was written last.
        released: When the leader released the role; None if it leads, or if another one does.
        waiting: The candidates that live and do not lead.
        leading: Who believes to lead.
        deaths: How many candidates may still die.
    """

    now: int
    row: Lease
    written: int
    released: int | None
    waiting: frozenset[str]
    leading: tuple[str, ...]
    deaths: int = 2

    @property
    def lease_seen(self) -> Lease:
        return replace(self.row, remaining=self.row.remaining - (self.now - self.written))


@dataclass(frozen=True)
class Rules:
    """The rules, or with one of them broken.

    Attributes:
        hold: Ticks for which the role is reserved; None means as long as the core says.
        ends: Whether the reservation ends.
        claims: Whether the named candidate claims, or leads as soon as it sees its name.
        reserves: Whether the store keeps the others away meanwhile.
    """

    hold: int | None = None
    ends: bool = True
    claims: bool = True
    reserves: bool = True


def leader(rules: Rules, to: str | None) -> Release:
    """Return what a leader sends that hands its role over, or releases it."""
    # A tick is half a second, and `renew_every` is a third of the ttl.
    election = Election("r", "old", Timing.of(TTL / 2))
    send = election.step(Instant(0, 0))
    assert isinstance(send, Send)
    lease = Lease("r", "old", 1, 1, TTL / 2, remaining=TTL / 2)
    election.reply(send, Answer(True, lease), Instant(0, 0), Instant(0, 0))
    hold = None if rules.hold is None else rules.hold / 2
    election.resign(Instant(0, 0), LossReason.STEPPED_DOWN, to=to, hold=hold)
    election.drained(Instant(0, 0))
    release = election.step(Instant(0, 0))
    assert isinstance(release, Send)
    assert isinstance(release.operation, Release)
    return replace(release.operation, linger=release.operation.linger * 2)


def bound() -> int:
    """For how many ticks nobody may be able to claim a role that was released."""
    return 2 + 1  # a reservation of one second has ended when the next tick has begun


def steps(state: State, rules: Rules) -> Iterator[State]:
    if state.now < END:
        yield replace(state, now=state.now + 1)
    if "old" in state.leading:
        for to in (None, *NAMES):
            row = swaps.release(state.lease_seen, leader(rules, to), 0.0)
            assert row is not None
            if not rules.ends and row.reserved:
                row = replace(row, remaining=1_000.0)
            leading = tuple(name for name in state.leading if name != "old")
            yield replace(state, row=row, written=state.now, released=state.now, leading=leading)
    for name in state.waiting:
        if state.deaths:
            yield replace(state, waiting=state.waiting - {name}, deaths=state.deaths - 1)
        if state.row.holder == name and not rules.claims:
            yield replace(state, waiting=state.waiting - {name}, leading=(*state.leading, name))
        row = claimed(state, name, rules)
        if row is not None:
            yield State(
                state.now,
                row,
                state.now,
                None,
                state.waiting - {name},
                (*state.leading, name),
                state.deaths,
            )


def claimed(state: State, name: str, rules: Rules) -> Lease | None:
    lease = state.lease_seen
    if lease.reserved and not rules.reserves:
        lease = replace(lease, holder=None)
    return swaps.claim(lease, Claim("r", name, 1, TTL, skew=0.0), 0.0)


def violation(state: State, before: State | None, rules: Rules) -> str | None:
    if len(state.leading) > 1:
        return "two lead"
    if before is not None and state.leading != before.leading and state.leading:
        if state.row.token <= before.row.token:
            return "a term has the token of the one before"
        if (
            before.lease_seen.reserved
            and before.lease_seen.remaining > 0
            and before.row.holder not in (state.leading)
        ):
            return "another one gets a role that is reserved"
    if (
        state.released is not None
        and state.now - state.released > bound()
        and state.waiting
        and not any(claimed(state, name, rules) for name in state.waiting)
    ):
        return "nobody may claim, though somebody waits"
    return None


def explore(rules: Rules) -> tuple[int, str | None]:
    held = Lease("r", "old", 1, 1, TTL, remaining=TTL)
    initial = State(0, held, 0, None, frozenset(NAMES), ("old",))
    keys, states = {key(initial)}, deque([initial])
    while states:
        state = states.popleft()
        for new in steps(state, rules):
            if (why := violation(new, state, rules)) is not None:
                return len(keys), why
            if key(new) not in keys:
                keys.add(key(new))
                states.append(new)
    return len(keys), None


def key(state: State) -> tuple[object, ...]:
    return (state.now, state.row, state.row.remaining, state.written, state.released,
            state.waiting, state.leading, state.deaths)  # fmt: skip


def test_a_role_that_is_handed_over_is_had_by_the_named_one_or_soon_by_another() -> None:
    states, why = explore(Rules())
    assert why is None
    assert states > 1_000, states


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (Rules(ends=False), "nobody may claim, though somebody waits"),
        (Rules(hold=TTL // 3), "nobody may claim, though somebody waits"),
        (Rules(claims=False), "a term has the token of the one before"),
        (Rules(reserves=False), "another one gets a role that is reserved"),
    ],
    ids=["without an end", "as long as renew_every", "led on the word of the feed", "for nobody"],
)
def test_each_rule_is_needed(rules: Rules, why: str) -> None:
    assert explore(rules)[1] == why
