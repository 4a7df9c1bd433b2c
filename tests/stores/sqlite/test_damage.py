"""Rows that somebody damaged, and tables that somebody dropped: what stops, what goes on, and what
people are told."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.core.operations import Answer, Claim, Failure
from coord.errors import NotSetUp, StoreRefused
from coord.stores.protocol import Finding
from coord.stores.sqlite import admin, schema
from coord.stores.sqlite.store import SQLiteStore

DAMAGES = [
    "info = '{'",
    "info = x'00'",
    "holder = x'ff'",
    "beat = 'many'",
    "ttl = 'long'",
    "renewed_at = 'today'",
    "renewed_at = 1e300",
    "runs_out = 'soon'",
    "runs_out = 9e999",
    "since = 'then'",
    "since = -9e999",
]


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, timeout=5)) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.commit()


def claim(role: str, beat: int = 1) -> Claim:
    return Claim(role, "a", beat, 30.0, info={"name": role})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the leases of `good` and `bad`."""
    where = tmp_path / "coord.db"

    async def body() -> None:
        store = SQLiteStore(str(where))
        for role in ("good", "bad"):
            assert isinstance(await store.claim(claim(role), 5), Answer)
        await store.close()

    asyncio.run(body())
    return where


@pytest.fixture(autouse=True)
def _nothing_reported() -> Iterator[None]:
    schema._reported.clear()
    yield
    schema._reported.clear()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_stops_no_look_at_all_roles(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(path, f"UPDATE coord_leases SET {damage} WHERE role = 'bad'")

    async def body() -> None:
        store = SQLiteStore(str(path))
        try:
            for _ in range(2):
                assert [lease.role for lease in await store.read(None, 5)] == ["good"]
            assert {term.role for term in await store.past(None, 5)} == {"good", "bad"}
            assert [lease.role for lease in await store.read(["good"], 5)] == ["good"]
            with pytest.raises(StoreRefused, match="'bad' is damaged"):
                await store.read(["bad"], 5)
            result = await store.claim(claim("bad", 2), 5)
            assert isinstance(result, Failure)
            assert (result.permanent, result.unknown) == (True, False)
            feeds: list[Any] = [store.watch(None), store.watch(["bad", "good"])]
            for feed in feeds:
                assert (await asyncio.wait_for(anext(feed), 20)).role == "good"
            await store.claim(claim("later"), 5)
            assert (await asyncio.wait_for(anext(feeds[0]), 20)).role == "later"
            for feed in feeds:
                await feed.aclose()
        finally:
            await store.close()

    with caplog.at_level(logging.WARNING, logger="coord"):
        asyncio.run(body())
    assert [record.getMessage().split()[0] for record in caplog.records] == ["store.damaged_row"]
    (error,) = [finding for finding in findings(path) if finding.level == "error"]
    assert "'bad' is damaged" in error.detail
    assert "holder NULL" in error.advice
    change(
        path,
        "UPDATE coord_leases SET holder = NULL, beat = 0, ttl = 0, renewed_at = 0, runs_out = 0, "
        "info = '{}', since = 0 WHERE role = 'bad'",
    )
    assert claimed_token(path, "bad") == 2


def findings(path: Path) -> list[Finding]:
    return list(asyncio.run(admin(f"sqlite://{path}").check(5)))


def claimed_token(path: Path, role: str) -> int:
    async def body() -> int:
        store = SQLiteStore(str(path))
        try:
            result = await store.claim(claim(role, 9), 5)
            assert isinstance(result, Answer), result
            return result.lease.token
        finally:
            await store.close()

    return asyncio.run(body())


def test_candidates_for_other_roles_take_over_beside_a_damaged_row(path: Path) -> None:
    url = f"sqlite://{path}"
    change(path, "UPDATE coord_leases SET holder = NULL WHERE role = 'good'")
    with coord.connect(url) as first, coord.connect(url) as second:
        leader = first.leadership("good", ttl=30)
        leader.start()
        assert leader.wait(20)
        change(path, "UPDATE coord_leases SET info = '{' WHERE role = 'bad'")
        follower, blocked = second.leadership("good", ttl=30), second.leadership("bad", ttl=30)
        follower.start()
        blocked.start()
        leader.step_down(30)
        assert follower.wait(20)
        assert [lease.role for lease in second.leaders()] == ["good"]


LEASES = "DROP TABLE coord_leases"
ANNOUNCEMENTS = "DROP TABLE coord_announcements"
DROPPED = [(LEASES,), (LEASES, ANNOUNCEMENTS)]


@pytest.mark.parametrize("statements", DROPPED, ids=["leases", "both"])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_dropped_table_is_named_and_used_again(
    path: Path, statements: tuple[str, ...], is_open: bool
) -> None:
    change(path, "DROP TRIGGER coord_rows_stay")

    async def body() -> None:
        store = SQLiteStore(str(path))
        try:
            if is_open:
                await store.open(5)
            change(path, *statements)
            for _ in range(2):
                with pytest.raises(NotSetUp, match="table coord_leases was dropped"):
                    await store.read(None, 5)
                result = await store.claim(claim("role"), 5)
                assert isinstance(result, Failure)
                assert result.permanent
                assert "--token-floor" in result.detail
            await asyncio.to_thread(check_and_set_up)
            result = await store.claim(claim("role", 2), 5)
            assert isinstance(result, Answer)
            assert result.applied
        finally:
            await store.close()

    def check_and_set_up() -> None:
        (error,) = [finding for finding in findings(path) if finding.level == "error"]
        assert "was dropped" in error.detail
        done = asyncio.run(admin(f"sqlite://{path}").setup({}, 5))
        assert done[0] == "created the table coord_leases, which had been dropped"
        assert asyncio.run(admin(f"sqlite://{path}").setup({}, 5)) == []

    asyncio.run(body())


def test_dropped_announcements_are_named_and_created_again(path: Path) -> None:
    async def body() -> None:
        store = SQLiteStore(str(path))
        try:
            await store.open(5)
            change(path, ANNOUNCEMENTS)
            with pytest.raises(NotSetUp, match="table coord_announcements was dropped"):
                await store.announcements().read(None, 5)
            assert isinstance(await store.claim(claim("role"), 5), Answer)
            done = await asyncio.to_thread(set_up)
            assert done == ["created the table coord_announcements, which had been dropped"]
            assert await store.announcements().read(None, 5) == []
        finally:
            await store.close()

    def set_up() -> list[str]:
        return list(asyncio.run(admin(f"sqlite://{path}").setup({}, 5)))

    asyncio.run(body())


def test_another_programs_database_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    change(path, "CREATE TABLE mine (x)", f"PRAGMA user_version={schema.VERSION}")
    assert schema.create_missing_tables(str(path)) == []
    with pytest.raises(StoreRefused, match="another program's database"):
        asyncio.run(admin(f"sqlite://{path}").setup({}, 5))
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
