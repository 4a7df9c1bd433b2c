"""Checkers of histories: each finds every violation of one promise of docs/guarantees.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from coord.testing.history.events import Operation
from coord.testing.history.linearizability import unexplained
from coord.testing.history.registers import (
    EMPTY,
    WITHHELD,
    FencedResource,
    LeaseRegister,
    revision,
)

SWAPS = ("claim", "renew", "release", "read", "put", "override", "retire", "lose")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that the history breaks.

    Attributes:
        rule: "exclusion", "tokens", "linearizability" or "fencing".
        detail: What happened.
        operations: The operations that show it.
    """

    rule: str
    detail: str
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.rule}: {self.detail}", *map(str, self.operations)])


class BadHistory(AssertionError):
    """A history breaks promises; `violations` lists them."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        super().__init__("\n".join(map(str, violations)))


class Belief(NamedTuple):
    """A time during which `process` certainly believed that it leads with `token`.

    Attributes:
        begin: The beginning, in seconds.
        end: The end, in seconds, exclusive. If it is before `begin`, there was only one
            observation: the process believed at one unknown moment between the two.
        evidence: The operations that show it.
    """

    begin: float
    end: float
    process: str
    role: str
    token: int
    evidence: tuple[Operation, ...]


def check(operations: list[Operation], last: float, floors: bool = False) -> list[Violation]:
    """Run all checkers: exclusion, tokens, the lease of each role, and each fenced resource.

    Args:
        operations: What happened, in order.
        last: When the last event happened, in seconds.
        floors: Whether the store may raise tokens by itself.

    Raises:
        Undecided: Too much is unknown to tell.
    """
    believed = beliefs(operations, last)
    violations = [*exclusion(believed), *tokens(operations, believed)]
    return [*violations, *lease_register(operations, floors), *fenced_resources(operations)]


def beliefs(operations: Iterable[Operation], last: float) -> list[Belief]:
    """Return the beliefs that the actions `believe` and `held` prove, by role and begin.

    Args:
        operations: The operations of a history.
        last: The time of its last event, in seconds.
    """
    believed: list[Belief] = []
    observations: dict[tuple[str, str, int], list[Operation]] = {}
    for operation in operations:
        if operation.action == "believe":
            end = (
                operation.ended
                if operation.outcome != "unknown"
                else operation.began
                if operation.ended is not None
                else last
            )
            assert end is not None
            believed.append(
                Belief(
                    operation.began,
                    end,
                    operation.process,
                    operation.role,
                    operation.args["token"],
                    (operation,),
                )
            )
        elif (
            operation.action == "held"
            and operation.outcome == "ok"
            and operation.result["token"] is not None
        ):
            observations.setdefault(
                (operation.process, operation.role, operation.result["token"]), []
            ).append(operation)
    for (process, role, token), observed in observations.items():
        # The process believed at some moment of each observation: certainly from the end of the
        # first to the beginning of the last.
        first = min(observed, key=lambda operation: operation.ended or 0.0)
        latest = max(observed, key=lambda operation: operation.began)
        begin = first.ended or 0.0
        believed.append(Belief(begin, latest.began, process, role, token, (first, latest)))
    return sorted(believed, key=lambda belief: (belief.role, belief.begin, belief.end))


def exclusion(believed: list[Belief]) -> Iterator[Violation]:
    """Check that no two terms of a role are believed at the same time."""
    widest: dict[str, Belief] = {}
    for belief in believed:
        other = widest.get(belief.role)
        if other is not None and belief.begin < other.end and belief.begin < belief.end:
            processes = (
                f"{other.process} (token {other.token}) and {belief.process} (token {belief.token})"
            )
            until = min(belief.end, other.end)
            yield Violation(
                "exclusion",
                f"{processes} both lead {belief.role!r} from {belief.begin:.6g} to {until:.6g}",
                other.evidence + belief.evidence,
            )
        if other is None or belief.end > other.end:
            widest[belief.role] = belief


def tokens(operations: list[Operation], believed: list[Belief]) -> Iterator[Violation]:
    """Check that a token names one holder, that later terms have higher tokens, and that the token
    of a row never falls.

    A row that was handed over (beat 0) still has the token of the previous term, because the
    candidate that it names has not claimed the role yet. So has a row that an operator withholds.
    """
    owner: dict[tuple[str, int], tuple[str, Operation]] = {}
    for operation in operations:
        row = (
            operation.result.get("row")
            if operation.action in SWAPS and operation.outcome == "ok"
            else None
        )
        holder, token, beat = revision(row)
        if holder is None or holder in WITHHELD or beat == 0:
            continue
        other, shown = owner.setdefault((operation.role, token), (holder, operation))
        if other != holder:
            yield Violation(
                "tokens",
                f"token {token} of {operation.role!r} names two holders",
                (shown, operation),
            )
    # At `begin` a term has certainly begun, and at min(begin, end) it is certainly not over. A term
    # that has begun before that moment of another term must have the lower token.
    moments = [(belief.begin, True, belief) for belief in believed] + [
        (min(belief.begin, belief.end), False, belief) for belief in believed
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
    """Check that no answer shows a lower token than an answer that arrived before its request was
    sent. A row that an operator retired is missing, which shows no token."""
    retired = {operation.role for operation in operations if operation.action == "retire"}
    marks: dict[str, list[tuple[int, bool, Operation, int]]] = {}
    for operation in operations:
        if (
            operation.action in SWAPS
            and operation.outcome == "ok"
            and operation.returned is not None
            and "row" in operation.result
        ):
            row = revision(operation.result["row"])
            if row == EMPTY and operation.role in retired:
                continue
            token = row.token
            marks.setdefault(operation.role, []).extend(
                [
                    (operation.called, False, operation, token),
                    (operation.returned, True, operation, token),
                ]
            )
    for role, ordered in marks.items():
        highest, shown = 0, None
        for _, answered, operation, token in sorted(ordered, key=lambda mark: mark[0]):
            if answered:
                if token > highest:
                    highest, shown = token, operation
            elif token < highest and shown is not None:
                detail = f"the token of {role!r} falls from {highest} to {token}"
                yield Violation("tokens", detail, (shown, operation))


def lease_register(operations: list[Operation], floors: bool = False) -> Iterator[Violation]:
    """Check that some order of the claims, renewals, releases and reads of each role explains every
    answer.

    Args:
        operations: The operations of a history.
        floors: Whether the store may raise tokens by itself.
    """
    retired = any(operation.action == "retire" for operation in operations)
    for role, of_role in _by_role(operations, SWAPS).items():
        edited = any(operation.action == "put" for operation in of_role)
        shown = _tokens_shown(of_role) if floors or retired else None
        wrong = unexplained(of_role, LeaseRegister(edited, shown, floors=floors, retired=retired))
        if wrong is not None:
            yield Violation(
                "linearizability",
                f"no order of the operations on {role!r} explains this answer",
                (wrong,),
            )


def _tokens_shown(operations: list[Operation]) -> dict[str, frozenset[int]]:
    """Return the tokens that answers show, by the holder that had them."""
    shown: dict[str, set[int]] = {}
    for operation in operations:
        if operation.outcome == "ok" and "row" in operation.result:
            holder, token, _ = revision(operation.result["row"])
            if holder is not None:
                shown.setdefault(holder, set()).add(token)
    return {holder: frozenset(tokens) for holder, tokens in shown.items()}


def fenced_resources(operations: list[Operation]) -> Iterator[Violation]:
    """Check that each resource refuses writes with an older token than its newest, and no
    others."""
    for name, of_resource in _by_role(operations, ("write",)).items():
        wrong = unexplained(of_resource, FencedResource())
        if wrong is not None:
            yield Violation(
                "fencing", f"no order of the writes to {name!r} explains this answer", (wrong,)
            )


def _by_role(operations: list[Operation], actions: tuple[str, ...]) -> dict[str, list[Operation]]:
    roles: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.action in actions:
            roles.setdefault(operation.role, []).append(operation)
    return roles
