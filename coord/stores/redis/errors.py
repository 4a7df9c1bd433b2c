"""What went wrong with a request to Redis, and whether it may have been applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.core.operations import Failure
from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from redis.exceptions import RedisError

    from coord.stores.redis.url import RedisURL

REFUSED = ("NOAUTH", "WRONGPASS", "NOPERM")
"""Codes that last until somebody changes the rights."""
NOT_DONE = (
    "LOADING",
    "BUSY",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "NOREPLICAS",
    "OOM",
    "MISCONF",
    *REFUSED,
)
"""Codes of a server that did nothing. NOPERM from inside a script is an exception to that."""
ELSEWHERE = ("READONLY", "MOVED", "ASK", "MASTERDOWN", "LOADING")
"""Codes after which another server may be the right one."""

_CODES = {
    "AskError": "ASK",
    "AuthenticationError": "WRONGPASS",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
"""redis-py takes the code off the texts of these exceptions."""


class RequestError(Exception):
    """A request without a usable answer.

    Attributes:
        unknown: Whether it may have been applied, or may still be.
        permanent: Whether somebody has to fix something first.
        retryable: Whether it certainly was not applied, and another try may succeed at once.
    """

    def __init__(
        self, detail: str, *, unknown: bool, permanent: bool = False, retryable: bool = False
    ) -> None:
        super().__init__(detail)
        self.detail, self.unknown, self.permanent = detail, unknown, permanent
        self.retryable = retryable

    def failure(self) -> Failure:
        """Return the result of a swap."""
        return Failure(unknown=self.unknown, detail=self.detail, permanent=self.permanent)

    def error(self) -> CoordError:
        """Return the exception of a read."""
        if not self.permanent:
            return StoreUnavailable(self.detail)
        if self.detail.startswith("access denied"):
            return AccessDenied(self.detail)
        return NotSetUp(self.detail) if "coord init" in self.detail else StoreRefused(self.detail)


def code_of(error: RedisError) -> str:
    """Return the code of an error that the server sent, such as NOSCRIPT."""
    known = _CODES.get(type(error).__name__)
    return known or str(error).partition(" ")[0]


def from_server(error: RedisError, server: str) -> RequestError:
    """Return what an error that the server sent means for the request."""
    code, text = code_of(error), _first_line(str(error))
    if code in REFUSED:
        in_script = code == "NOPERM" and "script" in text
        detail = f"access denied by {server} ({text}); check the user, the password and its ACL"
        return RequestError(detail, unknown=in_script, permanent=True)
    if code in NOT_DONE:
        return RequestError(
            f"{server} answered {code}: {text}", unknown=False, retryable=code in ELSEWHERE
        )
    return RequestError(f"{server} answered an error: {text}", unknown=True)


def lost(server: str, reason: str) -> RequestError:
    """Return the error of a request that was sent and got no answer."""
    return RequestError(f"no answer from {server}: {reason}", unknown=True)


def unreachable(server: str, reason: str, *, retryable: bool = True) -> RequestError:
    """Return the error of a request that could not be sent."""
    return RequestError(f"cannot reach {server}: {reason}", unknown=False, retryable=retryable)


def not_set_up(url: RedisURL) -> RequestError:
    """Return the error of a server without this namespace."""
    return RequestError(
        f"the namespace {url.namespace!r} does not exist on {url.redacted}; run coord init "
        f"--url '{url.redacted}'. If it existed before, the server has lost its data: see the "
        f"guarantees of Redis before you do",
        unknown=False,
        permanent=True,
    )


def damaged(role: str) -> RequestError:
    """Return the error of a lease that coord did not write."""
    return RequestError(f"the row of {role!r} is damaged", unknown=False, permanent=True)


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text else ""
