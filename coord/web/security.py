"""Who may read and who may write: the Host check, the response headers, the token.

A page of another site must not read the roles with the browser of an operator, or hand a role over.
So a `Host` that is not allowed gets 400, which stops DNS rebinding. No response has a CORS header.
The token travels in `Authorization`, which no form of another site can send.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import quote, unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coord.api import display
from coord.errors import BadArgument

MIN_TOKEN_LENGTH = 16
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that a proxy adds: then the client is not who the connection comes from."""
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def validate_hosts(hosts: Sequence[str]) -> frozenset[str]:
    """Return the allowed host names as they are compared.

    Raises:
        BadArgument: They are no sequence of host names.
    """
    allowed = "must be a sequence of host names without ports, such as ('coord.example',)"
    if isinstance(hosts, str) or not isinstance(hosts, Sequence) or not hosts:
        raise BadArgument("allowed_hosts", hosts, allowed)
    names = set()
    for host in hosts:
        name = host_name(host) if isinstance(host, str) else ""
        bare = isinstance(host, str) and host.strip("[]").rstrip(".").lower() == name
        if not name or not bare or set(name) & set("/@ \t\r\n?#"):
            raise BadArgument("allowed_hosts", hosts, allowed)
        names.add(name)
    return frozenset(names)


def host_name(host: str) -> str:
    """Return the name in a `Host` header, in lower case, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    if host.count(":") > 1:  # an IPv6 address without brackets
        return host.lower()
    return host.partition(":")[0].rstrip(".").lower()


def validate_token(token: str | None) -> str | None:
    """Return the token, if there is one.

    Raises:
        BadArgument: It is too short, or a header cannot hold it. The message does not show it.
    """
    if token is None:
        return None
    allowed = f"must be at least {MIN_TOKEN_LENGTH} visible ASCII characters without blanks"
    if not isinstance(token, str):
        raise BadArgument("token", f"<{type(token).__name__}>", allowed)
    if len(token) < MIN_TOKEN_LENGTH or not all("!" <= char <= "~" for char in token):
        raise BadArgument("token", f"<{len(token)} characters>", allowed)
    return token


class Authority:
    """Decides what a request may do.

    Args:
        token: The secret for requests that hand roles over; None means that nobody may.
        hosts: The allowed host names.

    Raises:
        BadArgument: An argument is invalid.
    """

    def __init__(self, token: str | None, hosts: Sequence[str]) -> None:
        self._token = validate_token(token)
        self.hosts = validate_hosts(hosts)

    @property
    def has_token(self) -> bool:
        """Whether a token is configured."""
        return self._token is not None

    def host_allowed(self, host: str | None) -> bool:
        """Return whether a request with this `Host` header may be answered."""
        return "*" in self.hosts or (host is not None and host_name(host) in self.hosts)

    def token_is_right(self, connection: HTTPConnection) -> bool:
        """Return whether the request carries the configured token."""
        kind, _, credentials = connection.headers.get("authorization", "").partition(" ")
        if self._token is None or kind.lower() != "bearer":
            return False
        return hmac.compare_digest(credentials.strip().encode("latin-1"), self._token.encode())

    def may_see_store(self, connection: HTTPConnection) -> bool:
        """Return whether the request may see the URL of the store, and errors that name it.

        They contain no password, but names of machines and paths. They are for clients that have
        the token, and for browsers on this machine if no other host name is allowed.
        """
        if self.token_is_right(connection):
            return True
        client = connection.client
        return (
            self.hosts <= LOOPBACK
            and client is not None
            and client.host in LOOPBACK
            and not any(name in connection.headers for name in FORWARDED)
        )


class Guard:
    """Answers 400 to a wrong `Host`, and adds the security headers to every response.

    It also makes the path that the routes see one of percent-encoded segments, because a role may
    contain a slash.

    Args:
        app: The application behind it.
        authority: Decides which hosts are allowed.
    """

    def __init__(self, app: ASGIApp, authority: Authority) -> None:
        self._app, self._authority = app, authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        host = Headers(scope=scope).get("host")
        if not self._authority.host_allowed(host):
            response = PlainTextResponse(
                f"the host name {display.quote(host, 80)} is not allowed here: open one of "
                f"{', '.join(sorted(self._authority.hosts))}, or allow it (coord web --allow-host, "
                "create_app(allowed_hosts=...))\n",
                400,
            )
            await response(scope, receive, send_guarded)
            return
        await self._app(_with_encoded_path(scope), receive, send_guarded)


def encode(segment: str) -> str:
    """Return one segment of a path, percent-encoded: it contains no slash."""
    return quote(segment.encode(errors="surrogatepass"), safe="")


def _with_encoded_path(scope: Scope) -> Scope:
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.partition(b"?")[0].decode("ascii", "replace")
    return {
        **scope,
        "path": "/".join(encode(unquote(part)) for part in path.split("/")),
        "root_path": "/".join(encode(part) for part in scope.get("root_path", "").split("/")),
    }
