"""What a history is judged by. Each judge finds every violation of one promise of
docs/guarantees.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from coord.testing.history.events import Operation
from coord.testing.history.linearizability import unexplained
from coord.testing.history.registers import FencedResource, LeaseRegister, revision

SWAPS = ("claim", "renew", "release", "read", "put")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that the history breaks, and the operations that show it."""

    rule: str
    detail: str
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.rule}: {self.detail}", *map(str, self.operations)])


class BadHistory(AssertionError):
    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        super().__init__("\n".join(map(str, violations)))


class Belief(NamedTuple):
    """`process` is certain to have believed that it leads under `token` from `begin` until before
    `end` (seconds).

    An `end` before the `begin` comes of a single look: it believed at some one moment between the
    two."""

    begin: float
    end: float
    process: str
    role: str
    token: int
    evidence: tuple[Operation, ...]


def check(operations: list[Operation], last: float) -> list[Violation]:
    """Run every check: exclusion, tokens, the lease register of each role, and each fenced resource.

    Args:
        operations: What happened, in order.
        last: When the last event happened, in seconds.

    Raises:
        Undecided: Too much is unknown to tell.
    """
    believed = beliefs(operations, last)
    found = [*exclusion(believed), *tokens(operations, believed)]
    return [*found, *lease_register(operations), *fenced_resources(operations)]


def beliefs(operations: Iterable[Operation], last: float) -> list[Belief]:
    """What the events `believe` and `held` make certain, by role and begin."""
    found: list[Belief] = []
    looks: dict[tuple[str, str, int], list[Operation]] = {}
    for one in operations:
        if one.action == "believe":
            end = (
                one.ended
                if one.outcome != "unknown"
                else one.began
                if one.ended is not None
                else last
            )
            assert end is not None
            found.append(Belief(one.began, end, one.process, one.role, one.args["token"], (one,)))
        elif one.action == "held" and one.outcome == "ok" and one.result["token"] is not None:
            looks.setdefault((one.process, one.role, one.result["token"]), []).append(one)
    for (process, role, token), seen in looks.items():
        # It believed at some moment of each look: surely from the end of the first to the begin of
        # the last.
        first = min(seen, key=lambda one: one.ended or 0.0)
        latest = max(seen, key=lambda one: one.began)
        begin = first.ended or 0.0
        found.append(Belief(begin, latest.began, process, role, token, (first, latest)))
    return sorted(found, key=lambda one: (one.role, one.begin, one.end))


def exclusion(believed: list[Belief]) -> Iterator[Violation]:
    """No two terms of a role are believed at one moment."""
    widest: dict[str, Belief] = {}
    for one in believed:
        other = widest.get(one.role)
        if other is not None and one.begin < other.end and one.begin < one.end:
            who = f"{other.process} (token {other.token}) and {one.process} (token {one.token})"
            until = min(one.end, other.end)
            yield Violation(
                "exclusion",
                f"{who} both lead {one.role!r} from {one.begin:.6g} to {until:.6g}",
                other.evidence + one.evidence,
            )
        if other is None or one.end > other.end:
            widest[one.role] = one


def tokens(operations: list[Operation], believed: list[Belief]) -> Iterator[Violation]:
    """A token names one holder; later terms have higher tokens; the row's token is never seen to
    fall.

    A row that was handed over (beat 0) still has the token of the term before: whom it names has
    yet to claim it."""
    owner: dict[tuple[str, int], tuple[str, Operation]] = {}
    for one in operations:
        row = one.result.get("row") if one.action in SWAPS and one.outcome == "ok" else None
        if row is None or revision(row).holder is None or revision(row).beat == 0:
            continue
        holder, token, _ = revision(row)
        assert holder is not None
        other, shown = owner.setdefault((one.role, token), (holder, one))
        if other != holder:
            yield Violation(
                "tokens", f"token {token} of {one.role!r} names two holders", (shown, one)
            )
    # A term that certainly was before another certainly was not over has the lower token.
    moments = [(one.begin, True, one) for one in believed] + [
        (min(one.begin, one.end), False, one) for one in believed
    ]
    newest: dict[str, Belief] = {}
    for _, begins, belief in sorted(moments, key=lambda moment: moment[:2]):
        before = newest.get(belief.role)
        if begins and (before is None or belief.token > before.token):
            newest[belief.role] = belief
        elif not begins and before is not None and belief.token <= before.token:
            detail = (
                f"a later term of {belief.role!r} has token {belief.token}, after {before.token}"
            )
            yield Violation("tokens", detail, before.evidence + belief.evidence)
    yield from _falling(operations)


def _falling(operations: list[Operation]) -> Iterator[Violation]:
    """An answer never shows a lower token than one that had arrived before its request was sent."""
    marks: dict[str, list[tuple[int, bool, Operation, int]]] = {}
    for one in operations:
        if (
            one.action in SWAPS
            and one.outcome == "ok"
            and one.returned is not None
            and "row" in one.result
        ):
            token = revision(one.result["row"]).token
            marks.setdefault(one.role, []).extend(
                [(one.called, False, one, token), (one.returned, True, one, token)]
            )
    for role, ordered in marks.items():
        highest, shown = 0, None
        for _, answered, one, token in sorted(ordered, key=lambda mark: mark[0]):
            if answered:
                if token > highest:
                    highest, shown = token, one
            elif token < highest and shown is not None:
                detail = f"the token of {role!r} falls from {highest} to {token}"
                yield Violation("tokens", detail, (shown, one))


def lease_register(operations: list[Operation]) -> Iterator[Violation]:
    """Claims, renewals, releases and reads of each role make sense in some order."""
    for role, mine in _by_role(operations, SWAPS).items():
        edited = any(one.action == "put" for one in mine)
        wrong = unexplained(mine, LeaseRegister(edited))
        if wrong is not None:
            yield Violation(
                "linearizability",
                f"no order of the operations on {role!r} explains this answer",
                (wrong,),
            )


def fenced_resources(operations: list[Operation]) -> Iterator[Violation]:
    """Each resource refuses writes with an older token than it has seen, and only those."""
    for name, mine in _by_role(operations, ("write",)).items():
        wrong = unexplained(mine, FencedResource())
        if wrong is not None:
            yield Violation(
                "fencing", f"no order of the writes to {name!r} explains this answer", (wrong,)
            )


def _by_role(operations: list[Operation], actions: tuple[str, ...]) -> dict[str, list[Operation]]:
    roles: dict[str, list[Operation]] = {}
    for one in operations:
        if one.action in actions:
            roles.setdefault(one.role, []).append(one)
    return roles
