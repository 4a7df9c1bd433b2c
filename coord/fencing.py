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
from typing import Any, NoReturn, TypeVar

from coord.core import validation
from coord.core.lease import MAX_TOKEN
from coord.election.term import Term, current_term
from coord.errors import BadArgument, CoordError, NotLeader, StaleToken

T = TypeVar("T")
FIELD = "fencing_token"
"""The default name of the column or field that contains the token."""
MAX_NAME = 200
"""Bytes of the name of a resource."""


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
        BadArgument: `name` is not a string, or `newest` is not an int from 0 to 2**53.
    """

    def __init__(self, name: str = "this resource", newest: int = 0) -> None:
        validation.name(name, "name", MAX_NAME, f"must be a string of 1 to {MAX_NAME} bytes")
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
    update, select = _statements(table, key, changes, field, lambda _: placeholder)
    cursor = connection.cursor()
    try:
        cursor.execute(update, (*changes.values(), token, *key.values(), token))
        if cursor.rowcount == 1:
            return
        cursor.execute(select, tuple(key.values()))
        row = cursor.fetchone()
    finally:
        cursor.close()
    _refuse(table, token, row)


async def asyncpg_write(
    connection: Any,
    table: str,
    key: Mapping[str, Any],
    changes: Mapping[str, Any],
    term: Term | int | None = None,
    *,
    field: str = FIELD,
) -> None:
    """Update one row in PostgreSQL over asyncpg, unless it has seen a newer token.

    It does the same as `sql_write`, which is for psycopg and other DB-API drivers. Outside of a
    transaction of the caller, the change is committed when this returns.

    Args:
        connection: A connection or a pool of asyncpg.
        table: The name of the table.
        key: The columns that identify the row, with their values. The row must exist.
        changes: The columns to set, with their values.
        term: The term or token of the write. None means `coord.current_term()`.
        field: The column that contains the token: a bigint or NULL.

    Raises:
        StaleToken: The row has seen a newer token.
        CoordError: There is no such row.
        NotLeader: `term` is None, and the calling code runs under no term.
        BadArgument: A name is not a plain name, or `key` or `changes` is empty.
    """
    token = token_of(term)
    update, select = _statements(table, key, changes, field, lambda number: f"${number}")
    # Under READ COMMITTED a condition that had to wait for another write is judged again after it.
    done = await connection.execute(update, *changes.values(), token, *key.values(), token)
    if done != "UPDATE 1":
        _refuse(table, token, await connection.fetchrow(select, *key.values()))


def _statements(
    table: str,
    key: Mapping[str, Any],
    changes: Mapping[str, Any],
    field: str,
    mark: Callable[[int], str],
) -> tuple[str, str]:
    """Return the statement that writes if the token is not stale, and the one that reads the token.

    Args:
        table: See `sql_write`, as for `key`, `changes` and `field`.
        key: See `table`.
        changes: See `table`.
        field: See `table`.
        mark: Returns the mark of a parameter from its number, which begins with 1.
    """
    for what, names in (("table", [table]), ("key", key), ("changes", changes), ("field", [field])):
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
                raise BadArgument(what, name, "must be a plain name: letters, digits and _")
    if not key or not changes:
        raise BadArgument("key" if not key else "changes", {}, "must have at least one column")
    columns = [*changes, field]
    sets = ", ".join(f"{name} = {mark(n)}" for n, name in enumerate(columns, 1))
    first = len(columns) + 1
    where = " AND ".join(f"{name} = {mark(n)}" for n, name in enumerate(key, first))
    is_newest = f"({field} IS NULL OR {field} <= {mark(first + len(key))})"
    same = " AND ".join(f"{name} = {mark(n)}" for n, name in enumerate(key, 1))
    return (
        f"UPDATE {table} SET {sets} WHERE {where} AND {is_newest}",  # noqa: S608 # plain names
        f"SELECT {field} FROM {table} WHERE {same}",  # noqa: S608 # likewise
    )


def _refuse(table: str, token: int, row: Any) -> NoReturn:
    """Raise the reason for which no row was written; `row` contains the token that was read."""
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
        present_token = (present.type_of() == "NUMBER").branch(present, 0)
        return (present_token <= token).branch(old.merge(new), old)

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
