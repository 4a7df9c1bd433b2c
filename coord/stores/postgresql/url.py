"""Parsing of postgresql:// URLs. A password is given to the driver, and never shown."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from coord.core import validation
from coord.errors import BadArgument

DEFAULT_PORT = 5432
DEFAULT_SKEW = 60.0
"""Seconds that the server's clock may be off: it may step, and after a failover it is the clock of
another machine."""
SCHEMES = ("postgresql", "postgres")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
OPTIONS = frozenset({"schema", "max_clock_skew", "sslmode", "sslrootcert", "password_file"})
_PATHS = ("sslrootcert", "password_file")
FORM = (
    "must have the form "
    "postgresql://[user[:password]@][host[:port][,host[:port]…]]/database[?option=value&…]"
)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_HOST = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\](?::(?P<port6>\d+))?|(?P<host>[A-Za-z0-9_.-]+)(?::(?P<port>\d+))?"
)

Reject = Callable[[str], BadArgument]
"""Makes the error for a URL, which shows the URL without its password."""


class Address(NamedTuple):
    """Where one server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class PostgreSQLURL:
    """A parsed URL. `repr`, `str` and `redacted` show no password.

    What is None comes from the environment, as with other PostgreSQL programs: from PGUSER,
    PGPASSWORD, PGSSLMODE, PGSSLROOTCERT and the password file.

    Attributes:
        hosts: The servers, of which one is the primary; empty means PGHOST, or the local socket.
        database: The name of the database.
        user: The user to log in as.
        password: The password of the user.
        sslmode: One of `SSL_MODES`.
        sslrootcert: The PEM file of trusted certificates.
        max_clock_skew: Seconds that the server's clock may be off; None switches takeover by this
            clock off.
        schema: The schema that contains coord's tables and functions.
    """

    hosts: tuple[Address, ...]
    database: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sslmode: str | None = None
    sslrootcert: str | None = None
    max_clock_skew: float | None = DEFAULT_SKEW
    schema: str = "coord"

    @property
    def redacted(self) -> str:
        """A URL that means the same, with `***` for the password."""
        credentials = ""
        if self.user is not None:
            hidden = "" if self.password is None else ":***"
            credentials = quote(self.user, safe="") + hidden + "@"
        options = []
        if self.schema != "coord":
            options.append(f"schema={self.schema}")
        if self.sslmode is not None:
            options.append(f"sslmode={self.sslmode}")
        if self.sslrootcert is not None:
            options.append(f"sslrootcert={quote(self.sslrootcert, safe='/')}")
        if self.max_clock_skew != DEFAULT_SKEW:
            skew = "off" if self.max_clock_skew is None else f"{self.max_clock_skew:g}"
            options.append(f"max_clock_skew={skew}")
        hosts = ",".join(str(host) for host in self.hosts)
        query = f"?{'&'.join(options)}" if options else ""
        return f"postgresql://{credentials}{hosts}/{quote(self.database, safe='')}{query}"

    def __repr__(self) -> str:
        return f"<PostgreSQLURL {self.redacted}>"

    __str__ = __repr__


def redact(url: str) -> str:
    """Return the text of a URL, valid or not, without anything that may be a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…"
    # Everything before the last @ may be a part of a password, and so may a text with a colon and
    # no @ that is not a port.
    credentials, at, location = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    before = f"{user}{colon and ':***'}@" if at else ""
    place, mark, _ = location.partition("?")
    names = r"[^:/#]*(?::\d{1,5})?(?:,[^:/#]*(?::\d{1,5})?)*(?:/[A-Za-z0-9_-]*)?"
    shown = place if re.fullmatch(names, place) else "…"
    return f"{scheme}://{before}{shown}{mark and '?…'}"


def parse_url(url: str) -> PostgreSQLURL:
    """Parse a URL and check it.

    User, password and database are percent-decoded. Options after the `?`: `schema`,
    `max_clock_skew` (seconds, or `off`), `sslmode`, `sslrootcert` (a PEM file) and `password_file`
    (a file whose first line is the password).

    Args:
        url: A URL of the form `FORM`.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    if not isinstance(url, str):
        raise BadArgument("url", type(url).__name__, FORM)
    shown = redact(url)

    def reject(reason: str) -> BadArgument:
        return BadArgument("url", shown, reason)

    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise reject(FORM)
    if "#" in rest:
        raise reject(f"must have a # percent-encoded as %23; {FORM}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, at, where = authority.rpartition("@")
    if "@" in path or "@" in query:
        raise reject(f"must have / ? # and @ percent-encoded in user and password; {FORM}")
    user, colon, password = (_decoded(part, reject) for part in credentials.partition(":"))
    if at and not user:
        raise reject(f"must have a user before the @; {FORM}")
    database = _decoded(path, reject)
    if not database or "\0" in f"{database}{user}{password}":
        raise reject(f"must name a database, and must not contain %00; {FORM}")
    options = _options(query, reject)
    schema = options.get("schema", "coord")
    if not _SCHEMA.fullmatch(schema):
        raise reject("must have a schema of 1 to 40 of the characters a-z, 0-9 and _")
    sslmode, sslrootcert = options.get("sslmode"), options.get("sslrootcert")
    if sslmode is not None and sslmode not in SSL_MODES:
        raise reject(f"must have an sslmode of {', '.join(SSL_MODES)}")
    if sslrootcert is not None and not Path(sslrootcert).is_file():
        raise reject("must name a PEM file as sslrootcert")
    return PostgreSQLURL(
        hosts=tuple(_address(host, reject) for host in where.split(",")) if where else (),
        database=database,
        user=user or None,
        password=_password(password if colon else None, options, reject),
        sslmode=sslmode,
        sslrootcert=sslrootcert,
        max_clock_skew=_skew(options.get("max_clock_skew"), reject),
        schema=schema,
    )


def absolute_url(url: str) -> str:
    """Return the URL with absolute paths in its options, so that it means the same everywhere.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    parse_url(url)
    location, mark, query = url.partition("?")
    pieces = []
    for piece in query.split("&") if query else ():
        key, _, value = piece.partition("=")
        path = quote(os.path.abspath(unquote(value)), safe="/")
        pieces.append(f"{key}={path}" if key in _PATHS else piece)
    return f"{location}{mark}{'&'.join(pieces)}"


def with_password_file(url: str, file: str) -> str:
    """Return the URL with the option `password_file`.

    Raises:
        BadArgument: The URL is invalid or has a password, or the file cannot be read. The message
            holds no password.
    """
    parse_url(url)
    added = f"{url}{'&' if '?' in url else '?'}password_file={quote(file, safe='/')}"
    parse_url(added)
    return added


def _decoded(text: str, reject: Reject) -> str:
    with contextlib.suppress(UnicodeDecodeError):  # The text of the exception shows the bytes.
        if not re.search(r"%(?![0-9A-Fa-f]{2})", text):
            return unquote(text, errors="strict")
    raise reject("must be percent-encoded UTF-8, with a bare % written as %25")


def _address(text: str, reject: Reject) -> Address:
    match = _HOST.fullmatch(text)
    if match is None:
        raise reject(f"must have a host, or an IPv6 address in brackets; {FORM}")
    port = (match["v6"] and match["port6"]) or match["port"]
    if port is not None and not 0 < int(port[:9]) < 65536:
        raise reject("must have ports from 1 to 65535")
    return Address(match["v6"] or match["host"], int(port) if port else DEFAULT_PORT)


def _options(query: str, reject: Reject) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in query.split("&") if query else ():
        key, _, value = piece.partition("=")
        if key not in OPTIONS or not value or key in options:
            raise reject(
                f"must give each option once, with a value; the options are "
                f"{', '.join(sorted(OPTIONS))}"
            )
        options[key] = _decoded(value, reject)
    return options


def _skew(text: str | None, reject: Reject) -> float | None:
    if text is None:
        return DEFAULT_SKEW
    if text.lower() == "off":
        return None
    try:
        return validation.number(float(text), "max_clock_skew", low=0)
    except ValueError:  # BadArgument is a ValueError.
        raise reject("must have max_clock_skew=SECONDS (0 or more) or max_clock_skew=off") from None


def _password(in_url: str | None, options: dict[str, str], reject: Reject) -> str | None:
    file = options.get("password_file")
    if file is None:
        return in_url
    if in_url is not None:
        raise reject("must have a password or a password_file, not both")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise reject("must name a readable text file as password_file") from None
    if not lines or not lines[0]:
        raise reject("must name a file as password_file whose first line is the password")
    return lines[0]
