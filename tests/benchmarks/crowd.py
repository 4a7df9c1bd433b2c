"""A crowd of candidates seen from outside: who leads, how a handover went, how a failover went. See
`candidates`."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import Counter
from types import TracebackType
from typing import NamedTuple

from coord import Coordinator
from coord.runtime import clock
from tests.benchmarks import locks, relay
from tests.benchmarks.setting import spawn

WITHIN = 180.0
"""Seconds in which somebody must be elected."""
COUNTED_AFTER = 1.5
"""Seconds after which the last leader is announced, and knows how many candidates wait. Until then
it claims without a delay."""
HEARD_WITHIN = 0.1
"""Seconds after an election for which queries count as those of its handover."""


class Event(NamedTuple):
    name: str
    number: int
    pid: int
    at: float
    what: str = ""


class Failover(NamedTuple):
    """`late`: seconds from the lease's end to another's `on_elected`; `queries`: queries of all in
    the second after; `after_kill`: seconds from the kill to another's `on_elected`."""

    late: float
    queries: Counter[str]
    after_kill: float


class Crowd:
    """`size` candidates for one role, `each` to a process. Leave it (`with`) to end them.

    `queries`: the queries of all candidates in the last handover, by table, with `count`.
    """

    def __init__(
        self,
        url: str,
        role: str,
        size: int,
        ttl: float = 15.0,
        *,
        each: int = 1,
        count: bool = False,
    ) -> None:
        self.role, self.size, self._each = role, size, each
        self._ttl, self._processes = ttl, size // each
        self._newcomer: int | None = None
        self._all_saw_a_renewal = False
        self._process = spawn(
            "candidates",
            url,
            role,
            ttl,
            size // each,
            each,
            *(["count"] if count else []),
            stdin=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._rest = b""
        self._events: list[Event] = []
        self.queries: Counter[str] = Counter()
        self._killed_at = self._counted_at = 0.0
        self._look = (
            None
            if url.startswith(("zookeeper://", relay.SCHEME, locks.SCHEME))
            else Coordinator(url)
        )
        try:
            self.leader = self._wait_for("elected", 0.0)
            self._settle()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._output.close()
        self._selector.close()
        if self._look is not None:
            self._look.close()

    def _read(self, seconds: float) -> None:
        """Take in what has been said, waiting so long for something."""
        if not self._selector.select(seconds):
            return
        data = os.read(self._output.fileno(), 1 << 20)
        if not data:
            raise RuntimeError("the candidates have ended: see their error above")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            name, number, pid, at, *what = line.decode().split()
            self._events.append(Event(name, int(number), int(pid), float(at), *what))

    def _find(self, name: str, since: float) -> Event | None:
        events = (event for event in self._events if event.name == name and event.at >= since)
        return min(events, key=lambda item: item.at, default=None)

    def _wait_for(self, name: str, since: float) -> Event:
        until = time.monotonic() + WITHIN
        while (event := self._find(name, since)) is None:
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"{self.role}: nobody was {name} within {WITHIN:g} s")
            self._read(remaining)
        return event

    def _settle(self) -> None:
        """All the others know of the leader, and have had time to open their feeds."""
        until = time.monotonic() + WITHIN
        while (
            len(
                {event.number for event in self._events if event.name == "follows"}
                - {self.leader.number}
            )
            < self.size - 1
        ):
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self.role}: not all candidates learnt of the leader within {WITHIN:g} s"
                )
            self._read(1.0)
        time.sleep(0.3 + self.size / 200)

    def _forget(self) -> None:
        self._read(0.0)
        self._events.clear()

    def hand_over(self) -> float:
        """Seconds from the leader's `stop` to another's `on_elected`."""
        time.sleep(max(0.0, self._counted_at - time.monotonic()))
        self._forget()
        os.kill(self.leader.pid, signal.SIGUSR1)
        stopping = self._wait_for("stopping", 0.0)
        assert stopping.number == self.leader.number
        self.leader = self._wait_for("elected", stopping.at)
        time.sleep(
            0.2 + self.size / 400
        )  # the last leader stands again, and the others' claims are over
        if self._look is not None and self.size > 2:
            self._counted_at = time.monotonic() + COUNTED_AFTER
        self._read(0.0)
        self.queries = Counter(
            event.what
            for event in self._events
            if event.name == "query" and stopping.at <= event.at < self.leader.at + HEARD_WITHIN
        )
        return self.leader.at - stopping.at

    def _wait_for_newcomer(self) -> None:
        """The candidate that was forked last has seen a renewal. It counts the ttl from the first
        revision that it saw, which was not new then; failover after a start is another figure."""
        if self._newcomer is None and self._all_saw_a_renewal:
            return
        self._all_saw_a_renewal = True
        until, number, self._newcomer = time.monotonic() + WITHIN, self._newcomer, None
        while number is not None and not any(
            item.name == "follows" and item.number == number for item in self._events
        ):
            if time.monotonic() > until:
                raise TimeoutError(f"{self.role}: a new candidate learnt of no leader")
            self._read(1.0)
        time.sleep(self._ttl / 2)

    def kill_leader(self) -> float:
        """`kill -9`, of its whole process. Returns when (`clock.total_seconds`) the lease runs out
        by the store; the present for the locks of others."""
        self._wait_for_newcomer()
        self._forget()
        self._killed_at = clock.total_seconds()
        os.kill(self.leader.pid, signal.SIGKILL)
        if self._look is None:
            return self._killed_at
        time.sleep(0.02)  # what it sent is answered
        lease = self._look.leader(self.role)
        assert lease is not None, "the leader had lost its lease before it was killed"
        return clock.total_seconds() + lease.remaining

    def failover(self, runs_out: float) -> Failover:
        """What came after `kill_leader`. Takes until one second after the lease ran out, then forks
        a new candidate."""
        killed = self.leader.pid
        self.leader = self._wait_for("elected", 0.0)
        assert self.leader.pid != killed
        counting_ends = runs_out + 1.0
        time.sleep(max(0.0, counting_ends - clock.total_seconds()))
        self._read(0.0)
        request = Counter(
            event.what
            for event in self._events
            if event.name == "query" and runs_out - 0.05 <= event.at < counting_ends
        )
        elected = sum(event.name == "elected" for event in self._events)
        assert elected == 1, f"{elected} were elected after one kill"
        assert self._process.stdin is not None
        self._process.stdin.write("more\n")
        self._process.stdin.flush()
        self._newcomer, self._processes = self._processes * self._each, self._processes + 1
        return Failover(self.leader.at - runs_out, request, self.leader.at - self._killed_at)
