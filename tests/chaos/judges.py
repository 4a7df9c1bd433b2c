"""What the features of a run must keep beside exclusion, tokens and fencing, which
`coord.testing.history` judges for every role; and what came of them, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from coord.testing.history.events import Operation
from tests.chaos.jobs import KEEP, ROLE, SLOTS


def judged(operations: list[Operation], features: Iterable[str]) -> list[str]:
    """Return what breaks the promises of these features."""
    return [
        f"{feature}: {problem}"
        for feature in features
        if feature in JUDGES
        for problem in JUDGES[feature](operations)
    ]


def _once(operations: list[Operation]) -> Iterator[str]:
    """A tick has one result, which a run of it returned; it is not run again when its result is
    known, nor when so many later ones are that it was forgotten; without `retry` it is never run
    twice."""
    calls, runs = _by_tick(operations, "once"), _by_tick(operations, "run")
    retried = {item.role: item.args["retry"] for item in operations if item.action == "once"}
    tokens: dict[str, list[tuple[int, int]]] = {}
    for (job, tick), own in calls.items():
        done = [item for item in own if item.outcome == "ok"]
        returned = [item.returned for item in done if item.returned is not None]
        if returned:
            tokens.setdefault(job, []).append((tick, min(returned)))
        answers = {(item.result["result"], item.result["token"]) for item in done}
        ran = [item for item in done if item.result["ran"]]
        if len(answers) > 1 or len(ran) > 1:
            yield f"tick {tick} of {job} has more than one outcome: {[str(item) for item in done]}"
        possible = {(item.args["result"], item.args["token"]) for item in runs.get((job, tick), [])}
        for answer in answers - possible:
            yield f"tick {tick} of {job} has a result that no run returned: {answer}"
        for run in runs.get((job, tick), []):
            if any(run.called > end for end in returned):
                yield f"tick {tick} of {job} was run again when its result was known: {run}"
    for (job, tick), own in runs.items():
        if not retried[job] and len(own) > 1:
            yield f"tick {tick} of {job} was run {len(own)} times: {[str(item) for item in own]}"
        for run in own:
            # The ledger keeps so many, and forgets whatever is older than the one before these.
            later = sum(other > tick and end < run.called for other, end in tokens.get(job, ()))
            if later > KEEP:
                yield f"tick {tick} of {job} was run when it was forgotten: {run}"


def _by_tick(operations: list[Operation], action: str) -> dict[tuple[str, int], list[Operation]]:
    by_tick: dict[tuple[str, int], list[Operation]] = {}
    for operation in operations:
        if operation.action == action:
            by_tick.setdefault((operation.role, operation.args["tick"]), []).append(operation)
    return by_tick


def _info(operations: list[Operation]) -> Iterator[str]:
    """What `update` has stored is what others read in that term, until something newer is stored;
    nobody reads what was never published, and no later read of a term shows something older."""
    published: dict[str, list[Operation]] = {}
    stored: dict[int, list[tuple[int, int]]] = {}
    for operation in operations:
        if operation.action == "update":
            published.setdefault(operation.process, []).append(operation)
        if operation.action == "update" and operation.outcome == "ok":
            assert operation.returned is not None
            number = int(operation.args["number"])
            stored.setdefault(operation.args["token"], []).append((operation.returned, number))
    for operation in operations:
        if operation.action != "read" or operation.role != ROLE or operation.outcome != "ok":
            continue
        info, token = operation.result["info"], operation.result["row"][1]
        number, end = info.get("number", 0), operation.returned
        assert end is not None
        if operation.result["row"][0] is None or "name" not in info:
            continue
        begun = [
            item.args["number"] for item in published.get(info["name"], ()) if item.called < end
        ]
        if number > max(begun, default=0):
            yield f"an info that nobody has published: {operation}"
        least = max((n for at, n in stored.get(token, ()) if at < operation.called), default=0)
        if number < least:
            yield f"an info older than number {least}, which was stored before: {operation}"
        stored.setdefault(token, []).append((end, number))


def _slots(operations: list[Operation]) -> Iterator[str]:
    """No other slots than those that there are."""
    named = {
        item.role for item in operations if item.role.startswith("crawl#") and item.action == "held"
    }
    allowed = {f"crawl#{slot}" for slot in range(SLOTS)}
    for role in sorted(named - allowed):
        yield f"somebody held {role}, and there are {SLOTS} slots"


JUDGES: dict[str, Callable[[list[Operation]], Iterator[str]]] = {
    "once": _once,
    "info": _info,
    "slots": _slots,
}
"""The features with promises of their own."""


def counted(operations: list[Operation]) -> dict[str, Any]:
    """Return how much the features have done, in numbers; what did not happen is left out."""
    terms: dict[str, set[int]] = {}
    for operation in operations:
        if operation.action == "held":
            terms.setdefault(operation.role, set()).add(operation.result["token"])
    runs, calls = _by_tick(operations, "run"), _by_tick(operations, "once")
    done = [key for key, own in calls.items() if any(item.outcome == "ok" for item in own)]
    swaps = [item for item in operations if item.action in ("override", "retire")]
    applied = [item for item in swaps if item.outcome == "ok" and item.result["applied"]]
    updates = [item for item in operations if item.action == "update"]
    counts = {
        "roles that somebody held": len(terms),
        "terms of all roles": sum(map(len, terms.values())),
        "ticks run": len(runs),
        "of these run more than once, as `retry` allows": sum(
            len(own) > 1 for own in runs.values()
        ),
        "ticks whose outcome was learned": len(done),
        "calls of once": sum(map(len, calls.values())),
        "changes of the info": len(updates),
        "of these acknowledged": sum(item.outcome == "ok" for item in updates),
        "leases overridden by operators": sum(item.action == "override" for item in applied),
        "rows retired": sum(item.action == "retire" for item in applied),
    }
    return {name: count for name, count in counts.items() if count}
