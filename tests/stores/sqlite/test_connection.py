"""Where a SQLite store lives, and what it says about files that it cannot or must not use."""

from __future__ import annotations

import asyncio
import errno
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
from coord.errors import AccessDenied, BadArgument, CoordError, StoreRefused, StoreUnavailable
from coord.runtime import clock
from coord.stores import urls
from coord.stores.protocol import Store
from coord.stores.sqlite import SQLiteStore, StoreClock, default_path, filesystems, open_url, schema
from coord.stores.sqlite.files import prepare
from coord.stores.sqlite.url import parse_url


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


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "coord.db"
    path.touch(0o640)
    path.chmod(0o640)
    claim_once(SQLiteStore(str(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("path", ["", ":memory:", "/:memory:", "a\0b", None, 7, b"x"])
def test_invalid_paths(path: object) -> None:
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
    assert isinstance(error, AccessDenied) == (kind == "under a file")
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
        await asyncio.gather(*(store.database.create(10) for store in stores))
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
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:50 / /home rw shared:1 master:2 - nfs4 server:/home rw
29 28 254:16 / /home/local rw - xfs /dev/vdb rw
30 27 0:51 / /mnt/with\\040space rw - cifs //server/share rw
31 27 0:52 / /mnt/ssh rw - fuse.sshfs me@there: rw
32 31 254:32 / /mnt/ssh/cover rw - ext4 /dev/vdc rw
33 27 0:53 / /twice rw - tmpfs tmpfs rw
34 27 0:54 / /twice rw - 9p host rw
35 27 8:1 / /ntfs rw - fuseblk /dev/sda1 rw
36 27 0:55 / /docker rw - fakeowner /run/host_mark/Users rw
37 27 0:56 / /plain rw - fuse s3fs rw
38 27 0:57 / /new rw - a-file-system-of-next-year x rw
this line is too short
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
        ("/docker/x.db", "fakeowner", True),
        ("/plain/x.db", "fuse", True),
        ("/new/x.db", "a-file-system-of-next-year", True),
    ],
)
def test_only_local_file_systems_are_used(
    path: str, kind: str, refused: bool, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert filesystems.file_system(path, str(mounts)) == kind
    if not refused:
        filesystems.refuse_network(path, str(mounts))
        return
    with pytest.raises(StoreRefused, match=kind):
        filesystems.refuse_network(path, str(mounts))


def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"27 1 0:5 / {os.path.realpath(tmp_path)} rw - nfs server:/x rw\n")
    path = tmp_path / "coord.db"
    (tmp_path / "link").symlink_to(tmp_path)
    for name in (path, tmp_path / "link" / "coord.db", f"/{path}", f"//{path}"):
        error = str(open_error(SQLiteStore(str(name), mounts=str(mounts))))
        assert "(nfs)" in error
        assert f"cannot use {os.path.normpath(name).replace('//', '/')}: " in error
        assert "filesystem=local" in error
    assert not path.exists()
    store = SQLiteStore(str(path), local=True, mounts=str(mounts))
    assert isinstance(claim_once(store), Answer)
    assert store.url == f"sqlite://{path}?filesystem=local"


def test_a_url_can_state_that_the_file_system_is_local(tmp_path: Path) -> None:
    path = f"{tmp_path}/c.db"
    location = parse_url(f"sqlite://{path}?filesystem=local")
    assert location == (path, True)
    assert parse_url(f"sqlite://{path}") == (path, False)
    store = open_url(f"sqlite://{path}?filesystem=local")
    assert isinstance(store, SQLiteStore)
    assert (store.path, store.url) == (path, f"sqlite://{path}?filesystem=local")


def test_a_list_of_mounts_that_cannot_be_read_now_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor a network file system must not be taken for a local one."""
    assert filesystems.file_system("/", str(tmp_path / "missing")) == ""

    def refuse(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match="too many"):
        filesystems.file_system("/")
    error = open_error_of(tmp_path / "coord.db")
    assert isinstance(error, StoreUnavailable)
    assert "no file descriptor is left" in str(error)


def open_error_of(path: Path) -> Exception:
    with pytest.raises(CoordError) as caught:
        prepare(str(path), create=True)
    return caught.value


def test_a_file_with_two_links_is_refused_under_each_name(tmp_path: Path) -> None:
    path, other = tmp_path / "coord.db", tmp_path / "other" / "coord.db"
    assert isinstance(claim_once(SQLiteStore(str(path))), Answer)
    other.parent.mkdir()
    os.link(path, other)
    for name in (path, other):
        error = open_error(SQLiteStore(str(name)))
        assert f"cannot use {name}: it has 2 hard links" in str(error)
        result = claim_once(SQLiteStore(str(name)))
        assert isinstance(result, Failure)
        assert (result.permanent, result.unknown) == (True, False)
    other.unlink()
    assert isinstance(claim_once(SQLiteStore(str(path))), Answer)


def test_a_mounted_file_is_refused(tmp_path: Path) -> None:
    """What `docker -v /host/coord.db:/data/coord.db` does. The link shows that names are resolved."""
    path, link = tmp_path / "coord.db", tmp_path / "link.db"
    path.touch()
    link.symlink_to(path)
    mounts = tmp_path / "mounts"
    root = "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
    mounts.write_text(root + f"28 27 254:0 /x.db {os.path.realpath(path)} rw - ext4 /dev/vda rw\n")
    for name in (path, link):
        error = open_error(SQLiteStore(str(name), mounts=str(mounts)))
        assert "this single file is mounted here" in str(error)
        assert "Mount the directory" in str(error)
    mounts.write_text(root + f"28 27 254:0 /x {os.path.realpath(tmp_path)} rw - ext4 /dev/vda rw\n")
    assert isinstance(claim_once(SQLiteStore(str(path), mounts=str(mounts))), Answer)


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_is_really_mounted_is_refused(listed: bool, tmp_path: Path) -> None:
    """In a mount namespace of its own, with and without a list of mounts."""
    code = """
        import sys
        from coord.errors import StoreRefused
        from coord.stores.sqlite.filesystems import MOUNTS, refuse_second_name
        for path in sys.argv[2:]:
            try:
                refuse_second_name(path, MOUNTS if sys.argv[1] == "True" else "/nowhere")
                print("used")
            except StoreRefused as err:
                print("mounted" if "single file is mounted" in str(err) else err)
    """
    target, beside, source = (tmp_path / name for name in ("coord.db", "beside.db", "source"))
    target.touch(), beside.touch(), source.mkdir()
    script = """
        mount -t tmpfs tmpfs "$1" && : > "$1/coord.db" && mount --bind "$1/coord.db" "$2" || exit 99
        shift 2
        exec "$0" -c "$@"
    """
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, str(source), str(target)]
    command += [textwrap.dedent(code), str(listed), str(target), str(beside)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode != 0 and "ermi" in done.stderr:
        pytest.skip("needs the right to mount")
    assert (done.stdout, done.stderr) == ("mounted\nused\n", "")


def test_missing_directories_have_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        claim_once(SQLiteStore(str(tmp_path / "a" / "b" / "coord.db")))
    finally:
        os.umask(before)
    for made in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "a" / "b" / "coord.db").stat().st_mode) == 0o600


def test_without_descriptors_the_rights_are_not_blamed(tmp_path: Path) -> None:
    code = """
        import asyncio, os, resource, sys
        from coord.core.operations import Claim
        from coord.errors import StoreRefused, StoreUnavailable
        from coord.stores.sqlite import SQLiteStore
        async def main():
            store = SQLiteStore(sys.argv[1])
            await store.open(5)
            await store.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            files = []
            for left in range(12):  # so many descriptors are left
                while True:
                    try:
                        files.append(os.open(os.devnull, os.O_RDONLY))
                    except OSError:
                        break
                for _ in range(left):
                    os.close(files.pop())
                result = await store.claim(Claim(f"r{left}", "a", 1, 30.0), 0.5)
                detail = getattr(result, "detail", "claimed")
                if "no file descriptor is left" in detail:
                    print("none", result.permanent, result.unknown)
                else:
                    print(detail)
                await store.close()
        asyncio.run(main())
    """
    run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "coord.db")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert set(lines) == {"none False False", "claimed"}
    assert (lines[0], lines[-1]) == ("none False False", "claimed")


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


def test_the_default_url_names_the_default_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("COORD_URL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/st#te/a b?c/100%25")
    store = open_url(urls.resolve())
    assert isinstance(store, SQLiteStore)
    assert store.path == "/st#te/a b?c/100%25/coord/coord.db"


def test_after_a_reboot_every_lease_has_run_out(tmp_path: Path) -> None:
    path = str(tmp_path / "coord.db")
    claim_once(SQLiteStore(path, clock=StoreClock(total=lambda: 5000.0, name="one")))
    later = StoreClock(
        total=lambda: 3.0, name="two"
    )  # the new boot's clock starts again from nothing
    same_boot = claim_once(
        SQLiteStore(path, clock=StoreClock(total=lambda: 5001.0, name="one")), skew=0.0
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


def test_where_there_are_no_boot_ids_the_wall_clock_decides_with_some_skew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    store = SQLiteStore("/nowhere/coord.db")
    assert store.max_clock_skew == clock.WALL_SKEW
    assert store.database.clock.name == "wall"
    monkeypatch.undo()
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
