"""Parsing of etcd:// URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from coord.stores import server_url
from coord.stores.server_url import Address

DEFAULT_PORT = 2379
PASSWORD_VARIABLE = "COORD_ETCD_PASSWORD"  # noqa: S105 (the name of a variable)
OPTIONS = frozenset(
    {"namespace", "max_clock_skew", "tls", "ca_certs", "cert", "key", "password_file"}
)
PATHS = ("ca_certs", "cert", "key", "password_file")
"""Options that name files."""
FORM = "must have the form etcd://[user:password@]host[:port][,host[:port]…][?option=value&…]"


@dataclass(frozen=True, slots=True, repr=False)
class EtcdURL:
    """A parsed URL. `repr`, `str` and `redacted` show no password.

    Attributes:
        hosts: The members of the cluster.
        user: The user to log in as; "" means no login.
        password: The password of the user.
        tls: Whether connections are encrypted.
        ca_certs: The PEM file of trusted certificates; None means those of the system.
        cert: The PEM file of the client's certificate; None means none.
        key: The PEM file of the key of `cert`.
        namespace: Separates the roles of several teams in one cluster.
        max_clock_skew: Seconds that the clocks of all clients may be off, for takeover by these
            clocks; None switches that off.
    """

    hosts: tuple[Address, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_certs: str | None = None
    cert: str | None = None
    key: str | None = None
    namespace: str = "default"
    max_clock_skew: float | None = None

    @property
    def prefix(self) -> str:
        """The prefix of all keys."""
        return f"/coord/{self.namespace}/"

    def endpoint(self, address: Address) -> str:
        """Return the base URL of the JSON gateway of a member."""
        return f"{'https' if self.tls else 'http'}://{address}"

    @property
    def redacted(self) -> str:
        """A URL that means the same, with `***` for the password."""
        credentials = ""
        if self.user:
            credentials = quote(self.user, safe="") + (":***" if self.password else "") + "@"
        options = []
        if self.namespace != "default":
            options.append(f"namespace={self.namespace}")
        if self.tls and not self.ca_certs:
            options.append("tls=1")
        for name in ("ca_certs", "cert", "key"):
            if (path := getattr(self, name)) is not None:
                options.append(f"{name}={quote(path, safe='/')}")
        if self.max_clock_skew is not None:
            options.append(f"max_clock_skew={self.max_clock_skew:g}")
        hosts = ",".join(str(host) for host in self.hosts)
        return f"etcd://{credentials}{hosts}{'?' + '&'.join(options) if options else ''}"

    def __repr__(self) -> str:
        return f"<EtcdURL {self.redacted}>"

    __str__ = __repr__


def parse_url(url: str, environ: Mapping[str, str] | None = None) -> EtcdURL:
    """Parse a URL and check it.

    User and password are percent-decoded. The password comes from the URL, from `password_file`, or
    from the environment variable COORD_ETCD_PASSWORD, in this order.

    Options after the `?`: `namespace` (letters, digits, _ . and -), `tls` (0 or 1), `ca_certs`,
    `cert` and `key` (PEM files; each implies tls), `password_file` (a file whose first line is the
    password), `max_clock_skew` (seconds that the clocks of all clients may be off, or `off`).

    Args:
        url: A URL of the form `FORM`.
        environ: The environment variables; None means those of the process.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    parts = server_url.parse(url, ("etcd",), OPTIONS, FORM)
    if parts.path:
        raise parts.reject(f"must have no path; {FORM}")
    ca_certs, cert, key = (parts.file(name) for name in ("ca_certs", "cert", "key"))
    if (cert is None) != (key is None):
        raise parts.reject("must have both cert and key, or neither")
    with_files = ca_certs is not None or cert is not None
    tls = parts.options.get("tls", "1" if with_files else "0")
    if tls not in ("0", "1") or (tls == "0" and with_files):
        raise parts.reject("must have tls=1 or tls=0; ca_certs, cert and key need tls=1")
    password = parts.find_password(PASSWORD_VARIABLE, environ)
    if password and not parts.user:
        raise parts.reject("must have a user where there is a password")
    return EtcdURL(
        hosts=parts.addresses(DEFAULT_PORT),
        user=parts.user,
        password=password,
        tls=tls == "1",
        ca_certs=ca_certs,
        cert=cert,
        key=key,
        namespace=parts.namespace(),
        max_clock_skew=parts.max_clock_skew(None),
    )


absolute_url = partial(server_url.absolute, parse_url, PATHS)
with_password_file = partial(server_url.add_password_file, parse_url)
