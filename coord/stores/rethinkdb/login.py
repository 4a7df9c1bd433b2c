"""What comes before a connection can be used: trust in the server, the socket's options, the log-in."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from coord.errors import AccessDenied
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.errors import Trouble
from coord.stores.rethinkdb.url import Address, RethinkURL

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and times: a feed, which only listens, learns within half a minute that its machine is gone."""


@lru_cache(maxsize=8)
def trust(ca_certs: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, with the certificate and the host name checked; without `ca_certs` by the system's roots."""
    try:
        return ssl.create_default_context(cafile=ca_certs)
    except (OSError, ssl.SSLError) as err:
        raise Trouble(f"ca_certs cannot be used: {why(err)}", unknown=False, refused=AccessDenied) from None


def tune(sock: Any) -> None:
    """No delay, and the end of a machine is noticed."""
    with contextlib.suppress(OSError, AttributeError):  # none of this is needed for right answers
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def log_in(greet: Callable[[bytes], Awaitable[bytes]], url: RethinkURL, address: Address) -> None:
    """`greet` sends a message, "" for none, and returns the server's answer. Raises `Trouble`."""
    handshake = driver.handshake(address.host, address.port, url.user, url.password)
    from rethinkdb.errors import ReqlAuthError

    answer: bytes | None = None
    try:
        while (request := handshake.next_message(answer)) is not None:
            answer = await greet(request)
    except ReqlAuthError:
        detail = f"{address} refuses the user {url.user!r}: wrong user or password"
        raise Trouble(detail, unknown=False, refused=AccessDenied) from None
    except (OSError, EOFError) as err:
        hint = "" if url.tls else " (does it want TLS? then add tls=1)"
        raise errors.unreachable(f"{address} broke off while logging in: {why(err)}{hint}") from None
    except Exception as err:  # whatever the driver makes of an answer that is not RethinkDB's
        raise errors.unreachable(f"{address} does not answer like RethinkDB ({type(err).__name__})") from None


def why(err: BaseException) -> str:
    """What went wrong, for people."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({err.verify_message})"
    if isinstance(err, ssl.SSLError):
        return f"TLS failed ({err.reason})"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return type(err).__name__ if isinstance(err, EOFError) else str(err)[:120]
