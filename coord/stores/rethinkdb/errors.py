"""What a server's answer, or the lack of one, means: not done, unknown, or refused for good (rule
8).

The server's error texts may hold rows, and the driver's hold the whole query: only those that name
nothing but tables and servers are passed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coord.core.operations import Failure
from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable
from coord.stores.rethinkdb.url import RethinkURL

# Numbers of ql2.proto, which never change: Response.ResponseType and Response.ErrorType.
ATOM, SEQUENCE, PARTIAL, WAIT_COMPLETE, SERVER_INFO = 1, 2, 3, 4, 5
CLIENT_ERROR, COMPILE_ERROR = 16, 17
OP_FAILED, OP_INDETERMINATE, PERMISSION_ERROR = 4_100_000, 4_200_000, 6_000_000
QUERY_LOGIC, NON_EXISTENCE, USER = 3_000_000, 3_100_000, 5_000_000
INTERNAL, RESOURCE_LIMIT = 1_000_000, 2_000_000

REFUSAL = "coord: "
"""What our own update functions raise begins with this."""


class QueryError(Exception):
    """A query that brought no answer. `unknown`: it may have been applied, or may yet be.
    `refused`: for good, and how.

    `elsewhere`: another server, or a new connection, may do better.
    """

    def __init__(
        self,
        detail: str,
        *,
        unknown: bool,
        refused: type[StoreRefused] | None = None,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail, self.unknown, self.refused, self.elsewhere = (
            detail,
            unknown,
            refused,
            elsewhere,
        )

    def failure(self) -> Failure:
        """For a swap."""
        return Failure(unknown=self.unknown, detail=self.detail, permanent=self.refused is not None)

    def error(self) -> CoordError:
        """For a read, or for opening."""
        return (self.refused or StoreUnavailable)(self.detail)


def not_set_up(what: str, url: RethinkURL) -> str:
    """The message that names the command that mends it."""
    return f"{what}: run `coord init --url '{url.redacted}'`"


def unreachable(detail: str) -> QueryError:
    """Nothing was sent."""
    return QueryError(detail, unknown=False, elsewhere=True)


def lost(detail: str) -> QueryError:
    """Something was sent."""
    return QueryError(detail, unknown=True, elsewhere=True)


def from_response(response: Mapping[str, Any], url: RethinkURL) -> QueryError:
    """The trouble that a response of type CLIENT_ERROR, COMPILE_ERROR or RUNTIME_ERROR tells of."""
    if response.get("t") in (CLIENT_ERROR, COMPILE_ERROR):
        return QueryError(
            "the server does not understand this query", unknown=False, refused=StoreRefused
        )
    code = response.get("e")
    said = str((response.get("r") or [""])[0])
    if code == OP_FAILED:
        return _not_done(said, url)
    if code == PERMISSION_ERROR:
        detail = f"the user {url.user!r} lacks a permission on {url.redacted} (needed: read and write on its tables)"
        return QueryError(detail, unknown=False, refused=AccessDenied)
    if code in (QUERY_LOGIC, NON_EXISTENCE, USER):
        # Unknown as well: the part of a query that comes after its write may be what failed.
        return QueryError(
            "the server cannot work with this query or row", unknown=True, refused=StoreRefused
        )
    if code == OP_INDETERMINATE:
        return lost(f"the server does not know the outcome: {_short(said)}")
    if code == RESOURCE_LIMIT:
        return lost("the server is at a limit of its resources")
    return lost("the server had an internal error")


def from_row(first_error: str) -> QueryError:
    """What a write's result says about a row that it could not write (such errors are not
    raised)."""
    if first_error.startswith(REFUSAL):
        return QueryError(first_error.removeprefix(REFUSAL), unknown=False, refused=StoreRefused)
    lowered = first_error.lower()
    if any(
        sign in lowered
        for sign in ("lost contact", "not available", "unavailable", "timed out", "may or may not")
    ):
        return lost("the server lost contact with the table while it wrote")
    detail = "the server would not write the row (a write hook, or a row that cannot be changed)"
    return QueryError(detail, unknown=False, refused=StoreRefused)


def _not_done(said: str, url: RethinkURL) -> QueryError:
    what = _short(said)
    if "does not exist" in said and said.startswith(("Table", "Database", "Index")):
        return QueryError(not_set_up(what, url), unknown=False, refused=NotSetUp)
    if "ambiguous" in said and said.startswith("Database"):
        what = f"{what}: drop the one without tables, by its id in rethinkdb.db_config"
        return QueryError(what, unknown=False, refused=NotSetUp)
    if "ambiguous" in said:
        return QueryError(not_set_up(what, url), unknown=False, refused=NotSetUp)
    return QueryError(f"not done: {what}", unknown=False, elsewhere="already exists" not in said)


def _short(said: str) -> str:
    first = said.strip().split("\n", 1)[0].rstrip(".")
    return first if len(first) <= 160 else first[:159] + "…"
