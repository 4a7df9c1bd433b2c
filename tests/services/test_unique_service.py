"""`unique_service` of a registry: what doublethink's users rely on, and how a role is given back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from coord import AsyncCoordinator, AsyncServiceRegistry, BadArgument, Coordinator, ServiceRegistry
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine, run
from tests.services.conftest import ancestor
from tests.support import raw_records

Two = tuple[ServiceRegistry, ServiceRegistry]
ROLE = "example-role"


def take_the_steps_of_doublethink(registry: Any) -> None:
    """Two candidates without ids, of one registry in one process."""
    assert registry.unique_service(ROLE) is None
    with pytest.raises(Exception, match="ttl"):
        registry.unique_service(ROLE, candidate={})

    def first() -> Any:
        fields = {"role": ROLE, "ttl": 1.5, "node": "node-1", "colour": "red"}
        return registry.unique_service(ROLE, candidate=fields)

    def second() -> Any:
        fields = {"role": ROLE, "ttl": 1.5, "node": "node-2", "shape": "round"}
        return registry.unique_service(ROLE, candidate=fields)

    assert first()["node"] == "node-1"
    assert second()["node"] == "node-1"
    time.sleep(0.2)
    renewed = first()
    assert renewed["last_heartbeat"] > renewed["first_heartbeat"]
    assert second()["last_heartbeat"] == renewed["last_heartbeat"]
    time.sleep(0.2)
    assert first()["last_heartbeat"] > renewed["last_heartbeat"]
    for field in ("id", "role", "ttl", "host", "pid"):
        assert field in renewed
    registry.unregister(ROLE)
    assert registry.unique_service(ROLE) is None
    assert second()["node"] == "node-2"
    registry.unregister(ROLE)


def test_the_steps_of_doublethink(url: str) -> None:
    with ServiceRegistry(url) as registry:
        take_the_steps_of_doublethink(registry)


@pytest.mark.rethinkdb
def test_the_steps_of_doublethink_are_those_that_doublethink_takes(database: str) -> None:
    take_the_steps_of_doublethink(ancestor(database))


def test_two_controllers_of_one_process(url: str) -> None:
    with ServiceRegistry(url) as registry:
        for _ in range(3):
            for node, leads in (("n1", True), ("n2", False)):
                candidate = {"id": f"{node}:80", "node": node, "ttl": 60, "now": time.time()}
                record = registry.unique_service("sync", candidate)
                assert record is not None
                assert (record["mine"], record["node"]) == (leads, "n1")


# How a role is given back.


def test_unregister_gives_back_only_what_this_registry_holds(url: str) -> None:
    with Coordinator(url) as coordinator, ServiceRegistry(url) as stranger:
        here, there = ServiceRegistry(coordinator), ServiceRegistry(coordinator)
        record = here.unique_service("sync", {"id": "a", "ttl": 60})
        for other in (there, stranger):
            other.unregister("sync")  # as an id that nobody has registered
            assert other.release("sync") is False
        kept = here.unique_service("sync", {"id": "a", "ttl": 60})
        assert kept is not None
        assert record is not None
        assert kept["token"] == record["token"]
        here.unregister("sync")
        assert stranger.unique_service("sync") is None
        assert coordinator.history("sync")[0].reason == "released"


def test_unregister_removes_a_service_whose_id_is_a_role_that_somebody_else_leads(two: Two) -> None:
    here, there = two
    here.heartbeat({"id": "sync", "role": "worker", "ttl": 60, "load": 1})
    assert there.unique_service("sync", {"id": "a", "ttl": 60})
    here.unregister("sync")
    assert here.healthy_services() == []
    assert here.unique_service("sync") is not None


def test_what_was_published_is_withdrawn_with_the_release(url: str) -> None:
    with ServiceRegistry(url, publish=True) as registry:
        for give_back in (registry.release, registry.unregister):
            assert registry.unique_service("sync", {"id": "a", "ttl": 60})
            assert raw_records.keys(registry) == {"sync"}
            give_back("sync")
            assert raw_records.keys(registry) == set()
            assert registry.unique_service("sync") is None


def test_a_block_releases_at_its_end(url: str) -> None:
    async def main() -> None:
        async with AsyncServiceRegistry(url) as registry:
            async with registry.releasing("sync"):
                assert await registry.unique_service("sync", {"id": "a", "ttl": 60})
            assert await registry.unique_service("sync") is None

    with ServiceRegistry(url) as registry:
        with registry.releasing("sync"):
            assert registry.unique_service("sync", {"id": "a", "ttl": 60})
        assert registry.unique_service("sync") is None
        with pytest.raises(BadArgument, match="role"), registry.releasing(""):
            pytest.fail("the block began")
    asyncio.run(main())


def test_a_publication_that_outlasts_the_term_leaves_nobody_believing() -> None:
    """The clock decides `mine` at the end of the call, not at the answer of the claim."""

    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)
        coordinator = AsyncCoordinator(store=store, now=machine.now)
        registry = AsyncServiceRegistry(coordinator, publish=True)
        publish = registry.records.publish

        async def slow(*args: Any) -> Any:
            await asyncio.sleep(3)
            return await publish(*args)

        registry.records.publish = slow  # type: ignore[method-assign]
        record = await registry.unique_service("sync", {"id": "a", "ttl": 2})
        assert record is not None
        assert record["mine"] is False

    run(main)
