"""The scheduler of beat without a broker: its settings, and what it does in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.beat import PersistentScheduler, Scheduler, Service
from celery.schedules import crontab

import coord
import coord.integrations.celery
from coord.integrations.celery import LeaderScheduler
from tests.support.waits import eventually


class Sent:
    """Instead of tasks."""

    def __init__(self) -> None:
        self.headers: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.tried = 0

    def __call__(self, *args: Any, headers: dict[str, Any], **options: Any) -> None:
        self.tried += 1
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
        coord_beat_ttl=60,
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
    assert "role -> celery-beat (ttl 60 s)" in lazy.info
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


class Shared(Scheduler):
    """A scheduler that keeps its run times in a store that all processes share, as
    django-celery-beat does: `reserve` makes an entry dirty, and `sync` writes what is dirty."""

    stored = 0
    interrupt: Any = None

    def setup_schedule(self) -> None:
        self.dirty: set[str] = set()
        self.schedule["e"] = self.Entry(name="e", task="t", schedule=0.01, app=self.app)

    def reserve(self, entry: Any) -> Any:
        self.dirty.add(entry.name)
        advanced = super().reserve(entry)
        if self.interrupt is not None:
            self.interrupt()
        return advanced

    def sync(self) -> None:
        if self.dirty:
            type(self).stored = self.schedule["e"].total_run_count
        self.dirty.clear()


@pytest.fixture
def shared(app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Shared, "stored", 0)
    monkeypatch.setattr(Shared, "interrupt", None)
    app.conf.coord_beat_scheduler = Shared
    return app


@pytest.mark.parametrize("note", ["before", "after"])
@pytest.mark.parametrize("end", ["lost", "closed"])
def test_an_end_between_an_entry_and_its_task(
    end: str, note: str, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.conf.coord_beat_note = note
    beat = LeaderScheduler(shared)
    try:
        tick_until(beat, lambda: len(shared.send_task.headers) >= 2)
        sent = len(shared.send_task.headers)
        assert Shared.stored == sent

        def interrupt() -> None:
            monkeypatch.setattr(Shared, "interrupt", None)
            if end == "lost":
                beat.leadership.step_down(cooldown=60)
            else:
                beat.close()
                raise SystemExit  # as a signal handler of beat does

        monkeypatch.setattr(Shared, "interrupt", staticmethod(interrupt))
        if end == "lost":
            tick_until(beat, lambda: not beat.schedule)
            # Nothing of a term that is over is written.
            assert Shared.stored == sent
        else:
            with pytest.raises(SystemExit):
                tick_until(beat, lambda: False)
            assert Shared.stored == sent + 1
        if note == "before":
            assert len(shared.send_task.headers) == sent
        else:  # no run is stored that was not sent
            assert len(shared.send_task.headers) == sent + 1
    finally:
        beat.close()


def test_after_a_run_that_the_broker_refused_is_still_due(shared: Any) -> None:
    shared.conf.coord_beat_note = "after"
    shared.send_task.fails = OSError("no broker")
    beat = LeaderScheduler(shared)
    try:
        tick_until(beat, lambda: beat.schedule)
        tick_until(beat, lambda: shared.send_task.tried >= 3)
        assert (Shared.stored, beat.schedule["e"].total_run_count) == (0, 0)
        beat.sync()
        assert Shared.stored == 0
        shared.send_task.fails = None
        tick_until(beat, lambda: shared.send_task.headers)
        assert Shared.stored == len(shared.send_task.headers)
    finally:
        beat.close()


def test_a_note_of_somebody_else_keeps_nobody_from_leading(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with coord.connect(app.conf.coord_url) as c:
        lead = c.leadership("celery-beat", ttl=2)
        term = lead.acquire(timeout=20)
        assert term is not None
        term.note("beat e", "yesterday")
        lead.stop()
        beat = LeaderScheduler(app)
        try:
            tick_until(beat, lambda: app.send_task.headers)
            ignored = [line for line in caplog.messages if "scheduler.note_ignored" in line]
            assert len(ignored) == 1
            assert "beat e" in ignored[0]
            assert isinstance(c.notes("celery-beat")["beat e"], float)
        finally:
            beat.close()


@pytest.mark.parametrize("died", [50, 70])
def test_a_crontab_entry_that_was_due_while_nobody_led_is_sent_once(app: Any, died: int) -> None:
    start = 1_800_000_000 // 3600 * 3600  # a full hour
    clock = {"now": start + 10.0}

    def now() -> datetime:
        return datetime.fromtimestamp(clock["now"], timezone.utc)

    def beat_at(seconds: float) -> LeaderScheduler:
        clock["now"] = start + seconds
        return LeaderScheduler(app)

    app.conf.update(
        coord_beat_scheduler="celery.beat:Scheduler",
        beat_schedule={"e": {"task": "t", "schedule": crontab(minute="*/2", nowfun=now, app=app)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coord.integrations.celery, "time", SimpleNamespace(time=lambda: clock["now"]))
        patch.setattr("celery.beat.ScheduleEntry.default_now", lambda self: now())
        patch.setattr("celery.beat.ScheduleEntry._default_now", lambda self: now())
        first = beat_at(10)
        tick_until(first, lambda: first.schedule)
        assert app.send_task.headers == []
        clock["now"] = start + float(died)
        first.close()  # the entry is due at 120 s, while nobody leads
        second = beat_at(200)
        tick_until(second, lambda: second.schedule)
        for _ in range(5):
            second.tick()
        assert len(app.send_task.headers) == 1
        clock["now"] = start + 239.0
        second.tick()
        assert len(app.send_task.headers) == 1
        second.close()
        third = beat_at(241)  # 240 s is due, and was not sent
        tick_until(third, lambda: len(app.send_task.headers) >= 2)
        for _ in range(5):
            third.tick()
        assert len(app.send_task.headers) == 2
        third.close()
