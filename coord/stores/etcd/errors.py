"""What went wrong with a request to etcd, and whether it may have been applied."""

from __future__ import annotations

from coord.errors import AccessDenied, NotSetUp, StoreRefused
from coord.stores.failures import RequestError

NOT_DONE = (
    "no leader",
    "too many requests",
    "invalid auth token",
    "revision in header is old",
    "auth revision in header is old",
)
"""Texts of a server that did nothing, and may do it at the next try."""
DENIED = ("permission denied", "authentication failed", "user name is empty", "CommonName")
"""Texts of a server that did nothing, and will refuse until somebody changes the rights."""
REFUSED = ("request is too large", "too many operations")
"""Texts of a server that did nothing, and will refuse every client."""


def from_server(text: str, server: str) -> RequestError:
    """Return what an error that the server sent means for the request."""
    shown = text.splitlines()[0][:200] if text else "no reason given"
    if any(message in text for message in DENIED):
        detail = f"access denied by {server} ({shown}); check the user, the password and its role"
        return RequestError(detail, unknown=False, refusal=AccessDenied)
    if any(message in text for message in REFUSED):
        return RequestError(f"{server} refuses: {shown}", unknown=False, refusal=StoreRefused)
    if any(message in text for message in NOT_DONE):
        return RequestError(f"{server} answered: {shown}", unknown=False, retryable=True)
    # "request timed out", "leader changed" and the like, and "database space exceeded": the write
    # that uses up the space may be applied and answered so.
    return RequestError(f"{server} answered: {shown}", unknown=True)


def no_gateway(server: str) -> RequestError:
    """Return the error of a server that does not speak JSON."""
    detail = (
        f"{server} has no JSON gateway; start etcd 3.4 or later with --enable-grpc-gateway "
        "(the default), and name its client port"
    )
    return RequestError(detail, unknown=False, refusal=NotSetUp)
