"""The work on leases: compare-and-swap of rows in one transaction, and reading them.

Renewals nearly always find every row as its holder left it. They are tried first without reading
the rows, with one UPDATE for some hundred rows instead of one for each. That is faster by a third.
A thread also has to get the interpreter's lock before and after each statement, which takes
5 ms while another thread computes: five seconds for a thousand statements.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Union

from coord.core import history as term_history
from coord.core import swaps
from coord.core.history import PastTerm, parse
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Override, Release, Renew, Result, Retire
from coord.errors import StoreRefused
from coord.stores.sqlite import schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import Busy, classify
from coord.stores.sqlite.lease_clock import LeaseClock
from coord.stores.sqlite.worker import Job

STATEMENT_SIZES = (4, 16, 64, 256)
"""Rows for one UPDATE. There are few sizes so that SQLite soon has all statements prepared; a batch
between two sizes is filled up with `_NOBODY`."""
AVAILABLE = sqlite3.sqlite_version_info >= (3, 33)
"""Whether this SQLite has UPDATE … FROM (sqlite.org/lang_update.html)."""
MAX_TRANSACTION = 0.1
"""Time in seconds after which a transaction of many swaps is ended, even if some remain: other
processes wait for the lock, with renewals."""

Swap = Union[Claim, Override, Release]

_NOBODY = (None,) * 5
# The conditions keep a ttl or a time from decreasing: `renew` handles such a row.
_ONE = """UPDATE coord_leases SET beat = ?, renewed_at = ?, runs_out = ? + ttl
    WHERE role = ? AND holder = ? AND token = ? AND beat < ? AND ttl = ?
    AND renewed_at <= ? AND runs_out <= ? + ttl AND clock = ?"""
_MANY = """UPDATE coord_leases SET beat = new.column4, renewed_at = ?, runs_out = ? + ttl
    FROM (VALUES (?)) AS new
    WHERE role = new.column1 AND holder = new.column2 AND token = new.column3
    AND beat < new.column4 AND ttl = new.column5
    AND renewed_at <= ? AND runs_out <= ? + ttl AND clock = ?"""


def renew_many(
    job: Job[Any], connection: Connection, clock: LeaseClock, renewals: Sequence[Renew]
) -> list[Result]:
    """Renew leases in one transaction; each renewal is for another role.

    If all rows were as their holders left them, the results do not carry the rows' `info` and
    `since`. Otherwise the fast way is rolled back, and `renew` does the work.
    """
    if AVAILABLE and all(item.info is None and item.keep is None for item in renewals):
        conn = connection.begin(synced=False)
        now, wall = clock.read()
        if _renew_unread(conn, renewals, now, wall, clock.stamp()) == len(renewals):
            results: list[Result] = [
                Answer(True, lease) for lease in swaps.unchanged_but_renewed(renewals, wall)
            ]
            job.commit(connection)
            return results
        conn.execute("ROLLBACK")
    return renew(job, connection, clock, renewals)


def _renew_unread(
    conn: sqlite3.Connection, renewals: Sequence[Renew], now: float, wall: float, stamp: str
) -> int:
    """Renew the rows that are as their holders left them, and return how many they were."""
    if len(renewals) == 1:
        (only,) = renewals
        identity = (only.role, only.holder, only.token, only.beat, only.ttl)
        return conn.execute(_ONE, (only.beat, wall, now, *identity, wall, now, stamp)).rowcount
    count = 0
    for start in range(0, len(renewals), STATEMENT_SIZES[-1]):
        part = renewals[start : start + STATEMENT_SIZES[-1]]
        size = next(size for size in STATEMENT_SIZES if size >= len(part))
        parameters: list[object] = [wall, now]
        for renewal in part:
            parameters += (
                renewal.role,
                renewal.holder,
                renewal.token,
                renewal.beat,
                renewal.ttl,
            )
        parameters += _NOBODY * (size - len(part))
        parameters += (wall, now, stamp)
        count += conn.execute(_update_statement(size), parameters).rowcount
    return count


@lru_cache(maxsize=len(STATEMENT_SIZES))
def _update_statement(size: int) -> str:
    return _MANY.replace("(?)", ",".join(["(?,?,?,?,?)"] * size))


def swap(job: Job[Any], connection: Connection, clock: LeaseClock, operation: Swap) -> Answer:
    """Apply one claim, override or release, and write the whole row with its history.

    Raises:
        StoreRefused: The row is damaged.
    """
    may_create = not isinstance(operation, Release)
    conn = connection.begin(synced=_must_be_synced(operation), create=may_create)
    # The clock is read only now: while this thread waited for the lock, time passed and others
    # wrote.
    answer = _apply(conn, operation, *clock.read(), clock)
    if answer.applied:
        job.commit(connection)
    else:
        conn.execute("ROLLBACK")
    return answer


def swap_all(
    job: Job[Any], connection: Connection, clock: LeaseClock, operations: Sequence[Swap]
) -> list[Result]:
    """Apply claims and releases in one transaction.

    It ends after `MAX_TRANSACTION` seconds. The results are those of the first operations, of at
    least one. A damaged row, or one whose tokens are used up, does not keep the others from being
    applied.
    """
    claims = any(isinstance(item, Claim) for item in operations)
    conn = connection.begin(synced=any(map(_must_be_synced, operations)), create=claims)
    now, wall = clock.read()
    results: list[Result] = []
    deadline = time.monotonic() + MAX_TRANSACTION
    for operation in operations:
        if results and time.monotonic() >= deadline:
            break
        try:
            results.append(_apply(conn, operation, now, wall, clock))
        except StoreRefused as err:
            results.append(Failure.of_refusal(err))
        except sqlite3.IntegrityError as err:
            # SQLite undoes this statement only, and the transaction continues.
            detail = str(classify(err, connection.path))
            results.append(Failure(unknown=False, detail=detail, refusal=StoreRefused))
    if any(isinstance(result, Answer) and result.applied for result in results):
        job.commit(connection)
    else:
        conn.execute("ROLLBACK")
    if len(results) < len(operations):
        time.sleep(Busy.pause[1])  # who waits for the lock tries once within this time
    return results


def _must_be_synced(operation: Swap | Renew) -> bool:
    """Return whether a power failure must not undo it.

    It gives a token, it keeps a text, or it is the order of an operator.
    """
    return isinstance(operation, (Claim, Override)) or operation.keep is not None


def _apply(
    conn: sqlite3.Connection, operation: Swap, now: float, wall: float, clock: LeaseClock
) -> Answer:
    lease, history = schema.read_row(conn, operation.role, now, clock)
    if isinstance(operation, Claim):
        after = swaps.claim(lease, operation, wall)
    elif isinstance(operation, Override):
        after = swaps.override(lease, operation, wall)
    else:
        after = swaps.release(lease, operation, wall)
    if after is None:
        return Answer(False, lease)
    # A role without a row has no token yet; only a row of token 0 may be absent.
    if lease.token == 0 and not isinstance(operation, Release):
        after = swaps.born(after, operation, schema.select_floor(conn, operation.role))
    history.close(*term_history.end_of_term(lease, operation, wall))
    if isinstance(operation, Claim):
        history.begin(term_history.new_entry(operation, after.token, wall))
    conn.execute(schema.PUT, schema.row_values(after, now, clock.stamp(), history.text()))
    if isinstance(operation, Release) and operation.keep is not None:
        conn.execute(schema.SET_KEPT, (operation.keep, operation.role))
    return Answer(True, after)


def retire(
    job: Job[Any], connection: Connection, clock: LeaseClock, requests: Sequence[Retire]
) -> list[bool]:
    """Delete rows that nobody needs, and raise the floors to their tokens, in one transaction.

    Raises:
        StoreRefused: A row is damaged.
    """
    conn = connection.begin(synced=True)
    results = []
    for request in requests:
        lease, _ = schema.read_row(conn, request.role, clock.total(), clock)
        text = schema.select_kept(conn, request.role).text
        deletes = schema.has_row(conn, request.role) and swaps.retire(lease, request, text)
        if deletes:
            conn.execute(schema.RAISE_FLOOR, (request.prefix, lease.token))
            conn.execute(schema.DELETE, (request.role,))
        results.append(deletes)
    job.commit(connection)
    return results


def renew(
    job: Job[Any], connection: Connection, clock: LeaseClock, renewals: Sequence[Renew]
) -> list[Result]:
    """Read the rows, apply each renewal to its row, and write what changed.

    A damaged row is refused, and does not keep the others from being renewed.
    """
    conn = connection.begin(synced=any(map(_must_be_synced, renewals)))
    (now, wall), stamp = clock.read(), clock.stamp()
    rows = schema.select_leases(conn, [renewal.role for renewal in renewals])
    leases = {row[0]: _decode(row, now, clock) for row in rows}
    results: list[Result] = []
    changed: dict[str, Lease] = {}
    new_infos: dict[str, str] = {}
    new_texts: dict[str, str] = {}
    for renewal in renewals:
        lease = leases.get(renewal.role) or Lease(renewal.role)
        if isinstance(lease, Failure):
            results.append(lease)
            continue
        after = swaps.renew(lease, renewal, wall)
        if after is None:
            results.append(Answer(False, lease))
            continue
        if renewal.info is not None:
            new_infos[renewal.role] = schema.encode_info(renewal.info)
        if renewal.keep is not None:
            new_texts[renewal.role] = renewal.keep
        leases[renewal.role] = changed[renewal.role] = after
        results.append(Answer(True, after))
    if not changed:
        conn.execute("ROLLBACK")
        return results
    conn.executemany(
        schema.RENEW, [schema.renewal_values(after, now, stamp) for after in changed.values()]
    )
    if new_infos:
        conn.executemany(schema.SET_INFO, [(info, role) for role, info in new_infos.items()])
    if new_texts:
        conn.executemany(schema.SET_KEPT, [(text, role) for role, text in new_texts.items()])
    job.commit(connection)
    return results


def _decode(row: schema.Row, now: float, clock: LeaseClock) -> Lease | Failure:
    try:
        return schema.decode_lease(row, now, clock)
    except StoreRefused as err:
        return Failure.of_refusal(err)


def read(connection: Connection, clock: LeaseClock, roles: Collection[str] | None) -> list[Lease]:
    """Return the leases of these roles (None: of every role), as last committed.

    One damaged row is refused where its role is named. It does not stop a look at all roles.
    """
    conn = connection.sqlite()
    connection.check_file()
    rows = schema.select_leases(conn, roles)
    now = clock.total()
    if roles is None:
        readable = schema.decode_readable(rows, now, clock, connection.path)
        return [lease for _, lease in readable]
    return [schema.decode_lease(row, now, clock) for row in rows]


def kept(connection: Connection, role: str) -> Kept:
    """Return the text that a role keeps, as last committed."""
    conn = connection.sqlite()
    connection.check_file()
    return schema.select_kept(conn, role)


def history(connection: Connection, roles: Collection[str] | None) -> list[PastTerm]:
    """Return the past terms of these roles (None: of every role), as last committed."""
    conn = connection.sqlite()
    connection.check_file()
    return [
        term
        for role, entries in schema.select_histories(conn, roles)
        for term in parse(role, entries.all())
    ]
