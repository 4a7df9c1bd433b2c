"""What a postgresql:// URL may say, and that its password never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from coord.errors import BadArgument
from coord.stores import urls
from coord.stores.postgresql import PostgreSQLStore, PostgreSQLURL, parse_url
from coord.stores.server_url import Address, redact

SECRET = "geheim"


def test_all_of_it(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("x")
    url = parse_url(
        f"postgres://us%40er:p%3A%2Fw@db1,db2:5433,[::1]:5434/my%20db?schema=s_1&sslmode=verify-full"
        f"&sslrootcert={pem}&max_clock_skew=2.5"
    )
    assert url.hosts == (Address("db1", 5432), Address("db2", 5433), Address("::1", 5434))
    assert (url.user, url.password, url.database, url.schema) == ("us@er", "p:/w", "my db", "s_1")
    assert (url.sslmode, url.sslrootcert, url.max_clock_skew) == ("verify-full", str(pem), 2.5)
    fields = {name: getattr(url, name) for name in PostgreSQLURL.__dataclass_fields__}
    assert parse_url(url.redacted) == PostgreSQLURL(**{**fields, "password": "***"})


def test_defaults(tmp_path: Path) -> None:
    url = parse_url("postgresql:///app")
    assert (url.hosts, url.database, url.user, url.password) == ((), "app", None, None)
    assert (url.schema, url.max_clock_skew, url.sslmode) == ("coord", 60.0, None)
    assert url.redacted == "postgresql:///app"
    assert parse_url("postgresql://db/app?max_clock_skew=off").max_clock_skew is None
    file = tmp_path / "secret"
    file.write_text("from file\n")
    assert parse_url(f"postgresql://u@db/app?password_file={file}").password == "from file"
    for scheme in ("postgresql", "postgres"):
        assert isinstance(urls.open_url(f"{scheme}://db/app"), PostgreSQLStore)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql:db",
        "http://db/x",
        "postgresql://db",
        "postgresql://db/",
        "postgresql://a,,b/x",
        "postgresql://@db/x",
        "postgresql://a:0/x",
        "postgresql://a:65536/x",
        "postgresql://a:/x",
        "postgresql://::1/x",
        "postgresql://a/%zz",
        "postgresql://a/%ff",
        "postgresql://a/x%00",
        "postgresql://a/x#f",
        "postgresql://a/x?sslmode=yes",
        "postgresql://a/x?sslmode",
        "postgresql://a/x?sslmode=prefer&sslmode=prefer",
        "postgresql://a/x?timeout=1",
        "postgresql://a/x?sslrootcert=/nowhere",
        "postgresql://a/x?max_clock_skew=-1",
        "postgresql://a/x?max_clock_skew=nan",
        "postgresql://a/x?schema=Upper",
        'postgresql://a/x?schema="; DROP TABLE x',
        f"postgresql://a/x?schema={'s' * 41}",
        "postgresql://a/x?password_file=/nowhere",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="must "):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://u:{SECRET}@db:0/x",
        f"postgresql://u:{SECRET}/x@db",
        f"postgresql://u:a/{SECRET}@db/x",
        f"postgresql://u:{SECRET}%zz@db/x",
        f"postgresql://u:x@{SECRET}@db?no=1",
        f"postgresql://u:{SECRET}?x@db",
        f"postgresql://u:{SECRET}#x@db",
        f"postgresql://u:{SECRET}",
        f"postgresql://u:a?{SECRET}",
        f"postgresql://u:{SECRET}/x",
        f"postgresql://db/x?password={SECRET}",
        f"http://u:{SECRET}@db",
        f"u:{SECRET}@db",
        f"postgresql://:{SECRET}@db/x",
        f"postgresql://u:{SECRET}@db/x?password_file=/etc/hostname",
    ],
)
def test_a_password_shows_in_no_error(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_url(text)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.args} {caught.value.value}"
    assert caught.value.__cause__ is None
    assert SECRET not in redact(text)


def test_a_password_shows_nowhere_else() -> None:
    url = parse_url(f"postgresql://u:{SECRET}@db/x")
    store = PostgreSQLStore(url)
    assert SECRET not in f"{url!r} {url} {url.redacted} {store!r} {store.url} {store.pool!r}"


def test_a_url_for_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "secret"):
        (tmp_path / name).write_text("x")
    assert urls.absolute("postgresql://u@db/x?sslrootcert=ca.pem&schema=s") == (
        f"postgresql://u@db/x?sslrootcert={tmp_path}/ca.pem&schema=s"
    )
    assert urls.absolute("postgresql://u@db/x", password_file="secret") == (
        f"postgresql://u@db/x?password_file={tmp_path}/secret"
    )
    with pytest.raises(BadArgument, match="password or a password_file"):
        urls.absolute(f"postgresql://u:{SECRET}@db/x", password_file="secret")
