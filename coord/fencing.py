"""What a protected resource does with a fencing token: it keeps the newest it has seen, and refuses
an older one.

The leases give one leader at a time under timing assumptions; a process that is frozen between its
check and its write breaks any such scheme. With the token in the write, and the comparison in the
same atomic step as the change, the old leader's write is refused (Martin Kleppmann, "How to do
distributed locking"; docs/guarantees.md, rule 10)."""

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


def token_of(term: Term | int | None) -> int:
    """The token of a term, or the token itself; without either that of `coord.current_term()`.

    Raises `NotLeader` when there is no term, and `BadArgument` for what is no token (an int from 1
    to 2**53)."""
    if term is None:
        term = current_term()
        if term is None:
            raise NotLeader("", "no term was given, and this code runs under none")
    if isinstance(term, Term):
        return term.token
    if isinstance(term, bool) or not isinstance(term, int) or not 1 <= term <= MAX_TOKEN:
        raise BadArgument("term", term, "a coord.Term, or a token: an int from 1 to 2**53")
    return term


class Fence:
    """Guards any callable in this process: `fence(function, *args, term=...)` runs it, or raises
    `StaleToken`.

    Checking and running are one step for each other's callers: nothing older can slip in after
    something newer. The
    newest token lives in memory: a resource that restarts, or that is reached from several
    processes, must keep it with the data, in the same transaction (`sql_write`, `rethinkdb_write`).
    """

    def __init__(self, name: str = "this resource", newest: int = 0) -> None:
        self.name, self.newest = name, newest
        self._lock = threading.RLock()

    def __call__(
        self, function: Callable[..., T], *args: Any, term: Term | int | None = None, **kwargs: Any
    ) -> T:
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
    """Update one row, unless it has seen a newer token: one `UPDATE … WHERE … AND fencing_token <=
    token`.

    connection: any DB-API connection (sqlite3, psycopg, …) in which the caller commits.
    key: the columns that name the row, which must be there.
    changes: the columns to set.
    term: whose token the write carries; without one, `current_term()`'s.
    field: the column that holds the token, an integer or NULL.
    placeholder: the connection's parameter mark, "?" or "%s".

    Raises `StaleToken`, or `CoordError` when there is no such row.
    """
    token = token_of(term)
    for what, names in (("table", [table]), ("key", key), ("changes", changes), ("field", [field])):
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
                raise BadArgument(
                    what, name, "the plain name of a table or column: letters, digits and _"
                )
    if not key or not changes:
        raise BadArgument("key" if not key else "changes", {}, "at least one column")
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
        raise CoordError(f"{table} has no row with the key given: insert it first, without a token")
    raise StaleToken(f"the row in {table}", token, row[0])


def rethinkdb_write(
    table: Any,
    key: Any,
    changes: Mapping[str, Any],
    term: Term | int | None = None,
    *,
    field: str = FIELD,
) -> Any:
    """A ReQL term that updates the document `key`, or inserts it, unless it has seen a newer token;
    one atomic query.

    table: `r.table("…")` of the caller's own driver, in whatever mode (blocking, asyncio).

    Run the result on a connection, and give what comes back to `rethinkdb_verify`, which raises
    `StaleToken`."""
    token = token_of(term)
    if field in changes:
        raise BadArgument("changes", dict(changes), f"without {field!r}, which is set here")
    fenced = {**changes, field: token}

    def newer_wins(_id: Any, old: Any, new: Any) -> Any:
        # `old.merge(new)` where the token is not older; the document as it was otherwise. A missing
        # or foreign token counts as 0.
        present = old[field].default(0)
        seen = (present.type_of() == "NUMBER").branch(present, 0)
        return (seen <= token).branch(old.merge(new), old)

    return table.insert(
        {"id": key, **fenced}, conflict=newer_wins, return_changes="always", durability="hard"
    )


def rethinkdb_verify(
    result: Mapping[str, Any], term: Term | int | None = None, *, field: str = FIELD
) -> None:
    """Raises `StaleToken` when `result`, of a `rethinkdb_write`, says that the write was
    refused."""
    token = token_of(term)
    if result.get("errors"):
        raise CoordError("the fenced write was not done: the server reports an error")
    change = result["changes"][0]
    newest = (change.get("new_val") or {}).get(field)
    if newest != token:
        raise StaleToken("the document", token, newest if isinstance(newest, int) else None)
