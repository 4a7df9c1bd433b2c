"""The common syntax of URLs that name servers: scheme://[user:password@]host[:port][,…][/path][?…].

Each backend parses its own path and options. No message shows a password.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from coord.core import validation
from coord.errors import BadArgument

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_PORTS = "must have ports from 1 to 65535"
HOST_NAME = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
"""What a host name is. Python cannot even look up one with a part that is empty or longer."""
_HOST = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\](?::(?P<port6>\d+))?|"
    rf"(?P<host>{HOST_NAME})(?::(?P<port>\d+))?"
)
_PLACE = re.compile(r"[^:/#]*(?::\d{1,5})?(?:,[^:/#]*(?::\d{1,5})?)*(?:/[A-Za-z0-9_.-]*)*")


def is_ipv6(text: str) -> bool:
    """Return whether `text` is an IPv6 address."""
    from ipaddress import AddressValueError, IPv6Address  # few URLs have one

    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


class Address(NamedTuple):
    """Where one server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerURL:
    """The parts of a URL, percent-decoded.

    Attributes:
        shown: The URL without its password, for messages.
        scheme: The scheme.
        user: The user; "" if there is none.
        password: The password in the URL; None if there is none.
        hosts: The hosts as they are written.
        path: The path without its first slash, not decoded.
        options: The options after the `?`.
    """

    shown: str
    scheme: str
    user: str
    password: str | None = field(repr=False)
    hosts: tuple[str, ...]
    path: str
    options: Mapping[str, str]

    def reject(self, reason: str) -> BadArgument:
        """Return the error for this URL; `reason` is "must …"."""
        return BadArgument("url", self.shown, reason)

    def decode(self, text: str) -> str:
        """Return a percent-decoded part of the URL.

        Raises:
            BadArgument: It is not percent-encoded UTF-8.
        """
        with contextlib.suppress(UnicodeDecodeError):  # The text of the exception shows the bytes.
            if not re.search(r"%(?![0-9A-Fa-f]{2})", text):
                return unquote(text, errors="strict")
        raise self.reject("must be percent-encoded UTF-8, with a bare % written as %25")

    def addresses(self, default_port: int) -> tuple[Address, ...]:
        """Return the hosts as addresses.

        Raises:
            BadArgument: A host or a port is invalid.
        """
        return tuple(self._address(host, default_port) for host in self.hosts)

    def _address(self, text: str, default_port: int) -> Address:
        match = _HOST.fullmatch(text)
        if match is None or (match["v6"] and not is_ipv6(match["v6"])):
            if _HOST.fullmatch(text.rpartition(":")[0]):  # the text behind the colon is no port
                raise self.reject(_PORTS)
            raise self.reject("must have a host name, or an IPv6 address in brackets")
        port = match["port6"] or match["port"]
        if port is not None and not 0 < int(port[:9]) < 65536:
            raise self.reject(_PORTS)
        return Address(match["v6"] or match["host"], int(port) if port else default_port)

    def namespace(self) -> str:
        """Return the option `namespace`, which separates the roles of several teams.

        Raises:
            BadArgument: It is invalid.
        """
        namespace = self.options.get("namespace", "default")
        if not _NAMESPACE.fullmatch(namespace):
            raise self.reject("must have a namespace of 1 to 100 letters, digits, _ . and -")
        return namespace

    def max_clock_skew(self, default: float | None) -> float | None:
        """Return the option `max_clock_skew` in seconds; None for `off`.

        Raises:
            BadArgument: It is invalid.
        """
        text = self.options.get("max_clock_skew")
        if text is None:
            return default
        if text.lower() == "off":
            return None
        try:
            return validation.number(float(text), "max_clock_skew", low=0)
        except ValueError:  # BadArgument is a ValueError.
            raise self.reject(
                "must have max_clock_skew=SECONDS (0 or more) or max_clock_skew=off"
            ) from None

    def file(self, option: str) -> str | None:
        """Return the option `option`, the path of a PEM file; None if it is not given.

        Raises:
            BadArgument: There is no such file.
        """
        path = self.options.get(option)
        if path is not None and not Path(path).is_file():
            raise self.reject(f"must name a PEM file as {option}")
        return path

    def find_password(self, variable: str, environ: Mapping[str, str] | None) -> str:
        """Return the password: from the URL, from `password_file`, or from the environment.

        Args:
            variable: The name of the environment variable.
            environ: The environment variables; None means those of the process.

        Raises:
            BadArgument: The file cannot be read, or there are two passwords.
        """
        in_file = self.first_line("password_file")
        if in_file is None:
            if self.password is not None:
                return self.password
            return (os.environ if environ is None else environ).get(variable, "")
        if self.password is not None:
            raise self.reject("must have a password or a password_file, not both")
        return in_file

    def first_line(self, option: str) -> str | None:
        """Return the first line of the file that `option` names; None if it is not given.

        Raises:
            BadArgument: The file cannot be read, or its first line is empty.
        """
        file = self.options.get(option)
        if file is None:
            return None
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            raise self.reject(f"must name a readable text file as {option}") from None
        if not lines or not lines[0]:
            raise self.reject(f"must name a file as {option} whose first line is the password")
        return lines[0]


def redact(url: str) -> str:
    """Return the text of a URL, valid or not, without anything that may be a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…"
    # Everything before the last @ may be a part of a password. So may a text with a colon and no @
    # that is not a port, and the value of an option that does not exist.
    credentials, at, location = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    before = f"{user}{colon and ':***'}@" if at else ""
    place, mark, _ = location.partition("?")
    return f"{scheme}://{before}{place if _PLACE.fullmatch(place) else '…'}{mark and '?…'}"


def parse(
    url: str,
    schemes: Collection[str],
    options: Collection[str],
    form: str,
    *,
    hosts_are_optional: bool = False,
) -> ServerURL:
    """Split a URL into its parts.

    Args:
        url: The URL.
        schemes: The schemes of the backend.
        options: The options that the backend knows.
        form: What a URL looks like, as "must have the form …".
        hosts_are_optional: Whether a URL without a host is valid.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    if not isinstance(url, str):
        raise BadArgument("url", type(url).__name__, form)
    scheme, separator, rest = url.partition("://")
    parts = ServerURL(redact(url), scheme, "", None, (), "", {})
    if not separator or scheme not in schemes:
        raise parts.reject(form)
    if "#" in rest:
        raise parts.reject(f"must have a # percent-encoded as %23; {form}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, at, where = authority.rpartition("@")
    if "@" in path or "@" in query:
        raise parts.reject(f"must have / ? # and @ percent-encoded in user and password; {form}")
    user, colon, password = credentials.partition(":")
    if at and not (user or colon):
        raise parts.reject(f"must have a user or a password before the @; {form}")
    parameters: dict[str, str] = {}
    for piece in query.split("&") if query else ():
        name, _, value = piece.partition("=")
        if name not in options or not value or name in parameters:
            names = ", ".join(sorted(options))
            raise parts.reject(f"must give each option once, with a value; the options are {names}")
        parameters[name] = parts.decode(value)
    return ServerURL(
        parts.shown,
        scheme,
        parts.decode(user),
        parts.decode(password) if colon else None,
        tuple(where.split(",")) if where or not hosts_are_optional else (),
        path,
        parameters,
    )


def absolute(
    parse_url: Callable[[str], object],
    paths: Collection[str],
    url: str,
    *,
    default_user: str | None = None,
) -> str:
    """Return a URL with absolute paths in its options, so that it means the same everywhere.

    A `password_file` that can be read only once, such as a pipe, is read now. Then the URL has the
    password itself.

    Args:
        parse_url: Checks the URL.
        paths: The options that name files.
        url: The URL.
        default_user: The user of a URL that names none; None means that a URL with a password must
            name one.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    url = _with_password(url, default_user)
    parse_url(url)
    location, mark, query = url.partition("?")
    pieces = []
    for piece in query.split("&") if query else ():
        name, _, value = piece.partition("=")
        path = quote(os.path.abspath(unquote(value)), safe="/")
        pieces.append(f"{name}={path}" if name in paths else piece)
    return f"{location}{mark}{'&'.join(pieces)}"


def add_password_file(parse_url: Callable[[str], object], url: str, file: str) -> str:
    """Return a URL with the option `password_file`.

    Args:
        parse_url: Checks the URL.
        url: The URL.
        file: The file whose first line is the password.

    Raises:
        BadArgument: The URL is invalid or has a password, or the file cannot be read. The message
            holds no password.
    """
    parse_url(url)
    added = f"{url}{'&' if '?' in url else '?'}password_file={quote(file, safe='/')}"
    if not _is_read_once(file):
        parse_url(added)
    return added


def _with_password(url: str, default_user: str | None) -> str:
    """Return a URL with the password in it, if its `password_file` can be read only once."""
    location, _, query = url.partition("?")
    pieces = query.split("&") if query else []
    for piece in pieces:
        option, _, value = piece.partition("=")
        file = unquote(value)
        if not option.endswith("password_file") or not _is_read_once(file):
            continue

        def reject(reason: str) -> BadArgument:
            return BadArgument("url", redact(url), reason)

        if option != "password_file":
            raise reject(f"must name a regular file as {option}, not a pipe or a device")
        scheme, separator, rest = location.partition("://")
        authority, slash, path = rest.partition("/")
        user, at, hosts = authority.rpartition("@")
        if ":" in user:
            raise reject("must have a password or a password_file, not both")
        if not at and default_user is None:
            raise reject("must have a user before the @, to whom the password belongs")
        password = _read_password(file)
        if not password:
            raise reject("must name a file as password_file whose first line is the password")
        credentials = f"{user if at else default_user}:{quote(password, safe='')}"
        others = "&".join(other for other in pieces if other is not piece)
        mark = "?" if others else ""
        return f"{scheme}{separator}{credentials}@{hosts}{slash}{path}{mark}{others}"
    return url


def _is_read_once(file: str) -> bool:
    """Return whether a file is there, and is a pipe, a socket or a device."""
    return os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file)


def _read_password(file: str) -> str:
    """Return the first line of a file; "" if it cannot be read."""
    try:
        with open(file, encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except (OSError, ValueError):
        return ""
