"""coord: exactly one leader per role, and proof of it. Start with `leader_only`, `connect` and README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coord import metrics
    from coord.async_coordinator import AsyncCoordinator
    from coord.async_leadership import AsyncLeadership
    from coord.async_registry import AsyncServiceRegistry
    from coord.candidate import Candidate
    from coord.connecting import connect
    from coord.coordinator import Coordinator
    from coord.decorators import leader_only
    from coord.errors import (
        AccessDenied,
        AcquireTimeout,
        BadArgument,
        CoordError,
        LeadershipLost,
        NotLeader,
        NotSetUp,
        StaleToken,
        StoreRefused,
        StoreUnavailable,
    )
    from coord.fencing import Fence
    from coord.follow_all import LeaderChange
    from coord.health_check import Health, HealthStatus, health
    from coord.heartbeat import AsyncHeartbeat, Heartbeat
    from coord.leadership import Leadership
    from coord.lease import Lease, LossReason
    from coord.past import PastTerm
    from coord.registry import ServiceRegistry
    from coord.service_changes import ServiceChange
    from coord.term import Term, current_term
    from coord.timing import Timing

_WHERE = {
    "AccessDenied": "errors",
    "AcquireTimeout": "errors",
    "AsyncCoordinator": "async_coordinator",
    "AsyncHeartbeat": "heartbeat",
    "AsyncLeadership": "async_leadership",
    "AsyncServiceRegistry": "async_registry",
    "BadArgument": "errors",
    "Candidate": "candidate",
    "CoordError": "errors",
    "Coordinator": "coordinator",
    "Fence": "fencing",
    "Health": "health_check",
    "HealthStatus": "health_check",
    "Heartbeat": "heartbeat",
    "LeaderChange": "follow_all",
    "Leadership": "leadership",
    "LeadershipLost": "errors",
    "Lease": "lease",
    "LossReason": "lease",
    "NotLeader": "errors",
    "NotSetUp": "errors",
    "PastTerm": "past",
    "ServiceChange": "service_changes",
    "ServiceRegistry": "registry",
    "StaleToken": "errors",
    "StoreRefused": "errors",
    "StoreUnavailable": "errors",
    "Term": "term",
    "Timing": "timing",
    "connect": "connecting",
    "current_term": "term",
    "health": "health_check",
    "leader_only": "decorators",
}
__all__ = [
    "AccessDenied",
    "AcquireTimeout",
    "AsyncCoordinator",
    "AsyncHeartbeat",
    "AsyncLeadership",
    "AsyncServiceRegistry",
    "BadArgument",
    "Candidate",
    "CoordError",
    "Coordinator",
    "Fence",
    "Health",
    "HealthStatus",
    "Heartbeat",
    "LeaderChange",
    "Leadership",
    "LeadershipLost",
    "Lease",
    "LossReason",
    "NotLeader",
    "NotSetUp",
    "PastTerm",
    "ServiceChange",
    "ServiceRegistry",
    "StaleToken",
    "StoreRefused",
    "StoreUnavailable",
    "Term",
    "Timing",
    "connect",
    "current_term",
    "health",
    "leader_only",
    "metrics",
]


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used (PEP 562): `import coord` costs what is used of it."""
    if name not in _WHERE and name != "metrics":
        raise AttributeError(f"module 'coord' has no attribute {name!r}")
    import importlib

    if name == "metrics":
        return importlib.import_module("coord.metrics")
    value = getattr(importlib.import_module(f"coord.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
