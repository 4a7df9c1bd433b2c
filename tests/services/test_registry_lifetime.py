"""What a registry closes, and what is given back when a process ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from coord import AsyncCoordinator, AsyncServiceRegistry, Coordinator, ServiceRegistry
from coord.services import registry as services_registry

STATUS = {"id": "a", "role": "worker", "ttl": 60, "load": 1}


@pytest.mark.parametrize("publish", [False, True])
def test_closing_a_registry_leaves_its_coordinator_open(publish: bool) -> None:
    with Coordinator("memory://") as coordinator:
        with ServiceRegistry(coordinator, publish=publish) as registry:
            registry.heartbeat(STATUS)
            assert (registry.unique_service("sync", {"id": "n1", "ttl": 30}) or {})["mine"]
        assert coordinator.portal.running
        assert coordinator.leader("sync") is not None, "the role is still held"
        assert coordinator.leadership("backup").acquire(timeout=30).held
        assert len(coordinator.services.healthy_services()) == 1


@pytest.mark.parametrize("publish", [False, True])
def test_closing_an_asyncio_registry_leaves_its_coordinator_open(publish: bool) -> None:
    async def main() -> None:
        async with AsyncCoordinator("memory://") as coordinator:
            async with AsyncServiceRegistry(coordinator, publish=publish) as registry:
                await registry.heartbeat(STATUS)
                leader = await registry.unique_service("sync", {"id": "n1", "ttl": 30})
                assert leader is not None
                assert leader["mine"]
            assert await coordinator.leader("sync") is not None, "the role is still held"
            assert len(await coordinator.services.healthy_services()) == 1
            assert (await coordinator.leadership("backup").acquire(timeout=30)).held

    asyncio.run(main())


def test_closing_a_registry_closes_the_coordinator_that_it_made(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    registry = ServiceRegistry(url)
    assert (registry.unique_service("sync", {"id": "n1", "ttl": 30}) or {})["mine"]
    portal = registry.portal
    registry.close()
    assert not portal.running
    with Coordinator(url) as coordinator:
        assert coordinator.leader("sync") is None, "the role was released"


PROGRAM = """
import sys, time
from coord import Coordinator, ServiceRegistry
registry = ServiceRegistry(Coordinator(sys.argv[1]) if sys.argv[2] == "given" else sys.argv[1])
assert registry.unique_service("sync", {"id": "n1", "ttl": 60})["mine"]
print("leads", flush=True)
if sys.argv[3] == "signal":
    time.sleep(60)
"""


@pytest.mark.parametrize("coordinator", ["own", "given"])
@pytest.mark.parametrize("end", ["exit", "signal"])
def test_a_role_is_released_when_the_process_ends(
    coordinator: str, end: str, tmp_path: Path
) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    command = [sys.executable, "-c", PROGRAM, url, coordinator, end]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"leads\n"
            if end == "signal":
                process.terminate()
            assert process.wait(30) == (143 if end == "signal" else 0)
        finally:
            process.kill()
    with Coordinator(url) as second:
        assert second.leader("sync") is None


def test_a_registry_forgets_services_that_ended_without_saying_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services_registry, "MANY", 10)
    monkeypatch.setattr(services_registry, "UNANSWERED_WINDOW", 0.0)
    monkeypatch.setattr(services_registry, "FORGET_TTLS", 0)
    with Coordinator("memory://") as coordinator:
        registry = coordinator.services
        for number in range(100):
            registry.heartbeat({**STATUS, "id": f"a{number}"})
            assert len(registry.inner._entries) <= 10
        assert registry.heartbeat({**STATUS, "id": "a0"})["id"] == "a0"
        assert len(registry.healthy_services()) == 100
        monkeypatch.setattr(services_registry, "FORGET_TTLS", 10)
        for number in range(100):
            registry.heartbeat({**STATUS, "id": f"b{number}"})
        assert {f"b{number}" for number in range(100)} <= registry.inner._entries.keys()
