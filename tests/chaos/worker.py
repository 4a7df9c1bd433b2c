"""One worker as a process: a candidate for the role, which writes to the resources under its token
as long as it leads, and the jobs of the features of this run (jobs.py).

`python -m tests.chaos.worker SETTINGS` with the settings as JSON. What it notices goes to standard
output, one JSON object a line; what it does goes to its history. A line "step_down" on standard
input makes it hand over; "transfer NAME" does so to that candidate, and is answered by "handing
over" or "not handing over"; "freeze" makes it stop itself between a check and an act, if it leads,
and say "frozen" or "not leading" before; SIGTERM or the end of standard input stops it in good
order.

Where the store is RethinkDB, a thread of its own checks and writes to a document there in the same
way (document.py).

`broken` is for the tests of the judge: "deadline" believes in a term for seconds after its
deadline; "fence" writes to the document whatever token is there."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coord import CoordError, Coordinator, Leadership, LossReason, Term
from coord.stores import urls
from tests.chaos.jobs import FEATURES, ROLE, Calls, Job, Seat
from tests.chaos.lifeline import die_with_parent
from tests.chaos.recorder import Recorder, now, recording
from tests.chaos.resource import ResourceClient

_ALWAYS = ("coord.api.coordinator", "coord.fencing", "sqlite3", "tests.chaos.jobs")
IMPORTS = {
    "sqlite": (*_ALWAYS, "coord.stores.sqlite"),
    "rethinkdb": (*_ALWAYS, "coord.stores.rethinkdb", "rethinkdb", "tests.chaos.document"),
    "postgresql": (*_ALWAYS, "coord.stores.postgresql", "asyncpg"),
    "redis": (*_ALWAYS, "coord.stores.redis"),
    "redis+sentinel": (*_ALWAYS, "coord.stores.redis"),
    "etcd": (*_ALWAYS, "coord.stores.etcd"),
}
"""What a worker imports, with the drivers of the stores, by the schemes of their URLs."""
BELIEVES_ON = 4.0
"""Seconds for which a broken worker goes on believing."""


@dataclass(frozen=True)
class Settings:
    process: str
    url: str
    ttl: float
    history: str
    resource: str
    seed: int
    broken: str = ""
    features: tuple[str, ...] = ()
    index: int = 0
    """Its place among the workers."""

    def argument(self) -> str:
        return json.dumps(asdict(self))


class Worker:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.recorder = Recorder(Path(settings.history), settings.process)
        self.resource = ResourceClient(settings.resource)
        self.random = random.Random(settings.seed)
        self.stopped, self.freeze = threading.Event(), threading.Event()
        self.poised = threading.Event()
        """The document's thread, too, stands between its check and its act, until both are
        frozen."""
        self.counting = threading.Lock()
        """For the jobs' numbers."""
        self.coordinator = Coordinator(store=recording(urls.open_url(settings.url), self.recorder))
        self.keeps_document = settings.url.startswith("rethinkdb:")
        self.lead: Leadership | None = None
        names = set(settings.features)
        self.calls: Calls | None = None
        if "unique_service" in names and settings.index > 0:
            self.calls = Calls(self)
            self.believed = self.calls.believed
        else:  # the first worker stays a candidate with a loop, beside those that call
            lead = self.coordinator.leadership(
                ROLE, ttl=settings.ttl, info={"name": settings.process}
            )
            lead.on_elected(self._elected)
            lead.on_lost(self._lost)
            self.lead, self.believed = lead, Seat.of_leadership(lead).token
        names.discard("unique_service")
        self.jobs: dict[str, Job] = {name: FEATURES[name](self) for name in sorted(names)}
        if self.calls is not None:
            self.jobs["unique_service"] = self.calls
        self._shown: dict[str, int] = {}

    def note(self, what: str, **more: Any) -> None:
        line = (
            json.dumps({"at": now(), "process": self.settings.process, "note": what, **more}) + "\n"
        )
        os.write(1, line.encode())

    def _elected(self, term: Term) -> None:
        self.note("elected", token=term.token)

    def _lost(self, term: Term, reason: LossReason) -> None:
        self.note("lost", token=term.token, reason=str(reason))

    def run(self) -> None:
        threading.Thread(target=self._obey, daemon=True).start()
        if self.lead is not None:
            self.lead.start()
        for job in self.jobs.values():
            job.start()
        if self.keeps_document:
            threading.Thread(target=self._keep_document, daemon=True).start()
        self.note("started")
        while not self.stopped.is_set():
            token = self.recorder.look(ROLE, self.believed)
            other = self._another_seat()
            if token is None and self.freeze.is_set():
                self.freeze.clear()
                self.note("not leading")
            if token is None and other is None:
                time.sleep(0.02)
                continue
            # Between the check and the act: here a frozen process wakes up with an old belief (rule
            # 10).
            time.sleep(self.random.uniform(0.03, 0.08))
            if token is not None and self.freeze.is_set():
                if self.keeps_document:
                    self.poised.wait(0.2)
                self.freeze.clear()
                self.note("frozen")
                os.kill(os.getpid(), signal.SIGSTOP)
                self.poised.clear()
            if token is not None:
                for name in self.random.sample(("unfenced", "fenced"), 2):
                    self.write(name, token)
            if other is not None:
                self.write(*other)
        self.coordinator.close()
        for job in self.jobs.values():
            job.end()
        self.note("stopped")

    def _another_seat(self) -> tuple[str, int] | None:
        """Look at one of the seats of its jobs, and return the resource to write to and the
        token."""
        seats: list[Seat] = []
        for name, job in self.jobs.items():
            seats += [seat for seat in job.seats() if seat.role != ROLE]
            held = job.shows()
            if held is not None and self._shown.get(name) != held:
                self._shown[name] = held
                self.note("holds", feature=name, count=held)
        if not seats:
            return None
        seat = self.random.choice(seats)
        token = self.recorder.look(seat.role, seat.token)
        return None if token is None else (f"fenced {seat.role}", token)

    def write(self, name: str, token: int) -> None:
        """Write to a resource; all but "unfenced" check tokens."""
        key = self.recorder.invoke(
            "unfenced write" if name == "unfenced" else "write", name, token=token
        )
        try:
            accepted = self.resource.write(name, token, self.settings.process)
        except OSError as err:
            self.recorder.end("unknown", key, detail=type(err).__name__)
            time.sleep(0.05)
            return
        self.recorder.end("ok", key, accepted=accepted)

    def _keep_document(self) -> None:
        """The same with the document: what hangs there, hangs here, and arrives late."""
        from tests.chaos.document import DOCUMENT, Document, NotWritten

        document, chance = (
            Document(self.settings.url, self.settings.broken == "fence"),
            random.Random(),
        )
        while not self.stopped.is_set():
            token = self.recorder.look(ROLE, self.believed)
            if token is None:
                time.sleep(0.02)
                continue
            time.sleep(chance.uniform(0.03, 0.08))
            if self.freeze.is_set():
                self.poised.set()
                time.sleep(0.3)
            key = self.recorder.invoke("write", DOCUMENT, token=token)
            try:
                accepted, met = document.write(token, self.settings.process)
            except NotWritten as err:
                self.recorder.end("unknown" if err.unknown else "fail", key, detail=str(err))
                time.sleep(0.05)
            else:
                self.recorder.end("ok", key, accepted=accepted, met=met)

    def _obey(self) -> None:
        for line in sys.stdin:
            if line.strip() == "freeze":
                self.freeze.set()
            elif line.strip() == "step_down":
                try:
                    if self.lead is None:
                        assert self.calls is not None
                        self.calls.release()
                    else:
                        self.lead.step_down()
                except CoordError:
                    pass  # a fault is at work
                except Exception as err:
                    self.note("trouble", detail=repr(err))
            elif line.startswith("transfer "):
                try:
                    if self.lead is None:
                        raise CoordError("a caller of unique_service transfers nothing")
                    self.lead.transfer(line.split()[1])
                    self.note("handing over")
                except CoordError as err:
                    self.note("not handing over", detail=repr(err))
        self.stopped.set()


def _believe_on() -> None:
    """Break rule 6: a deadline that has passed means nothing for a few seconds."""
    Term.held = property(
        lambda term: time.clock_gettime(time.CLOCK_BOOTTIME) < term._deadline + BELIEVES_ON
    )  # type: ignore[method-assign, assignment]


def main() -> None:
    die_with_parent()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # where does it hang?
    settings = Settings(**json.loads(sys.argv[1]))
    if settings.broken == "deadline":
        _believe_on()
    worker = Worker(settings)
    signal.signal(signal.SIGTERM, lambda *_: worker.stopped.set())
    worker.run()


if __name__ == "__main__":
    main()
