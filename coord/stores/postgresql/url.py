"""Parsing of postgresql:// URLs. A password is given to the driver, and never shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from coord.stores import server_url
from coord.stores.server_url import Address

DEFAULT_PORT = 5432
DEFAULT_SKEW = 60.0
"""Seconds that the server's clock may be off: it may step, and after a failover it is the clock of
another machine."""
SCHEMES = ("postgresql", "postgres")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
OPTIONS = frozenset({"schema", "max_clock_skew", "sslmode", "sslrootcert", "password_file"})
PATHS = ("sslrootcert", "password_file")
FORM = (
    "must have the form "
    "postgresql://[user[:password]@][host[:port][,host[:port]…]]/database[?option=value&…]"
)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,39}")


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
    parts = server_url.parse(url, SCHEMES, OPTIONS, FORM, hosts_are_optional=True)
    database = parts.decode(parts.path)
    if not database or "\0" in f"{database}{parts.user}{parts.password}":
        raise parts.reject(f"must name a database, and must not contain %00; {FORM}")
    if parts.password is not None and not parts.user:
        raise parts.reject(f"must have a user before the @; {FORM}")
    schema, sslmode = parts.options.get("schema", "coord"), parts.options.get("sslmode")
    if not _SCHEMA.fullmatch(schema):
        raise parts.reject("must have a schema of 1 to 40 of the characters a-z, 0-9 and _")
    if sslmode is not None and sslmode not in SSL_MODES:
        raise parts.reject(f"must have an sslmode of {', '.join(SSL_MODES)}")
    return PostgreSQLURL(
        hosts=parts.addresses(DEFAULT_PORT),
        database=database,
        user=parts.user or None,
        # Without a password in the URL, the driver looks for one as other PostgreSQL programs do.
        password=parts.find_password("", {}) or None,
        sslmode=sslmode,
        sslrootcert=parts.file("sslrootcert"),
        max_clock_skew=parts.max_clock_skew(DEFAULT_SKEW),
        schema=schema,
    )


absolute_url = partial(server_url.absolute, parse_url, PATHS)
with_password_file = partial(server_url.add_password_file, parse_url)
