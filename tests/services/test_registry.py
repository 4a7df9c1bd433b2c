"""What a service registry does, on every store."""

from __future__ import annotations

import asyncio
import collections
import logging
import math
import os
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from coord import (
    AsyncServiceRegistry,
    BadArgument,
    Coordinator,
    NotSetUp,
    ServiceChange,
    ServiceRegistry,
)
from tests.support import raw_records

Two = tuple[ServiceRegistry, ServiceRegistry]


def test_a_heartbeat_is_stored_and_returned(two: Two) -> None:
    here, there = two
    output = {"role": "worker", "ttl": 60, "load": 0.5, "port": 8000}
    before = dict(output)
    stored = here.heartbeat(output)
    assert output == before
    assert stored["role"] == "worker"
    assert stored["port"] == 8000
    assert (stored["host"], stored["pid"]) == (socket.gethostname(), os.getpid())
    assert stored["last_heartbeat"].tzinfo is not None
    assert stored["first_heartbeat"] == stored["last_heartbeat"]
    assert abs(stored["last_heartbeat"] - datetime.now(timezone.utc)) < timedelta(seconds=30)
    assert there.healthy_service("worker") == stored


def test_the_id_made_for_it_goes_on_with_it(two: Two) -> None:
    here, there = two
    first = here.heartbeat({"role": "worker", "ttl": 60, "load": 1})
    time.sleep(0.01)
    again = here.heartbeat({**first, "load": 2})
    assert again["id"] == first["id"]
    assert again["first_heartbeat"] == first["first_heartbeat"]
    assert again["last_heartbeat"] > first["last_heartbeat"]
    assert there.healthy_services() == [again]
    # Another incarnation under the same id, which does not know the time of the first:
    third = there.heartbeat({"id": first["id"], "role": "worker", "ttl": 60, "load": 3})
    assert third["first_heartbeat"] == first["first_heartbeat"]


def test_fields_that_are_no_longer_said_are_gone(registry: ServiceRegistry) -> None:
    registry.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1, "draining": True})
    assert "draining" not in registry.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
    assert "draining" not in registry.healthy_services("worker")[0]


def test_what_is_said_is_kept_as_given(two: Two) -> None:
    nested: list[Any] = []
    for _ in range(14):
        nested = [nested]
    extra = {
        "host": "elsewhere", "pid": 7, "text": "Ünï\u2028 'quoted' \"", "none": None, "yes": True,
        "big": 2**52, "float": 0.1,
        "list": [1, [2, {"a": []}]], "pair": (1, 2), "bytes": b"\0\xff", "nested": nested, "empty": {},
        "when": datetime(2021, 3, 4, 5, 6, 7, 123456, timezone(-timedelta(hours=3, minutes=30))),
    }  # fmt: skip
    two[0].heartbeat({"id": 17, "role": "worker", "ttl": 60.5, "load": -1, **extra})
    service = two[1].healthy_service("worker")
    assert service is not None
    expected = {**extra, "pair": [1, 2], "id": 17, "ttl": 60.5, "load": -1, "role": "worker"}
    expected["when"] = extra["when"].replace(microsecond=123000)  # type: ignore[union-attr]
    assert {name: service[name] for name in expected} == expected
    assert service["when"].utcoffset() == timedelta(hours=-3, minutes=-30)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"role": ...}, "role is missing"),
        ({"ttl": ...}, "ttl is missing"),
        ({"load": ...}, "load is missing"),
        ({"role": ""}, "role"),
        ({"role": None}, "role"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": math.nan}, "ttl"),
        ({"ttl": math.inf}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"load": "low"}, "load"),
        ({"load": None}, "load"),
        ({"load": math.nan}, "load"),
        ({"id": ""}, "id"),
        ({"id": "x" * 128}, "id"),
        ({"id": 1.5}, "id"),
        ({"id": "\0"}, "id"),
        ({"first_heartbeat": "yesterday"}, "first_heartbeat"),
        ({"naive": datetime(2020, 1, 1)}, "naive"),
        ({"odd": object()}, "odd"),
        ({"odd": {1: 2}}, "odd"),
        ({"odd": {"$reql_type$": "TIME"}}, "odd"),
        ({"odd": math.inf}, "odd"),
        ({1: 2}, "status_info"),
    ],
)
def test_bad_status_is_refused_by_name(change: dict[Any, Any], named: str) -> None:
    with ServiceRegistry("memory://") as registry:
        output: dict[Any, Any] = {"role": "worker", "ttl": 60, "load": 1, **change}
        output = {name: value for name, value in output.items() if value is not ...}
        with pytest.raises(BadArgument, match=named):
            registry.heartbeat(output)
        assert registry.healthy_services() == []


def test_other_bad_arguments_are_refused_by_name() -> None:
    with ServiceRegistry("memory://") as registry:
        for call, named in [
            (lambda: registry.heartbeat("no dict"), "status_info"),  # type: ignore[arg-type]
            (lambda: registry.unregister(""), "id"),
            (lambda: registry.unregister(None), "id"),  # type: ignore[arg-type]
            (lambda: registry.healthy_service(""), "role"),
            (lambda: registry.healthy_services(""), "role"),
            (lambda: registry.healthy_service("r", choose="best"), "choose"),
            (lambda: registry.purge_stale_services(0.5), "ttls_until_deletion"),
            (lambda: registry.purge_stale_services(math.nan), "ttls_until_deletion"),
            (lambda: registry.watch_services(""), "role"),
            (lambda: registry.publish_leader("r"), "publish"),
            (lambda: ServiceRegistry("memory://", table="a b"), "table"),
            (lambda: ServiceRegistry("http://x"), "url"),
        ]:
            with pytest.raises(BadArgument) as caught:
                call()
            assert caught.value.argument == named


def test_the_lowest_load_is_found(registry: ServiceRegistry) -> None:
    assert registry.healthy_service("worker") is None
    assert registry.healthy_services("worker") == []
    for name, load in [("b", 2), ("a", 1.5), ("c", -3), ("d", 100)]:
        registry.heartbeat({"id": name, "role": "worker", "ttl": 60, "load": load})
    registry.heartbeat({"id": "other", "role": "proxy", "ttl": 60, "load": -99})
    assert (registry.healthy_service("worker") or {})["id"] == "c"
    assert [record["id"] for record in registry.healthy_services("worker")] == ["c", "a", "b", "d"]
    assert [record["id"] for record in registry.healthy_services()] == ["other", "c", "a", "b", "d"]
    assert registry.available_service("worker") == registry.healthy_service("worker")
    assert registry.available_services("worker") == registry.healthy_services("worker")
    assert registry.available_services() == registry.healthy_services()


def test_who_is_silent_for_a_ttl_is_down(two: Two) -> None:
    here, there = two
    here.heartbeat({"id": "short", "role": "worker", "ttl": 0.4, "load": 1})
    here.heartbeat({"id": "long", "role": "worker", "ttl": 60, "load": 2})
    assert (there.healthy_service("worker") or {})["id"] == "short"
    time.sleep(0.5)
    assert (there.healthy_service("worker") or {})["id"] == "long"
    assert (there.healthy_service("worker", choose="spread") or {})["id"] == "long"
    assert [record["id"] for record in there.healthy_services()] == ["long"]
    here.heartbeat({"id": "short", "role": "worker", "ttl": 60, "load": 1})
    assert [record["id"] for record in there.healthy_services("worker")] == ["short", "long"]


def test_a_callers_clock_judges_nobody(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    here.heartbeat({"id": "live", "role": "worker", "ttl": 60, "load": 1})
    raw_records.write(here, "dead", "worker", age=61.0)
    for offset in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda real=time.time, offset=offset: real() + offset)
        assert [record["id"] for record in there.healthy_services("worker")] == ["live"]
        monkeypatch.undo()


def test_unregistering(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    here, there = two
    here.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
    there.unregister("a")
    assert here.healthy_services() == []
    assert raw_records.keys(here) == set()
    with caplog.at_level(logging.WARNING, logger="coord"):
        here.unregister("a")
    assert [record.getMessage() for record in caplog.records] == [
        "registry.unknown_id id='a' table='services'"
    ]
    # It lives all the same, and its next heartbeat says so.
    here.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
    assert len(there.healthy_services()) == 1


def test_purging(registry: ServiceRegistry) -> None:
    for name, age in [
        ("live", 1.0),
        ("down", 61.0),
        ("nearly", 115.0),
        ("gone", 125.0),
        ("long gone", 9e5),
    ]:
        raw_records.write(registry, name, "worker", age=age)
    raw_records.write(registry, "of a long ttl", "worker", age=500.0, ttl=400)
    assert {record["id"] for record in registry.stale_services()} == {"gone", "long gone"}
    assert registry.purge_stale_services() == {"deleted": 2}
    assert raw_records.keys(registry) == {"live", "down", "nearly", "of a long ttl"}
    assert {record["id"] for record in registry.stale_services(1)} == {
        "down",
        "nearly",
        "of a long ttl",
    }
    assert registry.purge_stale_services(1) == {"deleted": 3}
    assert raw_records.keys(registry) == {"live"}
    assert registry.purge_stale_services(ttls_until_deletion=1) == {"deleted": 0}


BAD = {
    "no ttl": {"ttl": raw_records.LEFT_OUT},
    "string ttl": {"ttl": "60"},
    "nil ttl": {"ttl": 0},
    "negative ttl": {"ttl": -5, "age": -100.0},
    "no heartbeat": {"age": raw_records.LEFT_OUT},
    "string heartbeat": {"age": "yesterday"},
    "nothing": {
        "ttl": raw_records.LEFT_OUT,
        "age": raw_records.LEFT_OUT,
        "load": raw_records.LEFT_OUT,
    },
}
ODD = {
    "string load": {"load": "low"},
    "no role": {"role": 5},
    "from the future": {"age": -600.0},
}


def test_bad_records_are_left_out_and_listed(registry: ServiceRegistry) -> None:
    for name, fields in {**BAD, **ODD}.items():
        raw_records.write(registry, name, **{"role": "worker", **fields})
    raw_records.write(registry, "good", "worker", load=5)
    raw_records.write(registry, "without load", "worker", load=raw_records.LEFT_OUT)
    raw_records.write(registry, "stale", "worker", age=1000.0)
    assert [record["id"] for record in registry.healthy_services("worker")][:2] == [
        "from the future",
        "good",
    ]
    assert {record["id"] for record in registry.healthy_services("worker")} == {
        "from the future", "good", "without load", "string load",
    }  # fmt: skip
    assert (registry.healthy_service("worker") or {})["id"] == "from the future"
    assert [record["id"] for record in registry.stale_services()] == ["stale"]
    assert registry.healthy_service("worker", choose="spread") is not None
    assert registry.purge_stale_services() == {"deleted": 1}
    listed = {bad.record["id"]: bad.problems for bad in registry.bad_records()}
    assert set(listed) == {*BAD, *ODD}
    assert listed["no ttl"] == ["no ttl"]
    assert listed["string ttl"] == ["ttl is not a number above 0: '60'"]
    assert listed["no heartbeat"] == ["no last_heartbeat"]
    assert "not a time" in listed["string heartbeat"][0]
    assert "future" in listed["from the future"][0]
    assert len(listed["nothing"]) == 2
    # A service whose record somebody damaged repairs it with its next heartbeat.
    registry.heartbeat({"id": "no ttl", "role": "worker", "ttl": 60, "load": -9})
    assert (registry.healthy_service("worker") or {})["id"] == "no ttl"


def test_a_crowd_is_spread(registry: ServiceRegistry) -> None:
    for number in range(10):
        registry.heartbeat({"id": f"s{number}", "role": "worker", "ttl": 600, "load": 1})
    inner = registry.inner

    async def crowd() -> collections.Counter[str]:
        services = [await inner.healthy_service("worker", choose="spread") for _ in range(1000)]
        return collections.Counter((record or {})["id"] for record in services)

    counts = registry.portal.call(crowd)
    assert len(counts) == 10
    assert max(counts.values()) <= 200, counts
    registry.heartbeat({"id": "s0", "role": "worker", "ttl": 600, "load": 99})
    assert all(
        (registry.healthy_service("worker", choose="spread") or {})["id"] != "s0" for _ in range(50)
    )


def test_tables_are_apart(url: str) -> None:
    with Coordinator(url) as coordinator:
        other = ServiceRegistry(coordinator, table="others")
        if url.startswith("rethinkdb"):  # there, tables are not made on the way
            with pytest.raises(NotSetUp, match="others"):
                other.healthy_services()
            with pytest.raises(NotSetUp, match="others"):
                other.heartbeat({"role": "worker", "ttl": 60, "load": 1})
            raw_records.run(other, raw_records.reql(other).table_create("others"))
        other.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
        assert len(other.healthy_services("worker")) == 1
        assert coordinator.services.healthy_services() == []
        assert len(other.healthy_services()) == 1


def test_the_coordinators_own_registry(url: str) -> None:
    with Coordinator(url) as coordinator:
        assert coordinator.services is coordinator.services
        coordinator.services.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
        assert (coordinator.services.unique_service("lead", {"id": "a", "ttl": 30}) or {})["mine"]
        assert coordinator.leader("lead") is not None

    async def go() -> None:
        async with AsyncServiceRegistry(url) as registry:
            assert (await registry.healthy_service("worker") or {})["id"] == "a"
            assert await registry.healthy_services("worker")
            await registry.unregister("a")
            assert await registry.healthy_services() == []

    asyncio.run(go())


def test_a_leadership_is_out_of_reach(two: Two) -> None:
    here, there = two
    record = here.unique_service("sync", {"id": "here", "node": "n1", "ttl": 30})
    assert record is not None
    assert record["mine"]
    there.unregister("sync")
    there.purge_stale_services(1)
    service = there.unique_service("sync")
    assert service is not None
    assert (service["node"], service["token"], service["mine"]) == ("n1", record["token"], False)
    assert (there.unique_service("sync", {"id": "there", "node": "n2", "ttl": 30}) or {})[
        "node"
    ] == "n1"
    assert raw_records.keys(here) == set(), "leases are in a table of their own"


def test_joins_leaves_and_expiries_are_reported(two: Two) -> None:
    here, there = two
    reports: list[ServiceChange] = []
    news = threading.Condition()
    here.heartbeat({"id": "first", "role": "worker", "ttl": 60, "load": 1})

    def follow() -> None:
        for change in there.watch_services("worker"):
            with news:
                reports.append(change)
                news.notify_all()
            if change.service["id"] == "last":
                return

    thread = threading.Thread(target=follow, daemon=True)  # a failed test must not wait for it
    thread.start()

    def expect(kind: str, name: str) -> None:
        with news:  # well before it would look without a reason (service_changes.LONGEST_PAUSE)
            met = news.wait_for(
                lambda: any(
                    (report.kind, report.service["id"]) == (kind, name) for report in reports
                ),
                3,
            )
        assert met, (kind, name, reports)

    expect("joined", "first")
    here.heartbeat({"id": "second", "role": "worker", "ttl": 60, "load": 1})
    expect("joined", "second")
    here.heartbeat({"id": "brief", "role": "worker", "ttl": 0.5, "load": 1})
    here.heartbeat({"id": "stranger", "role": "proxy", "ttl": 60, "load": 1})
    expect("joined", "brief")
    for _ in range(3):
        here.heartbeat({"id": "second", "role": "worker", "ttl": 60, "load": 2})
    here.unregister("second")
    expect("left", "second")
    expect("expired", "brief")
    here.heartbeat({"id": "last", "role": "worker", "ttl": 60, "load": 1})
    thread.join(10)
    assert not thread.is_alive()
    assert [(report.kind, report.service["id"]) for report in reports if report.service["id"] != "brief"] == [
        ("joined", "first"), ("joined", "second"), ("left", "second"), ("joined", "last"),
    ]  # fmt: skip
