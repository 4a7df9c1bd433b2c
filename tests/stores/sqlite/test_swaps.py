"""Renewals in bulk on SQLite: one statement where all is as it was left, and every row's own answer
where it is not."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result, Retire
from coord.stores.sqlite import SQLiteStore, StoreClock, swaps
from coord.stores.sqlite.feed import LeaseFeed
from coord.stores.sqlite.lease_clock import LeaseClock
from tests.stores.lockstep import ManualClock
from tests.support.waits import soon


def run(path: Path, body: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = SQLiteStore(str(path / "coord.db"))
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def answered(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    return result


async def held(store: SQLiteStore, count: int) -> list[Renew]:
    for number in range(count):
        claim = Claim(f"role {number}", f"holder {number}", 1, 30.0, info={"of": number})
        assert answered(await store.claim(claim, 5)).applied
    return [Renew(f"role {number}", f"holder {number}", 1, 2, 30.0) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 16, 17, 65, 270])
def test_all_as_left_is_renewed_without_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, count)
        if swaps.AVAILABLE:
            monkeypatch.setattr(swaps, "renew", None)
        results = [answered(item) for item in await store.renew(renewals, 5)]
        rows = {row.role: row for row in await store.read(None, 5)}
        for number, (request, result) in enumerate(zip(renewals, results, strict=True)):
            row = rows[request.role]
            assert result.applied
            assert row.revision == result.lease.revision == (request.holder, 1, 2)
            assert (row.ttl, row.info) == (30.0, {"of": number})
            assert 29 < row.remaining <= result.lease.remaining == 30

    run(tmp_path, body)


@pytest.mark.parametrize("available", [True, False])
def test_each_has_its_own_answer_where_some_are_not_as_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: bool
) -> None:
    monkeypatch.setattr(swaps, "AVAILABLE", available and swaps.AVAILABLE)

    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, 20)
        taken, vacant, deleted, longer, again, wrong = range(6)
        assert answered(
            await store.claim(Claim("role 0", "another", 1, 30.0, takeover=True), 5)
        ).applied
        assert answered(await store.release(Release("role 1", "holder 1", 1, 5), 5)).applied
        renewals[deleted] = replace(renewals[deleted], role="nobody's")
        renewals[longer] = replace(renewals[longer], ttl=60.0)
        renewals[again] = replace(renewals[again], beat=1)
        renewals[wrong] = replace(renewals[wrong], token=7)
        results = [answered(item) for item in await store.renew(renewals, 5)]
        refused = {taken, vacant, deleted, again, wrong}
        assert {number for number, first in enumerate(results) if not first.applied} == refused
        assert results[taken].lease.holder == "another"
        assert results[vacant].lease.vacant
        assert results[deleted].lease.token == 0
        assert results[wrong].lease.token == 1
        rows = {row.role: row for row in await store.read(None, 5)}
        assert rows["role 3"].ttl == 60.0
        assert all(
            rows[f"role {number}"].beat == 2 for number in range(20) if number not in refused
        )

    run(tmp_path, body)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    "wrong", [{"token": 7}, {"holder": "another"}, {"beat": 1}, {"role": "another"}], ids=str
)
def test_one_wrong_field_is_enough_to_refuse_a_renewal(
    tmp_path: Path, wrong: dict[str, Any], count: int
) -> None:
    """The renewal is refused without reading the rows first, alone and among others."""

    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, count)
        before = {row.role: row for row in await store.read(None, 5)}
        renewals[0] = replace(renewals[0], **wrong)
        results = [answered(item) for item in await store.renew(renewals, 5)]
        assert [result.applied for result in results] == [False, *[True] * (count - 1)]
        after = {row.role: row for row in await store.read(None, 5)}
        assert after["role 0"].revision == before["role 0"].revision

    run(tmp_path, body)


def test_a_damaged_row_stops_no_other(tmp_path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, 3)
        assert answered(
            await store.claim(Claim("role 0", "another", 1, 30.0, takeover=True), 5)
        ).applied
        await store.close()
        conn = sqlite3.connect(store.path)
        conn.execute("UPDATE coord_leases SET info = '{' WHERE role = 'role 1'")
        conn.commit()
        conn.close()
        lost, damaged, kept = await store.renew(renewals, 5)
        assert answered(lost).lease.holder == "another"
        assert isinstance(damaged, Failure)
        assert (damaged.permanent, damaged.unknown) == (True, False)
        assert answered(kept).applied
        assert [row.beat for row in await store.read(["role 2"], 5)] == [2]

    run(tmp_path, body)


@pytest.mark.parametrize("count", [1, 20])
def test_a_clock_that_steps_back_shortens_nothing(tmp_path: Path, count: int) -> None:
    total, wall = ManualClock(), ManualClock()

    async def body(store: SQLiteStore) -> None:
        store.database.clock = LeaseClock(
            store.path, StoreClock(total=total, wall=wall, name="manual")
        )
        renewals = await held(store, count)
        for clock in (total, wall):
            clock.now -= 10
            results = await store.renew(renewals, 5)
            assert all(answered(result).applied for result in results)
            rows = await store.read(None, 5)
            assert {(row.remaining + total.now, row.renewed_at) for row in rows} == {
                (1030.0, 1000.0)
            }
            clock.now += 10
            renewals = [replace(renewal, beat=renewal.beat + 1) for renewal in renewals]

    run(tmp_path, body)


def test_a_batch_that_was_given_up_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, 20)
        renewed = swaps._renew_unread

        def slow(*args: Any) -> int:
            count = renewed(*args)
            time.sleep(0.4)
            return count

        monkeypatch.setattr(swaps, "_renew_unread", slow)
        results = await store.renew(renewals, 0.2)
        assert not any(isinstance(result, Answer) for result in results)
        await asyncio.sleep(0.5)
        assert {row.beat for row in await store.read(None, 5)} == {1}

    run(tmp_path, body)


@pytest.mark.skipif(not swaps.AVAILABLE, reason="this SQLite has no UPDATE … FROM")
def test_a_thread_that_computes_does_not_hold_a_thousand_renewals_up(tmp_path: Path) -> None:
    """Each statement costs 5 ms beside it: 500 statements took 2.5 s and more."""

    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, 500)
        done = threading.Event()

        def compute() -> None:
            while not done.is_set():
                sum(range(100))

        thread = threading.Thread(target=compute)
        thread.start()
        try:
            taken = []
            for beat in range(2, 5):
                began = time.monotonic()
                results = await store.renew(
                    [replace(renewal, beat=beat) for renewal in renewals], 30
                )
                taken.append(time.monotonic() - began)
                assert all(answered(result).applied for result in results)
        finally:
            done.set()
            thread.join()
        assert min(taken) < 1.5

    run(tmp_path, body)


def test_a_feed_of_all_roles_forgets_those_that_were_retired(tmp_path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        feed = store.watch(None)
        following = asyncio.ensure_future(_follow(feed))
        for number in range(20):
            role = f"r{number}"
            lease = answered(await store.claim(Claim(role, "a", 1, 30.0), 5)).lease
            await store.release(Release(role, "a", lease.token, 2), 5)
            await soon(lambda: any(_known(store)))
            (row,) = await store.read([role], 5)
            assert await store.retire([Retire(role, "", row.revision, row.renewed_at + 1)], 5)
        await soon(lambda: not any(_known(store)))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    run(tmp_path, body)


def _known(store: SQLiteStore) -> list[dict[str, Any]]:
    return [feed._known for feed in store.database._feeds if isinstance(feed, LeaseFeed)]


async def _follow(feed: AsyncIterator[Lease]) -> None:
    async for _ in feed:
        pass
