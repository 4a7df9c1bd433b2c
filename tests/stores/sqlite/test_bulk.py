"""Claims, releases and looks of many roles on SQLite: what one row, or one slow process, does to
the others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Read, Release
from coord.errors import AccessDenied
from coord.stores.requests import send_all
from coord.stores.sqlite import SQLiteStore, swaps
from tests.stores.sqlite.test_swaps import answered, held, run
from tests.support.waits import soon


def damage(store: SQLiteStore, role: str, column: str, value: str) -> None:
    conn = sqlite3.connect(store.path)
    conn.execute(f"UPDATE coord_leases SET {column} = ? WHERE role = ?", (value, role))
    conn.commit()
    conn.close()


def test_many_swaps_that_take_long_let_others_renew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a thread that computes: each statement then waits for the interpreter."""
    real, begun = swaps._apply, threading.Event()

    def slow(*args: Any) -> Answer:
        begun.set()
        time.sleep(0.02)
        return real(*args)

    async def body(store: SQLiteStore) -> None:
        renewals, other = await held(store, 1), SQLiteStore(store.path)
        await other.open(5)
        monkeypatch.setattr(swaps, "_apply", slow)
        claims = [Claim(f"many {number}", "h", 1, 30.0) for number in range(100)]
        many = asyncio.ensure_future(store.swap_all(claims, 30))
        await soon(begun.is_set)
        assert answered((await other.renew(renewals, 1.0))[0]).applied
        assert not many.done()
        results = [answered(candidate) for candidate in await many]
        assert [(result.applied, result.lease.role) for result in results] == [
            (True, claim.role) for claim in claims
        ]
        assert len(await store.read(None, 5)) == 101
        await other.close()

    run(tmp_path, body)


def test_what_was_committed_is_known_when_the_rest_comes_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = swaps._apply

    def stuck(conn: sqlite3.Connection, request: Claim, *args: Any) -> Answer:
        if request.role == "many 2":
            time.sleep(0.7)
        return real(conn, request, *args)

    async def body(store: SQLiteStore) -> None:
        await held(store, 1)
        monkeypatch.setattr(swaps, "_apply", stuck)
        monkeypatch.setattr(swaps, "MAX_TRANSACTION", 0.0)
        results = await store.swap_all(
            [Claim(f"many {number}", "h", 1, 30.0) for number in range(4)], 0.5
        )
        assert [answered(result).applied for result in results[:2]] == [True, True]
        assert [isinstance(result, Failure) and not result.unknown for result in results[2:]] == [
            True,
            True,
        ]
        assert sorted(row.role for row in await store.read(None, 5)) == [
            "many 0",
            "many 1",
            "role 0",
        ]

    run(tmp_path, body)


@pytest.mark.parametrize("kind", ["claims", "releases", "looks"])
def test_a_damaged_row_stops_no_other_that_travels_with_it(tmp_path: Path, kind: str) -> None:
    async def body(store: SQLiteStore) -> None:
        request: list[Claim | Release | Read] = []
        for item in await held(store, 5):
            kinds: dict[str, Claim | Release | Read] = {
                "claims": Claim(item.role, "another", 1, 30.0, takeover=True),
                "releases": Release(item.role, item.holder, 1, 2),
                "looks": Read(item.role),
            }
            request.append(kinds[kind])
        await store.close()
        damage(store, "role 1", "info", "{")
        results = list(await send_all(store, request, 5))
        damaged = results.pop(1)
        assert isinstance(damaged, Failure)
        assert (damaged.permanent, damaged.unknown) == (True, False)
        assert [answered(result).lease.role for result in results] == [
            "role 0",
            "role 2",
            "role 3",
            "role 4",
        ]
        assert {answered(result).applied for result in results} == {kind != "looks"}

    run(tmp_path, body)


@pytest.mark.parametrize("info", ["7", "[1]", '"a"', "null"])
def test_info_that_is_no_object_stops_nobody(tmp_path: Path, info: str) -> None:
    """It is about the holder, for people; nothing is decided by it."""

    async def body(store: SQLiteStore) -> None:
        renewals = await held(store, 3)
        await store.close()
        damage(store, "role 1", "info", info)
        assert [row.info for row in await store.read(["role 1"], 5)] == [{}]
        releases = [Release(renewal.role, renewal.holder, 1, 2) for renewal in renewals]
        assert [answered(item).applied for item in await store.swap_all(releases, 5)] == [True] * 3

    run(tmp_path, body)


def test_a_store_that_refuses_all_is_asked_once(tmp_path: Path) -> None:
    """No rights are no row's fault."""

    async def body(store: SQLiteStore) -> None:
        request: list[int] = []

        async def refused(roles: Collection[str] | None, timeout: float) -> list[Lease]:
            request.append(len(roles or ()))
            raise AccessDenied("no")

        store.read = refused  # type: ignore[method-assign]
        results = await send_all(store, [Read(f"role {number}") for number in range(5)], 5)
        assert results == [Failure(unknown=False, detail="no", refusal=AccessDenied)] * 5
        assert request == [5]

    run(tmp_path, body)
