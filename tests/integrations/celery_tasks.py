"""The application of the beats of test_celery.py. Variables of the environment say what it does.

The entry `asked` is due at each time that the test appends to a file, so that tests need not wait
for crontabs. The entry `often` shows that a beat works.
"""

from __future__ import annotations

import os
import signal
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedstate, schedule
from celery.signals import after_task_publish, before_task_publish

DUE = Path(os.environ.get("DUE", "/nowhere"))
SHARED = os.environ.get("INNER", "").endswith(("DatabaseScheduler", "RedBeatScheduler"))


def last_due() -> float:
    """The last time at which `asked` was due; 0 before the first."""
    lines = DUE.read_text().split() if DUE.exists() else []
    return float(lines[-1]) if lines else 0.0


class CountingSchedule(schedule):
    """Due once after each of these times, as a crontab is."""

    def __init__(self) -> None:
        super().__init__(run_every=1)

    def is_due(self, last_run_at: datetime) -> Any:
        return schedstate(last_due() > last_run_at.astimezone(timezone.utc).timestamp(), 0.05)

    def __reduce__(self) -> Any:
        return type(self), ()


app = Celery("celery_tasks", broker=os.environ.get("BROKER", "memory://"))
app.conf.update(
    coord_beat_ttl=2.0,
    coord_beat_scheduler=os.environ.get("INNER", "celery.beat:PersistentScheduler"),
    coord_beat_note=os.environ.get("NOTE", "before"),
    coord_beat_missed=os.environ.get("MISSED", "once"),
    redbeat_redis_url=app.conf.broker_url,
    redbeat_redis_options={},
    result_expires=None,
    beat_schedule={
        "often": {"task": "often", "schedule": 0.3},
        "hourly": {"task": "hourly", "schedule": 3600.0},
    },
)
if not SHARED:
    app.conf.beat_schedule["asked"] = {
        "task": "asked",
        "schedule": CountingSchedule(),
        "args": [BeatLazyFunc(last_due)],
    }


if os.environ.get("CRONTAB"):
    app.conf.beat_schedule["minutely"] = {"task": "minutely", "schedule": crontab()}


def die(sender: str = "", **_: Any) -> None:
    if sender in ("asked", "hourly"):
        os.kill(os.getpid(), signal.SIGKILL)


for name, moment in {"before": before_task_publish, "after": after_task_publish}.items():
    if os.environ.get("DIE") == name:
        moment.connect(die)
