"""Where a SQLite store lives, and what it says about files that it cannot or must not use."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from coord.core.operations import Answer, Claim, Failure
from coord.errors import AccessDenied, BadArgument, StoreRefused
from coord.runtime import clock
from coord.stores.protocol import Store
from coord.stores.sqlite import SQLiteStore, StoreClock, default_path, files, schema


def claim_once(store: SQLiteStore, role: str = "r", **more: object) -> object:
    async def main() -> object:
        try:
            return await store.claim(Claim(role, "a", 1, 30.0, **more), 5)  # type: ignore[arg-type]
        finally:
            await store.close()

    return asyncio.run(main())


def open_error(store: SQLiteStore) -> Exception:
    async def main() -> Exception:
        with pytest.raises(StoreRefused) as caught:
            await store.open(5)
        await store.close()
        return caught.value

    return asyncio.run(main())


def test_it_is_a_store_and_lazy(tmp_path: Path) -> None:
    path = tmp_path / "made" / "coord.db"
    store = SQLiteStore(str(path))
    assert isinstance(store, Store)
    assert store.url == f"sqlite://{path}"
    assert SQLiteStore(str(path), url="sqlite:x").url == "sqlite:x"
    assert not path.parent.exists()
    assert isinstance(claim_once(store), Answer)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "coord.db"
    path.touch(0o640)
    path.chmod(0o640)
    claim_once(SQLiteStore(str(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", None, 7, b"x"])
def test_paths_that_will_not_do(path: object) -> None:
    with pytest.raises(BadArgument):
        SQLiteStore(path)  # type: ignore[arg-type]


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("file:x?mode=memory")  # not a URI to us, whatever SQLite was built to think
    monkeypatch.chdir("/")
    claim_once(store)
    assert (tmp_path / "file:x?mode=memory").exists()


@pytest.mark.parametrize("kind", ["under a file", "a directory", "in /proc", "garbage"])
def test_files_that_cannot_be(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    path = {
        "under a file": tmp_path / "file" / "x" / "coord.db",
        "a directory": tmp_path,
        "in /proc": Path("/proc/coord.db"),
        "garbage": tmp_path / "file",
    }[kind]
    error = open_error(SQLiteStore(str(path)))
    assert str(path) in str(error)
    assert isinstance(error, AccessDenied) == (kind in ("under a file", "in /proc"))
    result = claim_once(SQLiteStore(str(path)))
    assert isinstance(result, Failure)
    assert (result.permanent, result.unknown) == (True, False)
    assert str(path) in result.detail


@pytest.mark.parametrize("readonly", ["file", "directory"])
@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs a user without rights")
def test_without_the_right_to_write(readonly: str) -> None:
    code = """
        import asyncio, os, sys
        from coord.errors import AccessDenied
        from coord.stores.sqlite import SQLiteStore
        # This imports what is imported late, while the process still has its rights.
        asyncio.run(SQLiteStore(sys.argv[1] + ".other").open(5))
        if os.getuid() == 0:
            os.setgid(65534), os.setuid(65534)
        try:
            asyncio.run(SQLiteStore(sys.argv[1]).open(5))
        except AccessDenied as err:
            print("denied", sys.argv[1] in str(err))
    """
    with tempfile.TemporaryDirectory() as base:
        path = Path(base) / "coord.db"
        claim_once(SQLiteStore(str(path)))
        Path(base).chmod(0o555 if readonly == "directory" else 0o777)
        path.chmod(0o444 if readonly == "file" else 0o666)
        run = [sys.executable, "-c", textwrap.dedent(code), str(path)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("denied True\n", "")


@pytest.mark.parametrize("number", [0, 1, schema.VERSION - 1])
def test_the_schema_of_a_development_version_is_refused(tmp_path: Path, number: int) -> None:
    path = str(tmp_path / "coord.db")
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE coord_leases (role TEXT NOT NULL PRIMARY KEY, holder TEXT)")
        conn.execute(f"PRAGMA user_version={number}")
    conn.close()
    error = open_error(SQLiteStore(path))
    assert path in str(error)
    assert f"schema {number}, this version needs {schema.VERSION}" in str(error)
    with sqlite3.connect(path) as conn:
        assert schema.version(conn) == number
    conn.close()


def test_many_create_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "coord.db")

    async def main() -> None:
        stores = [SQLiteStore(path) for _ in range(5)]
        await asyncio.gather(*(store.open(10) for store in stores))
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(main())
    with sqlite3.connect(path) as conn:
        assert schema.version(conn) == schema.VERSION
    conn.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "coord.db")
    claim_once(SQLiteStore(path))
    with sqlite3.connect(path) as conn:
        conn.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    conn.close()
    error = open_error(SQLiteStore(path))
    assert path in str(error)
    assert "newer coord" in str(error)
    assert isinstance(claim_once(SQLiteStore(path)), Failure)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE users (name)")
    conn.close()
    before = path.read_bytes()
    assert "another program's" in str(open_error(SQLiteStore(str(path))))
    assert path.read_bytes() == before


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/local xfs rw 0 0
//server/share /mnt/with\\040space cifs rw 0 0
me@there: /mnt/ssh fuse.sshfs rw 0 0
/dev/vdc /mnt/ssh/cover ext4 rw 0 0
tmpfs /twice tmpfs rw 0 0
host /twice 9p rw 0 0
/dev/sda1 /ntfs fuseblk rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "refused"),
    [
        ("/var/x.db", "ext4", False),
        ("/home/me/x.db", "nfs4", True),
        ("/home/local/x.db", "xfs", False),
        ("/home/locals/x.db", "nfs4", True),
        ("/homely/x.db", "ext4", False),
        ("/mnt/with space/x.db", "cifs", True),
        ("/mnt/ssh/x.db", "fuse.sshfs", True),
        ("/mnt/ssh/cover/x.db", "ext4", False),
        ("/twice/x.db", "9p", True),
        ("/ntfs/x.db", "fuseblk", False),
    ],
)
def test_network_file_systems(path: str, kind: str, refused: bool, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert files.file_system(path, str(mounts)) == kind
    if not refused:
        files.refuse_network(path, str(mounts))
        return
    with pytest.raises(StoreRefused, match=kind):
        files.refuse_network(path, str(mounts))


def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {os.path.realpath(tmp_path)} nfs rw 0 0\n")
    path = tmp_path / "coord.db"
    (tmp_path / "link").symlink_to(tmp_path)
    for given in (path, tmp_path / "link" / "coord.db"):
        assert "nfs" in str(open_error(SQLiteStore(str(given), mounts=str(mounts))))
    assert not path.exists()


def test_default_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_path() == "/home/me/.local/state/coord/coord.db"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path() == "/state/coord/coord.db"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert default_path() == "/home/me/.local/state/coord/coord.db"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_path() == "/home/me/Library/Application Support/coord/coord.db"


def test_after_a_reboot_every_lease_has_run_out(tmp_path: Path) -> None:
    path = str(tmp_path / "coord.db")
    claim_once(SQLiteStore(path, clock=StoreClock(total=lambda: 5000.0, boot="one")))
    later = StoreClock(
        total=lambda: 3.0, boot="two"
    )  # the new boot's clock starts again from nothing
    same_boot = claim_once(
        SQLiteStore(path, clock=StoreClock(total=lambda: 5001.0, boot="one")), skew=0.0
    )
    assert isinstance(same_boot, Answer)
    assert (same_boot.applied, same_boot.lease.remaining) == (False, 29.0)

    async def main() -> None:
        store = SQLiteStore(path, clock=later)
        (lease,) = await store.read(None, 5)
        assert lease.remaining == float("-inf")
        result = await store.claim(Claim("r", "b", 1, 30.0, skew=1000.0), 5)
        assert isinstance(result, Answer)
        assert result.applied
        assert result.lease.remaining == 30.0
        await store.close()

    asyncio.run(main())


def test_without_a_boot_id_the_wall_clock_decides_with_some_skew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "boot_id", lambda: "")
    store = SQLiteStore("/nowhere/coord.db")
    assert store.max_clock_skew == clock.WALL_SKEW
    assert store.database.clock.boot == "wall"
    monkeypatch.setattr(clock, "boot_id", lambda: "some-id")
    assert SQLiteStore("/nowhere/coord.db").max_clock_skew == 0.0


def test_a_shell_cannot_break_fencing_by_a_slip(tmp_path: Path) -> None:
    path = str(tmp_path / "coord.db")
    claim_once(SQLiteStore(path), floor=9)
    conn = sqlite3.connect(path)
    for statement in ("UPDATE coord_leases SET token = 3", "DELETE FROM coord_leases"):
        with pytest.raises(sqlite3.IntegrityError, match="coord:"):
            conn.execute(statement)
    conn.close()


@pytest.mark.parametrize(
    "damage",
    [
        "info = '{', runs_out = 'soon'",
        f"info = '{'[' * 100_000}'",
        *(f"{column} = 'many'" for column in ("runs_out", "renewed_at", "ttl", "beat")),
    ],
    ids=lambda damage: damage[:20],
)
def test_a_damaged_row_is_a_value_for_a_swap(tmp_path: Path, damage: str) -> None:
    path = str(tmp_path / "coord.db")
    claim_once(SQLiteStore(path))
    conn = sqlite3.connect(path)
    conn.execute(f"UPDATE coord_leases SET {damage}")
    conn.commit()
    conn.close()
    result = claim_once(SQLiteStore(path))
    assert isinstance(result, Failure)
    assert result.permanent
