"""What operators do to a role: ask for a handover, evict the leader, pause and resume the role.

An eviction and a pause are one compare-and-swap of the row that was read just before (rule 11).
They do not need the leader, so they also work on one that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from coord.core import validation
from coord.core.announcements import Candidate, HandoverRequest
from coord.core.lease import PAUSED, REVOKED, Lease, LossReason
from coord.core.operations import MAX_OVERRIDE_BEAT, Failure, Override
from coord.core.sharing import Parts, agreement_above, parts_of, with_agreements
from coord.election.session import Session
from coord.errors import (
    BadArgument,
    CoordError,
    NotLeader,
    OutcomeUnknown,
    StoreRefused,
    StoreUnavailable,
    command,
)
from coord.runtime.retry import rng
from coord.runtime.timers import within
from coord.stores.protocol import HasAnnouncements
from coord.stores.requests import overridable, send_override

MAX_SHOWN = 5
"""Names of shards that a message shows."""
POLL_EVERY = 1.0
"""Seconds between two reads, at most, while a leader ends its work: the feed is only a hint."""


async def role_row(session: Session, role: str, *, to_transfer: bool = False) -> Lease:
    """Return the row of a role that candidates are elected for; a vacant one if there is none.

    Args:
        session: The session to use.
        role: The role.
        to_transfer: Whether the role shall go to a candidate that the user names.

    Raises:
        BadArgument: The role has slots or shards, each of which is a role of its own; it is the
            name of a slot or shard that does not exist.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    names, above = with_agreements(validation.elected_role(role)), agreement_above(role)
    rows = await session.read(names if above is None else [*names, above])
    row = next((row for row in rows if row.role == role), Lease(role))
    group = next((Parts.of(row) for row in rows if row.role == above), None)
    # The holder of a slot or shard that was removed may hang, and a pause of it may be ended.
    if group is not None and not (row.led or row.paused):
        await _check_part(session, group, row)
    parts = parts_of(role, rows)
    if to_transfer and parts is not None:
        example = f"{parts.row}NAME" if parts.named else parts.role(0)
        raise BadArgument("role", role, _no_transfer(parts.kind, example))
    if parts is not None:
        allowed = f"must name one {parts.kind}, {parts}: each {parts.kind} is a role of its own"
        raise BadArgument("role", role, allowed)
    return row


async def find_successor(session: Session, role: str, to: str) -> Candidate:
    """Return the candidate that `to` names, for a transfer of the role to it.

    Raises:
        BadArgument: No candidate has that name, or several have it. Those that wait for a slot or a
            shard wait for any of them.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    try:
        return await session.find_candidate(role, to)
    except BadArgument as err:
        above = agreement_above(role)
        rows = [] if above is None else await session.read([above])
        group = next((Parts.of(row) for row in rows), None)
        if group is not None and group.has(role):
            raise BadArgument("role", role, _no_transfer(group.kind, role)) from None
        if group is not None and group.named:
            # Nobody can tell a shard with a name from a role like `orders/cleanup`.
            because = _no_transfer_because(group.kind, role)
            allowed = (
                f"{err.allowed}; if {role!r} is a {group.kind} of {group.whole!r}, it {because}"
            )
            raise BadArgument(err.argument, err.value, allowed) from None
        raise


async def _check_part(session: Session, group: Parts, row: Lease) -> None:
    """Raise `BadArgument` if `row` is that of a slot or shard of `group` that does not exist."""
    names = str(group) if group.lacks(row.role) else None
    if group.named and not row.token:
        # Members of the group claim each shard when they start, so that all have rows.
        there = [item.role for item in await session.read(None) if item.role != group.row]
        shards = sorted(name for name in there if agreement_above(name) == group.row)
        if len(shards) >= group.number:
            more = len(shards) - MAX_SHOWN
            names = ", ".join(map(repr, shards[:MAX_SHOWN]))
            names += f" and {more:,} more" if more > 0 else ""
            names += ", or a role of another purpose that has had a leader"
    if names is not None:
        allowed = f"must name a {group.kind} of {group.whole!r} that exists: {names}"
        raise BadArgument("role", row.role, allowed)


def _no_transfer(kind: str, example: str) -> str:
    """Return why a role with slots or shards, or one of these, such as `example`, cannot be
    transferred."""
    because = _no_transfer_because(kind, example)
    return f"must not be a {kind} or have {kind}s: a {kind} {because}"


def _no_transfer_because(kind: str, example: str) -> str:
    who = "nobody chooses who gets it" if kind == "slot" else "the group decides who gets it"
    return (
        f"cannot be transferred, because {who}; `{command('step-down', example)}` gives it to "
        "another candidate"
    )


async def request_handover(
    session: Session,
    role: str,
    to: str | None,
    by: str,
    *,
    cooldown: float | None = None,
    hold: float | None = None,
    token: int | None = None,
) -> Lease:
    """Ask the leader of `role` to hand it over, and return its lease.

    Args:
        session: The session to use.
        role: The role.
        to: What names the candidate that gets it; None means any candidate.
        by: Who requests it.
        cooldown: Seconds for which the leader is no candidate afterwards; None means its default.
        hold: Seconds for which the role is reserved for `to`; None means the default.
        token: The token of the term to end; None means the present term.

    Raises:
        BadArgument: `to` names no candidate that waits, or several; or the role has slots or
            shards, or is one that does not exist or cannot be transferred.
        NotLeader: Nobody leads the role, or that term is over.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    session.announcements  # noqa: B018 # raises if the store keeps none
    lease = await role_row(session, role, to_transfer=to is not None)
    if not lease.led:
        raise NotLeader(role, "nobody leads it")
    _check_term(lease, token)
    successor = None if to is None else (await find_successor(session, role, to)).id
    await _post(session, lease, successor, by, cooldown=cooldown, hold=hold)
    return lease


async def _post(
    session: Session,
    lease: Lease,
    to: str | None,
    by: str,
    *,
    cooldown: float | None = None,
    hold: float | None = None,
) -> None:
    key = f"request {rng.getrandbits(128):032x}"
    request = HandoverRequest(lease.role, lease.token, to, by, cooldown, key, hold)
    announcement = request.announcement(lease.ttl)
    await session.retry(lambda timeout: session.announcements.post([announcement], timeout))


async def evict(session: Session, role: str, by: str, token: int | None = None) -> Lease:
    """Take the lease away from the leader of `role`, and return that lease.

    Its renewals are refused from now on. The role passes to another candidate when the lease that
    the leader was granted has run out, and not earlier.

    Args:
        session: The session to use.
        role: The role.
        by: Who requests it.
        token: The token of the term to end; None means the present term.

    Raises:
        BadArgument: The store cannot do that, or the role has slots or shards.
        NotLeader: Nobody leads the role, or that term is over.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store refuses the request.
    """
    overridable(session.store)
    first = await role_row(session, role)
    if first.vacant or first.withheld:
        reason = "its lease was revoked already" if first.revoked else "nobody leads it"
        raise NotLeader(role, "the role is paused" if first.paused else reason)
    _check_term(first, token)
    term = (first.holder, first.token)

    def decide(row: Lease) -> Override | None:
        # Only this term: while the request was repeated, another candidate may have been elected.
        held = (row.holder, row.token) == term
        return _override(row, REVOKED, LossReason.EVICTED, by) if held else None

    await _swap(session, role, decide)
    return first


def _check_term(row: Lease, token: int | None) -> None:
    """Raise `NotLeader` if a term with another token is the present one. None is any token."""
    if token is None or row.token == token:
        return
    detail = f"its present term has token {row.token}, not {token}"
    if 0 < token < row.token:
        detail = f"the term with token {token} has ended, and another one has begun"
    raise NotLeader(row.role, detail)


async def pause(
    session: Session, role: str, by: str, timeout: float | None, token: int | None = None
) -> Lease | None:
    """Keep every candidate from `role` until `resume`.

    A leader is asked to end its work and to release the role. If it has not done so in time, its
    lease is taken away.

    Args:
        session: The session to use.
        role: The role.
        by: Who requests it.
        timeout: Seconds that the leader may take; None means the ttl of its lease.
        token: The token of the last term that the caller knows of; None means any.

    Returns:
        The lease of the leader, whose term has ended by this; None if nobody led.

    Raises:
        BadArgument: The store cannot do that, or the role has slots or shards.
        NotLeader: Another term than that has begun, and is not over.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store refuses the request.
    """
    overridable(session.store)
    led = await role_row(session, role)
    if led.led:
        _check_term(led, token)
    if led.led and (timeout is None or timeout > 0) and isinstance(session.store, HasAnnouncements):
        await _ask_to_pause(session, led, by, led.ttl if timeout is None else timeout)

    def decide(row: Lease) -> Override | None:
        if row.led:  # another leader may have been elected since the first look
            _check_term(row, token)
        # A leader that has released the role to nobody leaves beat 0: the row does not say yet who
        # paused it.
        paused = row.paused and row.beat > 0
        return None if paused else _override(row, PAUSED, LossReason.PAUSED, by)

    await _swap(session, role, decide)
    return led if led.led else None


async def resume(session: Session, role: str, by: str) -> bool:
    """Let candidates be elected for `role` again, and return whether it was paused.

    If a leader was in office when the role was paused, and did not release it, its lease runs out
    first. If a leader was asked to release the role to a pause, and still ends its work, this waits
    for that, for one ttl of its lease at most.

    Raises:
        BadArgument: The store cannot do that, or the role has slots or shards.
        CoordError: The leader did not end its work in time.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store refuses the request.
    """
    overridable(session.store)
    row = await role_row(session, role)
    if await pause_requested(session, row):
        row = await _until_term_ends(session, row, row.ttl)
        if await pause_requested(session, row):
            raise CoordError(
                f"cannot resume {role!r} yet: its leader was asked to release it, has not ended "
                f"its work, and leaves the role paused; try `{command('resume', role)}` again "
                "later, or stop the leader"
            )
    if not row.paused:
        return False

    def decide(row: Lease) -> Override | None:
        return _override(row, REVOKED, LossReason.EVICTED, by) if row.paused else None

    await _swap(session, role, decide)
    return True


async def pause_requested(session: Session, row: Lease) -> bool:
    """Return whether the leader in `row` was asked to release its role and leave it paused."""
    if not row.led or not isinstance(session.store, HasAnnouncements):
        return False
    store = session.announcements
    try:
        rows = await session.retry(lambda timeout: store.read([row.role], timeout))
    except StoreRefused:  # there is no table for announcements: nobody can be asked
        return False
    requests = (HandoverRequest.of(announcement) for announcement in rows)
    return any(
        request is not None and (request.token, request.to) == (row.token, PAUSED)
        for request in requests
    )


def paused_by(lease: Lease) -> str:
    """Return who paused a role and what to do, as the end of a sentence: "paused by …"."""
    by = f" by {lease.withheld_by}" if lease.withheld_by else ""
    return f"paused{by}; `{command('resume', lease.role)}` lets candidates be elected again"


def _override(row: Lease, holder: str, reason: LossReason, by: str) -> Override:
    beat = rng.randint(1, MAX_OVERRIDE_BEAT)
    info = {"by": by} if by else {}
    return Override(row.role, row.revision, holder, beat, info=info, reason=reason.value, by=by)


async def _row(session: Session, role: str) -> Lease:
    rows = await session.read([role])
    return rows[0] if rows else Lease(role)


async def _swap(session: Session, role: str, decide: Callable[[Lease], Override | None]) -> None:
    """Read the row and apply the override that `decide` returns, until it is applied, or until
    `decide` returns None: so it does if an override was applied whose answer was lost.
    """
    store, unknown = overridable(session.store), False

    async def attempt(timeout: float) -> None:
        nonlocal unknown
        until = asyncio.get_running_loop().time() + timeout
        while (remaining := until - asyncio.get_running_loop().time()) > 0:
            rows = await session.store.read([role], remaining)
            row = rows[0] if rows else Lease(role)
            override = decide(row)
            if override is None:
                return
            result = await send_override(store, override, remaining)
            if isinstance(result, Failure):
                unknown = unknown or result.unknown
                raise result.error()
            if result.applied:
                return
            # Somebody wrote in between, such as the leader its renewal.
        raise StoreUnavailable(f"the row of {role!r} changed again and again")

    session.check_usable(f"change the role {role!r}")
    try:
        await session.retry(attempt)
    except StoreUnavailable as err:
        if unknown:
            raise OutcomeUnknown(
                f"cannot say whether {role!r} was changed: {err}; look with "
                f"`{command('history', role)}` and `coord status --all`"
            ) from None
        raise


async def _ask_to_pause(session: Session, led: Lease, by: str, timeout: float) -> None:
    """Ask a leader to release its role to nobody, and wait until its term is over."""
    with contextlib.suppress(StoreRefused):  # there is no table: the leader cannot be asked
        await _post(session, led, PAUSED, by)
        await _until_term_ends(session, led, timeout)


async def _until_term_ends(session: Session, led: Lease, timeout: float) -> Lease:
    """Wait until the term in `led` is over, for `timeout` seconds at most, and return the row."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    changed = asyncio.Event()
    unsubscribe = session.subscribe(led.role, lambda _: changed.set())
    try:
        while True:
            changed.clear()
            row, remaining = await _row(session, led.role), until - loop.time()
            if (row.holder, row.token) != (led.holder, led.token) or remaining <= 0:
                return row
            with contextlib.suppress(asyncio.TimeoutError):
                await within(changed.wait(), min(remaining, POLL_EVERY))
    finally:
        unsubscribe()
