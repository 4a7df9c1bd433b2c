"""The work itself: compare-and-swap of rows in one transaction, and reading them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Any, Union

from coord import past
from coord.errors import StoreRefused
from coord.lease import Lease
from coord.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.past import PastTerm, terms
from coord.stores import rules
from coord.stores.sqlite import schema
from coord.stores.sqlite.handle import Handle
from coord.stores.sqlite.machine import StoreClock
from coord.stores.sqlite.trouble import sort
from coord.stores.sqlite.worker import PAUSE, Job

Swap = Union[Claim, Release]
HOLD = 0.1
"""Seconds after which a transaction of many swaps is ended, done or not: others wait for the lock, with renewals."""


def swap(job: Job[Any], handle: Handle, clock: StoreClock, asked: Swap) -> Answer:
    """What begins or ends a term: put the request to its rule, and write the whole row with its history."""
    conn = handle.begin(synced=isinstance(asked, Claim))
    # Read only now: while we waited for the lock, time went on and others wrote.
    answer = _swapped(conn, asked, clock.total(), clock.wall(), clock.boot)
    if answer.applied:
        job.commit(handle)
    else:
        conn.execute("ROLLBACK")
    return answer


def swap_all(job: Job[Any], handle: Handle, clock: StoreClock, asked: Sequence[Swap]) -> list[Result]:
    """The same for each, in one transaction: for the first of them, as many as `HOLD` allows, and one at least. A
    damaged row, or one whose tokens are at their end, stops no other."""
    conn = handle.begin(synced=any(isinstance(one, Claim) for one in asked))
    now, wall, boot = clock.total(), clock.wall(), clock.boot
    answers: list[Result] = []
    until = time.monotonic() + HOLD
    for one in asked:
        if answers and time.monotonic() >= until:
            break
        try:
            answers.append(_swapped(conn, one, now, wall, boot))
        except StoreRefused as err:
            answers.append(Failure(unknown=False, detail=str(err), permanent=True))
        except sqlite3.IntegrityError as err:  # that statement is undone, the transaction goes on
            answers.append(Failure(unknown=False, detail=str(sort(err, handle.path)), permanent=True))
    if any(isinstance(one, Answer) and one.applied for one in answers):
        job.commit(handle)
    else:
        conn.execute("ROLLBACK")
    if len(answers) < len(asked):
        time.sleep(PAUSE[1])  # whoever waits for the lock looks at it once in that time
    return answers


def _swapped(conn: sqlite3.Connection, asked: Swap, now: float, wall: float, boot: str) -> Answer:
    row, history = schema.whole(conn, asked.role, now, boot)
    after = rules.claim(row, asked, wall) if isinstance(asked, Claim) else rules.release(row, asked, wall)
    if after is None:
        return Answer(False, row)
    history.close(*past.ended(row, asked, wall))
    if isinstance(asked, Claim):
        history.begin(past.begun(asked, after.token, wall))
    conn.execute(schema.PUT, schema.put_values(after, now, boot, history.text()))
    return Answer(True, after)


def renew(job: Job[Any], handle: Handle, clock: StoreClock, asked: Sequence[Renew]) -> list[Result]:
    """Put each renewal to its rule, and write what it changes. A damaged row is refused, and stops no other."""
    conn = handle.begin(synced=False)
    now, wall, boot = clock.total(), clock.wall(), clock.boot
    rows = {row[0]: _found(row, now, boot) for row in schema.select(conn, [one.role for one in asked])}
    answers: list[Result] = []
    changed: dict[str, Lease] = {}
    told: dict[str, str] = {}  # those whose info is another now
    for one in asked:
        row = rows.get(one.role) or Lease(one.role)
        if isinstance(row, Failure):
            answers.append(row)
            continue
        after = rules.renew(row, one, wall)
        if after is None:
            answers.append(Answer(False, row))
            continue
        if after.info is not row.info:
            told[one.role] = schema.text(after.info)
        rows[one.role] = changed[one.role] = after
        answers.append(Answer(True, after))
    if not changed:
        conn.execute("ROLLBACK")
        return answers
    conn.executemany(schema.CHANGE, [schema.change_values(after, now, boot) for after in changed.values()])
    if told:
        conn.executemany(schema.TELL, [(info, role) for role, info in told.items()])
    job.commit(handle)
    return answers


def _found(row: schema.Row, now: float, boot: str) -> Lease | Failure:
    try:
        return schema.lease(row, now, boot)
    except StoreRefused as err:
        return Failure(unknown=False, detail=str(err), permanent=True)


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
