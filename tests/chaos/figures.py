"""What came of a run, in numbers, and what the judges say."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coord.testing.history import History, judge
from coord.testing.history.checkers import beliefs, exclusion, fenced_resources, tokens
from coord.testing.history.events import Event, Operation
from coord.testing.history.linearizability import Undecided
from tests.chaos import document, judges
from tests.chaos.faults import KINDS
from tests.chaos.jobs import ROLE
from tests.chaos.resource import journal
from tests.chaos.run import Run
from tests.chaos.scene import Fault

INTENDED = ("released", "stepped_down")
SERVER_ENDS = ("server killed", "primary killed", "promotion")
NOT_DURABLE_FOR = 2.0
"""Seconds for which an acknowledged release may not be durable."""
CLAIMS_LET_IN = (0, 1, 2, 4, 6)
"""How many first claims of a role without an answer are taken into account, at first."""
WITH_DOCUMENT = ("rethinkdb", "cluster", "partitions")
"""Stages with a second fenced resource."""


@dataclass
class Reign:
    """A term as looks and writes show it: from the first sign of it to the last."""

    token: int
    process: str
    first: float
    last: float


def read_history(directory: Path) -> History:
    """All workers' events. A last line that its writer did not live to finish is left out."""
    paths = sorted(directory.glob("history-*.jsonl"))
    for path in paths:
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])
    return History.read(*paths)


def violations(history: History, floors: bool = False, loses: bool = False) -> list[str]:
    """What the judges find. A store that loses what it acknowledged need not be linearizable; the
    tokens of its elections never fall all the same.

    A first claim that was not answered may take effect at any later time, and many of these make
    the search for an order explode. Those that no answer ever shows to have taken effect are left
    out at first: it takes explanations away and adds none, so a history that is good without them
    is good. One that is not is judged with the first of them, for each role; one of these may have
    taken effect wherever a later one may. If that does not explain it, it is judged whole."""
    if loses:
        operations = history.operations()
        certain = [item for item in operations if item.action != "claim" or _elected(item)]
        certain = [item for item in certain if item.action not in ("renew", "release", "read")]
        believed = beliefs(operations, history.events[-1].at if history.events else 0.0)
        rules = (exclusion(believed), tokens(certain, believed), fenced_resources(operations))
        return [str(item) for messages in rules for item in messages]
    shown = {
        tuple(event.value["row"][::2])
        for event in history.events
        if event.value.get("row") is not None
    }
    answered = {
        (event.process, event.op) for event in history.events if event.kind in ("ok", "fail")
    }
    needless = [
        (event.role, (event.process, event.op))
        for event in history.events
        if event.kind == "invoke"
        and event.action == "claim"
        and event.value["expected"] is None
        and (event.process, event.op) not in answered
        and (event.value["holder"], event.value["beat"]) not in shown
    ]
    most = max(Counter(role for role, _ in needless).values(), default=0)
    messages: list[str] = []
    for count in sorted({min(count, most) for count in (*CLAIMS_LET_IN, most)}):
        let_in: Counter[str] = Counter()
        left_out: set[tuple[str, int]] = set()
        for role, key in needless:
            let_in[role] += 1
            if let_in[role] > count:
                left_out.add(key)
        try:
            kept = [event for event in history.events if (event.process, event.op) not in left_out]
            messages = [str(item) for item in judge(History(kept), floors=floors)]
        except Undecided as err:
            return [*messages, f"undecided: {err}"]
        if not messages:
            break
    return messages


def with_lost_releases(history: History, faults: list[Fault]) -> History:
    """Return the history with what a server may lose that was killed: a release that was
    acknowledged shortly before, which is not durable before the next claim is."""
    killed = [fault for fault in faults if fault.kind in SERVER_ENDS]
    rows: dict[tuple[str, str, int], list[Any]] = {}
    events: list[Event] = []
    requests: dict[tuple[str, int], Event] = {}
    for event in history.events:
        events.append(event)
        key = (event.process, event.op)
        if event.kind == "invoke":
            requests[key] = event
        row = event.value.get("row")
        if event.kind != "ok" or row is None:
            continue
        if row[0] is not None:
            rows[event.role, row[0], row[1]] = row
        invoke = requests[key]
        before = rows.get((event.role, str(invoke.value.get("holder")), row[1]))
        near = any(
            fault.begin - NOT_DURABLE_FOR < event.at < fault.end + NOT_DURABLE_FOR
            for fault in killed
        )
        if event.action == "release" and event.value["applied"] and near and before is not None:
            value = {"released": row, "row": before}
            op = -len(events)
            events.append(Event("invoke", event.at, "store", op, "lose", event.role, value))
    return History(events)


def _elected(claim: Operation) -> bool:
    return claim.outcome == "ok" and bool(claim.result["applied"])


def reigns(history: History) -> list[Reign]:
    """By token."""
    reigns_by_token: dict[int, Reign] = {}
    for belief in beliefs(history.operations(), history.events[-1].at if history.events else 0.0):
        if belief.role == ROLE:
            reigns_by_token.setdefault(
                belief.token, Reign(belief.token, belief.process, belief.begin, belief.end)
            )
    return [reigns_by_token[token] for token in sorted(reigns_by_token)]


def longest_gap(terms: list[Reign]) -> tuple[float, float]:
    """Return the longest time between the last sign of a term and the first of the next: its
    begin and its end."""
    longest, until = (0.0, 0.0), terms[0].last if terms else 0.0
    for term in sorted(terms, key=lambda term: term.first):
        longest = max(longest, (until, term.first), key=lambda gap: gap[1] - gap[0])
        until = max(until, term.last)
    return longest


def faults_of(gap: tuple[float, float], faults: list[Fault], ttl: float) -> list[str]:
    """Return which faults explain a time without a leader: those that were at work in it, or at
    most a ttl before."""
    begin, end = gap
    return [
        f"{fault.kind} ({fault.detail})" if fault.detail else fault.kind
        for fault in sorted(faults, key=lambda fault: fault.begin)
        if fault.begin < end and fault.end > begin - ttl
    ]


def tokens_twice(operations: list[Operation]) -> int:
    """Return how many tokens of any role were given to two candidates."""
    holders: dict[tuple[str, int], set[str]] = {}
    for operation in operations:
        if operation.action == "claim" and _elected(operation):
            holder, token, _ = operation.result["row"]
            holders.setdefault((operation.role, token), set()).add(holder)
    return sum(len(names) > 1 for names in holders.values())


def stale(entries: list[dict[str, Any]]) -> tuple[int, int]:
    """Of the writes to one resource: how many came with an older token than one accepted before; of
    these, accepted."""
    newest = attempted = accepted = 0
    for entry in entries:
        if entry["token"] < newest:
            attempted += 1
            accepted += bool(entry["accepted"])
        elif entry["accepted"]:
            newest = entry["token"]
    return attempted, accepted


def spread(values: list[float]) -> dict[str, Any]:
    """Median, 99th percentile (the nearest rank) and worst, in seconds."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    rank = max(0, -(-99 * len(ordered) // 100) - 1)
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), 3),
        "p99": round(ordered[rank], 3),
        "worst": round(ordered[-1], 3),
    }


def failovers(faults: list[Fault], terms: list[Reign]) -> dict[str, dict[str, Any]]:
    """For each kind of fault that hit the leader: how long until the next term showed.

    Counted from the fault; from its end where nobody could have led before (and somebody did only
    after it).

    `led through`: the leader kept its term. `mixed`: another fault was at work meanwhile, so the
    time says nothing. `missed`: it was aimed at somebody else."""
    by_role: dict[str, dict[str, Any]] = {}
    for fault in faults:
        entry = by_role.setdefault(
            fault.kind, {"times": [], "led through": 0, "mixed": 0, "missed": 0}
        )
        before = [term for term in terms if term.first <= fault.begin]
        leader = before[-1] if before else None
        if leader is None or not (fault.everybody or leader.process in fault.hit):
            entry["missed"] += 1
            continue
        after = next((term for term in terms if term.token > leader.token), None)
        if after is None or (leader.last >= fault.end and after.first > fault.end):
            entry["led through"] += 1
            continue
        other = [
            item
            for item in faults
            if item is not fault
            and item.begin < after.first
            and item.end > min(fault.begin, leader.last)
        ]
        if other or leader.last < fault.begin - 0.5:
            entry["mixed"] += 1
            continue
        nobody_could = KINDS[fault.kind].from_end or (fault.everybody and fault.hit)
        from_end = nobody_could and after.first >= fault.end
        entry["times"].append(after.first - (fault.end if from_end else fault.begin))
    for entry in by_role.values():
        entry.update(spread(entry.pop("times")))
    return dict(sorted(by_role.items()))


def handovers(faults: list[Fault], terms: list[Reign]) -> dict[str, dict[str, int]]:
    """Of the transfers, by how the named candidate was: who led next."""
    by_role: dict[str, dict[str, int]] = {}
    for fault in faults:
        if not fault.to:
            continue
        entry = by_role.setdefault(
            fault.to_is, {"asked": 0, "it led": 0, "another led": 0, "came to nothing": 0}
        )
        entry["asked"] += 1
        after = next((term for term in terms if term.token > fault.token), None)
        if fault.missed or after is None:
            entry["came to nothing"] += 1
        else:
            entry["it led" if after.process == fault.to else "another led"] += 1
    return dict(sorted(by_role.items()))


def false_demotions(run: Run) -> dict[str, Any]:
    """Terms lost with no fault near: none from its begin until two ttls and two seconds after its
    end."""
    grace = 2 * run.plan.ttl + 2.0
    near = sorted((fault.begin, fault.end + grace) for fault in run.faults)
    quiet, at = 0.0, run.began
    for begin, end in near:
        quiet += max(0.0, begin - at)
        at = max(at, end)
    quiet += max(0.0, run.ended - at)
    lost = [
        note
        for note in run.crew.notes
        if note["note"] == "lost"
        and note["reason"] not in INTENDED
        and run.began <= note["at"] <= run.ended
        and not any(begin <= note["at"] <= end for begin, end in near)
    ]
    return {
        "count": len(lost),
        "quiet_seconds": round(quiet, 1),
        "per_hour": round(3600 * len(lost) / quiet, 2) if quiet > 0 else None,
        "reasons": dict(Counter(note["reason"] for note in lost)),
    }


def unpaired(notes: list[dict[str, Any]]) -> list[str]:
    """Where `on_lost` did not come exactly once for each `on_elected`. The last term of a killed
    process is open."""
    wrong: list[str] = []
    open_term: dict[str, int] = {}
    for note in notes:
        who = note["process"]
        if note["note"] == "elected":
            if who in open_term:
                wrong.append(
                    f"{who}: elected under {note['token']} before {open_term[who]} was lost"
                )
            open_term[who] = note["token"]
        elif note["note"] == "lost" and open_term.pop(who, None) != note["token"]:
            wrong.append(f"{who}: lost {note['token']}, which it did not have")
        elif note["note"] == "stopped" and who in open_term:
            wrong.append(f"{who}: stopped, and {open_term[who]} was never lost")
    return wrong


def figures(run: Run, store: str) -> dict[str, Any]:
    """Everything worth keeping, as JSON has it."""
    history = read_history(run.directory)
    operations, writes = history.operations(), journal(run.directory / "resource.db")
    judged = with_lost_releases(history, run.faults) if run.stage.loses_releases else history
    outcomes: dict[str, Counter[str]] = {}
    for operation in operations:
        outcomes.setdefault(operation.action, Counter())[operation.outcome] += 1
    fenced: dict[str, list[dict[str, Any]]] = {}
    for entry in writes:
        if entry["name"] != "unfenced":
            fenced.setdefault(entry["name"], []).append(entry)
    counts = [stale(entries) for entries in fenced.values()]
    attempted, accepted = (sum(count[place] for count in counts) for place in (0, 1))
    overlaps, _ = stale([entry for entry in writes if entry["name"] == "unfenced"])
    terms = reigns(history)
    gap = longest_gap(terms)
    features = run.plan.features
    stderr = [
        path
        for path in sorted(run.directory.glob("stderr-*.txt"))
        if b"Traceback" in path.read_bytes()
    ]
    return {
        "store": store,
        "features": list(features),
        "seed": run.plan.seed,
        "workers": run.plan.workers,
        "ttl": run.plan.ttl,
        "seconds": round(run.ended - run.began, 1),
        "stage": run.stage.facts,
        "operations": {action: dict(counts) for action, counts in sorted(outcomes.items())},
        "faults": dict(sorted(run.counted.items())),
        "elections": len(terms),
        "tokens_twice": tokens_twice(operations),
        "longest_without_leader": round(gap[1] - gap[0], 3),
        "during_that": faults_of(gap, run.faults, run.plan.ttl),
        "of_features": judges.counted(operations) if features else {},
        "held_at_the_end": run.held,
        "restored_in": None if run.restored_in is None else round(run.restored_in, 3),
        "losses": dict(
            Counter(note["reason"] for note in run.crew.notes if note["note"] == "lost")
        ),
        "fenced_writes": sum(map(len, fenced.values())),
        "overlaps_unfenced": overlaps,
        "stale_attempted": attempted,
        "stale_refused": attempted - accepted,
        "stale_accepted": accepted,
        "document": document.met(operations) if store in WITH_DOCUMENT else None,
        "handovers": handovers(run.faults, terms),
        "failover": failovers(run.faults, terms),
        "false_demotions": false_demotions(run),
        "recovered_in": None if run.recovered_in is None else round(run.recovered_in, 3),
        "longest_lag": round(run.lag, 3),
        "callbacks_unpaired": unpaired(run.crew.notes),
        "did_not_stop": [
            f"{note['process']} (state {note['state']}): {_last_lines(run.directory, note['process'])}"
            for note in run.crew.notes
            if note["note"] == "did not stop"
        ],
        "troubles": [
            f"{note['process']}: {note['detail']}"
            for note in run.crew.notes
            if note["note"] == "trouble"
        ],
        "tracebacks": [
            f"{path.name}: {path.read_text(encoding='utf-8', errors='replace')[-3000:]}"
            for path in stderr
        ],
        "violations": violations(judged, run.stage.floors, run.stage.loses)
        + judges.judged(operations, features),
    }


def _last_lines(directory: Path, process: str) -> str:
    path = directory / f"stderr-{process}.txt"
    return path.read_text(encoding="utf-8", errors="replace")[-6000:]


def good(result: dict[str, Any]) -> bool:
    """Whether every promise was kept."""
    bad = ["stale_accepted", "violations", "callbacks_unpaired", "did_not_stop", "tracebacks"]
    bad += ["troubles", "tokens_twice"]
    let_in = result["document"] is not None and result["document"]["stale_accepted"]
    return (
        not any(result[name] for name in bad)
        and not let_in
        and result["recovered_in"] is not None
        and result["restored_in"] is not None
    )
