"""What an error of the server, or a missing answer, means for a query.

A query was not applied, or it may have been applied, or it is rejected for good (rule 8). The
server's error texts may hold rows, and those of the driver hold the whole query. Only texts that
name nothing but tables and servers are passed on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, command
from coord.stores.failures import RequestError
from coord.stores.rethinkdb.url import RethinkURL

# Numbers of ql2.proto, which never change: Response.ResponseType and Response.ErrorType.
ATOM, SEQUENCE, PARTIAL, WAIT_COMPLETE, SERVER_INFO = 1, 2, 3, 4, 5
CLIENT_ERROR, COMPILE_ERROR = 16, 17
OP_FAILED, OP_INDETERMINATE, PERMISSION_ERROR = 4_100_000, 4_200_000, 6_000_000
QUERY_LOGIC, NON_EXISTENCE, USER = 3_000_000, 3_100_000, 5_000_000
INTERNAL, RESOURCE_LIMIT = 1_000_000, 2_000_000

REFUSAL = "coord: "
"""Errors that coord's own update functions raise begin with this."""
_SIGNS_OF_LOST_CONTACT = (
    "lost contact",
    "not available",
    "unavailable",
    "timed out",
    "may or may not",
)


def not_set_up(problem: str, url: RethinkURL) -> str:
    """Return a message that names the command that fixes the problem."""
    return f"{problem}: run `{command('init --url', url.redacted)}`"


def unreachable(detail: str) -> RequestError:
    """Return the error for a query that was not sent."""
    return RequestError(detail, unknown=False, retryable=True)


def lost(detail: str) -> RequestError:
    """Return the error for a query that was sent and whose answer is missing."""
    return RequestError(detail, unknown=True, retryable=True)


_MALFORMED = (LookupError, TypeError, AttributeError, ArithmeticError, ValueError)
"""What decoding raises for an answer that is not what coord's query returns."""


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Decode an answer in this block. A malformed one is the same as none: the outcome is unknown.

    Raises:
        RequestError: The answer is malformed.
    """
    try:
        yield
    except CoordError:
        raise
    except _MALFORMED as err:
        raise lost(f"the server's answer is malformed ({type(err).__name__})") from None


@contextlib.contextmanager
def decoding_read() -> Iterator[None]:
    """Do the same as `decoding`, for answers whose callers know no `RequestError`.

    Raises:
        StoreUnavailable: The answer is malformed.
    """
    try:
        with decoding():
            yield
    except RequestError as error:
        raise error.error() from None


def from_response(response: Mapping[str, Any], url: RethinkURL) -> RequestError:
    """Return the error for a response of type CLIENT_ERROR, COMPILE_ERROR or RUNTIME_ERROR."""
    if response.get("t") in (CLIENT_ERROR, COMPILE_ERROR):
        detail = "the server does not understand this query"
        return RequestError(detail, unknown=False, refusal=StoreRefused)
    code = response.get("e")
    text = str((response.get("r") or [""])[0])
    if code == OP_FAILED:
        return _not_done(text, url)
    if code == PERMISSION_ERROR:
        detail = (
            f"the user {url.user!r} lacks a permission on {url.redacted}: "
            f"grant it read and write on the tables"
        )
        return RequestError(detail, unknown=False, refusal=AccessDenied)
    if code in (QUERY_LOGIC, NON_EXISTENCE, USER):
        # Unknown as well: the part of the query that comes after its write may be what failed.
        detail = "the server cannot work with this query or row"
        return RequestError(detail, unknown=True, refusal=StoreRefused)
    if code == OP_INDETERMINATE:
        return lost(f"the server does not know the outcome: {_first_line(text)}")
    if code == RESOURCE_LIMIT:
        return lost("the server is at a limit of its resources")
    return lost("the server had an internal error")


def from_row(first_error: str) -> RequestError:
    """Return the error for a row that could not be written.

    The server does not raise such errors. It puts the first of them into its report on the write.
    """
    if first_error.startswith(REFUSAL):
        detail = first_error.removeprefix(REFUSAL)
        return RequestError(detail, unknown=False, refusal=StoreRefused)
    lowered = first_error.lower()
    if any(sign in lowered for sign in _SIGNS_OF_LOST_CONTACT):
        return lost("the server lost contact with the table while it wrote")
    detail = (
        "the server rejected the row: a write hook refuses it, or the stored row cannot be changed"
    )
    return RequestError(detail, unknown=False, refusal=StoreRefused)


def from_system_row(first_error: str) -> RequestError:
    """Return the error for a row of a system table that the server did not change.

    It does not raise such errors either. Another process may have changed what was in the way, so
    another try may succeed.
    """
    return RequestError(f"not done: {_first_line(first_error)}", unknown=False, retryable=True)


def _not_done(text: str, url: RethinkURL) -> RequestError:
    """Return the error for an operation that the server did not do.

    The texts are those of RethinkDB 2.4. They name tables, databases and servers, and no data.
    """
    summary = _first_line(text)
    if "does not exist" in text and text.startswith(("Table", "Database", "Index")):
        return RequestError(not_set_up(summary, url), unknown=False, refusal=NotSetUp)
    if "ambiguous" in text and text.startswith("Database"):
        detail = f"{summary}: drop the one without tables, by its id in rethinkdb.db_config"
        return RequestError(detail, unknown=False, refusal=NotSetUp)
    if "ambiguous" in text:
        return RequestError(not_set_up(summary, url), unknown=False, refusal=NotSetUp)
    retryable = "already exists" not in text
    return RequestError(f"not done: {summary}", unknown=False, retryable=retryable)


def _first_line(text: str) -> str:
    """Return the first line of a server's text, cut at 160 characters."""
    line = text.strip().split("\n", 1)[0].rstrip(".")
    return line if len(line) <= 160 else line[:159] + "…"
