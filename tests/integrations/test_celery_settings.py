"""The scheduler of beat without a broker: its settings, and what it does in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import PersistentScheduler, Service

import coord
from coord.integrations.celery import LeaderScheduler
from tests.support.waits import eventually


class Sent:
    """Instead of tasks."""

    def __init__(self) -> None:
        self.headers: list[dict[str, Any]] = []
        self.fails: Exception | None = None

    def __call__(self, *args: Any, headers: dict[str, Any], **options: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.headers.append(headers)


class Recording(PersistentScheduler):
    """A scheduler without a file, with an entry that is always due."""

    made: list[Recording] = []  # noqa: RUF012 # the tests look at each one that was made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.closed = 0
        self.made.append(self)

    def setup_schedule(self) -> None:
        self._store = {"entries": {}}
        options = {"headers": {"mine": 1}}
        self.schedule["e"] = self.Entry(
            name="e", task="t", schedule=0.01, app=self.app, options=options
        )

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    app = Celery("test", broker="memory://", set_as_current=False)
    app.conf.update(
        coord_url=f"sqlite://{tmp_path}/coord.db",
        coord_beat_ttl=2,
        coord_beat_scheduler=Recording,
    )
    app.send_task = Sent()
    Recording.made.clear()
    yield app
    app.close()


@pytest.fixture
def beat(app: Any) -> Iterator[LeaderScheduler]:
    beat = LeaderScheduler(app)
    yield beat
    beat.close()


def tick_until(beat: LeaderScheduler, what: Any) -> None:
    def tried() -> bool:
        assert 0 <= beat.tick() <= 1
        return bool(what())

    eventually(tried)


def test_each_term_has_a_scheduler_of_its_own(app: Any, beat: LeaderScheduler) -> None:
    assert (beat.schedule, beat.should_sync()) == ({}, False)
    beat.sync()
    tick_until(beat, lambda: len(app.send_task.headers) >= 2)
    first = beat.leadership.term
    assert set(beat.schedule) == {"e"}
    beat.leadership.step_down(cooldown=0)
    tick_until(beat, lambda: len(Recording.made) == 2 and app.send_task.headers[-1:])
    assert Recording.made[0].closed == 1
    tick_until(beat, lambda: app.send_task.headers[-1]["coord_token"] == first.token + 1)
    assert {"mine": 1, "celery_beat_task": True}.items() <= app.send_task.headers[0].items()
    assert app.send_task.headers[0]["coord_token"] == first.token
    # The entry itself is what it was.
    assert beat.schedule["e"].options == {"headers": {"mine": 1}}
    beat.close()
    beat.close()
    assert Recording.made[1].closed == 1
    with pytest.raises(SystemExit):  # the exit of a signal handler may have been lost
        beat.tick()


def test_a_leader_that_has_nothing_to_send_looks_after_its_role(
    app: Any, beat: LeaderScheduler
) -> None:
    app.conf.beat_schedule = {"hourly": {"task": "t", "schedule": 3600.0}}
    app.conf.coord_beat_scheduler = "celery.beat:Scheduler"
    idle = LeaderScheduler(app)
    try:
        delays: list[float] = []
        eventually(lambda: delays.append(idle.tick()) or idle.schedule)
        assert delays[-1] == 1.0
        assert app.send_task.headers == []
    finally:
        idle.close()


def test_nothing_is_sent_that_cannot_be_noted(app: Any, beat: LeaderScheduler) -> None:
    tick_until(beat, lambda: app.send_task.headers)
    term, sent = beat.leadership.term, len(app.send_task.headers)

    def lose(*_: Any) -> None:
        beat.leadership.step_down(cooldown=60)
        raise coord.StoreUnavailable("the store does not answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(term), "note", lose)
        tick_until(beat, lambda: not term.held)
    assert len(app.send_task.headers) == sent


def test_a_task_that_was_not_sent_is_not_noted_with_after(app: Any) -> None:
    app.conf.coord_beat_note = "after"
    app.send_task.fails = OSError("no broker")
    beat = LeaderScheduler(app)
    try:
        tick_until(beat, lambda: beat.schedule)
        before = beat.leadership.term.notes()
        assert list(before) == ["beat e"]  # from its election on, a due run is known to be due
        for _ in range(5):
            beat.tick()
        assert beat.leadership.term.notes() == before
    finally:
        beat.close()


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("coord_url", "nonsense", "invalid coord_url"),
        ("coord_beat_role", "", "invalid coord_beat_role"),
        ("coord_beat_ttl", -1, "invalid coord_beat_ttl -1"),
        ("coord_beat_missed", "all", '"once" or "skip"'),
        ("coord_beat_note", "never", '"before" or "after"'),
        ("coord_beat_scheduler", "no.such:Thing", "invalid coord_beat_scheduler 'no.such:Thing'"),
        ("coord_beat_scheduler", "celery.beat:Service", "must be a scheduler class"),
        ("coord_beat_scheduler", LeaderScheduler, "that the leader runs"),
    ],
)
def test_invalid_settings(setting: str, value: object, words: str, app: Any) -> None:
    app.conf[setting] = value
    with pytest.raises(coord.BadArgument, match="must be") as caught:
        LeaderScheduler(app)
    assert words in str(caught.value)


def test_the_banner_connects_to_nothing(app: Any, tmp_path: Path) -> None:
    service = Service(app, scheduler_cls="coord.integrations.celery:LeaderScheduler")
    lazy = service.get_scheduler(lazy=True)
    assert lazy.lock_key is None
    assert "role -> celery-beat (ttl 2 s)" in lazy.info
    assert f"run by the leader -> {__name__}:Recording" in lazy.info
    lazy.close()
    assert Recording.made == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["apscheduler", "celery"])
def test_without_the_framework_an_import_says_what_to_install(name: str) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        f"try: import coord.integrations.{name}\n"
        "except ImportError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert f"pip install 'coord[{name}]'" in done.stdout
