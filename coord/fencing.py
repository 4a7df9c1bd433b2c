"""Fencing: a resource remembers the newest token that it has seen, and refuses an older one.

Leases give one leader at a time under assumptions about time. A process that freezes between its
check and its write breaks every such scheme. If the write contains the token, and the resource
compares it in the same atomic step, the resource refuses the write of an old leader (Martin
Kleppmann, "How to do distributed locking"; docs/guarantees.md, rule 10).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from coord.core.lease import MAX_TOKEN
from coord.election.term import Term, current_term
from coord.errors import BadArgument, CoordError, NotLeader, StaleToken

T = TypeVar("T")
FIELD = "fencing_token"
"""The default name of the column or field that contains the token."""


def token_of(term: Term | int | None) -> int:
    """Return the fencing token of a term.

    Args:
        term: A term, or its token. None means `coord.current_term()`.

    Raises:
        NotLeader: `term` is None, and the calling code runs under no term.
        BadArgument: `term` is neither a term nor a token.
    """
    if term is None:
        term = current_term()
        if term is None:
            raise NotLeader("", "no term was passed, and this code runs under none")
    if isinstance(term, Term):
        return term.token
    if isinstance(term, bool) or not isinstance(term, int) or not 1 <= term <= MAX_TOKEN:
        raise BadArgument("term", term, "must be a coord.Term, or a token: an int from 1 to 2**53")
    return term


class Fence:
    """Protects any callable in this process: `fence(function, *args, term=...)` calls it, or raises
    `StaleToken`.

    The check and the call are one step: a call waits until an earlier one has returned, so an older
    token never acts after a newer one. The newest token is in memory. A resource that restarts, or
    that several processes use, must keep the token with its data, in the same transaction
    (`sql_write`, `rethinkdb_write`).

    Args:
        name: The resource, for messages.
        newest: The newest token that the resource has seen; 0 means none.

    Raises:
        BadArgument: `newest` is not an int from 0 to 2**53.
    """

    def __init__(self, name: str = "this resource", newest: int = 0) -> None:
        if isinstance(newest, bool) or not isinstance(newest, int) or not 0 <= newest <= MAX_TOKEN:
            raise BadArgument("newest", newest, "must be an int from 0 to 2**53")
        self.name, self.newest = name, newest
        self._lock = threading.RLock()

    def __call__(
        self, function: Callable[..., T], *args: Any, term: Term | int | None = None, **kwargs: Any
    ) -> T:
        """Call `function(*args, **kwargs)` and return its result.

        Args:
            function: What to call.
            *args: Its positional arguments.
            term: The term or token that the call belongs to. None means `coord.current_term()`.
            **kwargs: Its keyword arguments.

        Raises:
            StaleToken: The resource has seen a newer token.
            NotLeader: `term` is None, and the calling code runs under no term.
        """
        token = token_of(term)
        with self._lock:
            if token < self.newest:
                raise StaleToken(self.name, token, self.newest)
            self.newest = token
            return function(*args, **kwargs)


def sql_write(
    connection: Any,
    table: str,
    key: Mapping[str, Any],
    changes: Mapping[str, Any],
    term: Term | int | None = None,
    *,
    field: str = FIELD,
    placeholder: str = "?",
) -> None:
    """Update one row, unless it has seen a newer token.

    It sends one statement: `UPDATE … WHERE … AND fencing_token <= token`. The caller commits.

    Args:
        connection: A DB-API connection (sqlite3, psycopg, …).
        table: The name of the table.
        key: The columns that identify the row, with their values. The row must exist.
        changes: The columns to set, with their values.
        term: The term or token of the write. None means `coord.current_term()`.
        field: The column that contains the token: an integer or NULL.
        placeholder: The mark of a parameter in this driver, "?" or "%s".

    Raises:
        StaleToken: The row has seen a newer token.
        CoordError: There is no such row.
        NotLeader: `term` is None, and the calling code runs under no term.
        BadArgument: A name is not a plain name, or `key` or `changes` is empty.
    """
    token = token_of(term)
    for what, names in (("table", [table]), ("key", key), ("changes", changes), ("field", [field])):
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
                raise BadArgument(what, name, "must be a plain name: letters, digits and _")
    if not key or not changes:
        raise BadArgument("key" if not key else "changes", {}, "must have at least one column")
    sets = ", ".join(f"{name} = {placeholder}" for name in (*changes, field))
    where = " AND ".join(f"{name} = {placeholder}" for name in key)
    cursor = connection.cursor()
    try:
        cursor.execute(
            f"UPDATE {table} SET {sets} WHERE {where} "  # noqa: S608 # names were checked above
            f"AND ({field} IS NULL OR {field} <= {placeholder})",
            (*changes.values(), token, *key.values(), token),
        )
        if cursor.rowcount == 1:
            return
        cursor.execute(f"SELECT {field} FROM {table} WHERE {where}", tuple(key.values()))  # noqa: S608  # likewise
        row = cursor.fetchone()
    finally:
        cursor.close()
    if row is None:
        raise CoordError(
            f"cannot write to {table}: it has no row with this key. Insert the row first"
        )
    raise StaleToken(f"the row in {table}", token, row[0])


def rethinkdb_write(
    table: Any,
    key: Any,
    changes: Mapping[str, Any],
    term: Term | int | None = None,
    *,
    field: str = FIELD,
) -> Any:
    """Return a ReQL query that updates or inserts one document, unless it has seen a newer token.

    It is one atomic query. Run it on a connection, and pass the result to `rethinkdb_verify`, which
    raises `StaleToken`.

    Args:
        table: `r.table("…")` of your driver, in any mode (blocking, asyncio).
        key: The primary key of the document.
        changes: The fields to set, with their values.
        term: The term or token of the write. None means `coord.current_term()`.
        field: The field that contains the token.

    Raises:
        NotLeader: `term` is None, and the calling code runs under no term.
        BadArgument: `changes` contains `field`.
    """
    token = token_of(term)
    if field in changes:
        raise BadArgument("changes", dict(changes), f"must not contain {field!r}")
    fenced = {**changes, field: token}

    def newer_wins(_id: Any, old: Any, new: Any) -> Any:
        # A document without a token, or with one that is not a number, has seen no token.
        present = old[field].default(0)
        seen = (present.type_of() == "NUMBER").branch(present, 0)
        return (seen <= token).branch(old.merge(new), old)

    return table.insert(
        {"id": key, **fenced}, conflict=newer_wins, return_changes="always", durability="hard"
    )


def rethinkdb_verify(
    result: Mapping[str, Any], term: Term | int | None = None, *, field: str = FIELD
) -> None:
    """Check the result of a query of `rethinkdb_write`.

    Args:
        result: What the server answered.
        term: The term or token of the write. None means `coord.current_term()`.
        field: The field that contains the token.

    Raises:
        StaleToken: The document has seen a newer token, so it was not changed.
        CoordError: The server reports an error.
    """
    token = token_of(term)
    if result.get("errors"):
        raise CoordError("cannot write the document: the server reports an error")
    change = result["changes"][0]
    newest = (change.get("new_val") or {}).get(field)
    if newest != token:
        raise StaleToken("the document", token, newest if isinstance(newest, int) else None)
