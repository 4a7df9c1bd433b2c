"""Beats on a real Redis broker: killed, stopped and ended, with each kind of scheduler."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis

import coord
from tests.support import redis_server, requirements
from tests.support.forkserver import Forked, ForkServer
from tests.support.levels import some
from tests.support.processes import python_environment
from tests.support.waits import eventually

DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"
REDBEAT = "redbeat:RedBeatScheduler"
ROLE = "celery-beat"
START = 120.0
"""Seconds that a beat has for its start, on a machine where other tests start programs, too."""

IMPORTED = (
    "celery.apps.beat",
    "celery.bin.celery",
    "celery.fixups.django",
    "coord.integrations.celery",
    "coord.stores.sqlite",
    "django.core.management.commands.migrate",
    "kombu.transport.redis",
    "redbeat",
    "rich.console",
)
"""What beats import, whatever their scheduler is."""

pytestmark = [
    pytest.mark.needs("redis"),
    pytest.mark.server,
    pytest.mark.xdist_group("celery"),  # they share a broker and a fork server
]


@pytest.fixture(scope="module")
def broker() -> Iterator[redis_server.Server]:
    requirements.need("redis")
    with redis_server.Server() as server:
        yield server


@pytest.fixture(scope="module")
def python() -> Iterator[ForkServer]:
    with ForkServer(*IMPORTED) as server:
        yield server


class Beats:
    """Beat processes of one application, and what they have sent."""

    def __init__(self, directory: Path, broker: redis_server.Server, python: ForkServer) -> None:
        self.directory, self.due, self.python = directory, directory / "due", python
        self.url = f"sqlite://{directory}/coord.db"
        self.redis = redis.Redis(broker.host, broker.port)
        self.redis.flushall()
        self.environment = {
            **os.environ,
            **python_environment(),
            "BROKER": f"redis://{broker.host}:{broker.port}/0",
            "COORD_URL": self.url,
            "DUE": str(self.due),
        }
        self.started: list[Forked] = []

    def start(self, name: str, **environment: str) -> Forked:
        """Start a beat. Beats of one name have the same file for run times, as on one machine."""
        command = ["-m", "celery", "-A", "tests.integrations.celery_tasks", "beat"]
        command += ["-l", "info", "--pidfile=", "-s", str(self.directory / name)]
        command += ["--scheduler", "coord.integrations.celery:LeaderScheduler"]
        with (self.directory / f"{name}.log").open("ab") as log:
            process = self.python.start(
                *command,
                environment={**self.environment, **environment},
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
        self.started.append(process)
        return process

    def messages(self, task: str) -> list[tuple[Any, int, int]]:
        """The messages in the order in which they were sent: argument, token, sender's pid."""
        results = []
        for raw in reversed(self.redis.lrange("celery", 0, -1)):  # type: ignore[arg-type]
            message = json.loads(raw)
            headers = message["headers"]
            if headers["task"] == task:
                arguments = json.loads(b64decode(message["body"]))[0]
                pid = int(headers["origin"].removeprefix("gen").partition("@")[0])
                results.append((arguments[0] if arguments else None, headers["coord_token"], pid))
        return results

    def sent(self, task: str) -> list[Any]:
        """The arguments of the messages in the order in which they were sent."""
        return [argument for argument, _, _ in self.messages(task)]

    def works(self, process: Forked) -> None:
        """Wait until a beat has sent something twice after now: it has looked at each entry."""

        def number() -> int:
            return sum(pid == process.pid for _, _, pid in self.messages("often"))

        before = number()
        eventually(lambda: number() >= before + 2 or process.poll() is not None, within=START)
        assert process.poll() is None, self.log()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.directory.glob("*.log"))

    def ask(self) -> float:
        """Make the entry `asked` due, and return the time at which it is."""
        moment = time.time()
        with self.due.open("a") as due:
            due.write(f"{moment}\n")
        return moment

    def noted(self, moment: float) -> bool:
        with coord.Coordinator(self.url) as coordinator:
            return bool(coordinator.notes(ROLE).get("beat asked", 0.0) >= moment)

    def kill(self, process: Forked) -> None:
        process.kill()
        process.wait()

    def end(self) -> None:
        for process in self.started:
            self.kill(process)
        self.redis.close()


@pytest.fixture
def beats(tmp_path: Path, broker: redis_server.Server, python: ForkServer) -> Iterator[Beats]:
    beats = Beats(tmp_path, broker, python)
    yield beats
    beats.end()


@pytest.mark.parametrize("note", some(["before", "after"], "before".__eq__))
def test_a_run_is_sent_once_although_beats_are_killed(note: str, beats: Beats) -> None:
    beats.environment["NOTE"] = note
    moments = []

    def ask_and_wait() -> None:
        moments.append(beats.ask())
        eventually(lambda: beats.sent("asked") == moments)
        eventually(lambda: beats.noted(moments[-1]))

    first = beats.start("a")
    beats.works(first)
    ask_and_wait()
    second = beats.start("b")
    beats.kill(first)
    moments.append(beats.ask())  # nobody leads: as a crontab entry that is due in the gap
    beats.works(second)
    eventually(lambda: beats.noted(moments[-1]))
    ask_and_wait()
    beats.kill(second)
    third = beats.start("a")  # its file says that the entry was last sent by the first
    beats.works(third)
    ask_and_wait()
    beats.works(third)
    assert beats.sent("asked") == moments
    third.terminate()
    assert third.wait(30) == 0
    with coord.Coordinator(beats.url) as coordinator:
        assert coordinator.leader(ROLE) is None


@pytest.mark.long  # it waits for minutes to end
def test_a_crontab_entry_that_was_due_in_the_gap_is_sent_once(beats: Beats) -> None:
    beats.environment["CRONTAB"] = "1"
    first = beats.start("a")
    beats.works(first)
    time.sleep(55 - time.time() % 60 + (60 if time.time() % 60 > 50 else 0))
    beats.kill(first)  # a few seconds before the entry is due
    before = len(beats.sent("minutely"))
    time.sleep(63 - time.time() % 60)
    assert len(beats.sent("minutely")) == before
    second = beats.start("b")
    beats.works(second)
    eventually(lambda: len(beats.sent("minutely")) > before)
    beats.works(second)
    assert len(beats.sent("minutely")) == before + 1
    time.sleep(61 - time.time() % 60)
    eventually(lambda: len(beats.sent("minutely")) > before + 1)
    beats.works(second)
    assert len(beats.sent("minutely")) == before + 2


@pytest.mark.parametrize(("note", "times"), [("before", 0), ("after", 2)])
def test_a_crash_between_note_and_task(note: str, times: int, beats: Beats) -> None:
    beats.environment["NOTE"] = note
    first = beats.start("a", DIE=note)
    beats.works(first)
    moment = beats.ask()
    assert first.wait(30) == -signal.SIGKILL
    second = beats.start("b")
    beats.works(second)
    if times:
        eventually(lambda: len(beats.sent("asked")) == times)
        beats.works(second)
    assert beats.sent("asked") == [moment] * times
    later = beats.ask()
    eventually(lambda: beats.sent("asked")[times:] == [later])


def test_a_stopped_beat_stands_by_and_leads_again(beats: Beats) -> None:
    first = beats.start("a")
    beats.works(first)
    first.send_signal(signal.SIGSTOP)
    second = beats.start("b")
    beats.works(second)
    first.send_signal(signal.SIGCONT)
    moment = beats.ask()
    eventually(lambda: beats.sent("asked") == [moment])
    beats.works(second)
    second.terminate()
    assert second.wait(30) == 0
    beats.works(first)
    tokens = [token for _, token, _ in beats.messages("often")]
    late = [token for number, token in enumerate(tokens) if token < max(tokens[: number + 1])]
    assert len(late) <= 1  # the stop may have come between its last check and the message
    assert beats.sent("asked") == [moment]
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0


def test_skip_drops_what_was_due_in_the_gap(beats: Beats) -> None:
    beats.environment["MISSED"] = "skip"
    first = beats.start("a")
    beats.works(first)
    beats.kill(first)
    beats.ask()
    second = beats.start("a")
    beats.works(second)
    assert beats.sent("asked") == []
    moment = beats.ask()
    eventually(lambda: beats.sent("asked") == [moment])


def with_hourly_due(beats: Beats, inner: str) -> None:
    """Let a beat with this scheduler create its entries, and then let `hourly` be due for long."""
    beats.environment["INNER"] = inner
    database = beats.directory / "django.db"
    if inner == DATABASE:
        beats.environment["DJANGO_SETTINGS_MODULE"] = "tests.integrations.django_settings"
        beats.environment["BEAT_DATABASE"] = str(database)
        words = ("-m", "django", "migrate", "-v", "0")
        assert beats.python.start(*words, environment=beats.environment).wait(60) == 0
    first = beats.start("a")
    beats.works(first)
    beats.kill(first)
    assert beats.sent("hourly") == []
    make_hourly_due(beats, database if inner == DATABASE else None)


@pytest.mark.parametrize("inner", some([DATABASE, REDBEAT], DATABASE.__eq__))
def test_schedulers_with_a_shared_store(inner: str, beats: Beats) -> None:
    with_hourly_due(beats, inner)
    second = beats.start("b")  # it reads the run times when it is elected
    eventually(lambda: beats.sent("hourly"))
    beats.kill(second)
    third = beats.start("c")
    beats.works(third)
    assert beats.sent("hourly") == [None]
    third.terminate()
    assert third.wait(30) == 0, beats.log()
    # redbeat did not try to take its own lock. A broker that ends may leave other tracebacks.
    assert not re.search(r"LockError|LockNotOwned", beats.log())


@pytest.mark.parametrize(
    ("note", "times"), [("before", 0), pytest.param("after", 2, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("inner", some([DATABASE, REDBEAT], REDBEAT.__eq__))
def test_a_crash_between_a_shared_store_and_the_task(
    inner: str, note: str, times: int, beats: Beats
) -> None:
    beats.environment["NOTE"] = note
    with_hourly_due(beats, inner)
    second = beats.start("b", DIE=note)
    assert second.wait(30) == -signal.SIGKILL
    third = beats.start("c")
    beats.works(third)
    if times:
        eventually(lambda: len(beats.sent("hourly")) == times)
    beats.works(third)
    assert len(beats.sent("hourly")) == times


def make_hourly_due(beats: Beats, database: Path | None) -> None:
    """Let the stored run time of the entry `hourly` be a long time ago."""
    if database is not None:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            connection.execute(
                "UPDATE django_celery_beat_periodictask SET last_run_at = '2020-01-01 00:00:00' "
                "WHERE name = 'hourly'"
            )
        return
    from redbeat.decoder import RedBeatJSONEncoder

    meta = {"last_run_at": datetime(2020, 1, 1, tzinfo=timezone.utc)}
    beats.redis.hset("redbeat:hourly", "meta", json.dumps(meta, cls=RedBeatJSONEncoder))
    beats.redis.zadd("redbeat::schedule", {"redbeat:hourly": 1})
