"""A row in PostgreSQL that rejects the write of an old leader."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.fencing import asyncpg_write
from coord.stores.postgresql.connection import driver
from tests.stores.postgresql.kit import run

EXAMPLE = Path(__file__).parents[3] / "examples" / "fenced_postgresql.py"
COLUMNS = "id text, kind text, balance int, fencing_token bigint"


def test_a_row_rejects_older_tokens(url: str) -> None:
    async def body() -> None:
        db = await driver().connect(url.partition("?")[0])
        try:
            await db.execute(f"CREATE TEMP TABLE accounts ({COLUMNS})")
            await db.execute("INSERT INTO accounts VALUES ('x', 'k', 0, NULL), ('y', 'k', 0, NULL)")
            key = {"id": "x", "kind": "k"}
            for balance, token in ((10, 5), (20, 5), (40, 6)):
                await asyncpg_write(db, "accounts", key, {"balance": balance}, token)
            with pytest.raises(
                coord.StaleToken, match="refuses token 5: it has already seen token 6"
            ):
                await asyncpg_write(db, "accounts", key, {"balance": 50}, 5)
            rows = await db.fetch("SELECT balance, fencing_token FROM accounts ORDER BY id")
            assert [tuple(row) for row in rows] == [(40, 6), (0, None)]
            with pytest.raises(coord.CoordError, match="no row"):
                await asyncpg_write(db, "accounts", {"id": "z"}, {"balance": 1}, 7)
            for wrong in ({"balance = 0; --": 1}, {}):
                with pytest.raises(coord.BadArgument, match="changes"):
                    await asyncpg_write(db, "accounts", key, wrong, 7)
            with pytest.raises(coord.NotLeader):
                await asyncpg_write(db, "accounts", key, {"balance": 1})
        finally:
            await db.close()

    run(body)


def test_an_older_write_that_waited_for_a_newer_one_is_rejected(url: str) -> None:
    """Its condition held when it began to wait."""

    async def body() -> None:
        where = url.partition("?")[0]
        first, second = await driver().connect(where), await driver().connect(where)
        name = url.rpartition("=")[2] + "_accounts"
        try:
            await first.execute(f"CREATE TABLE {name} ({COLUMNS})")
            await first.execute(f"INSERT INTO {name} VALUES ('x', 'k', 0, 1)")
            transaction: Any = first.transaction()
            await transaction.start()
            await asyncpg_write(first, name, {"id": "x"}, {"balance": 3}, 3)
            late = asyncio.ensure_future(
                asyncpg_write(second, name, {"id": "x"}, {"balance": 2}, 2)
            )
            await asyncio.sleep(0.3)
            assert not late.done()
            await transaction.commit()
            with pytest.raises(coord.StaleToken, match="token 2: it has already seen token 3"):
                await late
            assert await first.fetchval(f"SELECT balance FROM {name}") == 3
            await first.execute(f"DROP TABLE {name}")
        finally:
            await first.close()
            await second.close()

    run(body)


def test_the_example_shows_it(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), url],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "first leads",
        "second leads",
        "second has written",
        "first is refused",
        "the report was written by second",
    ]
