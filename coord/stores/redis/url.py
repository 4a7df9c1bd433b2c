"""Parsing of redis://, rediss:// and redis+sentinel:// URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from coord.stores import server_url
from coord.stores.server_url import Address

DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
DEFAULT_SKEW = 60.0
"""Seconds that the server's clock may be off: it may step, and after a failover it is the clock of
another machine."""
PASSWORD_VARIABLE = "COORD_REDIS_PASSWORD"  # noqa: S105 (the name of a variable)
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
OPTIONS = frozenset(
    {"namespace", "max_clock_skew", "ca_certs", "password_file", "sentinel_password_file"}
)
PATHS = ("ca_certs", "password_file", "sentinel_password_file")
"""Options that name files."""
FORM = (
    "must have the form redis://[user:password@]host[:port][/number][?option=value&…], rediss://… "
    "for TLS, or redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/number]"
)


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
    parts = server_url.parse(url, SCHEMES, OPTIONS, FORM)
    tls, sentinel = parts.scheme.startswith("rediss"), parts.scheme.endswith("+sentinel")
    service, database = _path(parts, sentinel)
    ca_certs = parts.file("ca_certs")
    if ca_certs is not None and not tls:
        raise parts.reject("must begin with rediss:// to use ca_certs")
    hosts = parts.addresses(SENTINEL_PORT if sentinel else DEFAULT_PORT)
    if len(hosts) > 1 and not sentinel:
        raise parts.reject("must name one server, or several sentinels with redis+sentinel://")
    return RedisURL(
        hosts=hosts,
        service=service,
        database=database,
        user=parts.user,
        password=parts.find_password(PASSWORD_VARIABLE, environ),
        tls=tls,
        ca_certs=ca_certs,
        namespace=parts.namespace(),
        max_clock_skew=parts.max_clock_skew(DEFAULT_SKEW),
        sentinel_password=parts.first_line("sentinel_password_file") or "",
    )


def _path(parts: server_url.ServerURL, sentinel: bool) -> tuple[str | None, int]:
    pieces = parts.path.split("/") if parts.path else []
    service = parts.decode(pieces.pop(0)) if sentinel and pieces else None
    if sentinel and not service:
        raise parts.reject("must name the service of the sentinels, as in …/mymaster")
    number = pieces.pop(0) if pieces else "0"
    if pieces or not (number.isascii() and number.isdigit() and int(number[:9]) < 100_000):
        raise parts.reject(f"must end in the number of a database; {FORM}")
    return service, int(number)


absolute_url = partial(server_url.absolute, parse_url, PATHS, default_user="")
with_password_file = partial(server_url.add_password_file, parse_url)
