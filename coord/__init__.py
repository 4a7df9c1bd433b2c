"""coord: exactly one leader for each role. Start with `unique_service` and `leader_only`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord import errors as errors
    from coord import fencing as fencing
    from coord import metrics as metrics
    from coord import testing as testing
    from coord import web as web
    from coord.api.coordinator import AsyncCoordinator as AsyncCoordinator
    from coord.api.health import Health as Health
    from coord.api.health import HealthStatus as HealthStatus
    from coord.api.health import health as health
    from coord.api.leader_only import leader_only as leader_only
    from coord.api.leadership import AsyncLeadership as AsyncLeadership
    from coord.api.once import Once as Once
    from coord.api.once import tick as tick
    from coord.api.slots import AsyncSlots as AsyncSlots
    from coord.api.slots import Slots as Slots
    from coord.api.sync_coordinator import Coordinator as Coordinator
    from coord.api.sync_leadership import Leadership as Leadership
    from coord.api.unique_service import release as release
    from coord.api.unique_service import releasing as releasing
    from coord.api.unique_service import unique_service as unique_service
    from coord.core.announcements import Candidate as Candidate
    from coord.core.history import PastTerm as PastTerm
    from coord.core.lease import Lease as Lease
    from coord.core.lease import LossReason as LossReason
    from coord.core.timing import Timing as Timing
    from coord.election.observe import LeaderChange as LeaderChange
    from coord.election.term import Term as Term
    from coord.election.term import current_term as current_term
    from coord.election.term import require_term as require_term
    from coord.errors import AccessDenied as AccessDenied
    from coord.errors import AcquireTimeout as AcquireTimeout
    from coord.errors import BadArgument as BadArgument
    from coord.errors import CoordError as CoordError
    from coord.errors import CoordinatorClosed as CoordinatorClosed
    from coord.errors import LeadershipLost as LeadershipLost
    from coord.errors import NotLeader as NotLeader
    from coord.errors import NotSetUp as NotSetUp
    from coord.errors import OutcomeUnknown as OutcomeUnknown
    from coord.errors import SharesDiffer as SharesDiffer
    from coord.errors import SlotsDiffer as SlotsDiffer
    from coord.errors import StaleToken as StaleToken
    from coord.errors import StoreRefused as StoreRefused
    from coord.errors import StoreUnavailable as StoreUnavailable
    from coord.errors import TickTooOld as TickTooOld
    from coord.errors import TickUnfinished as TickUnfinished
    from coord.errors import TooManyRoles as TooManyRoles
    from coord.fencing import Fence as Fence
    from coord.recipes.membership import GroupMember as GroupMember
    from coord.recipes.shares import AsyncShares as AsyncShares
    from coord.recipes.sync_shares import Shares as Shares
    from coord.services.heartbeat import AsyncHeartbeat as AsyncHeartbeat
    from coord.services.heartbeat import Heartbeat as Heartbeat
    from coord.services.registry import AsyncServiceRegistry as AsyncServiceRegistry
    from coord.services.registry import ServiceRegistry as ServiceRegistry
    from coord.services.watch import ServiceChange as ServiceChange

__version__ = "0.1.0"

_PUBLIC = {
    "api.coordinator": ("AsyncCoordinator",),
    "api.health": ("Health", "HealthStatus", "health"),
    "api.leader_only": ("leader_only",),
    "api.leadership": ("AsyncLeadership",),
    "api.once": ("Once", "tick"),
    "api.slots": ("AsyncSlots", "Slots"),
    "api.sync_coordinator": ("Coordinator",),
    "api.sync_leadership": ("Leadership",),
    "api.unique_service": ("release", "releasing", "unique_service"),
    "core.announcements": ("Candidate",),
    "core.history": ("PastTerm",),
    "core.lease": ("Lease", "LossReason"),
    "core.timing": ("Timing",),
    "election.observe": ("LeaderChange",),
    "election.term": ("Term", "current_term", "require_term"),
    "errors": (
        "AccessDenied",
        "AcquireTimeout",
        "BadArgument",
        "CoordError",
        "CoordinatorClosed",
        "LeadershipLost",
        "NotLeader",
        "NotSetUp",
        "OutcomeUnknown",
        "SharesDiffer",
        "SlotsDiffer",
        "StaleToken",
        "StoreRefused",
        "StoreUnavailable",
        "TooManyRoles",
        "TickTooOld",
        "TickUnfinished",
    ),
    "fencing": ("Fence",),
    "recipes.membership": ("GroupMember",),
    "recipes.shares": ("AsyncShares",),
    "recipes.sync_shares": ("Shares",),
    "services.heartbeat": ("AsyncHeartbeat", "Heartbeat"),
    "services.registry": ("AsyncServiceRegistry", "ServiceRegistry"),
    "services.watch": ("ServiceChange",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
_MODULES = ("errors", "fencing", "metrics", "testing", "web")
__all__ = sorted([*_MODULE_OF, *_MODULES, "connect"])  # noqa: PLE0605 # made from the tables above


def connect(url: str | None = None, *, timeout: float = 5.0) -> Coordinator:
    """Return a coordinator, after a check that its store can be reached and used.

    `Coordinator(url)` returns one without the check.

    Args:
        url: The URL of the store. None means the environment variable `COORD_URL`, and without that
            a SQLite file in the state directory of the user.
        timeout: Seconds that the check may take, and later each lookup, retries included.

    Raises:
        BadArgument: The URL or the timeout is invalid.
        StoreUnavailable: The store did not answer in time.
        NotSetUp: The store lacks tables or a schema. The message names the command that creates
            them.
        AccessDenied: The store refuses this user.
    """
    from coord.api.sync_coordinator import (
        Coordinator,  # imports asyncio, which `import coord` must not
    )

    coordinator = Coordinator(url, timeout=timeout)
    try:
        coordinator.check()
    except BaseException:
        coordinator.close()
        raise
    return coordinator


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that `import coord` is cheap."""
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"coord.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'coord' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"coord.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]
