"""`coord.unique_service`: claim a role by calls, on the default coordinator.

The coordinator is imported by the first call, so a program that is only asked for its `--help` does
not pay for asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.api.sync_coordinator import Coordinator


def unique_service(role: str, candidate: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Claim or renew `role` for `candidate`, and return the record of the current holder.

    It uses the default coordinator of this process: for the URL in `COORD_URL`, or without that for
    the SQLite file in the state directory of the user. Call it again within every ttl, for instance
    on each pass of a loop. The role is given back by `coord.release`, and at the end of the
    process. `AsyncCoordinator.unique_service` is the async form.

    Args:
        role: The role.
        candidate: A dict with at least `ttl`, in seconds, and usually an `id`. See
            `Coordinator.unique_service`. None means: only look up the holder.

    Returns:
        The record of the holder, with `mine` (whether the candidate of this call is the leader) and
        the fencing `token`. None if nobody holds the role, and the candidate cannot get it now.

    Raises:
        BadArgument: The role or the candidate is invalid.
        StoreUnavailable: The store did not answer. The claim may or may not have succeeded.
        StoreRefused: The store will go on refusing.
    """
    return _coordinator().unique_service(role, candidate)


def release(role: str, candidate: Mapping[str, Any] | None = None) -> bool:
    """Give `role` back, if a candidate of `coord.unique_service` in this process holds it.

    Args:
        role: The role.
        candidate: The candidate that gives the role back; None means every candidate of this role.

    Returns:
        Whether one of these candidates was the leader.

    Raises:
        BadArgument: The role or the candidate is invalid.
        StoreUnavailable: The store did not answer in time. The lease may run until its ttl is over.
        StoreRefused: The store refuses the request.
    """
    return _coordinator().release(role, candidate)


def releasing(
    role: str, candidate: Mapping[str, Any] | None = None
) -> AbstractContextManager[None]:
    """Return a context manager that calls `coord.release(role, candidate)` at the end of its block.

    Args:
        role: The role.
        candidate: See `release`.

    Raises:
        BadArgument: The role is invalid.
    """
    return _coordinator().releasing(role, candidate)


def _coordinator() -> Coordinator:
    from coord.api.default import default

    return default.get()
