"""The work itself: compare-and-swap of rows in one transaction, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from coord.lease import Lease
from coord.operations import Answer
from coord.past import Entry, PastTerm, terms
from coord.stores.sqlite import schema
from coord.stores.sqlite.handle import Handle
from coord.stores.sqlite.history import History
from coord.stores.sqlite.machine import StoreClock
from coord.stores.sqlite.worker import Job


class Asked(Protocol):
    @property
    def role(self) -> str: ...


A = TypeVar("A", bound=Asked)
Rule = Callable[[Lease, A, float], "Lease | None"]
Remember = Callable[[Sequence[Entry], Lease, A, Lease, float], "list[Entry]"]


def swap(
    job: Job[Any],
    handle: Handle,
    clock: StoreClock,
    asked: Sequence[A],
    rule: Rule[A],
    remember: Remember[A] | None = None,
) -> list[Answer]:
    """Put each request to the rule, in one transaction. `remember`: what becomes of a role's history, where that and
    all of the row are to be written, not only what a renewal changes."""
    conn = handle.connection()
    conn.execute("BEGIN IMMEDIATE")
    # Read only now: while we waited for the lock, time went on and others wrote.
    now, wall, boot = clock.total(), clock.wall(), clock.boot
    roles = [one.role for one in asked]
    past: dict[str, History] = {}
    told: dict[str, str] = {}  # those whose history, or info, is another now
    if remember is None:
        rows = {row[0]: schema.lease(row, now, boot) for row in schema.select(conn, roles)}
    else:
        whole = schema.select_whole(conn, roles)
        rows = {row[0]: schema.lease(row, now, boot) for row, _ in whole}
        past = {row[0]: history for row, history in whole}
    answers: list[Answer] = []
    changed: dict[str, Lease] = {}
    for one in asked:
        row = rows.get(one.role) or Lease(one.role)
        after = rule(row, one, wall)
        if after is None:
            answers.append(Answer(False, row))
            continue
        if remember is not None:
            history = past.get(one.role) or History()
            told[one.role] = history.then(remember(history.last, row, one, after, wall))
        elif after.info is not row.info:
            told[one.role] = schema.text(dict(after.info))
        rows[one.role] = changed[one.role] = after
        answers.append(Answer(True, after))
    if not changed:
        conn.execute("ROLLBACK")
        return answers
    if remember is not None:
        values = [schema.put_values(after, now, boot, told[role]) for role, after in changed.items()]
        conn.executemany(schema.PUT, values)
    else:
        conn.executemany(schema.CHANGE, [schema.change_values(after, now, boot) for after in changed.values()])
        if told:
            conn.executemany(schema.TELL, [(info, role) for role, info in told.items()])
    job.commit(handle)
    return answers


def read(handle: Handle, clock: StoreClock, roles: Collection[str] | None) -> list[Lease]:
    """The rows as last committed."""
    handle.connection()
    handle.check_place()
    rows = schema.select(handle.connection(), roles)
    now = clock.total()
    return [schema.lease(row, now, clock.boot) for row in rows]


def history(handle: Handle, roles: Collection[str] | None) -> list[PastTerm]:
    """The terms of the roles, as last committed."""
    handle.connection()
    handle.check_place()
    return [term for role, said in schema.past(handle.connection(), roles) for term in terms(role, said.all())]
