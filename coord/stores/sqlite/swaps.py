"""Renewals where every row is as its holder left it, which they nearly always are: written without
being read.

One UPDATE for some hundred rows, not one for each. Quicker by a third; and before and after each
statement a thread has to get the interpreter's lock, which takes 5 ms where another one computes: a
thousand statements, five seconds."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Union

from coord.core import history as term_history
from coord.core import swaps
from coord.core.history import PastTerm, parse
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.errors import StoreRefused
from coord.runtime.clock import StoreClock
from coord.stores.sqlite import schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import classify
from coord.stores.sqlite.worker import BUSY_RETRY_DELAY, Job

SIZES = (4, 16, 64, 256)
"""Rows to a statement: few texts, so that SQLite has parsed them all before long. What is missing
is filled up."""
AVAILABLE = sqlite3.sqlite_version_info >= (3, 33)
"""UPDATE … FROM (sqlite.org/lang_update.html)."""
_NOBODY = (None,) * 5
# Neither a ttl nor a time gets less: where one would, the row is not changed here.
_ONE = """UPDATE coord_leases SET beat = ?, renewed_at = ?, runs_out = ? + ttl
    WHERE role = ? AND holder = ? AND token = ? AND beat < ? AND ttl = ?
    AND renewed_at <= ? AND runs_out <= ? + ttl AND boot_id = ?"""
_MANY = """UPDATE coord_leases SET beat = asked.column4, renewed_at = ?, runs_out = ? + ttl FROM (VALUES (?)) AS asked
    WHERE role = asked.column1 AND holder = asked.column2 AND token = asked.column3 AND beat < asked.column4
    AND ttl = asked.column5 AND renewed_at <= ? AND runs_out <= ? + ttl AND boot_id = ?"""


def renew_many(
    job: Job[Any], handle: Connection, clock: StoreClock, asked: Sequence[Renew]
) -> list[Result]:
    """rules.renew for each, in one transaction. Where the quick way changed them all, what the rows
    say of their holders is not in the answers; where it did not, it is undone, and each is asked
    for itself."""
    if AVAILABLE and all(one.info is None for one in asked):
        conn = handle.begin(synced=False)
        now, wall = clock.total(), clock.wall()
        if _renewed(conn, asked, now, wall, clock.boot) == len(asked):
            answers: list[Result] = [
                Answer(True, row) for row in swaps.unchanged_but_renewed(asked, wall)
            ]
            job.commit(handle)
            return answers
        conn.execute("ROLLBACK")
    return renew(job, handle, clock, asked)


def _renewed(
    conn: sqlite3.Connection, asked: Sequence[Renew], now: float, wall: float, boot: str
) -> int:
    """How many rows were as they were left, and are renewed now."""
    if len(asked) == 1:
        (one,) = asked
        values = (
            one.beat,
            wall,
            now,
            one.role,
            one.holder,
            one.token,
            one.beat,
            one.ttl,
            wall,
            now,
            boot,
        )
        return conn.execute(_ONE, values).rowcount
    count = 0
    for start in range(0, len(asked), SIZES[-1]):
        some = asked[start : start + SIZES[-1]]
        size = next(size for size in SIZES if size >= len(some))
        marks: list[object] = [wall, now]
        for one in some:
            marks += (one.role, one.holder, one.token, one.beat, one.ttl)
        marks += _NOBODY * (size - len(some))
        marks += (wall, now, boot)
        count += conn.execute(_update(size), marks).rowcount
    return count


@lru_cache(maxsize=len(SIZES))
def _update(size: int) -> str:
    return _MANY.replace("(?)", ",".join(["(?,?,?,?,?)"] * size))


# -- The work itself: compare-and-swap of rows in one transaction, and reading them.

Swap = Union[Claim, Release]
MAX_TRANSACTION = 0.1
"""Seconds after which a transaction of many swaps is ended, done or not: others wait for the lock,
with renewals."""


def swap(job: Job[Any], handle: Connection, clock: StoreClock, asked: Swap) -> Answer:
    """What begins or ends a term: put the request to its rule, and write the whole row with its
    history."""
    conn = handle.begin(synced=isinstance(asked, Claim))
    # Read only now: while we waited for the lock, time went on and others wrote.
    answer = _swapped(conn, asked, clock.total(), clock.wall(), clock.boot)
    if answer.applied:
        job.commit(handle)
    else:
        conn.execute("ROLLBACK")
    return answer


def swap_all(
    job: Job[Any], handle: Connection, clock: StoreClock, asked: Sequence[Swap]
) -> list[Result]:
    """The same for each, in one transaction: for the first of them, as many as `HOLD` allows, and
    one at least. A damaged row, or one whose tokens are at their end, stops no other."""
    conn = handle.begin(synced=any(isinstance(one, Claim) for one in asked))
    now, wall, boot = clock.total(), clock.wall(), clock.boot
    answers: list[Result] = []
    until = time.monotonic() + MAX_TRANSACTION
    for one in asked:
        if answers and time.monotonic() >= until:
            break
        try:
            answers.append(_swapped(conn, one, now, wall, boot))
        except StoreRefused as err:
            answers.append(Failure(unknown=False, detail=str(err), permanent=True))
        except sqlite3.IntegrityError as err:  # that statement is undone, the transaction goes on
            answers.append(
                Failure(unknown=False, detail=str(classify(err, handle.path)), permanent=True)
            )
    if any(isinstance(one, Answer) and one.applied for one in answers):
        job.commit(handle)
    else:
        conn.execute("ROLLBACK")
    if len(answers) < len(asked):
        time.sleep(BUSY_RETRY_DELAY[1])  # whoever waits for the lock looks at it once in that time
    return answers


def _swapped(conn: sqlite3.Connection, asked: Swap, now: float, wall: float, boot: str) -> Answer:
    row, history = schema.whole(conn, asked.role, now, boot)
    after = (
        swaps.claim(row, asked, wall)
        if isinstance(asked, Claim)
        else swaps.release(row, asked, wall)
    )
    if after is None:
        return Answer(False, row)
    history.close(*term_history.end_of_term(row, asked, wall))
    if isinstance(asked, Claim):
        history.begin(term_history.new_entry(asked, after.token, wall))
    conn.execute(schema.PUT, schema.put_values(after, now, boot, history.text()))
    return Answer(True, after)


def renew(
    job: Job[Any], handle: Connection, clock: StoreClock, asked: Sequence[Renew]
) -> list[Result]:
    """Put each renewal to its rule, and write what it changes. A damaged row is refused, and stops
    no other."""
    conn = handle.begin(synced=False)
    now, wall, boot = clock.total(), clock.wall(), clock.boot
    rows = {
        row[0]: _found(row, now, boot) for row in schema.select(conn, [one.role for one in asked])
    }
    answers: list[Result] = []
    changed: dict[str, Lease] = {}
    told: dict[str, str] = {}  # those whose info is another now
    for one in asked:
        row = rows.get(one.role) or Lease(one.role)
        if isinstance(row, Failure):
            answers.append(row)
            continue
        after = swaps.renew(row, one, wall)
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
    conn.executemany(
        schema.RENEW, [schema.change_values(after, now, boot) for after in changed.values()]
    )
    if told:
        conn.executemany(schema.SET_INFO, [(info, role) for role, info in told.items()])
    job.commit(handle)
    return answers


def _found(row: schema.Row, now: float, boot: str) -> Lease | Failure:
    try:
        return schema.lease(row, now, boot)
    except StoreRefused as err:
        return Failure(unknown=False, detail=str(err), permanent=True)


def read(handle: Connection, clock: StoreClock, roles: Collection[str] | None) -> list[Lease]:
    """The rows as last committed."""
    handle.connection()
    handle.check_place()
    rows = schema.select(handle.connection(), roles)
    now = clock.total()
    return [schema.lease(row, now, clock.boot) for row in rows]


def history(handle: Connection, roles: Collection[str] | None) -> list[PastTerm]:
    """The terms of the roles, as last committed."""
    handle.connection()
    handle.check_place()
    return [
        term
        for role, said in schema.past(handle.connection(), roles)
        for term in parse(role, said.all())
    ]
