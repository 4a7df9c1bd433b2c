"""The ancestor itself and coord on one table of a real server, at the same time."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any

import pytest

from coord import Coordinator, ServiceRegistry
from tests.services.conftest import ancestor
from tests.support import raw_records


@pytest.fixture
def old(database: str) -> Any:
    return ancestor(database)


@pytest.fixture
def new(database: str) -> Any:
    with ServiceRegistry(database, publish=True) as registry:
        yield registry


def ids(services: Any) -> list[Any]:
    return [record["id"] for record in services]


def test_each_finds_the_others_services(old: Any, new: ServiceRegistry) -> None:
    old.heartbeat({"id": "old", "role": "worker", "ttl": 60, "load": 2, "extra": [1]})
    new.heartbeat({"id": "new", "role": "worker", "ttl": 60, "load": 1, "extra": [1]})
    assert (
        ids(old.healthy_services("worker")) == ids(new.healthy_services("worker")) == ["new", "old"]
    )
    assert ids(old.healthy_services()) == ids(new.healthy_services()) == ["new", "old"]
    assert (
        old.healthy_service("worker")["id"] == (new.healthy_service("worker") or {})["id"] == "new"
    )
    assert old.available_service("worker")["id"] == "new"
    by_old = {record["id"]: record for record in old.healthy_services("worker")}
    assert set(by_old["old"]) == set(by_old["new"]), "field for field the same record"
    assert [type(value) for value in by_old["old"].values()] == [
        type(value) for value in by_old["new"].values()
    ]


def test_each_keeps_unregisters_and_purges_the_others(old: Any, new: ServiceRegistry) -> None:
    made = old.heartbeat({"role": "worker", "ttl": 60, "load": 2})
    kept = new.heartbeat(made)
    assert (kept["id"], kept["first_heartbeat"]) == (made["id"], made["first_heartbeat"])
    again = old.heartbeat(kept)
    assert again["first_heartbeat"] == made["first_heartbeat"]
    assert again["last_heartbeat"] > kept["last_heartbeat"]
    new.unregister(made["id"])
    assert old.healthy_services() == []
    old.heartbeat({"id": "b", "role": "worker", "ttl": 0.1, "load": 2})
    new.heartbeat({"id": "a", "role": "worker", "ttl": 0.1, "load": 2})
    time.sleep(0.4)
    assert old.healthy_services() == new.healthy_services() == []
    assert old.purge_stale_services()["deleted"] == 2
    old.heartbeat({"id": "b", "role": "worker", "ttl": 0.1, "load": 2})
    time.sleep(0.4)
    assert new.purge_stale_services() == {"deleted": 1}


def test_what_refuses_duplicates_is_seen_by_no_old_client_and_purged_by_it(
    old: Any, new: ServiceRegistry
) -> None:
    new.heartbeat({"id": "a", "role": "worker", "ttl": 0.2, "load": 1})
    new.portal.call(lambda: new.inner.records.remove("a", "a nonce", 5))
    assert raw_records.keys(new) == {"a"}
    assert list(old.healthy_services()) == list(old.healthy_services("worker")) == []
    assert old.unique_service("a") is None
    time.sleep(0.5)
    assert old.purge_stale_services()["deleted"] == 1


def test_old_clients_find_a_published_leader(old: Any, new: ServiceRegistry) -> None:
    record = new.unique_service(
        "sync", {"id": "n1:1", "node": "n1", "port": 1, "url": "http://n1", "ttl": 30}
    )
    assert record is not None
    service = old.unique_service("sync")
    assert service["id"] == "sync"
    assert (service["node"], service["port"], service["url"], service["ttl"]) == (
        "n1",
        1,
        "http://n1",
        30,
    )
    assert isinstance(service["last_heartbeat"], datetime)
    assert ids(old.healthy_services("sync")) == ids(old.healthy_services()) == ["sync"]
    assert old.healthy_service("sync")["node"] == "n1"
    # An old candidate is kept out while ours is fresh.
    assert old.unique_service("sync", {"node": "n2", "ttl": 30})["node"] == "n1"
    # Deleting the publication does not depose the leader, whose next call writes it again.
    old.unregister("sync")
    assert old.unique_service("sync") is None
    again = new.unique_service(
        "sync", {"id": "n1:1", "node": "n1", "port": 1, "url": "http://n1", "ttl": 30}
    )
    assert again is not None
    assert again["token"] == record["token"]
    assert old.unique_service("sync")["node"] == "n1"
    new.close()
    assert old.unique_service("sync") is None


def test_a_leader_of_a_loop_is_published_by_its_lease(old: Any, new: ServiceRegistry) -> None:
    assert new.publish_leader("sync") is False
    with Coordinator(new.inner.session.store.url) as coordinator:  # no password in it
        lead = coordinator.leadership("sync", ttl=30, info={"node": "n3"})
        lead.acquire(timeout=10)
        assert new.publish_leader("sync") is True
        assert old.unique_service("sync")["node"] == "n3"
        assert old.unique_service("sync")["token"] == lead.term.token
        lead.stop()


def test_an_old_clients_leader_is_respected(
    old: Any, new: ServiceRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    old.unique_service("sync", {"node": "old", "ttl": 2})
    assert (new.unique_service("sync") or {})["node"] == "old"
    answer = new.unique_service("sync", {"id": "n1", "node": "n1", "ttl": 30})
    assert answer is not None
    assert (answer["node"], answer["mine"]) == ("old", False)
    assert new.portal.call(lambda: new.inner.session.leader("sync")) is None, "it did not claim"
    time.sleep(2.1)
    assert (new.unique_service("sync", {"id": "n1", "node": "n1", "ttl": 30}) or {})["mine"]
    assert old.unique_service("sync")["node"] == "n1"
    # One who wrote into the place all the same is left there, and the log says so.
    raw_records.write(new, "sync", ttl=30, node="intruder")
    with caplog.at_level(logging.WARNING, logger="coord"):
        assert (new.unique_service("sync", {"id": "n1", "node": "n1", "ttl": 30}) or {})["mine"]
    assert "registry.not_published" in caplog.text
    assert old.unique_service("sync")["node"] == "intruder"


def test_an_older_term_does_not_replace_a_newer_ones_publication(new: ServiceRegistry) -> None:
    records = new.inner.records
    publish = {"role": "sync", "ttl": 30.0, "holder": "h", "node": "n"}

    async def go() -> list[bool]:
        return [
            await records.publish({**publish, "token": 5}, 30, 5),
            await records.publish({**publish, "token": 4}, 30, 5),
            await records.publish({**publish, "token": 6}, 30, 5),
            await records.withdraw("sync", 5, 5),
            await records.withdraw("sync", 6, 5),
            await records.withdraw("sync", 6, 5),
        ]

    assert new.portal.call(go) == [True, False, True, False, True, False]
