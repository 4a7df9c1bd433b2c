"""A candidate lives on whatever fails around it: its log, its metrics, the system, its own task."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coord
from coord import Coordinator, HealthStatus, LossReason
from coord.election import lifecycle
from coord.election.announcements import CandidateAnnouncer
from coord.election.elector import Elector
from coord.election.lifecycle import TermLifecycle
from coord.election.session import Session
from coord.election.suspend import SuspendDetector
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]


class Fails(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise OSError("no space left for the log")


class FailingObserver:
    """An observer all of whose methods raise."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise RuntimeError(f"{name} failed")

        return fail


@pytest.fixture(params=["log", "metrics"])
def hooks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything that reports elections fails."""
    if request.param == "log":
        logger, fails = logging.getLogger("coord"), Fails()
        logger.addFilter(fails)
        yield
        logger.removeFilter(fails)
    else:
        lifecycle.observer = FailingObserver()
        yield
        lifecycle.observer = None


@pytest.mark.usefixtures("hooks")
def test_hooks_that_fail_decide_nothing(two: Two) -> None:
    events: list[object] = []
    lead = two[0].leadership(
        "r",
        ttl=1,
        on_elected=lambda term: events.append(term.token),
        on_lost=lambda _, reason: events.append(reason),
    )
    rival = two[1].leadership("r", ttl=1)
    lead.start()
    assert lead.wait(10)
    assert lead.started
    rival.start()
    eventually(lambda: events == [1])
    lead.step_down(cooldown=60)
    assert events == [1, LossReason.STEPPED_DOWN]
    assert rival.wait(10)
    two[0].request_step_down("r", cooldown=60)
    eventually(lambda: not rival.is_leader)
    assert lead.started
    assert rival.started
    rival.stop()
    lead.stop()
    assert not lead.started


def once(monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> threading.Event:
    """Let the next call of a method raise; the event says that it has."""
    original, failed = getattr(kind, method), threading.Event()

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise OSError("out of file descriptors")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, method, fail)
    return failed


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (Session, "subscribe_candidate"),
        (Session, "announce"),
        (Elector, "_follow"),
        (Elector, "_apply_result"),
        (Elector, "_row_seen"),
        (Elector, "_send_due_now"),
        (TermLifecycle, "apply_events"),
        (TermLifecycle, "check_term"),
        (SuspendDetector, "_run"),
        (CandidateAnnouncer, "_round"),
    ],
)
def test_a_task_that_fails_is_logged_and_goes_on(
    two: Two,
    kind: type,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leader, waiting = two[0].leadership("r", ttl=2), two[1].leadership("r", ttl=2)
    leader.start()
    assert leader.wait(10)
    failed = once(monkeypatch, kind, method)
    waiting.start()
    if method == "_send_due_now":
        leader.stop()
    assert failed.wait(10)
    leader.stop()
    assert waiting.wait(30)
    eventually(lambda: coord.health(two[1]).status is HealthStatus.OK)
    failures = [record for record in caplog.records if record.getMessage().split()[0] in FAILURES]
    if (kind, method) != (Elector, "_row_seen"):  # there it is the feed that begins again
        assert len(failures) == 1
        assert "out of file descriptors" in str(failures[0].exc_info)


FAILURES = ("candidate.failed", "task.failed")


def test_a_task_that_goes_on_failing_shows_in_health(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, waiting = two[0].leadership("r", ttl=1), two[1].leadership("r", ttl=1)
    leader.start()
    assert leader.wait(10)
    follow = Elector._follow

    def fail(self: Elector) -> None:
        raise OSError("out of file descriptors")

    monkeypatch.setattr(Elector, "_follow", fail)
    waiting.start()
    problem = "r: its task failed: OSError: out of file descriptors"
    eventually(lambda: coord.health(two[1]).problems == (problem,))
    assert coord.health(two[1]).status is HealthStatus.WEDGED
    assert waiting.started
    monkeypatch.setattr(Elector, "_follow", follow)
    leader.stop()
    assert waiting.wait(30)
    assert coord.health(two[1]).status is HealthStatus.OK


LIFE = """
import os, resource, sys, time
import coord
url = sys.argv[1]
a, b = coord.Coordinator(url), coord.Coordinator(url)
def until(what):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
def life(a, b):
    first, second = a.leadership("r", ttl=1, priority=1), b.leadership("r", ttl=1)
    first.start(); assert first.wait(10)
    second.start()
    until(lambda: a.candidates("r"))
    assert a.leader("r")
    first.step_down(cooldown=0.2)
    assert second.wait(10)
    second.stop(); first.stop()
"""
NO_IMPORTS = """
before = set(sys.modules)
life(a, b)
late = sorted(set(sys.modules) - before)
assert not late, late
"""
NO_FILES = """
second = b.leadership("r", ttl=1)
first = a.leadership("r", ttl=1)
first.start(); assert first.wait(10)
a.leader("r"); b.leader("r")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
held = []
resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
try:
    while True: held.append(os.open("/dev/null", 0))
except OSError: pass
second.start()
time.sleep(1)
for fd in held: os.close(fd)
assert second.started
first.stop()
assert second.wait(20)
"""


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("program", [NO_IMPORTS, NO_FILES], ids=["imports", "files"])
def test_an_election_needs_neither_imports_nor_spare_files(
    store: str, program: str, tmp_path: Path
) -> None:
    url = "memory://life" if store == "memory" else f"sqlite:///{tmp_path}/coord.db"
    text = textwrap.dedent(LIFE) + program + "os._exit(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", text, url], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
