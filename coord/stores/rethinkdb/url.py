"""Parsing of rethinkdb:// URLs. A password is given to the handshake, and never shown."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from coord.core import validation
from coord.errors import BadArgument
from coord.stores import server_url

DEFAULT_PORT = 28015
DEFAULT_SKEW = 60.0
"""Seconds that the servers' clocks may be off. This is generous, because `r.now()` is the clock of
whichever server parsed the query."""
LEASES_TABLE = "coord_leases"
"""The table of leases, unless the URL names another one."""
ANNOUNCEMENTS_TABLE = "coord_announcements"
"""The table of announcements that belongs to `LEASES_TABLE`."""
SERVICES_TABLE = "services"
"""The table of service records. doublethink uses it by the same name and in the same form."""
REQUIRED_SETTINGS = {"write_acks": "majority", "durability": "hard"}
"""Settings of the table of leases. Without them, a server that is killed loses tokens that it had
acknowledged."""
PASSWORD_VARIABLE = "COORD_RETHINKDB_PASSWORD"  # noqa: S105 (the name of a variable)

FORM = "rethinkdb://[user[:password]@]host[:port][,host[:port]…][/database][?option=value&…]"
OPTIONS = frozenset({"tls", "ca_certs", "max_clock_skew", "table", "password_file"})
_PATHS = ("ca_certs", "password_file")
_SCHEME = "rethinkdb://"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NAME_FORM = "1 to 100 of the characters A-Z, a-z, 0-9, _ and -"
_HOST = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\](?::(?P<port6>.*))?|(?P<host>[^:\[\]]*)(?::(?P<port>.*))?"
)
_SHOWN_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_-]*\]|[^:\[\]]*)(?::\d{1,5})?")
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
    """A parsed URL. `repr`, `str` and `redacted` show no password.

    Attributes:
        hosts: The servers.
        database: The database of all tables.
        user: The user to log in as.
        password: The password of the user.
        tls: Whether connections are encrypted.
        ca_certs: The PEM file of trusted certificates; None means those of the system.
        max_clock_skew: Seconds that the servers' clocks may be off; None switches takeover by these
            clocks off.
        table: The table of leases.
    """

    hosts: tuple[Address, ...]
    database: str = "coord"
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_certs: str | None = None
    max_clock_skew: float | None = DEFAULT_SKEW
    table: str = LEASES_TABLE

    @property
    def announcements_table(self) -> str:
        """The table of the announcements about the roles in `table`."""
        if self.table == LEASES_TABLE:
            return ANNOUNCEMENTS_TABLE
        return f"{self.table}_announcements"

    @property
    def redacted(self) -> str:
        """A URL that means the same, with `***` for the password."""
        credentials = ""
        if self.user != "admin" or self.password:
            credentials = quote(self.user, safe="") + (":***" if self.password else "") + "@"
        options = []
        if self.ca_certs and self.tls:
            options.append(f"ca_certs={quote(self.ca_certs, safe='/')}")
        elif self.tls:
            options.append("tls=1")
        if self.max_clock_skew != DEFAULT_SKEW:
            skew = "off" if self.max_clock_skew is None else f"{self.max_clock_skew:g}"
            options.append(f"max_clock_skew={skew}")
        if self.table != LEASES_TABLE:
            options.append(f"table={self.table}")
        hosts = ",".join(str(host) for host in self.hosts)
        query = f"?{'&'.join(options)}" if options else ""
        return f"{_SCHEME}{credentials}{hosts}/{self.database}{query}"

    def __repr__(self) -> str:
        return f"<RethinkURL {self.redacted}>"

    __str__ = __repr__


def redact(url: str) -> str:
    """Return the text of a URL, valid or not, without anything that may be a password.

    A URL may be invalid because its password is not encoded or its @ is missing. So whatever cannot
    be a host, a port, a database or an option is hidden.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    # Split at the last @: a password that contains a bare / or @ must not show either.
    credentials, at, location = rest.rpartition("@")
    userinfo = ""
    if at:
        user = re.split("[:/?#]", credentials, maxsplit=1)[0]
        userinfo = f"{user}{'' if user == credentials else ':***'}@"
    place, query_mark, query = location.partition("?")
    place, number_sign, _ = place.partition("#")
    for host in place.partition("/")[0].split(","):
        if not _SHOWN_HOST.fullmatch(host):
            # What follows a host and a colon and is not a port may be the password of a user.
            before = place[: place.index(host)]
            return f"{scheme}{separator}{userinfo}{before}{host.partition(':')[0]}:***"
    authority, slash, path = place.partition("/")
    place = authority + slash + (path if not path or _NAME.fullmatch(path) else "***")
    if number_sign:
        return f"{scheme}{separator}{userinfo}{place}#***"
    options = "&".join(_redacted_option(option) for option in query.split("&"))
    return f"{scheme}{separator}{userinfo}{place}{query_mark}{options if query_mark else ''}"


def _redacted_option(text: str) -> str:
    name, equals, value = text.partition("=")
    return text if name in OPTIONS and equals and "#" not in value else "***"


def parse_url(url: str, environ: Mapping[str, str] | None = None) -> RethinkURL:
    """Parse a URL and check it.

    User, password and database are percent-decoded. The password comes from the URL, from
    `password_file`, or from the environment variable COORD_RETHINKDB_PASSWORD, in this order.

    Options after the `?`: `tls` (0 or 1), `ca_certs` (a PEM file; implies tls), `max_clock_skew`
    (seconds, or `off`), `table` (the table of leases), `password_file` (a file whose first line is
    the password).

    Args:
        url: A URL of the form `FORM`.
        environ: The environment variables; None means those of the process.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    if not isinstance(url, str):
        raise BadArgument("url", type(url).__name__, f"must be a string of the form {FORM}")
    shown = redact(url)
    if not url.startswith(_SCHEME):
        raise BadArgument("url", shown, f"must have the form {FORM}")
    rest, fragment, _ = url[len(_SCHEME) :].partition("#")
    if fragment:
        raise BadArgument("url", shown, f"must have the form {FORM}; write a # as %23")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, where = authority.rpartition("@")
    if "@" in path or "@" in query.partition("password_file=")[0]:
        raise BadArgument(
            "url",
            shown,
            f"must have the form {FORM}; percent-encode / ? # and @ in user and password",
        )
    user, colon, password = userinfo.partition(":")
    user, password = _decoded(user, shown, "user"), _decoded(password, shown, "password")
    if at and not user:
        raise BadArgument("url", shown, f"must have the form {FORM}, with a user before the @")
    if not user.isascii() or not user.isprintable():
        raise BadArgument("url", shown, "the user must consist of printable ASCII characters")
    database = _decoded(path, shown, "database") or "coord"
    if not _NAME.fullmatch(database):
        raise BadArgument(
            "url",
            shown,
            f"the database must be {_NAME_FORM}",
        )
    options = _options(query, shown)
    ca_certs = options.get("ca_certs")
    table = options.get("table", LEASES_TABLE)
    if not _NAME.fullmatch(table):
        raise BadArgument(
            "url",
            shown,
            f"the table must be {_NAME_FORM}",
        )
    if ca_certs is not None and not Path(ca_certs).is_file():
        raise BadArgument("url", shown, "ca_certs must be the path of a PEM file")
    return RethinkURL(
        hosts=tuple(_address(host, shown) for host in where.split(",")),
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


absolute_url = partial(server_url.absolute, parse_url, _PATHS, default_user="admin")
with_password_file = partial(server_url.add_password_file, parse_url)


def _decoded(text: str, shown: str, part: str) -> str:
    with contextlib.suppress(UnicodeDecodeError):  # The text of the exception shows the bytes.
        if not re.search(r"%(?![0-9A-Fa-f]{2})", text):
            return unquote(text, errors="strict")
    raise BadArgument("url", shown, f"the {part} must be percent-encoded UTF-8; write % as %25")


def _address(text: str, shown: str) -> Address:
    match = _HOST.fullmatch(text)
    is_bare = text.count(":") > 1 and not text.startswith("[")
    if match is None or is_bare or (match["v6"] and not server_url.is_ipv6(match["v6"])):
        raise BadArgument(
            "url", shown, f"an IPv6 address must be in brackets, as in [::1]:{DEFAULT_PORT}"
        )
    host, port = match["v6"] or match["host"], match["port6"] or match["port"]
    if not host or not (match["v6"] or re.fullmatch(server_url.HOST_NAME, host)):
        raise BadArgument(
            "url", shown, f"must have the form {FORM}, with a host name between commas"
        )
    if port is None and not text.endswith(":"):
        return Address(host, DEFAULT_PORT)
    if port is None or not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise BadArgument("url", shown, "a port must be a number from 1 to 65535")
    return Address(host, int(port))


def _options(query: str, shown: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in query.split("&") if query else ():
        key, equals, value = piece.partition("=")
        if key not in OPTIONS or not equals or not value or key in options:
            names = ", ".join(sorted(OPTIONS))
            allowed = f"an option must have a value, occur once, and be one of {names}"
            raise BadArgument("url", shown, allowed)
        options[key] = _decoded(value, shown, key)
    return options


def _tls(options: Mapping[str, str], shown: str) -> bool:
    flag = options.get("tls")
    if flag is not None and flag.lower() not in _BOOLEANS:
        raise BadArgument("url", shown, "tls must be 1 or 0")
    tls = "ca_certs" in options if flag is None else _BOOLEANS[flag.lower()]
    if "ca_certs" in options and not tls:
        raise BadArgument("url", shown, "ca_certs must not be combined with tls=0")
    return tls


def _skew(text: str | None, shown: str) -> float | None:
    if text is None:
        return DEFAULT_SKEW
    if text.lower() == "off":
        return None
    try:
        return validation.number(float(text), "max_clock_skew", low=0)
    except ValueError:  # BadArgument is a ValueError.
        raise BadArgument(
            "url", shown, "max_clock_skew must be 0 or more seconds, or off"
        ) from None


def _password(
    in_url: str | None, options: Mapping[str, str], shown: str, environ: Mapping[str, str]
) -> str:
    file = options.get("password_file")
    if file is None:
        return in_url if in_url is not None else environ.get(PASSWORD_VARIABLE, "")
    if in_url is not None:
        raise BadArgument("url", shown, "must contain a password or a password_file, not both")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise BadArgument(
            "url", shown, "password_file must be a text file that coord may read"
        ) from None
    if not lines or not lines[0]:
        raise BadArgument("url", shown, "the first line of password_file must be the password")
    return lines[0]
