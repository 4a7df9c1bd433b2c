"""What a rethinkdb:// URL may say, and that its password never shows."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from coord.errors import BadArgument
from coord.stores.rethinkdb import RethinkDBStore, RethinkURL, parse_url
from coord.stores.rethinkdb.url import Address, redact

NONE: dict[str, str] = {}


def test_all_of_it(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("x")
    url = parse_url(
        f"rethinkdb://us%40er:p%3A%2Fw%40@db1,db2:28016,[::1]:28017/my-db?tls=1&ca_certs={pem}&max_clock_skew=2.5&table=t",
        NONE,
    )
    assert url.hosts == (Address("db1", 28015), Address("db2", 28016), Address("::1", 28017))
    assert (url.user, url.password, url.database) == ("us@er", "p:/w@", "my-db")
    assert (url.tls, url.ca_certs, url.max_clock_skew, url.table) == (True, str(pem), 2.5, "t")
    assert parse_url(url.redacted, NONE) == RethinkURL(**{**as_dict(url), "password": "***"})


def as_dict(url: RethinkURL) -> dict[str, object]:
    return {name: getattr(url, name) for name in RethinkURL.__dataclass_fields__}


def test_defaults() -> None:
    url = parse_url("rethinkdb://db", NONE)
    assert url == RethinkURL(
        (Address("db", 28015),), "coord", "admin", "", False, None, 60.0, "coord_leases"
    )
    assert parse_url("rethinkdb://db/", NONE) == url
    assert url.redacted == "rethinkdb://db:28015/coord"
    assert parse_url("rethinkdb://db?max_clock_skew=off", NONE).max_clock_skew is None
    assert RethinkDBStore(url).max_clock_skew == 60.0


def test_passwords_from_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from file\n")
    environ = {"COORD_RETHINKDB_PASSWORD": "from environ"}
    assert parse_url("rethinkdb://u@db", environ).password == "from environ"
    assert parse_url("rethinkdb://u:mine@db", environ).password == "mine"
    assert parse_url("rethinkdb://u:@db", environ).password == ""
    assert parse_url(f"rethinkdb://u@db?password_file={file}", environ).password == "from file"


BAD = [
    "rethinkdb:db",
        "RETHINKDB:/db",
        "http://db",
        "rethinkdb://",
        "rethinkdb://a,,b",
        "rethinkdb://a,/x",
    "rethinkdb://@db",
    "rethinkdb://a:0",
        "rethinkdb://a:65536",
        "rethinkdb://a:",
        "rethinkdb://a:x",
        "rethinkdb://a:٣",
        "rethinkdb://::1/x",
    "rethinkdb://[::1",
        "rethinkdb://[zz]",
        "rethinkdb://a b",
        "rethinkdb://a/x/y",
        "rethinkdb://a/x.y",
    "rethinkdb://a/x y",
    "rethinkdb://a/%zz",
        "rethinkdb://a/%ff",
        "rethinkdb://a#f",
        "rethinkdb://ü:pw@a",
        "rethinkdb://a?tls=2",
    "rethinkdb://a?tls",
    "rethinkdb://a?tls=1&tls=1",
        "rethinkdb://a?x=1",
        "rethinkdb://a?ca_certs=/nowhere",
        "rethinkdb://a?max_clock_skew=-1",
    "rethinkdb://a?max_clock_skew=nan",
        "rethinkdb://a?max_clock_skew=1e999",
        "rethinkdb://a?max_clock_skew=x",
        "rethinkdb://a?table=a.b",
    "rethinkdb://a?password_file=/nowhere", "rethinkdb://a?timeout=5",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_url(text, NONE)
    assert str(caught.value).startswith(("url: ", "invalid url "))


SECRET = "geheim"


@pytest.mark.parametrize(
    "text",
    [
        f"rethinkdb://u:{SECRET}@db:0",
        f"rethinkdb://u:{SECRET}/x@db",
        f"rethinkdb://u:a/{SECRET}@db/x",
        f"rethinkdb://u:{SECRET}%zz@db",
        f"rethinkdb://u:x@{SECRET}@db?no=1",
        f"rethinkdb://u:{SECRET}?x@db",
        f"rethinkdb://u:{SECRET}#x@db",
        f"http://u:{SECRET}@db",
        f"rethinkdb://db?password={SECRET}",
        f"rethinkdb://db?tls=1&api_token={SECRET}",
        f"u:{SECRET}@db",
        f"rethinkdb://:{SECRET}@db",
        f"rethinkdb://u:{SECRET}%ff@db", f"rethinkdb://u:{SECRET}@db?password_file=/etc/hostname",
        f"rethinkdb://u:{SECRET}",
        f"rethinkdb://u:a?{SECRET}",
        f"rethinkdb://u:12?{SECRET}",
        f"rethinkdb://u:12?{SECRET}=x",
        f"rethinkdb://u:{SECRET}/x",
        f"rethinkdb://u:a/{SECRET}",
        f"rethinkdb://u:12/{SECRET}$",
        f"rethinkdb://u:a,{SECRET}",
        f"rethinkdb://db,u:a,{SECRET}",
        f"rethinkdb://u:a#{SECRET}",
        f"rethinkdb://db?tls=1#{SECRET}",
        f"rethinkdb://u?{SECRET}@db@:0",
        f"rethinkdb://x:y@db:{SECRET}",
    ],
)  # fmt: skip
def test_a_password_shows_in_no_error(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_url(text, NONE)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.args} {caught.value.value}"
    assert caught.value.__cause__ is None
    assert SECRET not in redact(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rethinkdb://db:1,[::1]:2/x?tls=2&table=t", "rethinkdb://db:1,[::1]:2/x?tls=2&table=t"),
        ("rethinkdb://me@db:65536", "rethinkdb://me@db:65536"),
        ("rethinkdb://u:pw", "rethinkdb://u:***"),
        ("rethinkdb://u:pw@db/x y", "rethinkdb://u:***@db/***"),
        ("rethinkdb://db?no=1&tls=2", "rethinkdb://db?***&tls=2"),
    ],
)
def test_what_an_error_shows_of_a_url(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_password_shows_nowhere_else() -> None:
    url = parse_url(f"rethinkdb://u:{SECRET}@db/x", NONE)
    store = RethinkDBStore(url)
    assert SECRET not in f"{url!r} {url} {url.redacted} {store!r} {store.url} {store.pool!r}"
    assert url.redacted == "rethinkdb://u:***@db:28015/x"
    assert pickle.loads(pickle.dumps(url)).password == SECRET


def test_the_driver_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from coord.stores.rethinkdb import RethinkDBStore, parse_url;"
        "RethinkDBStore(parse_url('rethinkdb://db'));"
        "import coord.stores.rethinkdb.setup, coord.stores.rethinkdb.doctor;"
        "print([name for name in sys.modules if name.split('.')[0] == 'rethinkdb'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
