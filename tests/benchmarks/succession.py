"""How handover and failover grow with the number of candidates, one process each. Failover: `kill
-9` of the leader."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.benchmarks import peers, relay
from tests.benchmarks.alone import alone
from tests.benchmarks.counting import LEASES
from tests.benchmarks.crowd import Crowd, Failover
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section, Table
from tests.benchmarks.plots import Panel, Picture
from tests.benchmarks.setting import Setting

STAGGER = 0.4
MOST = {"RethinkDB": 200, "SQLite": 100}
"""Processes. Each candidate on SQLite looks at the file many times a second, and on two cores two
hundred processes measure the machine's scheduler: handovers then take seconds."""

KAZOO = "kazoo on ZooKeeper"
RAW = {
    "hard": "two hard writes with the feed between, raw driver",
    "soft": "the first of them soft",
}
"""Handovers that are nothing but that (`relay`), by the durability of the write that gives back."""


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
        return statistics.median(failover.late for failover in self.failovers) * 1000

    def asked(self) -> Counter[str]:
        """The most that was asked of each table in the second after one expiry."""
        most: Counter[str] = Counter()
        for failover in self.failovers:
            most |= failover.asked
        return most


def hand_over(
    url: str, results: Sequence[Result], times: int, others: Mapping[str, str]
) -> dict[str, list[float]]:
    """Fill in the handovers, crowd by crowd; those of two candidates take turns with the `others`'
    (name: URL), which are returned."""
    theirs: dict[str, list[float]] = {name: [] for name in others}
    for result in results:
        with ExitStack() as stack:
            ours = stack.enter_context(
                Crowd(url, f"handover of {result.size}", result.size, each=result.each)
            )
            crowds = {}
            if result.size == 2:
                crowds = {
                    name: stack.enter_context(Crowd(other, "lock", 2))
                    for name, other in others.items()
                }
            for _ in range(times if result.size > 2 else 4 * times):
                result.handovers.append(ours.hand_over() * 1000)
                for name, crowd in crowds.items():
                    theirs[name].append(crowd.hand_over() * 1000)
    return theirs


def fail_over(url: str, results: Sequence[Result], times: int, ttl: float) -> None:
    """Fill in the failovers of these crowds, which stand at the same time; leaders are killed one
    after another."""
    with ExitStack() as stack:
        crowds = [
            stack.enter_context(
                Crowd(
                    url,
                    f"failover of {result.size}",
                    result.size,
                    ttl,
                    each=result.each,
                    count=True,
                )
            )
            for result in results
        ]
        for _ in range(times):
            ends = []
            for crowd in crowds:
                ends.append(crowd.kill_leader())
                time.sleep(STAGGER)
            for crowd, result, end in zip(crowds, results, ends, strict=True):
                result.failovers.append(crowd.failover(end))
            time.sleep(0.5)


def failover_ttl(where: Setting) -> float:
    """Return a ttl in seconds that is long enough for the page: the new leader's first renewal
    comes more than a second after the end of the old lease."""
    return where.pick(3.0, 3.0, 1.0)


def measure(
    url: str, most: int, where: Setting, others: Mapping[str, str]
) -> tuple[list[Result], dict[str, list[float]]]:
    """Results of up to `most` processes, then of five with many each, and the others' handovers by
    name.

    Small crowds fail over side by side, large ones alone.
    """
    sizes = where.pick([[2, 5, 10, 30], [100], [200]], [[2, 5]], [[2]])
    groups = [[Result(size) for size in group] for group in sizes if group[-1] <= most]
    groups.append([Result(*where.pick((250, 50), (15, 3), (4, 2)))])
    theirs: dict[str, list[float]] = {name: [] for name in others}
    for group in groups:
        for name, taken in hand_over(url, group, where.pick(15, 4, 1), others).items():
            theirs[name] += taken
        fail_over(url, group, where.pick(7 if len(group) > 1 else 3, 2, 1), failover_ttl(where))
    return [result for group in groups for result in group], theirs


def figures(
    store: str, results: Sequence[Result], theirs: Mapping[str, Sequence[float]]
) -> list[Figure]:
    two, most, together = results[0], results[-2], results[-1]
    aims, peer = [Aim("≤", 3.0 if store == "RethinkDB" else 10.0)], None
    if KAZOO in theirs:
        aims.append(Aim("<", 1.0, "ratio"))
        peer = Reference(f"{KAZOO}, in turns", statistics.median(theirs[KAZOO]))
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
    found += [
        Figure(f"{store}: {name}, in turns with them", statistics.median(taken), "ms")
        for name, taken in theirs.items()
        if name != KAZOO
    ]
    for result, bound in ((two, 100), (most, 300), (together, 300)):
        requests, waiting = result.asked(), f"{result.size - result.each} waiting"
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
                requests[LEASES],
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
    for result in results:
        request = ", ".join(
            f"{what.replace('_', ' ') if what.startswith('feed') else what} {n}"
            for what, n in sorted(result.asked().items())
        )
        late = [failover.late * 1000 for failover in result.failovers]
        rows.append(
            [
                str(result.size),
                str(result.size // result.each),
                f"{result.handover:.2f}",
                f"{max(result.handovers):.1f}",
                str(len(result.handovers)),
                f"{result.failover:.1f}",
                f"{max(late):.1f}",
                str(len(late)),
                request,
            ]
        )
    return Table([*head, "longest", "samples", "most queries in the second after"], rows)


def sections(where: Setting) -> list[Section]:
    found: dict[str, tuple[list[Result], dict[str, list[float]]]] = {}
    for store, url in where.stores("succession").items():
        others, server = {}, where.server if store == "RethinkDB" else None
        with peers.zookeeper(server is not None) as zookeeper:
            if zookeeper is not None:
                others[KAZOO] = zookeeper
            if server is not None:
                others |= {
                    name: relay.url(server.host, server.port, f"relay_{durability}", durability)
                    for durability, name in RAW.items()
                }
            found[store] = measure(url, MOST[store], where, others)
    picture = Picture(
        "succession",
        "Median handover and failover over the number of candidates",
        (
            Panel(
                "graceful handover",
                "candidates (processes)",
                "ms",
                {
                    store: [
                        (result.size, result.handover) for result in results if result.each == 1
                    ]
                    for store, (results, _) in found.items()
                },
            ),
            Panel(
                "failover beyond the lease's end",
                "candidates (processes)",
                "ms",
                {
                    store: [
                        (result.size, result.failover) for result in results if result.each == 1
                    ]
                    for store, (results, _) in found.items()
                },
            ),
        ),
    )
    note = (
        "Each candidate is a process of its own, but in the last row of each table. Handover: from the "
        "leader's `stop` to another's `on_elected`. "
        f"Failover: the leader is killed (-9), and counted is from the end of its lease, {failover_ttl(where):g} s after its last "
        "renewal, to another's `on_elected`. All times are of one clock of the machine (CLOCK_BOOTTIME), read in the "
        "candidates. Queries are those of all candidates from 50 ms before the lease's end to 1 s after it."
    )
    return [
        Section(
            "How handover and failover grow with the candidates",
            [
                figure
                for store, (results, theirs) in found.items()
                for figure in figures(store, results, theirs)
            ],
            note,
            (picture,),
            [table(store, results) for store, (results, _) in found.items()],
        )
    ]


if __name__ == "__main__":
    alone(sections)
