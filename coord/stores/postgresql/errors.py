"""What an error of the server, or a missing answer, means for a request.

A request was not applied, or it may have been applied, or it is rejected for good (rule 8). The
texts of the server may hold whole rows, so only its codes (SQLSTATE) are passed on.
"""

from __future__ import annotations

from coord.core.operations import Failure
from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable, command
from coord.stores.postgresql.url import PostgreSQLURL

_NOT_SET_UP = ("3D000", "3F000", "42P01", "42883", "42703", "42804")
"""No such database, schema, table, function or column."""
_DENIED = ("28000", "28P01", "42501", "0A000")
_LOST = ("57P01", "57P02", "57P05")
"""The server ended the connection. A transaction may have been committed just before."""
_NOT_APPLIED = ("25006", "40001", "40P01", "55P03", "55006", "55000", "57014", "57P03")
"""A standby, a conflict, a lock, a timeout, or a server that starts: nothing was committed."""


class QueryError(Exception):
    """A request without an answer.

    Attributes:
        detail: What happened, for people. Holds no password and no data.
        unknown: Whether the request may have been applied, or may still be (rule 8).
        permanent: The exception if the server rejects the request for good; None if the same
            request may succeed later.
        lost: Whether the connection must not be used again.
    """

    def __init__(
        self,
        detail: str,
        *,
        unknown: bool = False,
        permanent: type[StoreRefused] | None = None,
        lost: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.unknown = unknown
        self.permanent = permanent
        self.lost = lost

    def failure(self) -> Failure:
        """Return the result of a swap that failed in this way."""
        return Failure(
            unknown=self.unknown, detail=self.detail, permanent=self.permanent is not None
        )

    def error(self) -> CoordError:
        """Return the exception of a read that failed in this way."""
        return (self.permanent or StoreUnavailable)(self.detail)


def unreachable(detail: str) -> QueryError:
    """Return the error for a request that was not sent."""
    return QueryError(detail, lost=True)


def lost(detail: str) -> QueryError:
    """Return the error for a request that was sent and has no answer."""
    return QueryError(detail, unknown=True, lost=True)


def from_code(code: str, url: PostgreSQLURL) -> QueryError:
    """Return the error for a SQLSTATE that the server reports."""
    where = url.redacted
    if code in _NOT_SET_UP:
        detail = (
            f"{where} is not set up for this version of coord: run `{command('init --url', where)}`"
        )
        return QueryError(detail, permanent=NotSetUp)
    if code in _DENIED:
        detail = f"{where} denies access (SQLSTATE {code}): check user, password and grants"
        return QueryError(detail, permanent=AccessDenied)
    if code == "25006":
        return QueryError(f"{where}: this server is a standby and cannot write", lost=True)
    if code in _NOT_APPLIED or code.startswith("53"):
        return QueryError(f"{where} cannot do this now (SQLSTATE {code})", lost=code == "57P03")
    if code in _LOST or code.startswith(("08", "58", "XX")):
        return lost(f"{where} ended the connection (SQLSTATE {code})")
    return QueryError(f"{where} rejects the request (SQLSTATE {code})", permanent=StoreRefused)
