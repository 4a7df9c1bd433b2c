"""Shards that members share: every interleaving of small groups. Members join and are killed, and
hear of that late and in any order; each rule is broken once.

The lease of a shard is taken for right here: a shard of a member that was killed becomes free some
time after. The other models of this directory show that.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest

from coord.core import sharing

NAMES = "abcde"


class Held(NamedTuple):
    """A shard: who has it, and whether it is only reserved."""

    member: str
    reserved: bool = False


@dataclass(frozen=True)
class State:
    """All members and shards.

    Attributes:
        rows: The shards.
        works: For each member, the shards that it works on.
        drains: For each member, the shard whose work it ends.
        knows: For each member, the members that it knows.
        alive: The members that live.
        joins: How many may still join.
        kills: How many may still be killed.
        moves: How many shards have got another member.
    """

    rows: tuple[Held | None, ...]
    works: tuple[frozenset[int], ...]
    drains: tuple[int | None, ...]
    knows: tuple[frozenset[str], ...]
    alive: frozenset[str]
    joins: int
    kills: int
    moves: int = 0


@dataclass(frozen=True)
class Rules:
    """The rules, or with one of them broken."""

    plan: Callable[..., sharing.Plan] = sharing.plan
    roles: bool = True
    """Whether a shard is a role, which only its holder works on."""
    drains_first: bool = True
    """Whether the work ends before the shard is handed over."""
    looks_again: bool = True
    """Whether a member looks again who needs the shard when the work has ended."""


def put(values: tuple, at: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:at], value, *values[at + 1 :])


class Group:
    """A group of members in all its states."""

    def __init__(
        self,
        shards: int,
        alive: str,
        *,
        joins: int = 0,
        kills: int = 0,
        rules: Rules = Rules(),
        start: str = "",
    ) -> None:
        self.shards, self.rules, self.first = shards, rules, frozenset(alive)
        size = max(len(alive) + joins, NAMES.index(max(alive)) + 1)
        owners = start or "".join(sorted(alive)[shard % len(alive)] for shard in range(shards))
        rows = tuple(Held(owner) for owner in owners)
        works = tuple(
            frozenset(shard for shard in range(shards) if owners[shard] == NAMES[member])
            for member in range(size)
        )
        self.initial = State(
            rows, works, (None,) * size, (self.first,) * size, self.first, joins, kills
        )

    def plan(self, state: State, member: str) -> sharing.Plan:
        owners = [None if row is None else row.member for row in state.rows]
        names = state.knows[NAMES.index(member)] | {member}
        return self.rules.plan(owners, names, member)

    def steps(self, state: State) -> Iterator[State]:
        for number, member in enumerate(NAMES[: len(state.works)]):
            if member not in state.alive:
                if state.joins and member not in self.first:
                    alive = state.alive | {member}
                    knows = put(state.knows, number, alive)
                    yield replace(state, alive=alive, knows=knows, joins=state.joins - 1)
                continue
            if state.kills and len(state.alive) > 1:
                works = put(state.works, number, frozenset())
                drains = put(state.drains, number, None)
                alive = state.alive - {member}
                yield replace(state, alive=alive, works=works, drains=drains, kills=state.kills - 1)
            if state.knows[number] != state.alive:
                yield replace(state, knows=put(state.knows, number, state.alive))
            yield from self.decisions(state, number, member)
        for shard, row in enumerate(state.rows):
            if row is not None and row.member not in state.alive and self.rules.roles:
                yield replace(state, rows=put(state.rows, shard, None))

    def decisions(self, state: State, number: int, member: str) -> Iterator[State]:
        plan, own = self.plan(state, member), state.works[number]
        if not self.rules.roles:  # as with a hash ring: each works on what it reckons
            names = sorted(state.knows[number] | {member})
            own_shards = frozenset(s for s in range(self.shards) if names[s % len(names)] == member)
            if own != own_shards:
                yield replace(state, works=put(state.works, number, own_shards))
            return
        claimable = dict.fromkeys(plan.claims, 1)
        claimable |= {s: 0 for s, row in enumerate(state.rows) if row == Held(member, True)}
        for shard, moves in claimable.items():
            yield replace(
                state,
                rows=put(state.rows, shard, Held(member)),
                works=put(state.works, number, own | {shard}),
                moves=state.moves + moves,
            )
        draining = state.drains[number]
        if draining is None:
            if plan.gives and own:
                yield replace(state, drains=put(state.drains, number, min(own)))
            return
        rest = own - {draining} if self.rules.drains_first else own
        kept = replace(state, drains=put(state.drains, number, None))
        if plan.gives or not self.rules.looks_again:
            names = sorted((state.knows[number] | {member}) - {member}) or [member]
            yield replace(
                kept,
                rows=put(state.rows, draining, Held((*plan.gives, *names)[0], True)),
                works=put(state.works, number, rest),
                moves=state.moves + 1,
            )
        else:
            yield kept

    def quiet(self, state: State) -> bool:
        views = (state.knows[NAMES.index(member)] == state.alive for member in state.alive)
        return not state.joins and not state.kills and all(views)

    def wrong(self, state: State, most_moves: int) -> str | None:
        for shard in range(self.shards):
            if sum(shard in works for works in state.works) > 1:
                return "two work on a shard"
        if state.moves > most_moves:
            return "too many moves"
        if self.quiet(state) and next(self.steps(state), None) is None:
            owners = [row.member for row in state.rows if row is not None]
            counts = [owners.count(member) for member in state.alive]
            if len(owners) < self.shards:
                return "ends with a shard that nobody has"
            if max(counts) - min(counts) > 1:
                return "ends unfairly"
        return None


class Report(NamedTuple):
    states: int
    wrong: str | None
    moves: int


def explore(group: Group, most_moves: int = 8) -> Report:
    """All states, breadth first; then the quiet ones must have no cycle."""
    states = {group.initial}
    waiting = deque(states)
    quiet: dict[State, list[State]] = {}
    moves = 0
    while waiting:
        state = waiting.popleft()
        moves = max(moves, state.moves)
        if (why := group.wrong(state, most_moves)) is not None:
            return Report(len(states), why, moves)
        after = list(group.steps(state))
        if group.quiet(state):
            quiet[state] = [new for new in after if new != state]
        for new in after:
            if new not in states:
                states.add(new)
                waiting.append(new)
    return Report(len(states), "moves without end" if _has_cycle(quiet) else None, moves)


def _has_cycle(graph: dict[State, list[State]]) -> bool:
    """Take away what leads nowhere, again and again: what is left is on a cycle or leads to it."""
    before: dict[State, list[State]] = {}
    for state, after in graph.items():
        for new in after:
            before.setdefault(new, []).append(state)
    successors = {state: len(after) for state, after in graph.items()}
    ends = [state for state, count in successors.items() if count == 0]
    while ends:
        state = ends.pop()
        del successors[state]
        for earlier in before.get(state, ()):
            successors[earlier] -= 1
            if successors[earlier] == 0:
                ends.append(earlier)
    return bool(successors)


@pytest.mark.parametrize(
    ("group", "most_moves"),
    [
        (Group(4, "ab", joins=1), 1),
        (Group(5, "ab", joins=1), 1),
        (Group(6, "ab", joins=1), 2),
        (Group(5, "bc", joins=0), 0),
        (Group(5, "abc", kills=1), 3),
        (Group(6, "a", joins=2), 5),
        (Group(6, "ab", joins=2), 8),
        (Group(5, "abc", joins=1, kills=1), 8),
        (Group(5, "abd", joins=0, kills=2), 8),
        pytest.param(
            Group(7, "abcd", kills=2),
            8,
            marks=pytest.mark.long,
        ),
        pytest.param(
            Group(8, "abcd", joins=1, kills=1),
            8,
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_group_ends_fairly_and_no_shard_has_two(group: Group, most_moves: int) -> None:
    report = explore(group, most_moves)
    assert report.wrong is None, report


def up_to_the_ceiling(owners: sharing.Owners, members: frozenset[str], me: str) -> sharing.Plan:
    """What the example of coord did before it had `share`."""
    own, most = owners.count(me), -(-len(owners) // len(members))
    free = tuple(shard for shard, owner in enumerate(owners) if owner is None)
    return sharing.Plan(free if own < most else (), most - own, (), False)


def by_rank(counts: dict[str, int], shards: int) -> dict[str, int]:
    each, more = divmod(shards, len(counts))
    return {member: each + (rank < more) for rank, member in enumerate(sorted(counts))}


def despite_free(owners: sharing.Owners, members: frozenset[str], me: str) -> sharing.Plan:
    """Gives shards away while free ones are there for those that have too few."""
    counts = {member: list(owners).count(member) for member in sorted(members)}
    target_counts = sharing.targets(counts, len(owners))
    few = [member for member in counts for _ in range(target_counts[member] - counts[member])]
    many = [member for member in counts for _ in range(counts[member] - target_counts[member])]
    gives = tuple(taker for giver, taker in zip(many, few, strict=False) if giver == me)
    return sharing.plan(owners, members, me)._replace(gives=gives)


@pytest.mark.parametrize(
    ("group", "most_moves", "wrong"),
    [
        (Group(4, "ab", joins=1, rules=Rules(roles=False)), 8, "two work on a shard"),
        (Group(4, "ab", joins=1, rules=Rules(drains_first=False)), 8, "two work on a shard"),
        (Group(4, "ab", joins=1, rules=Rules(up_to_the_ceiling)), 8, "ends unfairly"),
        (
            Group(9, "abcd", kills=1, start="aaaabbccd", rules=Rules(despite_free)),
            4,
            "too many moves",
        ),
        (Group(5, "abc", joins=1, kills=1, rules=Rules(looks_again=False)), 3, "too many moves"),
    ],
    ids=["no roles", "gives before the work ends", "up to the ceiling", "despite free", "no look"],
)
def test_each_rule_is_needed(group: Group, most_moves: int, wrong: str) -> None:
    assert explore(replace_rules(group, Rules()), most_moves).wrong is None
    assert explore(group, most_moves).wrong == wrong


def replace_rules(group: Group, rules: Rules) -> Group:
    new = object.__new__(Group)
    new.__dict__.update(group.__dict__, rules=rules)
    return new


def test_the_one_more_goes_to_who_holds_most(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(5, "bc", start="bbccc")
    assert explore(group, 0).wrong is None
    monkeypatch.setattr(sharing, "targets", by_rank)
    assert explore(group, 0).wrong == "too many moves"


def test_a_shard_that_a_member_rests_from_is_claimed_by_one_that_does_not() -> None:
    """All groups of three members with three shards, and all shards that two of them rest from."""
    choices = [
        frozenset(shards) for n in range(3) for shards in itertools.combinations(range(3), n)
    ]
    for owners in itertools.product((None, "a", "b", "c"), repeat=3):
        for a, b in itertools.product(choices, repeat=2):
            resting = {"a": a, "b": b}
            claims = [
                (shard, member)
                for member in "abc"
                for shard in sharing.substitutes(owners, "abc", resting, member)
            ]
            free = {shard for shard in a | b if owners[shard] is None}
            assert sorted(shard for shard, _ in claims) == sorted(free)
            assert not any(shard in resting.get(member, ()) for shard, member in claims)
    assert sharing.substitutes((None,), "a", {"a": {0}}, "a") == ()
