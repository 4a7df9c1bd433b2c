"""How handover and failover grow with the number of candidates, one process each. Failover: `kill -9` of the leader."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.benchmarks import peers
from tests.benchmarks.alone import alone
from tests.benchmarks.counting import LEASES
from tests.benchmarks.crowd import Crowd, Failover
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section, Table
from tests.benchmarks.plots import Panel, Picture
from tests.benchmarks.setting import Setting

TTL = 3.0
"""Of failover: long enough that the new leader's first renewal comes more than a second after the old lease's end."""
STAGGER = 0.4
MOST = {"RethinkDB": 200, "SQLite": 100}
"""Processes. Each candidate on SQLite looks at the file many times a second, and on two cores two hundred processes
measure the machine's scheduler: handovers then take seconds."""


@dataclass
class Result:
    """Of one store and one number of candidates, `each` to a process; times in milliseconds."""

    size: int
    each: int = 1
    handovers: list[float] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)

    @property
    def handover(self) -> float:
        return statistics.median(self.handovers)

    @property
    def failover(self) -> float:
        return statistics.median(one.late for one in self.failovers) * 1000

    def asked(self) -> Counter[str]:
        """The most that was asked of each table in the second after one expiry."""
        most: Counter[str] = Counter()
        for one in self.failovers:
            most |= one.asked
        return most


def hand_over(url: str, results: Sequence[Result], times: int, zookeeper: str | None) -> list[float]:
    """Fill in the handovers, crowd by crowd; those of two candidates take turns with kazoo's, which are returned."""
    theirs: list[float] = []
    for result in results:
        with ExitStack() as stack:
            ours = stack.enter_context(Crowd(url, f"handover of {result.size}", result.size, each=result.each))
            peer = None
            if zookeeper is not None and result.size == 2:
                peer = stack.enter_context(Crowd(zookeeper, "lock", 2))
            for _ in range(times if result.size > 2 else 4 * times):
                result.handovers.append(ours.hand_over() * 1000)
                if peer is not None:
                    theirs.append(peer.hand_over() * 1000)
    return theirs


def fail_over(url: str, results: Sequence[Result], times: int) -> None:
    """Fill in the failovers of these crowds, which stand at the same time; leaders are killed one after another."""
    with ExitStack() as stack:
        crowds = [
            stack.enter_context(Crowd(url, f"failover of {one.size}", one.size, TTL, each=one.each, count=True))
            for one in results
        ]
        for _ in range(times):
            ends = []
            for crowd in crowds:
                ends.append(crowd.kill_leader())
                time.sleep(STAGGER)
            for crowd, result, end in zip(crowds, results, ends, strict=True):
                result.failovers.append(crowd.failover(end))
            time.sleep(0.5)


def measure(url: str, most: int, quick: bool, zookeeper: str | None = None) -> tuple[list[Result], list[float]]:
    """Results of up to `most` processes, then of five with many each, and kazoo's handovers.

    Small crowds fail over side by side, large ones alone.
    """
    sizes = [[2, 5]] if quick else [[2, 5, 10, 30], [100], [200]]
    groups = [[Result(size) for size in group] for group in sizes if group[-1] <= most]
    groups.append([Result(15, each=3) if quick else Result(250, each=50)])
    theirs = []
    for group in groups:
        theirs += hand_over(url, group, 4 if quick else 15, zookeeper)
        fail_over(url, group, 2 if quick else 7 if len(group) > 1 else 3)
    return [result for group in groups for result in group], theirs


def figures(store: str, results: Sequence[Result], peer: Reference | None) -> list[Figure]:
    two, most, together = results[0], results[-2], results[-1]
    aims = [Aim("≤", 3.0 if store == "RethinkDB" else 10.0), *([Aim("<", 1.0, "ratio")] if peer else [])]
    found = [
        Figure(
            f"{store}: graceful handover, 2 candidates, median of {len(two.handovers)}",
            two.handover,
            "ms",
            tuple(aims),
            peer,
        ),
        Figure(f"{store}: the longest of them", max(two.handovers), "ms"),
    ]
    for result, bound in ((two, 100), (most, 300), (together, 300)):
        asked, waiting = result.asked(), f"{result.size - result.each} waiting"
        if result is together:
            waiting += f" in {result.size // result.each - 1} processes"
        samples = len(result.failovers)
        found += [
            Figure(
                f"{store}: failover after kill -9, {waiting}, beyond the lease's end, median of {samples}",
                result.failover,
                "ms",
                (Aim("≤", bound),),
            ),
            Figure(
                f"{store}: {waiting}: most queries on leases in the second after expiry, 1 role",
                asked[LEASES],
                "",
                (Aim("≤", 3),),
            ),
        ]
    return found


def table(store: str, results: Sequence[Result]) -> Table:
    head = [
        f"{store}: candidates",
        "processes",
        "handover, median ms",
        "longest",
        "samples",
        "failover beyond expiry, median ms",
    ]
    rows = []
    for one in results:
        asked = ", ".join(
            f"{what.replace('_', ' ') if what.startswith('feed') else what} {n}"
            for what, n in sorted(one.asked().items())
        )
        late = [failover.late * 1000 for failover in one.failovers]
        rows.append(
            [
                str(one.size),
                str(one.size // one.each),
                f"{one.handover:.2f}",
                f"{max(one.handovers):.1f}",
                str(len(one.handovers)),
                f"{one.failover:.1f}",
                f"{max(late):.1f}",
                str(len(late)),
                asked,
            ]
        )
    return Table([*head, "longest", "samples", "most queries in the second after"], rows)


def sections(where: Setting) -> list[Section]:
    found: dict[str, tuple[list[Result], Reference | None]] = {}
    for store, url in where.stores("succession").items():
        with peers.zookeeper(store == "RethinkDB") as zookeeper:
            results, theirs = measure(url, MOST[store], where.quick, zookeeper)
        peer = Reference("kazoo on ZooKeeper, in turns", statistics.median(theirs)) if theirs else None
        found[store] = (results, peer)
    picture = Picture(
        "succession",
        "Median handover and failover over the number of candidates",
        (
            Panel(
                "graceful handover",
                "candidates (processes)",
                "ms",
                {
                    store: [(one.size, one.handover) for one in results if one.each == 1]
                    for store, (results, _) in found.items()
                },
            ),
            Panel(
                "failover beyond the lease's end",
                "candidates (processes)",
                "ms",
                {
                    store: [(one.size, one.failover) for one in results if one.each == 1]
                    for store, (results, _) in found.items()
                },
            ),
        ),
    )
    note = (
        "Each candidate is a process of its own, but in the last row of each table. Handover: from the "
        "leader's `stop` to another's `on_elected`. "
        f"Failover: the leader is killed (-9), and counted is from the end of its lease, {TTL:g} s after its last "
        "renewal, to another's `on_elected`. All times are of one clock of the machine (CLOCK_BOOTTIME), read in the "
        "candidates. Queries are those of all candidates from 50 ms before the lease's end to 1 s after it."
    )
    return [
        Section(
            "How handover and failover grow with the candidates",
            [figure for store, (results, peer) in found.items() for figure in figures(store, results, peer)],
            note,
            (picture,),
            [table(store, results) for store, (results, _) in found.items()],
        )
    ]


if __name__ == "__main__":
    alone(sections)
