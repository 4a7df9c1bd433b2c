"""Candidates for one role in processes that are forked from one which has all modules loaded but no
connection.

`python -m tests.benchmarks.candidates URL ROLE TTL PROCESSES EACH [count]`, EACH candidates to a
process, which share a coordinator. Each line that comes out is of one candidate: `<event> <number>
<pid> <seconds> [what]`, seconds by `clock.total_seconds` (one machine, one clock for all
processes).
Events: `elected`, `stopping` (just before it stops standing), `follows` (it has learnt of a leader)
and, with `count`, `queries` for each query. SIGUSR1 makes the leader hand over. A line `more` on the
standard input forks another candidate; its end ends them all. `zookeeper://host:port` contends for
a lock of kazoo's instead, `relay+rethinkdb://…` for a row through the raw driver (`relay`),
`lock+…` for the locks of others (`locks`)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import coord
from coord import Coordinator
from coord.runtime import clock
from tests.benchmarks import counting, locks, relay

REST = 0.15
"""Seconds after which one that handed over stands again."""


def tell(event: str, number: int, at: float, what: str = "") -> None:
    """One write, so that lines of several processes do not mix."""
    os.write(1, f"{event} {number} {os.getpid()} {at:.6f} {what}\n".encode())


def candidate(coordinator: Coordinator, number: int, role: str, ttl: float) -> coord.Leadership:
    return coordinator.leadership(
        role,
        ttl=ttl,
        on_elected=lambda _: tell("elected", number, clock.total_seconds()),
    )


def tell_followers(leads: dict[int, coord.Leadership]) -> None:
    """Tell of each candidate when it knows a leader. A callback would tell, too, but with each
    handover it would take a thread's time of every candidate that loses."""
    unknown = dict(leads)
    while unknown:
        for number, lead in list(unknown.items()):
            elector = lead.inner.elector
            if elector is not None and elector.seen is not None and not elector.seen.vacant:
                tell("follows", number, clock.total_seconds())
                del unknown[number]
        time.sleep(0.05)


def stand(numbers: range, url: str, role: str, ttl: float, count: bool) -> NoReturn:
    if count:
        counting.watch(lambda what, at: tell("query", numbers[0], at, what.replace(" ", "_")))
    coordinator = Coordinator(url)
    leads = {number: candidate(coordinator, number, role, ttl) for number in numbers}
    for lead in leads.values():
        lead.start()
    tell_followers(leads)
    while True:
        signal.sigwait({signal.SIGUSR1})
        for number, lead in leads.items():
            if lead.is_leader:
                tell("stopping", number, clock.total_seconds())
                lead.stop()
                time.sleep(REST)
                lead.start()
                break


def contend(number: int, url: str, ttl: float) -> NoReturn:
    from kazoo.client import KazooClient

    client = KazooClient(url.partition("://")[2], timeout=ttl)
    client.start(timeout=30)
    lock = client.Lock(f"/bench-{ttl:g}")
    while True:
        tell("follows", number, clock.total_seconds())
        lock.acquire()
        tell("elected", number, clock.total_seconds())
        signal.sigwait({signal.SIGUSR1})
        tell("stopping", number, clock.total_seconds())
        lock.release()
        time.sleep(REST)


def in_threads(numbers: range, run: Callable[[int], NoReturn]) -> NoReturn:
    """Run each candidate in a thread, with a connection of its own. Of these only the leader waits
    for the signal."""
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in numbers[1:]]
    for thread in threads:
        thread.start()
    run(numbers[0])


def load(url: str) -> None:
    """Import what a candidate will use, so that it is there before the fork."""
    _ = coord.Leadership, coord.connect
    if url.startswith("rethinkdb://"):
        from coord.stores.rethinkdb import driver
        from coord.stores.rethinkdb.queries import leases  # noqa: F401

        driver.reql()
    elif url.startswith(relay.SCHEME):
        import rethinkdb  # noqa: F401
    elif url.startswith("zookeeper://"):
        import kazoo.client
        import kazoo.recipe.lock  # noqa: F401
    else:
        from coord.stores import sqlite  # noqa: F401


class Nursery:
    """The process that forks them."""

    def __init__(self, url: str, role: str, ttl: float, each: int, count: bool) -> None:
        self._arguments: Any = (url, role, ttl, count)
        self._each = each
        self._end_in_fork: list[int] = []

    def fork(self) -> None:
        number = len(self._end_in_fork) * self._each
        pid = os.fork()
        if pid == 0:
            os.close(0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                url, role, ttl, count = self._arguments
                numbers = range(number, number + self._each)
                if url.startswith("zookeeper://"):
                    in_threads(numbers, lambda number: contend(number, url, ttl))
                if url.startswith(relay.SCHEME):
                    relay.run(number, url, REST, tell)
                if url.startswith(locks.SCHEME):
                    in_threads(numbers, lambda number: locks.run(number, url, REST, tell, ttl))
                stand(numbers, url, role, ttl, count)
            finally:
                os._exit(1)
        self._end_in_fork.append(pid)

    def end(self) -> None:
        for pid in self._end_in_fork:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # killed before: that is what failover is measured by


def main(url: str, role: str, ttl: str, processes: str, each: str, *options: str) -> None:
    logging.getLogger("coord").setLevel(100)
    logging.getLogger("kazoo").setLevel(100)
    load(url)
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # the dead leave no zombies, whose pids would still take a signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    nursery = Nursery(url, role, float(ttl), int(each), "count" in options)
    try:
        for _ in range(int(processes)):
            nursery.fork()
        for line in iter(sys.stdin.readline, ""):
            if line.strip() == "more":
                nursery.fork()
    finally:
        nursery.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
