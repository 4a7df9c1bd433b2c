"""From `release` in one process to `on_elected` in another, and from `kill -9` to there."""

from __future__ import annotations

import select
import statistics
import subprocess
import sys
import time

from coord import clock
from tests.benchmarks.report import Row

WORKER = """
import sys, time, coord
from coord import clock
c = coord.connect(sys.argv[1])
ttl, count = float(sys.argv[2]), int(sys.argv[3])
def make(n):
    said = lambda term: print(n, clock.total_seconds(), flush=True)
    return c.leadership("handover", ttl=ttl, on_elected=said)
leads = [make(n) for n in range(count)]
for lead in leads:
    lead.start()
print("ready", 0, flush=True)
for line in sys.stdin:
    for lead in leads:
        if lead.is_leader:
            lead.stop()
            time.sleep(0.15)
            lead.start()
"""


class Workers:
    """Processes that stand for one role, and the times at which they were elected."""

    def __init__(self, url: str, ttl: float, processes: int, each: int = 1) -> None:
        command = [sys.executable, "-c", WORKER, url, str(ttl), str(each)]
        self.all = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        ready = 0
        self.leader: subprocess.Popen[str] | None = None
        while ready < processes or self.leader is None:
            worker, word, _ = self._next()
            if word == "ready":
                ready += 1
            else:
                self.leader = worker

    def _next(self, timeout: float = 60) -> tuple[subprocess.Popen[str], str, float]:
        pipes = {worker.stdout: worker for worker in self.all}
        readable, _, _ = select.select(list(pipes), [], [], timeout)
        if not readable:
            raise TimeoutError("nobody was elected")
        word, at = readable[0].readline().split()
        return pipes[readable[0]], word, float(at)

    def hand_over(self) -> float:
        """Seconds from asking the leader to stop to another's `on_elected`."""
        assert self.leader is not None
        assert self.leader.stdin is not None
        began = clock.total_seconds()
        self.leader.stdin.write("stop\n")
        self.leader.stdin.flush()
        self.leader, _, at = self._next()
        return at - began

    def fail_over(self) -> float:
        """Seconds from `kill -9` of the leader to another's `on_elected`."""
        assert self.leader is not None
        began = clock.total_seconds()
        self.leader.kill()
        self.leader.wait()
        self.all.remove(self.leader)
        self.leader, _, at = self._next()
        return at - began

    def end(self) -> None:
        for worker in self.all:
            worker.kill()
            worker.wait()


def handover(url: str, times: int, candidates: int = 2) -> list[float]:
    workers = Workers(url, 15, candidates)
    time.sleep(0.5)
    taken = []
    for _ in range(times):
        taken.append(workers.hand_over() * 1000)
        time.sleep(0.2)
    workers.end()
    return taken


def failover(url: str, ttl: float, times: int, waiting: int = 1) -> list[float]:
    """Milliseconds beyond the ttl. `waiting` candidates in up to four processes stand by."""
    late = []
    for _ in range(times):
        processes = 1 + min(4, waiting)
        workers = Workers(url, ttl, processes, each=max(1, waiting // min(4, waiting)))
        time.sleep(ttl)
        late.append((workers.fail_over() - ttl) * 1000)
        workers.end()
        time.sleep(ttl * 1.5)
    return late


def rows(url: str, bound: float, times: int, peer: tuple[str, float] | None = None) -> list[Row]:
    taken = handover(url, times)
    median = statistics.median(taken)
    peer_name, peer_median = peer or ("", None)
    met = median <= bound and (peer_median is None or median <= peer_median)
    aim = f"≤ {bound:g} ms" + (f", ahead of {peer_name}" if peer_median else "")
    return [
        Row(f"graceful handover, median of {times}", median, "ms", peer_name, peer_median, aim, met),
        Row("graceful handover, worst", max(taken), "ms"),
    ]
