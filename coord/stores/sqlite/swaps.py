"""The work itself: compare-and-swap of rows in one transaction, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from coord.lease import Lease
from coord.operations import Answer
from coord.past import Entry, PastTerm, terms
from coord.stores.sqlite import schema
from coord.stores.sqlite.handle import Handle
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
    rows = {row[0]: schema.lease(row, now, boot) for row in schema.select(conn, roles)}
    past = dict(schema.past(conn, roles)) if remember is not None else {}
    answers: list[Answer] = []
    changed: dict[str, Lease] = {}
    told: set[str] = set()  # those whose info is another now
    for one in asked:
        row = rows.get(one.role) or Lease(one.role)
        after = rule(row, one, wall)
        if after is None:
            answers.append(Answer(False, row))
            continue
        if remember is not None:
            past[one.role] = remember(past.get(one.role, []), row, one, after, wall)
        elif after.info is not row.info:
            told.add(one.role)
        rows[one.role] = changed[one.role] = after
        answers.append(Answer(True, after))
    if not changed:
        conn.execute("ROLLBACK")
        return answers
    if remember is not None:
        values = [schema.put_values(after, now, boot, past[role]) for role, after in changed.items()]
        conn.executemany(schema.PUT, values)
    else:
        conn.executemany(schema.CHANGE, [schema.change_values(after, now, boot) for after in changed.values()])
        if told:
            conn.executemany(schema.TELL, [(schema.text(dict(changed[role].info)), role) for role in told])
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
    return [term for role, entries in schema.past(handle.connection(), roles) for term in terms(role, entries)]
