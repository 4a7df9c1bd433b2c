"""How long it takes until somebody else leads, after a graceful handover and after `kill -9` of the
leader, on every store and beside the locks and elections of others on the same server."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from tests.benchmarks import locks, peers, relay
from tests.benchmarks.alone import Tries, alone
from tests.benchmarks.counting import LEASES
from tests.benchmarks.crowd import Crowd, Failover
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section, Table
from tests.benchmarks.plots import Bars, Picture
from tests.benchmarks.setting import Setting

STAGGER = 0.4
COORD = "coord"
KAZOO = "kazoo on ZooKeeper"
RAW = {
    "two hard writes with the feed between, raw driver": "hard",
    "the first of them soft": "soft",
}
"""Handovers that are nothing but that (`relay`), by the durability of the write that gives back."""
LEASELESS = {*RAW, locks.NOTIFIED}
"""Handovers without an election, of which nobody takes over after a crash."""
MOST = {
    "pg_advisory_lock": 8,
    locks.NOTIFIED: 8,
    "etcdctl elect": 8,
    **dict.fromkeys(RAW, 2),
}
"""Candidates at most: PostgreSQL has 200 connections in all, and each candidate of etcdctl is a
process of its own. All others take part with each number."""
HANDOVER_RATIO = 2.0
"""Handover with many candidates, by that with two, at most."""
FAILOVER_BOUND = 150.0
"""Milliseconds beyond the end of the lease, at the median."""
COUNTED = ("SQLite", "RethinkDB")
"""Stores whose queries can be counted."""
SMALLEST = ("SQLite", "Redis")
"""The stores of a run in a test."""


@dataclass
class Result:
    """Of one contender and one number of candidates, `each` to a process. Handovers in
    milliseconds; `queries` on leases of each handover; `failure`: why there is not more."""

    name: str
    size: int
    each: int = 1
    handovers: list[float] = field(default_factory=list)
    queries: list[int] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)
    failure: str = ""

    @property
    def handover(self) -> float:
        return statistics.median(self.handovers)

    @property
    def failover(self) -> float:
        """Milliseconds beyond the end of the lease."""
        return statistics.median(failover.late for failover in self.failovers) * 1000

    @property
    def after_kill(self) -> float:
        """Seconds from the kill."""
        return statistics.median(failover.after_kill for failover in self.failovers)

    @property
    def processes(self) -> int:
        return self.size // self.each

    def most_queries(self) -> Counter[str]:
        """The most that was asked of each table in the second after one expiry."""
        most: Counter[str] = Counter()
        for failover in self.failovers:
            most |= failover.queries
        return most


def hand_over(urls: Mapping[str, str], results: Sequence[Result], times: int, count: bool) -> None:
    """Fill in the handovers of results of one size, in turns. One that fails takes part no
    longer."""
    with ExitStack() as stack:
        crowds: list[tuple[Result, Crowd]] = []
        for result in results:
            try:
                crowd = Crowd(
                    urls[result.name],
                    f"handover of {result.size}",
                    result.size,
                    each=result.each,
                    count=count and result.name == COORD,
                )
            except Exception as err:
                result.failure = f"{type(err).__name__}: {err}"
            else:
                crowds.append((result, stack.enter_context(crowd)))
        for turn in range(times):
            for result, crowd in crowds if turn % 2 == 0 else reversed(crowds):
                if result.failure:
                    continue
                try:
                    result.handovers.append(crowd.hand_over() * 1000)
                    result.queries.append(crowd.queries[LEASES])
                except Exception as err:
                    result.failure = f"{type(err).__name__}: {err}"


def fail_over(
    urls: Mapping[str, str], results: Sequence[Result], times: int, ttl: float, count: bool
) -> None:
    """Fill in the failovers of these, which wait at the same time; leaders are killed one after
    another."""
    if not results:
        return
    with ExitStack() as stack:
        crowds = [
            stack.enter_context(
                Crowd(
                    urls[result.name],
                    f"failover of {result.size}",
                    result.size,
                    ttl,
                    each=result.each,
                    count=count and result.name == COORD,
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


def contenders(store: str, url: str, where: Setting, zookeeper: str | None) -> dict[str, str]:
    """The URLs for `Crowd` of coord and of what is compared with it on a store, by name."""
    urls = {COORD: url, **locks.urls(store, url)}
    if store == "RethinkDB" and where.server is not None:
        host, port = where.server.host, where.server.port
        urls |= {
            name: relay.url(host, port, f"relay_{durability}", durability)
            for name, durability in RAW.items()
        }
        if zookeeper is not None:
            urls[KAZOO] = zookeeper
    return urls


def measure(store: str, url: str, where: Setting) -> list[Result]:
    """The results of all contenders on a store."""
    sizes = where.pick(((2, 1), (8, 1), (200, 50)), ((2, 1), (20, 5)), ((2, 1),))
    ttl, count = failover_ttl(where), store in COUNTED
    measured: list[Result] = []
    with peers.zookeeper(store == "RethinkDB") as zookeeper:
        urls = contenders(store, url, where, zookeeper)
        for size, each in sizes:
            results = [Result(name, size, each) for name in urls if MOST.get(name, size) >= size]
            hand_over(urls, results, where.pick(30 if size == 2 else 11, 3, 1), count)
            measured += results
        own_results = [result for result in measured if result.name == COORD]
        few, many = own_results[:2], own_results[2:]
        for results, times in ((few, where.pick(5, 2, 1)), (many, where.pick(3, 1, 1))):
            _try_fail_over(urls, results, times, ttl, count)
        if where.size != "smallest":
            for result in measured[1:]:
                if result.size == 2 and result.name not in LEASELESS:
                    times = 1 if result.name == "etcdctl elect" else where.pick(3, 1, 1)
                    _try_fail_over(urls, [result], times, ttl, count)
    return measured


def _try_fail_over(
    urls: Mapping[str, str], results: Sequence[Result], times: int, ttl: float, count: bool
) -> None:
    if any(result.failure for result in results):
        return
    try:
        fail_over(urls, results, times, ttl, count)
    except Exception as err:
        for result in results:
            result.failure = f"failover: {type(err).__name__}: {err}"


def figures(store: str, results: Sequence[Result]) -> list[Figure]:
    own_results = [result for result in results if result.name == COORD and result.handovers]
    if not own_results:
        return []
    two, rows = own_results[0], []
    references = [r for r in results if r.size == 2 and r.name != COORD and r.handovers]
    kazoo = next((result for result in references if result.name == KAZOO), None)
    rows.append(
        Figure(
            f"{store}: graceful handover, 2 candidates, median of {len(two.handovers)}",
            two.handover,
            "ms",
            (Aim("<", 1.0, "ratio"),) if kazoo else (),
            Reference(f"{KAZOO}, in turns", kazoo.handover) if kazoo else None,
        )
    )
    rows += [
        Figure(f"{store}: {result.name}, in turns with them", result.handover, "ms")
        for result in references
        if result is not kazoo
    ]
    rows += [
        Figure(
            f"{store}: graceful handover, {result.size} candidates in {result.processes} processes",
            result.handover,
            "ms",
            (Aim("≤", HANDOVER_RATIO, "ratio"),),
            Reference("2 candidates", two.handover),
        )
        for result in own_results[1:]
    ]
    raw = next((result for result in references if result.name == locks.NOTIFIED), None)
    rows += [
        Figure(
            f"{store}: {result.name}, {result.size} candidates in {result.processes} processes",
            result.handover,
            "ms",
            (),
            Reference("2 candidates", raw.handover),
        )
        for result in results
        if raw is not None and result.name == raw.name and result.size > 2 and result.handovers
    ]
    for result in own_results:
        if not result.failovers:
            continue
        waiting = f"{result.size - result.each} waiting"
        rows.append(
            Figure(
                f"{store}: failover after kill -9, {waiting}, beyond the lease's end, median of "
                f"{len(result.failovers)}",
                result.failover,
                "ms",
                (Aim("≤", FAILOVER_BOUND),),
            )
        )
        if store in COUNTED:
            rows.append(
                Figure(
                    f"{store}: {waiting}: most queries on leases in the second after expiry",
                    result.most_queries()[LEASES],
                    "",
                    (Aim("≤", 3),),
                )
            )
    return rows


def table(store: str, results: Sequence[Result]) -> Table:
    head = [
        f"on {store}",
        "candidates",
        "processes",
        "handover, median ms",
        "longest",
        "samples",
        "queries on leases in a handover, mean",
        "after kill -9: median s",
        "samples",
    ]
    rows = []
    for result in results:
        counted = result.name == COORD and store in COUNTED and result.queries
        rows.append(
            [
                result.name,
                str(result.size),
                str(result.processes),
                f"{result.handover:.1f}" if result.handovers else "",
                f"{max(result.handovers):.1f}" if result.handovers else "",
                str(len(result.handovers)) + (f" ({result.failure})" if result.failure else ""),
                f"{statistics.mean(result.queries):.1f}" if counted else "",
                f"{result.after_kill:.2f}" if result.failovers else "",
                str(len(result.failovers) or ""),
            ]
        )
    return Table(head, rows)


def picture(measured: Mapping[str, Sequence[Result]], ttl: float) -> Picture:
    """For the README: what a reader sees at a glance."""
    pairs = [
        (f"{COORD} on {store}" if result.name == COORD else result.name, result)
        for store, results in measured.items()
        for result in results
        if result.size == 2 and result.name not in LEASELESS
    ]
    pairs.sort(key=lambda pair: not pair[0].startswith(COORD))
    handovers = [(name, result.handover) for name, result in pairs if result.handovers]
    kills = [(name, result.after_kill) for name, result in pairs if result.failovers]
    alt = "Time until somebody else leads: " + "; ".join(
        f"{what}: " + ", ".join(f"{name} {value:.3g} {unit}" for name, value in values)
        for what, unit, values in (
            ("after a graceful release", "ms", handovers),
            ("after kill -9 of the leader", "s", kills),
        )
    )
    panels = [
        Bars("after a graceful release", "ms", handovers, COORD),
        Bars(f"after kill -9 of the leader (lease of {ttl:g} s)", "s", kills, COORD),
    ]
    return Picture("succession", alt, [panel for panel in panels if panel.bars])


def sections(where: Setting) -> list[Section]:
    measured, tries = dict[str, list[Result]](), Tries(where)
    for store, url in where.every_store("succession").items():
        if where.size != "smallest" or store in SMALLEST:
            measured[store] = tries.figures(partial(measure, store, url, where), store)
    ttl = failover_ttl(where)
    note = (
        "Handover: from the leader's `stop`, or from the call that releases the lock, to another's `on_elected`, or to "
        f"the return of the call that takes it. Failover: the leader is killed (-9), at a ttl of {ttl:g} s, to another's "
        "`on_elected`; the last renewal was up to a third of the ttl earlier. All times are of one clock of the machine "
        "(CLOCK_BOOTTIME), read in the candidates. Queries are those of all candidates on the table of leases: in a "
        "handover the release, and all claims until 0.1 s after the election; at a failover from 50 ms before the lease's "
        "end to 1 s after it. The locks of others have no fencing token. `pg_advisory_lock` writes nothing to the disk, "
        "and ends with its connection, not with a lease: a machine that loses power keeps it. A lock of redis-py is polled "
        "ten times a second. `etcdctl elect` starts a process for each term, and its lease has 60 s. kazoo has a session of "
        f"{ttl:g} s. A handover of coord makes two writes durable: the release, and the claim with its token. On RethinkDB "
        "the raw driver shows how long that takes at least, on PostgreSQL a row that every candidate reads and takes as soon "
        "as NOTIFY wakes it."
    )
    failures = [result.failure for results in measured.values() for result in results]
    assert where.size != "smallest" or not any(failures), failures
    note += tries.note
    if not peers.available():
        note += " kazoo was not measured: it needs ZooKeeper (`apt install zookeeper`) and `pip install kazoo`."
    return [
        Section(
            "Until somebody else leads",
            [figure for store, results in measured.items() for figure in figures(store, results)],
            note,
            (picture(measured, ttl),),
            [table(store, results) for store, results in measured.items()],
        )
    ]


if __name__ == "__main__":
    alone(sections)
