"""SQLite in lockstep with the memory store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Renew, Result
from coord.stores.sqlite import SQLiteStore, StoreClock, swaps
from tests.stores.in_bulk import in_bulk
from tests.stores.lockstep import Lockstep, ManualClock, roles
from tests.support.levels import by_level, deeper

SLIPS = ("none", "none", "beat", "token", "holder", "shorter", "longer")


def slipped(request: Renew, slip: str, row: Lease) -> Renew:
    return {
        "none": request,
        "beat": replace(request, beat=row.beat),
        "token": replace(request, token=row.token - 1),
        "holder": replace(request, holder="nobody"),
        "shorter": replace(request, ttl=row.ttl / 2),
        "longer": replace(request, ttl=row.ttl * 2),
    }[slip]


def in_lockstep(
    machine: type[Lockstep], path: Path, examples: int, kind: type[Any] = SQLiteStore
) -> None:
    clock = ManualClock()
    machine.clock, machine.loop = clock, asyncio.new_event_loop()
    machine.tested = kind(
        str(path / "coord.db"), clock=StoreClock(total=clock, wall=clock, name="manual")
    )
    # The steps may begin with a read, which creates no file.
    machine.loop.run_until_complete(machine.tested.database.create(10))
    try:
        # A look at a database that is not there is an error; a claim creates it.
        machine.loop.run_until_complete(machine.tested.claim(Claim("first", "h", 1, 30.0), 10))
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


@deeper
def test_sqlite_answers_as_memory_does(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "AVAILABLE", False)

    class SQLite(Lockstep):
        pass

    in_lockstep(SQLite, memory_path, by_level(25, 120, 1_000))


@deeper
def test_so_it_does_in_bulk(memory_path: Path) -> None:
    class SQLite(Lockstep):
        def compare(self, request: object, tested: Result, oracle: Result) -> None:
            if not isinstance(request, Renew):  # those are compared without others
                super().compare(request, tested, oracle)

    in_lockstep(SQLite, memory_path, by_level(15, 60, 500), in_bulk(SQLiteStore))


@deeper
def test_so_it_does_where_renewals_are_written_without_being_read(memory_path: Path) -> None:
    """What a row says of its holder is not compared in the answers, but is in the rows as they are
    read."""

    class SQLite(Lockstep):
        def compare(self, requests: object, tested: Result, oracle: Result) -> None:
            plain = isinstance(requests, Renew) and requests.info is None
            if plain and isinstance(tested, Answer):
                assert isinstance(oracle, Answer)
                remaining = (
                    oracle.lease.remaining
                )  # 1000.1 - 1000 is a little more than the ttl of 0.1
                assert tested.lease.remaining == pytest.approx(remaining)
                tested = Answer(
                    tested.applied,
                    replace(tested.lease, info=oracle.lease.info, remaining=remaining),
                )
            super().compare(requests, tested, oracle)

        @rule(
            names=st.sets(roles, min_size=1), slip=st.sampled_from(SLIPS), ahead=st.integers(1, 3)
        )
        def renew_as_left(self, names: set[str], slip: str, ahead: int) -> None:
            """Like `renew`, but what is there: all of it, or all but one thing of one row."""
            rows = [row for name in sorted(names) if (row := self.row(name + self.tail)).holder]
            requests = [
                Renew(row.role, row.holder or "", row.token, row.beat + ahead, row.ttl)
                for row in rows
            ]
            if requests:
                requests[0] = slipped(requests[0], slip, rows[0])
            tested, oracle = (
                self.wait(self.tested.renew(requests, 10)),
                self.wait(self.oracle.renew(requests, 10)),
            )
            for item, first, second in zip(requests, tested, oracle, strict=True):
                self.compare(item, first, second)

    in_lockstep(SQLite, memory_path, by_level(15, 80, 500))
