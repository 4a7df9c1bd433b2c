"""Handover and failover with two candidates on PostgreSQL, Redis and etcd, in turns with the locks
of others on the same server."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from functools import partial

from tests.benchmarks import locks
from tests.benchmarks.alone import Tries, alone
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import Aim, Figure
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting

FAILOVER_BOUND = 150.0
"""Milliseconds beyond the end of the lease, at the median."""


def hand_over(url: str, others: dict[str, str], times: int) -> dict[str, list[float]]:
    """Milliseconds of each handover, by the name of what handed over; "coord" for ours."""
    taken: dict[str, list[float]] = {name: [] for name in ("coord", *others)}
    with ExitStack() as stack:
        crowds = {
            name: stack.enter_context(Crowd(where, "handover", 2))
            for name, where in (("coord", url), *others.items())
        }
        for turn in range(times):
            names = list(crowds) if turn % 2 == 0 else list(reversed(crowds))
            for name in names:
                taken[name].append(crowds[name].hand_over() * 1000)
    return taken


def fail_over(url: str, ttl: float, times: int) -> list[float]:
    """Milliseconds from the end of a killed leader's lease to the next `on_elected`."""
    with Crowd(url, "failover", 2, ttl) as crowd:
        late = []
        for _ in range(times):
            late.append(crowd.failover(crowd.kill_leader()).late * 1000)
            time.sleep(0.5)
    return late


def figures(store: str, taken: dict[str, list[float]], late: list[float]) -> list[Figure]:
    mine = taken.pop("coord")
    handover = f"{store}: graceful handover, 2 candidates"
    return [
        Figure(f"{handover}, median of {len(mine)}", statistics.median(mine), "ms"),
        Figure(f"{store}: the longest of them", max(mine), "ms"),
        *(
            Figure(f"{store}: {name}, in turns with them", statistics.median(first), "ms")
            for name, first in taken.items()
        ),
        Figure(
            f"{store}: failover after kill -9, beyond the lease's end, median of {len(late)}",
            statistics.median(late),
            "ms",
            (Aim("≤", FAILOVER_BOUND),),
        ),
    ]


def sections(where: Setting) -> list[Section]:
    times, kills = where.pick(40, 8, 1), where.pick(9, 2, 1)
    ttl = where.pick(3.0, 3.0, 1.5)

    def measure(store: str) -> list[Figure]:
        url = where.server_url(store, "handover")
        taken = hand_over(url, locks.urls(store, url), times)
        late = fail_over(where.server_url(store, "failover"), ttl, kills)
        return figures(store, taken, late)

    found, tries = list[Figure](), Tries(where)
    for store in where.servers:
        found += tries.figures(partial(measure, store), store)
    note = (
        "Each candidate is a process of its own. Handover: from the leader's `stop`, or from the call that releases the "
        "lock, to another's `on_elected`, or to the return of the call that takes it. The locks of others have no fencing "
        "token. `pg_advisory_lock` writes nothing to the disk, and ends with its connection, not with a lease. A lock of "
        "redis-py is polled ten times a second. `etcdctl elect` starts a process for each term. A handover of coord makes "
        "two writes durable: the release, and the claim with its token." + tries.note
    )
    return [Section("Handover and failover beside the locks of others", found, note)]


if __name__ == "__main__":
    alone(sections)
