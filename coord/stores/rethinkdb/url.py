"""What a rethinkdb:// URL says, checked at once. The password never comes out of it again but to
the handshake."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from coord.core import validation
from coord.errors import (
    BadArgument,
)

DEFAULT_PORT = 28015
DEFAULT_SKEW = 60.0
"""Seconds that the servers' wall clocks may be off: generous, since `r.now()` is whichever node
parsed the query."""
LEASES = "coord_leases"
BOARD = "coord_board"
PASSWORD_VARIABLE = "COORD_RETHINKDB_PASSWORD"  # noqa: S105 (the name of a variable)

FORM = "rethinkdb://[user[:password]@]host[:port][,host[:port]…][/database][?option=value&…]"
OPTIONS = frozenset({"tls", "ca_certs", "max_clock_skew", "table", "password_file"})
_SCHEME = "rethinkdb://"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_HOST = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\](?::(?P<port6>.*))?|(?P<host>[^:\[\]]*)(?::(?P<port>.*))?"
)
_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class Address(NamedTuple):
    """Where one server listens for drivers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class RethinkURL:
    """A parsed URL. `repr`, `str` and `redacted` show no password. `max_clock_skew` is in seconds,
    None for off."""

    hosts: tuple[Address, ...]
    database: str = "coord"
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_certs: str | None = None
    max_clock_skew: float | None = DEFAULT_SKEW
    table: str = LEASES

    @property
    def board(self) -> str:
        """The table of the board: each table of leases has its own."""
        return BOARD if self.table == LEASES else f"{self.table}_board"

    @property
    def redacted(self) -> str:
        """A URL that means the same, with `***` for the password."""
        who = "" if self.user == "admin" and not self.password else quote(self.user, safe="")
        who += ":***" if self.password else ""
        options = []
        if self.tls:
            options.append(
                f"ca_certs={quote(self.ca_certs, safe='/')}" if self.ca_certs else "tls=1"
            )
        if self.max_clock_skew != DEFAULT_SKEW:
            options.append(
                f"max_clock_skew={'off' if self.max_clock_skew is None else f'{self.max_clock_skew:g}'}"
            )
        if self.table != LEASES:
            options.append(f"table={self.table}")
        where = ",".join(str(host) for host in self.hosts)
        at = "@" if who else ""
        return (
            f"{_SCHEME}{who}{at}{where}/{self.database}{'?' + '&'.join(options) if options else ''}"
        )

    def __repr__(self) -> str:
        return f"<RethinkURL {self.redacted}>"

    __str__ = __repr__


def redact(url: str) -> str:
    """The text of a URL, good or bad, with everything that may be a password taken out."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    who, at, where = rest.rpartition(
        "@"
    )  # the last one: a password with a raw / or @ in it must not show either
    if at:
        user, colon, _ = who.partition(":")
        rest = f"{user}{colon and ':***'}@{where}"
    hidden = r"([?&](?!password_file=)[^=&]*(?:pass|secret|token|auth|key)[^=&]*=)[^&]*"
    return scheme + separator + re.sub(hidden, r"\1***", rest, flags=re.IGNORECASE)


def parse_url(url: str, environ: Mapping[str, str] | None = None) -> RethinkURL:
    """Parse and check `url`. Raises `BadArgument`, which holds no password, for whatever is wrong
    with it.

    User, password and database are percent-decoded. The password comes from the URL, from
    `?password_file=` (its first line) or from COORD_RETHINKDB_PASSWORD, in this order. Options:
    `tls` (0 or 1), `ca_certs` (a PEM file; implies tls), `max_clock_skew` (seconds, or `off`),
    `table` (of the leases), `password_file`."""
    if not isinstance(url, str):
        raise BadArgument("url", type(url).__name__, FORM)
    shown = redact(url)
    if not url.startswith(_SCHEME):
        raise BadArgument("url", shown, FORM)
    rest, fragment, _ = url[len(_SCHEME) :].partition("#")
    if fragment:
        raise BadArgument("url", shown, f"percent-encode a # as %23; {FORM}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    who, at, where = authority.rpartition("@")
    if "@" in path or "@" in query.partition("password_file=")[0]:
        raise BadArgument("url", shown, f"percent-encode / ? # and @ in user and password; {FORM}")
    user, colon, password = who.partition(":")
    user, password = _decoded(user, shown, "user"), _decoded(password, shown, "password")
    if at and not user:
        raise BadArgument("url", shown, f"a user before the @; {FORM}")
    if not user.isascii() or not user.isprintable():
        raise BadArgument("url", shown, "a user of printable ASCII characters")
    database = _decoded(path, shown, "database") or "coord"
    if not _NAME.fullmatch(database):
        raise BadArgument("url", shown, "a database named with A-Z, a-z, 0-9, _ and -")
    options = _options(query, shown)
    ca_certs = options.get("ca_certs")
    table = options.get("table", LEASES)
    if not _NAME.fullmatch(table):
        raise BadArgument("url", shown, "a table named with A-Z, a-z, 0-9, _ and -")
    if ca_certs is not None and not Path(ca_certs).is_file():
        raise BadArgument("url", shown, "ca_certs is the path of a PEM file that can be read")
    return RethinkURL(
        hosts=tuple(_address(one, shown) for one in where.split(",")),
        database=database,
        user=user or "admin",
        password=_password(
            password if colon else None, options, shown, os.environ if environ is None else environ
        ),
        tls=_tls(options, shown),
        ca_certs=ca_certs,
        max_clock_skew=_skew(options.get("max_clock_skew"), shown),
        table=table,
    )


def _decoded(text: str, shown: str, part: str) -> str:
    with contextlib.suppress(UnicodeDecodeError):  # its text would show the bytes
        if not re.search(r"%(?![0-9A-Fa-f]{2})", text):
            return unquote(text, errors="strict")
    raise BadArgument("url", shown, f"a {part} in percent-encoded UTF-8 (a bare % is written %25)")


def _address(text: str, shown: str) -> Address:
    match = _HOST.fullmatch(text)
    if match is None or (text.count(":") > 1 and not text.startswith("[")):
        raise BadArgument(
            "url", shown, f"an IPv6 address stands in brackets, as in [::1]:{DEFAULT_PORT}"
        )
    host, port = match["v6"] or match["host"], match["port6"] or match["port"]
    if not host or not (match["v6"] or re.fullmatch(r"[A-Za-z0-9_.-]+", host)):
        raise BadArgument("url", shown, f"a host name before each comma and at the end; {FORM}")
    if port is None and not text.endswith(":"):
        return Address(host, DEFAULT_PORT)
    if port is None or not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise BadArgument("url", shown, "a port is a number from 1 to 65535")
    return Address(host, int(port))


def _options(query: str, shown: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in query.split("&") if query else ():
        key, equals, value = piece.partition("=")
        if key not in OPTIONS or not equals or not value or key in options:
            raise BadArgument(
                "url", shown, f"options, each once and with a value: {', '.join(sorted(OPTIONS))}"
            )
        options[key] = _decoded(value, shown, key)
    return options


def _tls(options: Mapping[str, str], shown: str) -> bool:
    given = options.get("tls")
    if given is not None and given.lower() not in _BOOLEANS:
        raise BadArgument("url", shown, "tls is 1 or 0")
    tls = "ca_certs" in options if given is None else _BOOLEANS[given.lower()]
    if "ca_certs" in options and not tls:
        raise BadArgument("url", shown, "ca_certs goes with tls=1")
    return tls


def _skew(given: str | None, shown: str) -> float | None:
    if given is None:
        return DEFAULT_SKEW
    if given.lower() == "off":
        return None
    try:
        return validation.number(float(given), "max_clock_skew", low=0)
    except ValueError:  # a BadArgument is one
        raise BadArgument(
            "url", shown, "max_clock_skew is a number of seconds from 0, or off"
        ) from None


def _password(
    given: str | None, options: Mapping[str, str], shown: str, environ: Mapping[str, str]
) -> str:
    file = options.get("password_file")
    if file is None:
        return given if given is not None else environ.get(PASSWORD_VARIABLE, "")
    if given is not None:
        raise BadArgument("url", shown, "a password in the URL or a password_file, not both")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise BadArgument(
            "url", shown, "password_file is a file that can be read, with the password in it"
        ) from None
    if not lines or not lines[0]:
        raise BadArgument("url", shown, "password_file is a file whose first line is the password")
    return lines[0]


SETTINGS = {"write_acks": "majority", "durability": "hard"}
"""Without these, a server that is killed takes tokens with it that it had acknowledged."""
