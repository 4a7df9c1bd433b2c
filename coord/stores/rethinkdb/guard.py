"""A write hook on the table of leases, by which the server itself refuses deletes and falling tokens.

What coord asks for never needs either (rule 3), so it only stops others: a person's slip in the data explorer, a
script, a restore that goes wrong. Whoever may configure the table can take it away. The SQLite schema has triggers that
do the same, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from coord.stores.rethinkdb import driver

ROWS_STAY = "coord: a lease keeps its token, so its row stays"
NEVER_FALLS = "coord: a fencing token never falls"


def guarded(table: Any) -> Any:
    """The query that puts the guard on a table, which needs the right to configure it."""
    r = driver.reql()

    def kind(row: Any) -> Any:
        return row["token"].default(None).type_of()

    def guard(_context: Any, old: Any, new: Any) -> Any:
        falls = r.or_(kind(new).ne("NUMBER"), new["token"].lt(old["token"]))
        return r.branch(
            old.eq(None),
            new,
            new.eq(None),
            r.error(ROWS_STAY),
            r.and_(kind(old).eq("NUMBER"), falls),
            r.error(NEVER_FALLS),
            new,
        )

    return table.set_write_hook(guard)


def unguarded(table: Any) -> Any:
    """The query that takes away whatever hook the table has."""
    return table.set_write_hook(None)


def hook_of(config: Mapping[str, Any]) -> Literal["guard", "other"] | None:
    """Whose write hook a table has, by its `config()`."""
    hook = config.get("write_hook")
    if not hook:
        return None
    return "guard" if NEVER_FALLS in str(hook.get("query")) and ROWS_STAY in str(hook.get("query")) else "other"
