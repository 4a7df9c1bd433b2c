"""What an error of the server, or a missing answer, means for a request.

A request was not applied, or it may have been applied, or it is rejected for good (rule 8). The
texts of the server may hold whole rows, so only its codes (SQLSTATE) are passed on.
"""

from __future__ import annotations

from coord.errors import AccessDenied, NotSetUp, StoreRefused, command
from coord.stores.failures import RequestError
from coord.stores.postgresql.url import PostgreSQLURL

_NOT_SET_UP = ("3D000", "3F000", "42P01", "42883", "42703", "42804")
"""No such database, schema, table, function or column."""
_DENIED = ("28000", "28P01", "42501", "0A000")
_LOST = ("57P01", "57P02", "57P05")
"""The server ended the connection. A transaction may have been committed just before."""
_NOT_APPLIED = ("25006", "40001", "40P01", "55P03", "55006", "55000", "57014", "57P03")
"""A standby, a conflict, a lock, a timeout, or a server that starts: nothing was committed."""


class ConnectionLost(RequestError):
    """A request without a usable answer, after which its connection must not be used again."""


def unreachable(detail: str) -> RequestError:
    """Return the error for a request that was not sent."""
    return ConnectionLost(detail, unknown=False)


def lost(detail: str) -> RequestError:
    """Return the error for a request that was sent and has no answer."""
    return ConnectionLost(detail, unknown=True)


def from_code(code: str, url: PostgreSQLURL) -> RequestError:
    """Return the error for a SQLSTATE that the server reports."""
    where = url.redacted
    if code in _NOT_SET_UP:
        detail = (
            f"{where} is not set up for this version of coord: run `{command('init --url', where)}`"
        )
        return RequestError(detail, unknown=False, refusal=NotSetUp)
    if code in _DENIED:
        detail = f"{where} denies access (SQLSTATE {code}): check user, password and grants"
        return RequestError(detail, unknown=False, refusal=AccessDenied)
    if code == "25006":
        return ConnectionLost(f"{where}: this server is a standby and cannot write", unknown=False)
    if code in _NOT_APPLIED or code.startswith("53"):
        kind = ConnectionLost if code == "57P03" else RequestError
        return kind(f"{where} cannot do this now (SQLSTATE {code})", unknown=False)
    if code in _LOST or code.startswith(("08", "58", "XX")):
        return lost(f"{where} ended the connection (SQLSTATE {code})")
    detail = f"{where} rejects the request (SQLSTATE {code})"
    return RequestError(detail, unknown=False, refusal=StoreRefused)
