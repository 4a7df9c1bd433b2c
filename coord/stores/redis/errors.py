"""What went wrong with a request to Redis, and whether it may have been applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.errors import AccessDenied, NotSetUp, command
from coord.stores.failures import RequestError

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


def code_of(error: RedisError) -> str:
    """Return the code of an error that the server sent, such as NOSCRIPT."""
    code = _CODES.get(type(error).__name__)
    return code or str(error).partition(" ")[0]


def from_server(error: RedisError, server: str) -> RequestError:
    """Return what an error that the server sent means for the request."""
    code, text = code_of(error), _first_line(str(error))
    if code in REFUSED:
        in_script = code == "NOPERM" and "script" in text
        detail = f"access denied by {server} ({text}); check the user, the password and its ACL"
        return RequestError(detail, unknown=in_script, refusal=AccessDenied)
    if code in NOT_DONE:
        return RequestError(
            f"{server} answered {code}: {text}", unknown=False, retryable=code in ELSEWHERE
        )
    return RequestError(f"{server} answered an error: {text}", unknown=True)


def not_set_up(url: RedisURL) -> RequestError:
    """Return the error of a server without this namespace."""
    return RequestError(
        f"the namespace {url.namespace!r} does not exist on {url.redacted}; run "
        f"`{command('init --url', url.redacted)}`. If it existed before, the "
        f"server has lost its data: see the guarantees of Redis before you do",
        unknown=False,
        refusal=NotSetUp,
    )


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text else ""
