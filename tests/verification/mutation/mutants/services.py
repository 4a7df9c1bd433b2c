"""Mutants of coord.services."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

TIMING = "services/test_heartbeat_timing.py"
LIFETIME = "services/test_registry_lifetime.py"
PUBLISHING = "services/test_publishing.py"
REGISTRY = "services/test_registry.py"

MUTANTS = [
    Mutant(
        "a heartbeat under way is stored after stop",
        "coord.services.heartbeat:Heartbeat._beat",
        "if self._stopping.is_set():",
        "if False:",
        (f"{TIMING}::test_a_heartbeat_under_way_is_not_stored_after_stop",),
    ),
    Mutant(
        "the ttl counts from the answer",
        "coord.services.heartbeat:Heartbeat._beat",
        "rhythm.stored(self._registry.heartbeat(said), asked_at)",
        "rhythm.stored(self._registry.heartbeat(said), time.monotonic())",
        (f"{TIMING}::test_the_ttl_counts_from_the_request_and_not_from_the_answer",),
    ),
    Mutant(
        "the ttl of an asyncio heartbeat counts from the answer",
        "coord.services.heartbeat:AsyncHeartbeat._beat",
        "rhythm.stored(await self._registry.heartbeat(said), asked_at)",
        "rhythm.stored(await self._registry.heartbeat(said), time.monotonic())",
        (f"{TIMING}::test_the_ttl_of_an_asyncio_heartbeat_counts_from_the_request_too",),
    ),
    Mutant(
        "the backoff of heartbeats is never reset",
        "coord.services.heartbeat:HeartbeatState.stored",
        "self._backoff.reset()",
        "pass",
        (f"{TIMING}::test_the_wait_after_a_failure_grows_and_starts_again_after_a_success",),
    ),
    Mutant(
        "closing a registry closes the coordinator of its caller",
        "coord.services.registry:ServiceRegistry.close",
        "if self._own is not None:\n            self._own.close()",
        "getattr(self.host, 'close')()",
        (f"{LIFETIME}::test_closing_a_registry_leaves_its_coordinator_open",),
    ),
    Mutant(
        "closing an asyncio registry closes the session of its caller",
        "coord.services.registry:AsyncServiceRegistry.close",
        "if self._own is not None:\n            await self._own.close()",
        "await self.session.close()",
        (f"{LIFETIME}::test_closing_an_asyncio_registry_leaves_its_coordinator_open",),
    ),
    Mutant(
        "the role of a registry is not released at exit",
        "coord.services.registry:ServiceRegistry.unique_service",
        "process.close_at_exit(self.host)",
        "pass",
        (f"{LIFETIME}::test_a_role_is_released_when_the_process_ends[exit-own]",),
    ),
]
