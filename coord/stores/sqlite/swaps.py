"""The work itself: compare-and-swap of rows in one transaction, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from coord.lease import Lease
from coord.operations import Answer
from coord.stores.sqlite import schema
from coord.stores.sqlite.handle import Handle
from coord.stores.sqlite.machine import StoreClock
from coord.stores.sqlite.worker import Job


class Asked(Protocol):
    @property
    def role(self) -> str: ...


A = TypeVar("A", bound=Asked)
Rule = Callable[[Lease, A, float], "Lease | None"]


def swap(
    job: Job[Any], handle: Handle, clock: StoreClock, asked: Sequence[A], rule: Rule[A], *, whole: bool
) -> list[Answer]:
    """Put each request to the rule, in one transaction. `whole`: write all of the row, not what a renewal changes."""
    conn = handle.connection()
    conn.execute("BEGIN IMMEDIATE")
    # Read only now: while we waited for the lock, time went on and others wrote.
    now, wall, boot = clock.total(), clock.wall(), clock.boot
    rows = {row[0]: schema.lease(row, now, boot) for row in schema.select(conn, [one.role for one in asked])}
    answers: list[Answer] = []
    changed: dict[str, Lease] = {}
    told: set[str] = set()  # those whose info is another now
    for one in asked:
        row = rows.get(one.role) or Lease(one.role)
        after = rule(row, one, wall)
        if after is None:
            answers.append(Answer(False, row))
        else:
            rows[one.role] = changed[one.role] = after
            if whole or after.info is not row.info:
                told.add(one.role)
            answers.append(Answer(True, after))
    if not changed:
        conn.execute("ROLLBACK")
        return answers
    put = [schema.put_values(changed[role], now, boot) for role in told]
    change = [schema.change_values(after, now, boot) for role, after in changed.items() if role not in told]
    conn.executemany(schema.PUT, put)
    conn.executemany(schema.CHANGE, change)
    job.commit(handle)
    return answers


def read(handle: Handle, clock: StoreClock, roles: Collection[str] | None) -> list[Lease]:
    """The rows as last committed."""
    handle.connection()
    handle.check_place()
    rows = schema.select(handle.connection(), roles)
    now = clock.total()
    return [schema.lease(row, now, clock.boot) for row in rows]
