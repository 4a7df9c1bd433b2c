"""What a worker does beside the election of one role: a job for each feature of coord.

A job holds seats: roles under tokens. The worker looks at them, and writes under their tokens to
fenced resources of their own (worker.py). What else a job does goes to the history under actions
that judges.py knows."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from coord import CoordError, Coordinator, Leadership, Term, leader_only, require_term
from coord.errors import TickTooOld, TickUnfinished
from tests.chaos.recorder import Recorder, now

if TYPE_CHECKING:
    from tests.chaos.worker import Worker

ROLE = "job"
ROLES = 24
"""Roles of the feature "batches"."""
SHARDS = 12
SLOTS = 3
TENANTS = 5
RETIRED_PREFIX = "report-"
TICK_EVERY = 2.0
"""Seconds from one tick of a job of the feature "once" to the next."""
KEEP = 6
"""Ticks that such a job keeps."""
STORED_EVERY = 0.3
"""Seconds between two changes of the info of the leader."""


class Seat(NamedTuple):
    """A role that the worker may hold; `token` returns the token of its term if it does now."""

    role: str
    token: Callable[[], int | None]

    @classmethod
    def of(cls, role: str, term: Term) -> Seat:
        return cls(role, lambda: term.token if term.held else None)

    @classmethod
    def of_leadership(cls, lead: Leadership) -> Seat:
        def token() -> int | None:
            term = lead.held
            return None if term is None else term.token

        return cls(lead.role, token)


class Job:
    """Does nothing; the features are subclasses."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.coordinator: Coordinator = worker.coordinator
        self.recorder: Recorder = worker.recorder
        self.ttl: float = worker.settings.ttl
        self.chance = random.Random(worker.settings.seed)

    def start(self) -> None:
        """Begin."""

    def seats(self) -> Iterable[Seat]:
        """Return what it may hold at the moment."""
        return ()

    def shows(self) -> int | None:
        """Return how many seats it holds, if the run should know that; otherwise None."""
        return None

    def end(self) -> None:
        """The coordinator was closed."""

    def repeat(self, step: Callable[[], None], low: float, high: float) -> None:
        """Call `step` in a thread of its own, with pauses of so many seconds, until the end."""

        def work() -> None:
            while not self.worker.stopped.wait(self.chance.uniform(low, high)):
                try:
                    step()
                except CoordError:
                    pass  # a fault
                except Exception as err:
                    self.worker.note("trouble", detail=repr(err))

        threading.Thread(target=work, daemon=True).start()

    def work(self, seat: Seat, low: float, high: float) -> None:
        """Look, work, and write under the token, as a job does that checks before it acts."""
        token = self.recorder.look(seat.role, seat.token)
        time.sleep(self.chance.uniform(low, high))
        if token is not None:
            self.worker.write(f"fenced {seat.role}", token)


class Batches(Job):
    """Many roles in one process, whose claims and renewals go in batches."""

    def start(self) -> None:
        names = [f"batch-{number:02}" for number in range(ROLES)]
        self.leads = [self.coordinator.leadership(name, ttl=self.ttl) for name in names]
        for lead in self.leads:
            lead.start()

    def seats(self) -> Iterable[Seat]:
        return [Seat.of(lead.role, term) for lead in self.leads if (term := lead.held)]

    def shows(self) -> int | None:
        return len(list(self.seats()))


class Share(Job):
    """Shards that the workers share."""

    def start(self) -> None:
        self.shares = self.coordinator.share("ingest", SHARDS, ttl=self.ttl)

        @self.shares.work
        def work(shard: int, term: Term) -> None:
            seat = Seat.of(term.role, term)
            while not term.lost.wait(self.chance.uniform(0.2, 0.8)):
                self.work(seat, 0.01, 0.05)

        self.shares.start()

    def seats(self) -> Iterable[Seat]:
        return [Seat.of(term.role, term) for term in self.shares.mine.values()]

    def shows(self) -> int | None:
        return len(self.shares.mine)


class Slots(Job):
    """A role that several workers hold at a time."""

    def start(self) -> None:
        self.slots = self.coordinator.slots("crawl", SLOTS, ttl=self.ttl)
        self.slots.start()

    def seats(self) -> Iterable[Seat]:
        term = self.slots.held
        return () if term is None else (Seat.of(f"crawl#{term.slot}", term),)

    def shows(self) -> int | None:
        return len(list(self.seats()))


class Info(Job):
    """The leader of the role changes what it publishes; everybody reads it."""

    def start(self) -> None:
        self.last = 0
        self.repeat(self._update, STORED_EVERY / 2, STORED_EVERY * 2)
        self.repeat(self._read, 0.2, 0.6)

    def _read(self) -> None:
        """The store that records keeps what it reads."""
        self.coordinator.leader(ROLE)

    def _update(self) -> None:
        lead = self.worker.lead
        term = None if lead is None else lead.held
        if lead is None or term is None:
            return
        self.last += 1
        key = self.recorder.invoke("update", ROLE, token=term.token, number=self.last)
        try:
            lead.update({"name": self.worker.settings.process, "number": self.last})
        except CoordError as err:
            self.recorder.end("unknown", key, detail=type(err).__name__)
        else:
            # Only if it was that very term which stored it.
            self.recorder.end("ok" if term.held else "unknown", key)


class Templates(Job):
    """Roles from the arguments of a call, whose rows are retired when nobody uses them."""

    def start(self) -> None:
        @leader_only("report-{tenant}", coordinator=self.coordinator, ttl=self.ttl)
        def report(tenant: int) -> None:
            term = require_term()
            self.work(Seat.of(term.role, term), 0.01, 0.3)

        @leader_only(
            "keep-{tenant}",
            coordinator=self.coordinator,
            ttl=self.ttl,
            scope="process",
            max_roles=TENANTS,
        )
        def keep(tenant: int) -> None:
            term = require_term()
            self.work(Seat.of(term.role, term), 0.01, 0.1)

        self.repeat(lambda: report(self.chance.randrange(TENANTS)), 0.1, 0.6)
        self.repeat(lambda: keep(self.chance.randrange(TENANTS)), 0.2, 0.8)


class Ticks(Job):
    """Jobs that run once for each tick, though the clocks of the workers differ."""

    def start(self) -> None:
        self.runs = 0
        ahead = self.chance.uniform(-0.4, 0.4) * TICK_EVERY
        for job, retry in (("nightly", True), ("mail", False)):
            self.repeat(functools.partial(self._call, job, retry, ahead), 0.1, 0.9)

    def _call(self, job: str, retry: bool, ahead: float) -> None:
        tick = int((now() + ahead) / TICK_EVERY)
        if self.chance.random() < 0.1:
            tick -= self.chance.randrange(3 * KEEP)
        key = self.recorder.invoke("once", job, tick=tick, retry=retry)
        try:
            done = self.coordinator.once(
                job, tick, self._run, job, tick, ttl=self.ttl, retry=retry, keep=KEEP, timeout=5.0
            )
        except (TickTooOld, TickUnfinished) as err:
            self.recorder.end("fail", key, detail=type(err).__name__)
        except BaseException as err:
            self.recorder.end("unknown", key, detail=type(err).__name__)
            raise
        else:
            self.recorder.end("ok", key, result=done.result, ran=done.ran, token=done.token)

    def _run(self, job: str, tick: int) -> str:
        term = require_term()
        with self.worker.counting:
            self.runs += 1
            result = f"{self.worker.settings.process}/{self.runs}"
        key = self.recorder.invoke("run", job, tick=tick, token=term.token, result=result)
        self.work(Seat.of(job, term), 0.02, 0.5)
        self.recorder.end("ok", key)
        return result


class Calls(Job):
    """Claims the role by calls of `unique_service` instead of a `Leadership`.

    It believes as the page on `unique_service` says: for nine tenths of the ttl after the last call
    that returned `mine` was made."""

    def start(self) -> None:
        name = self.worker.settings.process
        self.me = {"id": name, "name": name, "ttl": self.ttl}
        self._token, self._until = 0, 0.0
        self._calling = threading.Lock()
        self.repeat(self._call, 0.05 * self.ttl, 0.3 * self.ttl)

    def believed(self) -> int | None:
        """Return the token of its term. While it calls it does nothing else, like a program that
        calls in its own loop."""
        if not self._calling.acquire(blocking=False):
            return None
        try:
            return self._token if self._token and now() < self._until else None
        finally:
            self._calling.release()

    def seats(self) -> Iterable[Seat]:
        return (Seat(ROLE, self.believed),)

    def _call(self) -> None:
        with self._calling:
            self._claim()

    def _claim(self) -> None:
        before = now()
        if self._token and before >= self._until:
            self._lost("expired")
        record = self.coordinator.unique_service(ROLE, self.me)
        token = record["token"] if record is not None and record.get("mine") else 0
        if self._token and token != self._token:
            self._lost("stepped_down" if record is None else "taken")
        if token:
            elected = self._token != token
            self._token, self._until = token, before + 0.9 * self.ttl
            if elected:
                self.worker.note("elected", token=token)

    def release(self) -> None:
        """Give the role back."""
        with self._calling:
            self.coordinator.release(ROLE)
            if self._token:
                self._lost("released")

    def end(self) -> None:
        with self._calling:
            if self._token:
                self._lost("released")

    def _lost(self, reason: str) -> None:
        token, self._token, self._until = self._token, 0, 0.0
        self.worker.note("lost", token=token, reason=reason)


FEATURES: dict[str, type[Job]] = {
    "batches": Batches,
    "unique_service": Calls,
    "once": Ticks,
    "share": Share,
    "slots": Slots,
    "info": Info,
    "templates": Templates,
    "operators": Job,
}
"""The features by name. What operators do is injected as faults (orders.py)."""
FAULTS = {"operators": ("evict", "pause role"), "templates": ("retire",)}
"""Kinds of fault that a feature adds to those of the stage."""
FULL = {"batches": ROLES, "share": SHARDS, "slots": SLOTS}
"""How many seats are held, in all workers together, when nothing is wrong."""
