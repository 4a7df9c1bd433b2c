"""Which store a URL means, and stores that other packages bring."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coord.errors import BadArgument
from coord.stores import urls
from coord.stores.memory import MemoryStore
from coord.stores.memory.admin import MemoryAdmin
from coord.stores.protocol import HasAnnouncements, HasRecords, Store
from coord.stores.sqlite import SQLiteStore
from coord.stores.sqlite.admin import SQLiteAdmin

BACKEND = '''
"""A backend with a scheme of its own: leases in memory, no announcements and no records."""

from coord.stores.memory import MemoryStore
from coord.stores.memory.admin import MemoryAdmin


class NotesStore:
    max_clock_skew = 0.0

    def __init__(self, url):
        self.url = url
        store = MemoryStore()
        for name in (
            "open", "claim", "renew", "release", "read", "past", "watch", "close", "abandon"
        ):
            setattr(self, name, getattr(store, name))


def open_url(url):
    return NotesStore(url)


def admin(url):
    return MemoryAdmin(url)
'''


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers the scheme `notes`."""
    package = tmp_path / "coord_notes_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text(BACKEND)
    metadata = tmp_path / "coord_notes_for_tests-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: coord-notes-for-tests\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text("[coord.stores]\nnotes = coord_notes_for_tests\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # `setitem` notes that the module was missing, so the test's module is removed at the end.
    monkeypatch.setitem(sys.modules, package.name, None)
    del sys.modules[package.name]


@pytest.mark.usefixtures("notes")
def test_a_backend_of_another_package() -> None:
    store = urls.open_url("notes://somewhere")
    assert type(store).__module__ == "coord_notes_for_tests"
    assert store.url == "notes://somewhere"
    assert isinstance(store, Store)
    assert isinstance(urls.open_admin("notes://somewhere"), MemoryAdmin)


@pytest.mark.usefixtures("notes")
def test_a_store_without_announcements_and_records() -> None:
    store: object = urls.open_url("notes://somewhere")
    assert not isinstance(store, HasAnnouncements)
    assert not isinstance(store, HasRecords)
    for complete in (MemoryStore(), SQLiteStore("/nowhere/coord.db")):
        assert isinstance(complete, HasAnnouncements)
        assert isinstance(complete, HasRecords)


def test_the_backends_of_coord(tmp_path: Path) -> None:
    store: Any = urls.open_url(f"sqlite://{tmp_path}/a%20b.db")
    assert isinstance(store, SQLiteStore)
    assert (store.path, store.url) == (f"{tmp_path}/a b.db", f"sqlite://{tmp_path}/a%20b.db")
    assert urls.open_url("sqlite:a.db").path == str(Path.cwd() / "a.db")  # type: ignore[attr-defined]
    admin = urls.open_admin(f"sqlite://{tmp_path}/a%20b.db")
    assert isinstance(admin, SQLiteAdmin)
    assert (admin.path, admin.exists()) == (store.path, False)
    assert isinstance(urls.open_url("memory://"), MemoryStore)
    assert urls.open_url("memory://") is not urls.open_url("memory://")
    assert urls.open_url("memory://same") is urls.open_url("memory://same")


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://user:secret@host/1",
        "user:secret@host/db",
        "secret",
        "//user:secret@host",
        "/user:secret@host/db",
        "/secret@host",
        "sec ret:x",
        "sqlite://user:secret@host/db",
        "sqlite:///a.db?password=secret",
        "sqlite:",
        "sqlite:///",
        "sqlite:///directory/",
        "sqlite:///a.db#secret",
        "sqlite:///a.db?filesystem=secret",
        "sqlite:///a.db?filesystem=local&x=secret",
        "sqlite://user:secret",
        "sqlite://user:secret%40host/db",
        "sqlite:///a.db?",
        "sqlite:///a.db#",
        "sqlite://a.db",
        "",
        ":",
    ],
)
def test_an_unknown_url_is_refused_without_its_password(url: str) -> None:
    for open_it in (urls.open_url, urls.open_admin):
        with pytest.raises(BadArgument) as caught:
            open_it(url)
        assert caught.value.argument == "url"
        assert "sqlite:///absolute/path" in str(caught.value)
        for shown in (str(caught.value), repr(caught.value), repr(caught.value.args)):
            assert "secret" not in shown


@pytest.mark.parametrize("host", ["a..b", ".a", ".", "a." + 64 * "b", "[...]", "[1:2]"])
@pytest.mark.parametrize(
    "place", ["redis://{}/0", "etcd://{}", "postgresql://{}/d", "rethinkdb://{}"]
)
def test_a_host_name_that_cannot_be_looked_up(host: str, place: str) -> None:
    """The drivers raise UnicodeError for such a name."""
    for open_it in (urls.open_url, urls.open_admin):
        with pytest.raises(BadArgument, match=r"host name|an IPv6 address"):
            open_it(place.format(host))
        for valid in ("a." + 63 * "b" + ".", "[::1]:1", "[fe80::1%eth0]"):
            open_it(place.format(valid))


def test_a_path_is_no_url() -> None:
    with pytest.raises(BadArgument, match=r"write sqlite:///tmp/foo\.db"):
        urls.open_url("/tmp/foo.db")  # nothing is opened


def test_a_path_with_special_characters_is_quoted_in_the_advice() -> None:
    with pytest.raises(BadArgument, match=r"write sqlite:///tmp/a%23b%3F\.db"):
        urls.open_url("/tmp/a#b?.db")


@pytest.mark.parametrize("name", ["a#b.db", "a?b.db", "a#b?c%d .db"])
def test_special_characters_in_the_path_of_a_sqlite_file(name: str, tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / name))
    again = urls.open_url(store.url)
    assert isinstance(again, SQLiteStore)
    assert again.path == store.path == str(tmp_path / name)
    asyncio.run(urls.open_admin(store.url).setup({}, 10))
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite::memory:", "sqlite:///x/:memory:"])
def test_a_sqlite_database_in_memory_is_an_error(url: str) -> None:
    with pytest.raises(BadArgument, match="use memory://name"):
        urls.open_url(url)


def test_records_of_a_table_are_shared(tmp_path: Path) -> None:
    store: HasRecords
    for store in (MemoryStore(), SQLiteStore(str(tmp_path / "coord.db"))):
        assert store.records("services") is store.records("services")
        assert store.records("services") is not store.records("others")


def test_importing_it_is_cheap() -> None:
    code = "import sys, coord.stores.urls; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("asyncio", "sqlite3", "logging", "importlib.metadata", "coord.stores.sqlite"):
        assert name not in done.stdout.split()


def test_absolute_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").write_text("secret\n")
    (tmp_path / "ca.pem").write_text("")
    for url, absolute in (
        ("sqlite:a b.db", f"sqlite://{tmp_path}/a%20b.db"),
        ("sqlite:../x.db?filesystem=local", f"sqlite://{tmp_path.parent}/x.db?filesystem=local"),
        (f"sqlite://{tmp_path}/x.db", f"sqlite://{tmp_path}/x.db"),
        ("rethinkdb://u:pw@h,i:1/d", "rethinkdb://u:pw@h,i:1/d"),
        (
            "rethinkdb://h/d?table=t&ca_certs=ca.pem&password_file=a%20b",
            f"rethinkdb://h/d?table=t&ca_certs={tmp_path}/ca.pem&password_file={tmp_path}/a%20b",
        ),
        ("memory://x", "memory://x"),
    ):
        assert urls.absolute(url) == absolute
        assert urls.absolute(absolute) == absolute


def test_a_password_file_for_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").write_text("secret\n")
    for url, mark in (("rethinkdb://h/d", "?"), ("rethinkdb://h/d?tls=1", "&")):
        absolute_url = urls.absolute(url, password_file="a b")
        assert absolute_url == f"{url}{mark}password_file={tmp_path}/a%20b"
    for url in ("sqlite:a.db", "memory://", "rethinkdb://u:secret@h/d", "rethinkdb://h:x/d"):
        with pytest.raises(BadArgument) as caught:
            urls.absolute(url, password_file="a b")
        assert "secret" not in str(caught.value)


def pipe_with(text: str) -> int:
    """Return the end of a pipe from which a text can be read once."""
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    return read


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("rethinkdb://h/d?tls=1", "rethinkdb://admin:ge%20heim%40@h/d?tls=1"),
        ("rethinkdb://u@h/d", "rethinkdb://u:ge%20heim%40@h/d"),
        ("postgresql://u@h/d?schema=s", "postgresql://u:ge%20heim%40@h/d?schema=s"),
        ("redis://h:1/0", "redis://:ge%20heim%40@h:1/0"),
        ("etcd://u@h", "etcd://u:ge%20heim%40@h"),
    ],
)
def test_a_password_file_that_is_a_pipe_is_read_once(url: str, absolute: str) -> None:
    for text in ("ge heim@\n", "ge heim@\r\nmore"):
        pipe = pipe_with(text)
        assert urls.absolute(url, password_file=f"/dev/fd/{pipe}") == absolute
        os.close(pipe)
        pipe = pipe_with(text)
        in_url = f"{url}{'&' if '?' in url else '?'}password_file=/dev/fd/{pipe}"
        assert urls.absolute(in_url) == absolute
        os.close(pipe)
    urls.open_url(absolute)


@pytest.mark.parametrize(
    ("url", "option", "allowed"),
    [
        ("etcd://h", "password_file", "must have a user before the @, to whom the password belong"),
        ("redis://u:secret@h", "password_file", "must have a password or a password_file, not"),
        ("redis://u@h", "password_file", "must name a file as password_file whose first line is"),
        ("redis+sentinel://h/x", "sentinel_password_file", "must name a regular file as sentinel"),
    ],
)
def test_a_password_pipe_that_is_refused(url: str, option: str, allowed: str) -> None:
    pipe = pipe_with("\nsecret")
    with pytest.raises(BadArgument, match=allowed) as caught:
        urls.absolute(f"{url}?{option}=/dev/fd/{pipe}")
    assert "secret" not in str(caught.value).replace("sentinel_password_file", "")
    os.close(pipe)


LOGGED = """
import logging, coord, os, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
"""


def logged(code: str, tmp_path: Path, url: str = "") -> list[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "COORD_URL": url}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOGGED + code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if " store." in line]


def test_the_embedded_default_is_logged_once(tmp_path: Path) -> None:
    code = (
        "coord.leader_only('a')(print)(); coord.connect().close(); coord.ServiceRegistry().close()"
    )
    (line,) = logged(code, tmp_path)
    assert line.startswith("INFO store.embedded url='sqlite:///")
    assert logged("coord.connect('sqlite:' + os.environ['XDG_STATE_HOME'] + '/a')", tmp_path) == []
    assert logged("coord.connect()", tmp_path, f"sqlite://{tmp_path}/a") == []


def test_memory_for_several_processes_is_warned_of(tmp_path: Path) -> None:
    warning = "WARNING store.not_shared url='memory://'"
    code = "coord.leader_only('a')(print)(); coord.connect().close()"
    assert logged(code, tmp_path, "memory://name") == [warning]
    forked = """
c = coord.Coordinator("memory://")
if (child := os.fork()) == 0:
    with c.leadership("r") as lead:
        assert lead.wait(30)
    with c.leadership("s") as lead:
        assert lead.wait(30)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
with c.leadership("r") as lead:
    assert lead.wait(30)
"""
    assert logged(forked, tmp_path) == [warning]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://db.example/crawl", "'mysql://db.example/crawl'"),
        ("mysql://db.example:3306/crawl?x=secret", "'mysql://db.example:3306/crawl?…'"),
        ("sqlit:///a/b.db", "'sqlit:///a/b.db'"),
        ("mysql://u:secret@h/db", "'mysql:…'"),
        ("mysql://u:secret", "'mysql:…'"),
        ("mysql://u:1234567", "'mysql:…'"),
        ("mysql://h/d#secret", "'mysql:…'"),
        ("mysql:u@secret", "'mysql:…'"),
    ],
)
def test_an_unknown_url_is_shown_unless_it_may_hold_a_secret(url: str, shown: str) -> None:
    with pytest.raises(BadArgument) as caught:
        urls.open_url(url)
    assert f"invalid url {shown}: " in str(caught.value)
