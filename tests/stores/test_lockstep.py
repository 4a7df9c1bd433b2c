"""SQLite in lockstep with the memory store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coord.operations import Answer, Renew, Result
from coord.stores.sqlite import SQLiteStore, StoreClock, batch
from tests.stores.lockstep import Lockstep, ManualClock


def in_lockstep(machine: type[Lockstep], path: Path, examples: int) -> None:
    clock = ManualClock()
    machine.clock, machine.loop = clock, asyncio.new_event_loop()
    machine.tested = SQLiteStore(str(path / "coord.db"), clock=StoreClock(total=clock, wall=clock, boot="manual"))
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        machine.loop.run_until_complete(machine.tested.close())
        machine.loop.close()


def test_sqlite_answers_as_memory_does(tmp_path: Path) -> None:
    class SQLite(Lockstep):
        pass

    in_lockstep(SQLite, tmp_path, 120)


def test_so_it_does_where_each_renewal_is_tried_as_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a row says of its holder is not compared in the answers, but is in the rows as they are read."""
    monkeypatch.setattr(batch, "FEW", 0)

    class SQLite(Lockstep):
        def compare(self, asked: object, tested: Result, oracle: Result) -> None:
            if isinstance(asked, Renew) and asked.info is None and isinstance(tested, Answer):
                assert isinstance(oracle, Answer)
                tested = Answer(tested.applied, replace(tested.lease, info=oracle.lease.info))
            super().compare(asked, tested, oracle)

    in_lockstep(SQLite, tmp_path, 80)
