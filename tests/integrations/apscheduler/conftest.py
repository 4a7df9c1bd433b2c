"""Elections on demand, job stores of SQLAlchemy, and what schedulers report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.base import BaseScheduler

from coord.integrations.apscheduler import LeaderBackgroundScheduler
from coord.testing import ElectionKit

ENDS = {EVENT_JOB_EXECUTED: "executed", EVENT_JOB_MISSED: "missed", EVENT_JOB_ERROR: "error"}


class Ends:
    """How the runs of a scheduler ended."""

    def __init__(self, scheduler: BaseScheduler) -> None:
        self.events: list[Any] = []
        scheduler.add_listener(self.events.append, sum(ENDS))

    def of(self, job_id: str) -> list[str]:
        return [ENDS[event.code] for event in self.events if event.job_id == job_id]


@pytest.fixture
def kit() -> Iterator[ElectionKit]:
    with ElectionKit().as_default() as kit:
        yield kit


Make = Callable[..., LeaderBackgroundScheduler]


@pytest.fixture
def make(kit: ElectionKit) -> Iterator[Make]:
    """Make schedulers that are shut down at the end."""
    made: list[LeaderBackgroundScheduler] = []

    def make(kind: type[Any] = LeaderBackgroundScheduler, **options: Any) -> Any:
        made.append(kind(**{"timezone": "UTC", **options}))
        return made[-1]

    yield make
    for scheduler in made:
        if scheduler.running:
            scheduler.shutdown(wait=False)


@pytest.fixture
def shared(tmp_path: Path) -> Callable[[], SQLAlchemyJobStore]:
    """Make job stores on one database."""
    return lambda: SQLAlchemyJobStore(f"sqlite:///{tmp_path}/jobs.db")
