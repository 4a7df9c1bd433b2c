"""SQLite in lockstep with the memory store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coord.stores.sqlite import SQLiteStore, StoreClock
from tests.stores.lockstep import Lockstep, ManualClock


def test_sqlite_answers_as_memory_does(tmp_path: Path) -> None:
    class SQLite(Lockstep):
        clock = ManualClock()
        loop = asyncio.new_event_loop()
        tested = SQLiteStore(str(tmp_path / "coord.db"), clock=StoreClock(total=clock, wall=clock, boot="manual"))

    try:
        run_state_machine_as_test(
            SQLite,
            settings=settings(
                max_examples=120,
                stateful_step_count=30,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        SQLite.loop.run_until_complete(SQLite.tested.close())
        SQLite.loop.close()
