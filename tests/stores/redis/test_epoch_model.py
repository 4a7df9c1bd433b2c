"""The epochs of the Redis store as a model: every interleaving of a small world.

Two candidates claim one role. A primary acknowledges claims before its replica or its disk has
them. It may be killed at any time, and is followed by a primary with what the copy had: the same
server after a restart, or the promoted replica. Whatever is lost, no token is given twice, none is
smaller than an earlier one, and no two candidates believe in their lease at the same time. Each
rule is taken away once, and the search finds what goes wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from tests.support.levels import by_level, deeper

TTL = 2
END = by_level(4, 5, 5)
"""Ticks of a run."""
STEP = 8
"""Tokens between the epochs: more than may be lost between two copies in this world."""
PER_EPOCH = 100
"""More tokens than an epoch gives. In the scripts this is time: a role has fewer terms than
microseconds go by, and a later epoch begins later."""
MAX_FAILURES, MAX_CLAIMS = 2, by_level(4, 5, 5)


@dataclass(frozen=True)
class Rules:
    """What the scripts do; each may be switched off."""

    floor: bool = True
    """Whether an epoch begins above the greatest token that the server knows."""
    clock: bool = True
    """Whether it begins above the microseconds since 2020, too: the epoch before may be lost."""
    quiet: bool = True
    quiet_lasts_longest: bool = True
    settle: bool = True
    """Whether a greater ttl is stored first, and used once the copies have it."""
    own_claims: bool = False
    """Whether the holder of a lease may claim it in the quiet time. It may not: perhaps it had
    released the role, and the claim of another candidate was lost."""
    refusals_begin_epochs: bool = True


class Data(NamedTuple):
    """What one server holds: the lease, and the hash `meta`."""

    holder: int = -1
    token: int = 0
    expires: int = 0
    id: int = 0
    floor: int = 0
    high: int = 0
    longest: int = 0
    quiet: int = 0


class World(NamedTuple):
    now: int = 0
    data: Data = Data()
    copy: Data = Data()
    """What the disk or the replica has: after a failure the next primary begins with it."""
    replid: int = 0
    """The replication id of the primary: a new one after each restart and each promotion."""
    failures: int = 0
    believed: tuple[int, int] = (0, 0)
    """Until when each candidate believes in its lease."""
    births: int = 0
    """How many tokens the server has issued."""
    greatest: int = 0
    """The greatest token that the server has issued."""


def in_epoch(world: World, rules: Rules) -> Data:
    """What the first lines of each script make of `meta`."""
    data = world.data
    if data.id == world.replid:
        return data
    lasts = data.longest if rules.quiet_lasts_longest else 1
    quiet = max(data.quiet, world.now + lasts) if rules.quiet else data.quiet
    floor = data.floor
    if rules.floor:
        floor = max(floor, data.high + STEP)
    if rules.clock:
        floor = max(floor, world.replid * PER_EPOCH)
    return data._replace(id=world.replid, quiet=quiet, floor=floor)


def claims(world: World, rules: Rules) -> Iterator[tuple[World, int | None]]:
    """Each candidate's claim; the token, if it was applied."""
    for me in (0, 1) if world.births < MAX_CLAIMS else ():
        data = in_epoch(world, rules)
        expired = data.holder >= 0 and data.expires < world.now
        is_quiet = world.now < data.quiet and not (rules.own_claims and data.holder == me)
        if not (data.holder in (-1, me) or expired) or is_quiet:
            if rules.refusals_begin_epochs:
                yield world._replace(data=data), None
            continue
        if rules.settle and data.longest < TTL:
            yield world._replace(data=data._replace(longest=TTL)), None
            continue
        if rules.settle and world.copy.longest < TTL:
            continue  # the model of "two seconds later": copies do not lag for longer
        token = max(data.token, data.floor) + 1
        data = data._replace(
            holder=me,
            token=token,
            expires=world.now + TTL,
            high=max(data.high, token),
            longest=max(data.longest, TTL),
        )
        believed = tuple(
            world.now + TTL if candidate == me else until
            for candidate, until in enumerate(world.believed)
        )
        yield world._replace(data=data, believed=believed), token


def releases(world: World, rules: Rules) -> Iterator[World]:
    for me in (0, 1):
        data = in_epoch(world, rules)
        if data.holder == me and world.believed[me] > world.now:
            believed = tuple(0 if c == me else until for c, until in enumerate(world.believed))
            yield world._replace(data=data._replace(holder=-1, expires=0), believed=believed)


def steps(world: World, rules: Rules) -> Iterator[tuple[World, int | None]]:
    yield from claims(world, rules)
    yield from ((after, None) for after in releases(world, rules))
    yield world._replace(copy=world.data), None
    if world.now < END:
        yield world._replace(now=world.now + 1), None
    if world.failures < MAX_FAILURES:
        yield (
            world._replace(
                data=world.copy,
                failures=world.failures + 1,
                replid=world.replid + 1,
            ),
            None,
        )


def search(rules: Rules, failures: int = 0) -> tuple[int, str]:
    """How many states there are, and what is wrong with one; "" if all are right."""
    first = World(
        failures=MAX_FAILURES - failures if failures else 0
    )  # `coord init` waits until the replica has the namespace
    states, queue = {first}, deque([first])
    while queue:
        world = queue.popleft()
        for after, token in steps(world, rules):
            if token is not None:
                if token <= world.greatest:
                    return len(states), f"token {token} after {world.greatest}"
                after = after._replace(greatest=token, births=world.births + 1)
                if all(until > after.now for until in after.believed):
                    return len(states), f"two leaders at {after.now}: {after.believed}"
            if after not in states:
                states.add(after)
                queue.append(after)
    return len(states), ""


@deeper
def test_nothing_goes_wrong_whatever_is_lost() -> None:
    states, wrong = search(Rules())
    assert wrong == ""
    assert states > 10_000


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(floor=False, clock=False), "token "),
        (Rules(clock=False), "token "),
        (Rules(quiet=False), "two leaders"),
        (Rules(settle=False), "two leaders"),
        (Rules(own_claims=True), "two leaders"),
        (Rules(quiet_lasts_longest=False), "two leaders"),
    ],
    ids=[
        "no floor",
        "no clock",
        "no quiet time",
        "a greater ttl at once",
        "claims of the holder",
        "a shorter quiet time",
    ],
)
def test_without_a_rule_it_goes_wrong(rules: Rules, expected: str) -> None:
    _, wrong = search(rules)
    assert wrong.startswith(expected)


@deeper
def test_one_failure_needs_no_clock() -> None:
    """The clock of the next server may be wrong; then tokens still do not fall, unless an epoch is
    lost as well."""
    _, wrong = search(Rules(clock=False), failures=1)
    assert wrong == ""


@deeper
def test_refusals_need_not_begin_epochs_to_be_safe() -> None:
    """They begin one so that the quiet time begins soon after the failure, and not with the first
    claim that could be applied, which would then wait for it."""
    _, wrong = search(Rules(refusals_begin_epochs=False))
    assert wrong == ""
