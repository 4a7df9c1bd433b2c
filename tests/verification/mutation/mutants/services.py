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
        "state.on_stored(self._registry.heartbeat(record), sent_at)",
        "state.on_stored(self._registry.heartbeat(record), time.monotonic())",
        (f"{TIMING}::test_the_ttl_counts_from_the_request_and_not_from_the_answer",),
    ),
    Mutant(
        "the ttl of an asyncio heartbeat counts from the answer",
        "coord.services.heartbeat:AsyncHeartbeat._beat",
        "state.on_stored(await self._registry.heartbeat(record), sent_at)",
        "state.on_stored(await self._registry.heartbeat(record), time.monotonic())",
        (f"{TIMING}::test_the_ttl_of_an_asyncio_heartbeat_counts_from_the_request_too",),
    ),
    Mutant(
        "the backoff of heartbeats is never reset",
        "coord.services.heartbeat:HeartbeatState.on_stored",
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
    Mutant(
        "services with the highest load are found first",
        "coord.services.registry:choose_service",
        'if choose == "least":\n        return await records.least_loaded(role, timeout)',
        'if choose == "least":\n        return (await records.healthy(role, timeout) or [None])[-1]',
        (f"{REGISTRY}::test_the_lowest_load_is_found",),
    ),
    Mutant(
        "a crowd lands on one service",
        "coord.services.registry:choose_service",
        "records.sample(role, 2, timeout)",
        "records.healthy(role, timeout)",
        (f"{REGISTRY}::test_a_crowd_is_spread",),
    ),
    Mutant(
        "a service that was removed meanwhile does not register again",
        "coord.services.registry:AsyncServiceRegistry._beat",
        "if stored is not None:\n                return stored",
        "if True:\n                return stored or record",
        (
            "services/test_heartbeat.py::test_it_sends_heartbeats_registers_again_and_unregisters[memory]",
        ),
    ),
    Mutant(
        "a lost answer leaves a twin",
        "coord.services.registry:AsyncServiceRegistry.heartbeat",
        "if not entry.registered and made:",
        "if False:",
        ("services/test_hazards.py::test_7_a_lost_answer_leaves_no_twin[memory]",),
    ),
    Mutant(
        "a service with an unanswered registration is removed without a mark",
        "coord.services.registry:AsyncServiceRegistry._beat",
        "entry.doubtful_until = time.monotonic() + UNANSWERED_WINDOW",
        "pass",
        ("services/test_hazards.py::test_7_no_late_duplicate_revives_a_service[memory]",),
    ),
    Mutant(
        "a heartbeat that fails is not retried",
        "coord.services.heartbeat:Heartbeat._run",
        "pause = self._state.on_failed(err)",
        "return",
        ("services/test_heartbeat.py::test_an_outage_is_survived_and_reported_once",),
    ),
    Mutant(
        "a forked child stops the heartbeat of its parent",
        "coord.services.heartbeat:Heartbeat.stop",
        "if self._thread is not None and self._epoch == process.fork_generation:",
        "if self._thread is not None:",
        ("services/test_heartbeat.py::test_a_forked_child_leaves_its_parents_service_alone",),
    ),
    Mutant(
        "the record of an older client is ignored",
        "coord.services.leaders:LeaderPublisher.unique_service",
        "if row and not service_records.is_published(row[0]):",
        "if False:",
        (f"{PUBLISHING}::test_the_record_of_an_older_client_is_respected[memory]",),
    ),
    Mutant(
        "publications stay when the registry is closed",
        "coord.services.registry:ServiceRegistry.close",
        "if self.inner.publisher is not None and self.portal.running:",
        "if False:",
        (f"{PUBLISHING}::test_publications_are_withdrawn_when_the_registry_is_closed[memory]",),
    ),
    Mutant(
        "a publication that fails costs the leadership",
        "coord.services.leaders:LeaderPublisher._try",
        "except (StoreUnavailable, StoreRefused) as err:",
        "except KeyError as err:",
        (f"{PUBLISHING}::test_a_publication_that_fails_does_not_cost_the_leadership",),
    ),
    Mutant(
        "a watch of services does not notice those that expire",
        "coord.services.watch:_between",
        '"expired"',
        '"left"',
        (f"{REGISTRY}::test_joins_leaves_and_expiries_are_reported[memory]",),
    ),
    Mutant(
        "mine ignores the clock",
        "coord.services.leaders:LeaderPublisher.unique_service",
        'leader["mine"] = term.held',
        'leader["mine"] = True',
        (
            "services/test_unique_service.py::"
            "test_a_publication_that_outlasts_the_term_leaves_nobody_believing",
        ),
    ),
]
