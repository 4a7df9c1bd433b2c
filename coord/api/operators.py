"""What operators request for a role, as methods of `AsyncCoordinator`: a handover, an eviction, a
pause, and the deletion of roles that nobody needs."""

from __future__ import annotations

from coord.core import validation
from coord.core.lease import Lease
from coord.election import operators, retirement
from coord.election.session import HasSession
from coord.errors import BadArgument


class AsyncOperators:
    """The methods of `AsyncCoordinator`."""

    __slots__ = ()

    async def request_step_down(
        self: HasSession,
        role: str,
        *,
        by: str = "",
        cooldown: float | None = None,
        token: int | None = None,
    ) -> Lease:
        """Ask the leader of `role` to step down. Returns before it has done so.

        Args:
            role: The role.
            by: Who asks, for the history of the role; at most 200 bytes.
            cooldown: Seconds for which the leader is no candidate afterwards; None means its ttl.
            token: The fencing token of the term to end, if another term must not be ended; None
                means the present term.

        Returns:
            The lease of the leader that was asked.

        Raises:
            BadArgument: An argument is invalid, the role has slots or shards, or it is a slot or
                shard that does not exist.
            NotLeader: Nobody leads the role, or the term with this token is over.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        by, token = validation.requester(by), _checked(token)
        if cooldown is not None:
            cooldown = validation.number(cooldown, "cooldown", low=0)
        self.session.check_usable("ask the leader of", role)
        return await operators.request_handover(
            self.session, role, None, by, cooldown=cooldown, token=token
        )

    async def request_transfer(
        self: HasSession,
        role: str,
        to: str,
        *,
        by: str = "",
        hold: float | None = None,
        token: int | None = None,
    ) -> Lease:
        """Ask the leader of `role` to hand it to a candidate that waits. Returns before it has done
        so.

        Args:
            role: The role.
            to: The candidate: its id, the first four or more characters of its id, or the `name` or
                `id` in its info.
            by: Who asks, for the history of the role; at most 200 bytes.
            hold: Seconds for which the role is reserved for it, from 0.1 on; None means the
                `renew_every` of the leader, at most 1 second.
            token: The fencing token of the term to end, if another term must not be ended; None
                means the present term.

        Returns:
            The lease of the leader that was asked.

        Raises:
            BadArgument: An argument is invalid, `to` names no candidate that waits or several, or
                the role has slots or shards or is one of them, which cannot be transferred.
            NotLeader: Nobody leads the role, or the term with this token is over.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        by, hold = validation.requester(by), validation.hold(hold)
        to, token = validation.candidate_name(to), _checked(token)
        self.session.check_usable("ask the leader of", role)
        return await operators.request_handover(self.session, role, to, by, hold=hold, token=token)

    async def evict(
        self: HasSession, role: str, *, by: str = "", token: int | None = None
    ) -> Lease:
        """Take the lease away from the leader of `role`, which may hang. Returns when the store has
        done so.

        The store refuses the renewals of the leader from now on, so that it stops at its deadline
        or at its next renewal. The role passes to another candidate when the lease that the leader
        was granted has run out, and not earlier. Ask a leader that answers with `request_step_down`
        instead: the role then passes as soon as the work has ended.

        Args:
            role: The role.
            by: Who requests it, for the history of the role; at most 200 bytes.
            token: The fencing token of the term to end, if another term must not be ended; None
                means the present term.

        Returns:
            The lease that was taken away.

        Raises:
            BadArgument: An argument is invalid, the store cannot do that, the role has slots or
                shards, or it is a slot or shard that does not exist.
            NotLeader: Nobody leads the role, or the term with this token is over.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        token = _checked(token)
        role, by = validation.role(role), validation.requester(by)
        self.session.check_usable("evict the leader of", role)
        return await operators.evict(self.session, role, by, token)

    async def pause(
        self: HasSession,
        role: str,
        *,
        by: str = "",
        timeout: float | None = None,
        token: int | None = None,
    ) -> Lease | None:
        """Let nobody be elected for `role` until `resume`. Returns when the role is paused.

        The leader, if there is one, is asked to end its work and to release the role. If it does
        not do so in time, the store refuses its renewals from then on.

        Args:
            role: The role. It need not have had a leader.
            by: Who requests it, for the history and the status of the role; at most 200 bytes.
            timeout: Seconds that the leader may take to end its work; None means the ttl of its
                lease, and 0 means that it is not asked.
            token: The fencing token of the last term that you know of, if a later term must not be
                ended, and 0 if you know of none; None means any term.

        Returns:
            The lease of the leader, whose term has ended by this; None if nobody led.

        Raises:
            BadArgument: An argument is invalid, the store cannot do that, the role has slots or
                shards, or it is a slot or shard that does not exist.
            NotLeader: Somebody leads the role in a later term than that with this token.
            StoreUnavailable: The store did not answer within the timeout of the coordinator. Call
                it again: a role may be paused twice.
            StoreRefused: The store will go on refusing.
        """
        timeout, by = validation.timeout(timeout), validation.requester(by)
        token = _checked(token)
        self.session.check_usable("pause the role", validation.role(role))
        return await operators.pause(self.session, role, by, timeout, token)

    async def resume(self: HasSession, role: str, *, by: str = "") -> bool:
        """Let candidates be elected for `role` again, after `pause`.

        If the leader had not released the role when it was paused, its lease runs out first. If the
        leader was asked to release it by a `pause` that has not returned, this waits for one ttl at
        most until its work has ended.

        Args:
            role: The role.
            by: Who requests it; at most 200 bytes.

        Returns:
            Whether the role was paused.

        Raises:
            BadArgument: An argument is invalid, the store cannot do that, the role has slots or
                shards, or it is a slot or shard that does not exist.
            CoordError: The leader that was asked has not ended its work in time.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        role, by = validation.role(role), validation.requester(by)
        self.session.check_usable("resume the role", role)
        return await operators.resume(self.session, role, by)

    async def retire(self: HasSession, prefix: str = "", *, unused: float) -> list[str]:
        """Delete the rows of roles that nobody needs any longer.

        A role is retired if nobody holds it, nobody has led it for `unused` seconds, it is not
        paused, and it keeps no notes. Its history is deleted with it. Its tokens do not fall: if
        the role is claimed again, its token is above its last one.

        Args:
            prefix: What the names of the roles begin with; "" for all roles.
            unused: Seconds since the last term of the role, at least, by the clock of this machine
                and the times in the rows.

        Returns:
            The retired roles, sorted.

        Raises:
            BadArgument: An argument is invalid, or the store cannot do that.
            StoreUnavailable: The store did not answer in time. Roles may have been retired.
            StoreRefused: The store will go on refusing.
        """
        unused = validation.number(unused, "unused", low=0)
        if prefix:
            validation.role(prefix, "prefix")
        self.session.check_usable("retire roles")
        return await retirement.retire(self.session, prefix, unused)


def _checked(token: object) -> int | None:
    """Return the token of a term, or None.

    Raises:
        BadArgument: It is neither None nor an int of at least 0.
    """
    if token is None:
        return None
    if isinstance(token, bool) or not isinstance(token, int) or token < 0:
        raise BadArgument("token", token, "must be an int of at least 0, or None")
    return token
