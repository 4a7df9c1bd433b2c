"""Parsing of redis://, rediss:// and redis+sentinel:// URLs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from coord.core import validation
from coord.errors import BadArgument

DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
DEFAULT_SKEW = 60.0
"""Seconds that the server's clock may be off: it may step, and after a failover it is the clock of
another machine."""
PASSWORD_VARIABLE = "COORD_REDIS_PASSWORD"  # noqa: S105 (the name of a variable)
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
OPTIONS = frozenset(
    {"namespace", "max_clock_skew", "ca_certs", "password_file", "sentinel_password_file"}
)
FORM = (
    "must have the form redis://[user:password@]host[:port][/number][?option=value&…], rediss://… "
    "for TLS, or redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/number]"
)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
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
class RedisURL:
    """A parsed URL. `repr`, `str` and `redacted` show no password.

    Attributes:
        hosts: The server, or the sentinels.
        service: The name by which sentinels know the primary; None without sentinels.
        database: The number of the database.
        user: The user to log in as; "" for the default user.
        password: The password of the user.
        tls: Whether connections are encrypted.
        ca_certs: The PEM file of trusted certificates; None means those of the system.
        namespace: Separates the roles of several teams on one server.
        max_clock_skew: Seconds that the server's clock may be off; None switches takeover by this
            clock off.
        sentinel_password: The password of the sentinels.
    """

    hosts: tuple[Address, ...]
    service: str | None = None
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_certs: str | None = None
    namespace: str = "default"
    max_clock_skew: float | None = DEFAULT_SKEW
    sentinel_password: str = field(default="", repr=False)

    @property
    def prefix(self) -> str:
        """The prefix of all keys. The braces keep them in one slot of a Redis Cluster."""
        return f"{{coord:{self.namespace}}}:"

    @property
    def redacted(self) -> str:
        """A URL that means the same, with `***` for the password."""
        credentials = ""
        if self.user or self.password:
            credentials = quote(self.user, safe="") + (":***" if self.password else "") + "@"
        options = []
        if self.namespace != "default":
            options.append(f"namespace={self.namespace}")
        if self.ca_certs:
            options.append(f"ca_certs={quote(self.ca_certs, safe='/')}")
        if self.max_clock_skew != DEFAULT_SKEW:
            skew = "off" if self.max_clock_skew is None else f"{self.max_clock_skew:g}"
            options.append(f"max_clock_skew={skew}")
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service else "")
        path = f"/{quote(self.service, safe='')}" if self.service else ""
        if self.database:
            path += f"/{self.database}"
        hosts = ",".join(str(host) for host in self.hosts)
        query = f"?{'&'.join(options)}" if options else ""
        return f"{scheme}://{credentials}{hosts}{path}{query}"

    def __repr__(self) -> str:
        return f"<RedisURL {self.redacted}>"

    __str__ = __repr__


def redact(url: str) -> str:
    """Return the text of a URL, valid or not, without anything that may be a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…"
    # Everything before the last @ may be a part of a password, and so may a text with a colon and
    # no @ that is not a port.
    credentials, at, location = rest.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        return f"{scheme}://{user}{colon and ':***'}@{location}"
    return f"{scheme}://{rest}" if re.fullmatch(r"[^:?#]*(:\d+)?[^:?#]*(\?.*)?", rest) else "…"


def parse_url(url: str, environ: Mapping[str, str] | None = None) -> RedisURL:
    """Parse a URL and check it.

    User and password are percent-decoded. The password comes from the URL, from `password_file`, or
    from the environment variable COORD_REDIS_PASSWORD, in this order.

    Options after the `?`: `namespace` (letters, digits, _ . and -), `max_clock_skew` (seconds, or
    `off`), `ca_certs` (a PEM file; needs TLS), `password_file` and `sentinel_password_file` (files
    whose first line is the password).

    Args:
        url: A URL of the form `FORM`.
        environ: The environment variables; None means those of the process.

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
    if at and not (user or colon):
        raise reject(f"must have a user or a password before the @; {FORM}")
    tls, sentinel = scheme.startswith("rediss"), scheme.endswith("+sentinel")
    service, database = _path(path, sentinel, reject)
    options = _options(query, reject)
    ca_certs = options.get("ca_certs")
    if ca_certs is not None and not tls:
        raise reject("must begin with rediss:// to use ca_certs")
    if ca_certs is not None and not Path(ca_certs).is_file():
        raise reject("must name a PEM file as ca_certs")
    namespace = options.get("namespace", "default")
    if not _NAME.fullmatch(namespace):
        raise reject("must have a namespace of 1 to 100 letters, digits, _ . and -")
    default_port = SENTINEL_PORT if sentinel else DEFAULT_PORT
    hosts = tuple(_address(host, default_port, reject) for host in where.split(","))
    if len(hosts) > 1 and not sentinel:
        raise reject("must name one server, or several sentinels with redis+sentinel://")
    environment = os.environ if environ is None else environ
    return RedisURL(
        hosts=hosts,
        service=service,
        database=database,
        user=user,
        password=_password(password if colon else None, options, environment, reject),
        tls=tls,
        ca_certs=ca_certs,
        namespace=namespace,
        max_clock_skew=_skew(options.get("max_clock_skew"), reject),
        sentinel_password=_first_line("sentinel_password_file", options, reject) or "",
    )


def _decoded(text: str, reject: Reject) -> str:
    with contextlib.suppress(UnicodeDecodeError):  # The text of the exception shows the bytes.
        if not re.search(r"%(?![0-9A-Fa-f]{2})", text):
            return unquote(text, errors="strict")
    raise reject("must be percent-encoded UTF-8, with a bare % written as %25")


def _path(path: str, sentinel: bool, reject: Reject) -> tuple[str | None, int]:
    parts = path.split("/") if path else []
    service = _decoded(parts.pop(0), reject) if sentinel and parts else None
    if sentinel and not service:
        raise reject("must name the service of the sentinels, as in …/mymaster")
    number = parts.pop(0) if parts else "0"
    if parts or not (number.isascii() and number.isdigit() and int(number[:9]) < 100_000):
        raise reject(f"must end in the number of a database; {FORM}")
    return service, int(number)


def _address(text: str, default_port: int, reject: Reject) -> Address:
    match = _HOST.fullmatch(text)
    if match is None:
        raise reject(f"must have a host, or an IPv6 address in brackets; {FORM}")
    port = (match["v6"] and match["port6"]) or match["port"]
    if port is not None and not 0 < int(port[:9]) < 65536:
        raise reject("must have ports from 1 to 65535")
    return Address(match["v6"] or match["host"], int(port) if port else default_port)


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


def _password(
    in_url: str | None, options: Mapping[str, str], environ: Mapping[str, str], reject: Reject
) -> str:
    in_file = _first_line("password_file", options, reject)
    if in_file is None:
        return in_url if in_url is not None else environ.get(PASSWORD_VARIABLE, "")
    if in_url is not None:
        raise reject("must have a password or a password_file, not both")
    return in_file


def _first_line(option: str, options: Mapping[str, str], reject: Reject) -> str | None:
    file = options.get(option)
    if file is None:
        return None
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise reject(f"must name a readable text file as {option}") from None
    if not lines or not lines[0]:
        raise reject(f"must name a file as {option} whose first line is the password")
    return lines[0]
