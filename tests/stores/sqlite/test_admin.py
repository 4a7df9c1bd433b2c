"""What operators do with a SQLite file: set it up, check it, and raise its tokens."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from coord.core.operations import Answer, Claim
from coord.errors import BadArgument
from coord.stores import urls
from coord.stores.memory import MemoryStore
from coord.stores.memory import admin as memory_admin
from coord.stores.sqlite import SQLiteStore
from coord.stores.sqlite.admin import SQLiteAdmin


@pytest.fixture
def admin(tmp_path: Path) -> SQLiteAdmin:
    return SQLiteAdmin(str(tmp_path / "new" / "coord.db"))


def setup(admin: Any, **options: object) -> list[str]:
    return list(asyncio.run(admin.setup(options, 10)))


def token(path: str, role: str) -> int:
    async def main() -> int:
        store = SQLiteStore(path)
        result = await store.claim(Claim(role, "a", 1, 30.0), 10)
        await store.close()
        assert isinstance(result, Answer)
        assert result.applied
        return result.lease.token

    return asyncio.run(main())


def test_setup_creates_the_file_once(admin: SQLiteAdmin) -> None:
    assert not admin.exists()
    assert setup(admin, guard=None, replicas=None) == [f"created {admin.path}"]
    assert admin.exists()
    assert setup(admin) == []


def test_options_of_other_databases_are_refused(admin: SQLiteAdmin) -> None:
    (line,) = setup(admin, guard=True)[1:]
    assert "always on" in line
    for options in ({"replicas": 3}, {"guard": False}, {"guard": True, "other": ""}):
        with pytest.raises(BadArgument) as caught:
            setup(admin, **options)
        assert caught.value.argument in options


def test_check(admin: SQLiteAdmin) -> None:
    findings = {finding.what: finding for finding in asyncio.run(admin.check(10))}
    assert findings["file"].level == "warn"
    assert not admin.exists()
    setup(admin)
    assert {finding.level for finding in asyncio.run(admin.check(10))} <= {"ok", "warn"}
    Path(admin.path).write_bytes(b"not a database, but long enough to be one" * 100)
    assert "error" in {finding.level for finding in asyncio.run(admin.check(10))}


def test_raise_token_floor(admin: SQLiteAdmin) -> None:
    assert token(admin.path, "known") == 1

    def raise_to(floor: int, *roles: str) -> int:
        return asyncio.run(admin.raise_token_floor(floor, roles, 10))

    assert raise_to(50, "known", "new") == 2
    assert raise_to(50, "known", "new") == 0
    assert raise_to(40) == 0
    assert token(admin.path, "new") == 51
    with sqlite3.connect(admin.path) as conn:
        rows = dict(conn.execute("SELECT role, token FROM coord_leases"))
    conn.close()
    assert rows == {"known": 50, "new": 51}
    for floor, roles in ((-1, ["r"]), (5, [""])):
        with pytest.raises(BadArgument):
            raise_to(floor, *roles)


def test_memory() -> None:
    admin = urls.open_admin("memory://x")
    assert admin.exists()
    assert setup(admin, guard=None) == []
    assert [finding.level for finding in asyncio.run(admin.check(1))] == ["warn"]
    with pytest.raises(BadArgument, match="guard"):
        setup(admin, guard=True)
    with pytest.raises(BadArgument, match="token_floor"):
        asyncio.run(admin.raise_token_floor(5, [], 1))
    assert type(memory_admin("memory://")) is type(admin)
    assert MemoryStore().url == "memory://"
