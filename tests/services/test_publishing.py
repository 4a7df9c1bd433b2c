"""Leaders that are published as service records for older clients, on every store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from coord import AsyncServiceRegistry, Coordinator, ServiceRegistry, StoreUnavailable
from coord.stores.memory.records import MemoryRecords
from tests.support import raw_records

CANDIDATE = {"id": "n1:1", "node": "n1", "port": 1, "ttl": 30}


@pytest.fixture
def publishing(url: str) -> Iterator[ServiceRegistry]:
    with ServiceRegistry(url, publish=True) as registry:
        yield registry


@pytest.fixture
def reader(url: str) -> Iterator[ServiceRegistry]:
    """A registry that only looks, as an older client does."""
    with ServiceRegistry(url) as registry:
        yield registry


def test_a_leader_is_published_as_a_service(
    publishing: ServiceRegistry, reader: ServiceRegistry
) -> None:
    record = publishing.unique_service("sync", CANDIDATE)
    assert record is not None
    assert record["mine"]
    (service,) = reader.healthy_services("sync")
    assert {name: service[name] for name in ("id", "role", "node", "port", "ttl", "token")} == {
        "id": "sync", "role": "sync", "node": "n1", "port": 1, "ttl": 30, "token": record["token"],
    }  # fmt: skip
    assert "mine" not in service
    assert {"host", "pid"} <= service.keys()
    assert raw_records.keys(reader) == {"sync"}
    again = publishing.unique_service("sync", CANDIDATE)
    assert again is not None
    assert again["token"] == record["token"]
    later = reader.healthy_service("sync")
    assert later is not None
    assert later["last_heartbeat"] >= service["last_heartbeat"]


def test_a_deleted_publication_deposes_nobody_and_comes_back(
    publishing: ServiceRegistry, reader: ServiceRegistry
) -> None:
    record = publishing.unique_service("sync", CANDIDATE)
    assert record is not None
    reader.unregister("sync")
    assert reader.healthy_services() == []
    assert (publishing.unique_service("sync", CANDIDATE) or {})["token"] == record["token"]
    assert len(reader.healthy_services("sync")) == 1


def test_publications_are_withdrawn_when_the_registry_is_closed(
    url: str, reader: ServiceRegistry
) -> None:
    for own in (True, False):
        with (
            Coordinator(url) as coordinator,
            ServiceRegistry(url if own else coordinator, publish=True) as publishing,
        ):
            assert (publishing.unique_service("sync", CANDIDATE) or {})["mine"]
            assert len(reader.healthy_services("sync")) == 1
            publishing.close()
            assert reader.healthy_services("sync") == []
            assert raw_records.keys(reader) == set()


def test_publications_are_withdrawn_when_the_coordinator_is_closed(
    url: str, reader: ServiceRegistry
) -> None:
    with Coordinator(url) as coordinator:
        publishing = ServiceRegistry(coordinator, publish=True)
        assert (publishing.unique_service("sync", CANDIDATE) or {})["mine"]
        assert len(reader.healthy_services("sync")) == 1
    assert reader.healthy_services("sync") == []


def test_a_leader_by_its_lease_is_published(
    publishing: ServiceRegistry, reader: ServiceRegistry, url: str
) -> None:
    assert publishing.publish_leader("sync") is False
    assert reader.healthy_services() == []
    with Coordinator(url) as coordinator:
        leadership = coordinator.leadership("sync", ttl=30, info={"node": "n3"})
        leadership.acquire(timeout=30)
        assert publishing.publish_leader("sync") is True
        (service,) = reader.healthy_services("sync")
        term = leadership.term
        assert term is not None
        assert (service["node"], service["ttl"], service["token"]) == ("n3", 30, term.token)
        leadership.stop()
        publisher = publishing.inner.publisher
        assert publisher is not None
        assert publisher.published == {"sync": term.token}
        assert publishing.publish_leader("sync") is False
        assert publisher.published == {}


def test_the_record_of_an_older_client_is_respected(publishing: ServiceRegistry, url: str) -> None:
    raw_records.write(publishing, "sync", "sync", ttl=60, node="old")
    for candidate in (None, CANDIDATE):
        answer = publishing.unique_service("sync", candidate)
        assert answer is not None
        assert (answer["node"], answer["mine"]) == ("old", False)
    with Coordinator(url) as coordinator:
        assert coordinator.leader("sync") is None, "nobody claimed the role"
    raw_records.write(publishing, "sync", "sync", ttl=60, age=61.0, node="old")
    assert (publishing.unique_service("sync", CANDIDATE) or {})["mine"], "the record has expired"


def test_a_record_in_the_place_is_left_there_and_the_log_says_so(
    publishing: ServiceRegistry, reader: ServiceRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    record = publishing.unique_service("sync", CANDIDATE)
    assert record is not None
    raw_records.write(publishing, "sync", "sync", ttl=60, node="intruder")
    with caplog.at_level(logging.WARNING, logger="coord"):
        assert (publishing.unique_service("sync", CANDIDATE) or {})["token"] == record["token"]
    assert "registry.not_published" in caplog.text
    assert (reader.healthy_service("sync") or {})["node"] == "intruder"


def test_a_publication_of_an_older_term_replaces_none_of_a_newer_one(
    publishing: ServiceRegistry,
) -> None:
    records = publishing.inner.records
    record = {"role": "sync", "ttl": 30.0, "holder": "h", "node": "n"}

    async def main() -> list[bool]:
        return [
            await records.publish({**record, "token": 5}, 30, 5),
            await records.publish({**record, "token": 4}, 30, 5),
            await records.publish({**record, "token": 6}, 30, 5),
            await records.withdraw("sync", 5, 5),
            await records.withdraw("sync", 6, 5),
            await records.withdraw("sync", 6, 5),
        ]

    assert publishing.portal.call(main) == [True, False, True, False, True, False]


def test_a_publication_lasts_as_long_as_the_lease() -> None:
    now = 1_000.0
    records = MemoryRecords(lambda: now)

    async def main() -> None:
        nonlocal now
        async with AsyncServiceRegistry("memory://", publish=True) as registry:
            assert registry.publisher is not None
            registry.records = registry.publisher._records = records
            assert await registry.unique_service("sync", CANDIDATE) is not None
            now += 29
            assert len(await registry.healthy_services("sync")) == 1
            now += 2
            assert await registry.healthy_services("sync") == []

    asyncio.run(main())


class Refusing(MemoryRecords):
    """Publishes nothing, because it does not answer."""

    async def publish(self, *arguments: Any) -> bool:
        raise StoreUnavailable("down")


def test_a_publication_that_fails_does_not_cost_the_leadership(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ServiceRegistry("memory://", publish=True) as registry:
        registry.inner.session.timeout = 0.05
        publisher = registry.inner.publisher
        assert publisher is not None
        publisher._records = Refusing()
        with caplog.at_level(logging.WARNING, logger="coord"):
            assert (registry.unique_service("sync", CANDIDATE) or {})["mine"]
        assert "registry.not_published" in caplog.text
