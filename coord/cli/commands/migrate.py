"""`coord migrate` carries the fencing tokens of all roles, and what they keep, to another store.

While it copies, the command itself leads every role at the source. So nobody else can be elected
there, and no token can be issued that the destination has not been told.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coord.cli import exit_codes, options, output
from coord.core import validation
from coord.core.kept import Kept
from coord.core.lease import Lease, LossReason
from coord.core.operations import Answer, Claim, Failure, Release
from coord.core.sharing import is_agreement
from coord.errors import (
    AcquireTimeout,
    BadArgument,
    CoordError,
    StoreRefused,
    StoreUnavailable,
    command,
    with_message,
)
from coord.stores import urls
from coord.stores.protocol import HasKept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coord.api.coordinator import AsyncCoordinator
    from coord.api.leadership import AsyncLeadership

TTL = 15.0
"""Duration in seconds of the leases that the command takes."""
RETRY_EVERY = 0.25
"""Seconds between two attempts of something that the store or a leader is not ready for."""
AT_ONCE = 100
"""Roles that are read or written at the same time."""
STOP_THEM = "stop their processes, or take the roles over with --hold"
MAX_NAMED = 5
"""Roles that a message names."""
T = TypeVar("T")


class SomebodyLeads(CoordError):
    """A role has a leader where it must have none."""

    def __init__(self, leases: Sequence[Lease], url: str, advice: str) -> None:
        named = "; ".join(
            f"{output.quote(lease.role)}: {output.describe_candidate(lease.holder, lease.info)}"
            for lease in leases[:MAX_NAMED]
        )
        more = f"; and {len(leases) - MAX_NAMED} more" if len(leases) > MAX_NAMED else ""
        super().__init__(f"cannot migrate: {url} has leaders ({named}{more}); {advice}")


@dataclass(frozen=True)
class Carried:
    """One role after it was carried over.

    Attributes:
        role: The role.
        source: The greatest token that the source issued for it.
        destination: The token of the role at the destination; later ones are greater.
    """

    role: str
    source: int
    destination: int


@click.command(
    epilog=exit_codes.help_of(
        {
            exit_codes.FAILED: "nothing was carried over: a role has a leader",
            exit_codes.TIMED_OUT: "a role did not become free before --timeout",
            exit_codes.LOST: "a role was lost at the source; another candidate may lead it there",
        }
    )
)
@click.option("--from", "source", required=True, metavar="URL", help="The store to move from.")
@click.option("--to", "destination", required=True, metavar="URL", help="The store to move to.")
@click.option(
    "--role",
    "names",
    multiple=True,
    help="A role that the old store has no row of, because it was retired or is new. May be "
    "repeated.",
)
@click.option(
    "--hold",
    is_flag=True,
    help="Take over the roles from their leaders, and keep them at the source until you press "
    "Ctrl-C. Until then restart your processes with the new URL, one after another.",
)
@click.option(
    "--timeout",
    type=float,
    default=120.0,
    show_default=True,
    help="Maximum time in seconds to get and to copy all roles.",
)
@options.as_json
def migrate(
    source: str,
    destination: str,
    names: tuple[str, ...],
    hold: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Carry the fencing tokens of all roles, and what they keep, to another store.

    Every token that the new store issues is then greater than all tokens of the old store. Set up
    the new store first, with coord init. Stop all processes that use the old one, or use --hold.
    """
    validation.number(timeout, "--timeout", low=0)
    for name in names:
        validation.role(name, "--role")
    for name, url in (("--from", source), ("--to", destination)):
        if url.startswith("memory:"):
            raise BadArgument(name, url, "must not be a store in memory: it ends with its process")
        try:
            urls.open_url(urls.resolve(url))
        except BadArgument as err:
            raise BadArgument(name, err.value, err.allowed) from None
    asyncio.run(_migrate(source, destination, names, hold=hold, timeout=timeout, as_json=as_json))


async def _migrate(
    source_url: str,
    destination_url: str,
    names: Sequence[str],
    *,
    hold: bool,
    timeout: float,
    as_json: bool,
) -> None:
    from coord.api.coordinator import AsyncCoordinator

    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows
        for sign in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with AsyncCoordinator(source_url) as source, AsyncCoordinator(destination_url) as to:
        migration = Migration(source, to, timeout)
        try:
            carried = await _unless(stop, migration.run(names, hold))
            if carried is None:
                click.echo(
                    f"coord: interrupted: {to.url} may have the tokens of some roles already; "
                    "run the command again for the others",
                    err=True,
                )
                sys.exit(exit_codes.INTERRUPTED)
            if not migration.lost:
                _print(carried, source.url, to.url, hold=hold, as_json=as_json)
                if hold and carried:
                    await _unless(stop, migration.until_lost())
            if migration.lost:
                click.echo(f"coord: {_lost(migration.lost, source.url)}", err=True)
                sys.exit(exit_codes.LOST)
        finally:
            await migration.end()


class Migration:
    """One run of the command, between two open coordinators."""

    def __init__(
        self, source: AsyncCoordinator, destination: AsyncCoordinator, timeout: float
    ) -> None:
        self._source, self._destination = source, destination
        self._timeout, self._deadline = timeout, asyncio.get_running_loop().time() + timeout
        self._held: dict[str, AsyncLeadership] = {}
        self._paused: dict[str, int] = {}
        """The tokens of the roles that are paused at the source: nobody is elected there anyway."""
        self.lost: list[str] = []
        """The roles that the source may have given to somebody else meanwhile."""
        self._loss = asyncio.Event()

    async def run(self, names: Sequence[str], hold: bool) -> list[Carried]:
        """Carry every role over, and go on leading all of them at the source.

        Args:
            names: Roles that the source may have no row of: what it would issue next counts.
            hold: Whether leaders at the source are asked for their roles.

        Raises:
            SomebodyLeads: A role has a leader at the destination, or at the source without `hold`.
            AcquireTimeout: A role did not become free in time.
            StoreRefused: The destination cannot keep what a role keeps at the source.
        """
        leases = await _leases(self._source, None)  # before anything creates a file
        await self._destination.check()
        roles = sorted({*names, *(lease.role for lease in leases)})
        led = [lease for lease in leases if lease.led]
        if led and not hold:
            raise SomebodyLeads(led, self._source.url, STOP_THEM)
        await self._check_destination(roles)
        self._paused = {lease.role: lease.token for lease in leases if lease.paused}
        await self._lead([role for role in roles if role not in self._paused], hold)
        await _each(self._paused, self._outlast_leader)
        await self._check_destination(roles)
        kept = await self._kept(roles)
        carried = await _each(roles, lambda role: self._carry(role, kept.get(role, "")))
        still = {lease.role for lease in await _leases(self._source, self._paused) if lease.paused}
        self.lost += [role for role in self._paused if role not in still]
        return carried

    async def until_lost(self) -> None:
        """Wait until a role is lost at the source."""
        await self._loss.wait()

    async def end(self) -> None:
        """Give the roles at the source back."""
        await asyncio.gather(*(lead.stop() for lead in self._held.values()))

    async def _check_destination(self, roles: Collection[str]) -> None:
        leases = await _leases(self._destination, roles)
        for lease in leases:
            if lease.paused:
                raise StoreRefused(
                    f"cannot migrate: {output.quote(lease.role)} is paused at "
                    f"{self._destination.url}; run `{command('resume', lease.role)}` there first"
                )
        led = [lease for lease in leases if lease.led]
        candidates = {lead.candidate for lead in self._held.values()}
        if any(lease.holder in candidates for lease in led):
            raise BadArgument("--to", self._destination.url, "must be another store than --from")
        if led:
            advice = "stop their processes, because they do not know the tokens of the source"
            raise SomebodyLeads(led, self._destination.url, advice)

    async def _lead(self, roles: Collection[str], hold: bool) -> None:
        """Get every role at the source, from its leader if it has one and `hold` is set."""
        for role in roles:
            self._held[role] = self._source.leadership(role, ttl=TTL, info=_info())
            self._held[role].on_lost(functools.partial(self._on_lost, role))
        await _each(roles, lambda role: self._acquire(role, hold))

    async def _outlast_leader(self, role: str) -> None:
        """Wait until nobody can lead a paused role any longer: its leader may not have released it,
        and believes until its lease has run out."""
        held = await self._source.session.held(role)
        seconds = 0.0 if held is None else held[1]
        if seconds > self._left():
            raise AcquireTimeout(role, self._timeout, "the lease before the pause has not run out")
        await asyncio.sleep(seconds)

    def _on_lost(self, role: str, _term: Any, reason: LossReason) -> None:
        if reason is not LossReason.RELEASED:
            self.lost.append(role)
            self._loss.set()

    async def _acquire(self, role: str, hold: bool) -> None:
        lead, problem = self._held[role], ""
        await lead.first_outcome(self._left())
        while not await lead.wait(min(RETRY_EVERY, self._left())):
            if not self._left():
                raise AcquireTimeout(role, self._timeout, problem)
            led = [lease for lease in await _leases(self._source, [role]) if lease.led]
            if led and not hold:  # somebody was elected a moment ago
                raise SomebodyLeads(led, self._source.url, STOP_THEM)
            if not led or lead.candidate is None or led[0].holder == lead.candidate:
                continue
            try:
                await self._source.request_transfer(role, lead.candidate, by=_info()["by"])
                await lead.wait(min(led[0].ttl, self._left()))
            except CoordError as err:  # this candidate is not listed yet
                problem = str(err)

    async def _kept(self, roles: Collection[str]) -> dict[str, str]:
        """Return what the roles keep at the source, without empty texts."""
        store = self._source.store
        if not isinstance(store, HasKept):
            return {}
        texts: dict[str, str] = {}

        async def read(role: str) -> None:
            kept: Kept = await self._source.session.retry(lambda timeout: store.kept(role, timeout))
            if kept.text:
                texts[role] = kept.text

        await _each(roles, read)
        if texts and not isinstance(self._destination.store, HasKept):
            role = output.quote(min(texts))
            raise StoreRefused(
                f"cannot migrate: {self._destination.url} cannot keep notes and ticks, and {role} "
                "has some; move to another kind of store"
            )
        return texts

    async def _carry(self, role: str, text: str) -> Carried:
        """Make the destination issue a greater token than the source, and keep the same text."""
        from coord.election.candidate_options import new_candidate_id

        # A role that was paused before anybody led it has token 0.
        token = self._paused[role] if role in self._paused else self._held[role].term.token
        (row,) = await _leases(self._destination, [role]) or (Lease(role),)
        if not row.vacant:  # its leader has died: an election finds out when the lease is free
            lead = self._destination.leadership(role, ttl=TTL, token_floor=token)
            await lead.acquire(timeout=self._left())
            await lead.stop()
        submit, holder, beat = self._destination.session.submit, new_candidate_id(), 0
        last = ""
        while self._left():
            claim = Claim(role, holder, beat + 1, TTL, floor=token, info=_info())
            claimed = await submit(claim, self._destination.session.timeout)
            beat += 2
            if isinstance(claimed, Answer) and claimed.applied:
                issued = claimed.lease.token
                release = Release(role, holder, issued, beat, keep=text or None)
                released = await submit(release, self._destination.session.timeout)
                if isinstance(released, Answer) and released.applied:
                    return Carried(role, token, issued)
                claimed = released
            if isinstance(claimed, Failure):
                if claimed.refusal is not None:
                    detail = f"cannot migrate {output.quote(role)}: {claimed.detail}"
                    raise with_message(claimed.refusal, detail)
                last = claimed.detail
            elif claimed.lease.led and claimed.lease.holder != holder:
                raise SomebodyLeads([claimed.lease], self._destination.url, "stop their processes")
            await asyncio.sleep(RETRY_EVERY)
        raise StoreUnavailable(
            f"cannot migrate {output.quote(role)}: {self._destination.url} took no claim in time"
            f"{last and ': '}{last}"
        )

    def _left(self) -> float:
        """Return the seconds until the timeout; 0 after it."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())


async def _leases(where: AsyncCoordinator, roles: Collection[str] | None) -> list[Lease]:
    rows = await where.session.read(roles)
    # The first member at the destination writes what a group agrees on.
    return [row for row in rows if not is_agreement(row)]


async def _each(roles: Iterable[str], do: Callable[[str], Awaitable[T]]) -> list[T]:
    """Do something for each role, for a bounded number of them at the same time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def role_task(role: str) -> T:
        async with room:
            return await do(role)

    return await asyncio.gather(*map(role_task, roles))


async def _unless(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Return the result of `work`; None if `stop` was set before, and `work` was cancelled."""
    stopped, task = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(work)
    try:
        await asyncio.wait((stopped, task), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for pending in (stopped, task):
            pending.cancel()
        await asyncio.gather(stopped, task, return_exceptions=True)


def _info() -> Mapping[str, str]:
    return {"name": "coord migrate", "by": options.current_user()}


def _lost(roles: Sequence[str], url: str) -> str:
    named = ", ".join(map(output.quote, roles[:MAX_NAMED]))
    return (
        f"lost {named} at {url}: a process with the old URL may be elected there; "
        "stop such processes, and migrate again"
    )


def _print(carried: Sequence[Carried], source: str, to: str, *, hold: bool, as_json: bool) -> None:
    if as_json:
        roles = {entry.role: {"from": entry.source, "to": entry.destination} for entry in carried}
        click.echo(output.to_json({"from": source, "to": to, "roles": roles}))
        sys.stdout.flush()
        return
    if not carried:
        click.echo(f"there is no role on {source}: nothing to carry over")
        return
    output.print_table(
        ("role", f"last token on {source}", f"now on {to}"),
        [(entry.role, entry.source, entry.destination) for entry in carried],
    )
    number = f"carried {len(carried)} role{'s' * (len(carried) != 1)} over"
    if hold:
        click.echo(
            f"{number}; restart your processes with the new URL now, and press "
            f"Ctrl-C after the last one: until then nobody is elected on {source}"
        )
    else:
        click.echo(f"{number}; start your processes with the new URL, and none with the old one")
    sys.stdout.flush()
