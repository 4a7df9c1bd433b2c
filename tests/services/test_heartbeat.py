"""Heartbeats in the background: for threads and for asyncio."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from coord import (
    AsyncHeartbeat,
    AsyncServiceRegistry,
    BadArgument,
    Heartbeat,
    ServiceRegistry,
    StoreUnavailable,
)
from coord.services import heartbeat as heartbeat_module
from tests.support import raw_records
from tests.support.waits import eventually

Two = tuple[ServiceRegistry, ServiceRegistry]


def test_it_sends_heartbeats_registers_again_and_unregisters(two: Two) -> None:
    here, there = two
    loads = iter(range(10_000))
    status = {"role": "worker", "ttl": 0.6, "port": 80}
    with Heartbeat(here, status, load=lambda: next(loads)) as heartbeat:
        assert heartbeat.healthy
        assert heartbeat.record is not None
        first = there.healthy_services("worker")
        assert [(record["id"], record["load"], record["port"]) for record in first] == [
            (heartbeat.id, 0, 80)
        ]
        time.sleep(0.7)  # longer than the ttl
        second = there.healthy_service("worker")
        assert second is not None
        assert second["load"] >= 2, "a fresh load with each"
        assert second["first_heartbeat"] == first[0]["first_heartbeat"]
        there.unregister(heartbeat.id)
        eventually(lambda: there.healthy_services("worker"))
    assert raw_records.keys(here) == set()
    assert status == {"role": "worker", "ttl": 0.6, "port": 80}
    loads_taken = next(loads)
    time.sleep(0.3)
    assert next(loads) == loads_taken + 1, "no heartbeat after the end"


def test_the_same_on_asyncio(url: str) -> None:
    async def load() -> float:
        await asyncio.sleep(0)
        return 7

    async def go() -> None:
        async with AsyncServiceRegistry(url) as registry:
            async with AsyncHeartbeat(
                registry, lambda: {"role": "worker", "ttl": 0.6}, load=load
            ) as heartbeat:
                await asyncio.sleep(0.7)
                services = await registry.healthy_services("worker")
                assert [(record["id"], record["load"]) for record in services] == [
                    (heartbeat.id, 7)
                ]
                assert services[0]["first_heartbeat"] < services[0]["last_heartbeat"]
            assert await registry.healthy_services("worker") == []
            again = AsyncHeartbeat(registry, {"id": "n:1", "role": "worker", "ttl": 60, "load": 1})
            await again.start()
        async with AsyncServiceRegistry(url) as registry:
            if not url.startswith("memory"):
                assert await registry.healthy_services("worker") == [], (
                    "closing the coordinator ends heartbeats"
                )

    asyncio.run(go())


class Flaky:
    """A keeper whose writes fail while `down`."""

    def __init__(self, records: Any) -> None:
        self.records, self.down, self.attempts = records, False, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.records, name)

    async def _maybe(self, call: Any, *args: Any) -> Any:
        self.attempts += 1
        if self.down:
            raise StoreUnavailable("down")
        return await call(*args)

    async def refresh(self, *args: Any) -> Any:
        return await self._maybe(self.records.refresh, *args)

    async def register(self, *args: Any) -> Any:
        return await self._maybe(self.records.register, *args)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Any:
    registry = ServiceRegistry("memory://")
    registry.inner.session.timeout = 0.05
    registry.inner.records = flaky = Flaky(registry.inner.records)  # type: ignore[assignment]
    yield registry, flaky
    registry.close()


def test_an_outage_is_survived_and_reported_once(
    flaky: Any, caplog: pytest.LogCaptureFixture
) -> None:
    registry, records = flaky
    records.down = True
    caplog.set_level(logging.INFO, logger="coord")
    with Heartbeat(registry, {"id": "a", "role": "worker", "ttl": 0.6, "load": 1}) as heartbeat:
        assert heartbeat.record is None
        assert not heartbeat.healthy
        eventually(lambda: records.attempts >= 4)
        records.down = False
        eventually(lambda: heartbeat.healthy)
        records.down = True
        eventually(lambda: not heartbeat.healthy)
        registry.unregister("a")
        records.down = False
        eventually(lambda: heartbeat.healthy)
        assert registry.healthy_service("worker") is not None
    assert registry.healthy_services() == []
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events.count("heartbeat.failed") == 2
    assert events.count("heartbeat.recovered") == 2


def test_a_status_that_cannot_be_had_costs_a_heartbeat_only(
    flaky: Any, caplog: pytest.LogCaptureFixture
) -> None:
    registry, _ = flaky
    answers: list[Any] = [{"role": "worker", "ttl": 0.3, "load": 1}]

    def status() -> Any:
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    with Heartbeat(registry, status) as heartbeat:
        service_id = heartbeat.id
        for bad in (RuntimeError("no load"), {"role": "worker"}, "no dict"):
            answers[0] = bad
            eventually(lambda: not heartbeat.healthy)
            answers[0] = {"role": "worker", "ttl": 0.3, "load": 1}
            eventually(lambda: heartbeat.healthy)
        assert heartbeat.id == service_id
    assert "no load" in caplog.text


def test_what_is_wrong_at_once_is_raised_at_once() -> None:
    with ServiceRegistry("memory://") as registry:
        for status, named in [
            ("x", "status"),
            ({"role": "r"}, "status_info"),
            ({"role": "r", "ttl": 0, "load": 1}, "ttl"),
        ]:
            with pytest.raises(BadArgument, match=named):
                Heartbeat(registry, status)  # type: ignore[arg-type]
        with pytest.raises(BadArgument, match="every"):
            Heartbeat(registry, {"role": "r", "ttl": 1, "load": 1}, every=0)
        with (
            pytest.raises(BadArgument, match="load"),
            Heartbeat(registry, lambda: {"role": "r", "ttl": 1}),
        ):
            pass
        assert threading.active_count() < 20
        assert not [thread for thread in threading.enumerate() if thread.name == "coord heartbeat"]


PROGRAM = """
import sys, time
from coord import Heartbeat, ServiceRegistry
registry = ServiceRegistry(sys.argv[1])
heartbeat = Heartbeat(registry, {"id": "p", "role": "worker", "ttl": 60, "load": 1})
heartbeat.start()
print("started", flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["end", "wait"])
def test_the_end_of_the_process_unregisters(how: str, tmp_path: Any) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    with ServiceRegistry(url) as registry:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, how], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            if how == "wait":
                assert len(registry.healthy_services("worker")) == 1
                process.terminate()
            assert process.wait(20) == (143 if how == "wait" else 0)
        assert registry.healthy_services("worker") == []
        assert raw_records.keys(registry) == set()


def test_closing_does_not_wait_long_for_a_store_that_is_gone(
    flaky: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "UNREGISTER_TIMEOUT", 0.4)
    registry, records = flaky
    heartbeats = [Heartbeat(registry, {"role": "worker", "ttl": 60, "load": 1}) for _ in range(5)]
    for heartbeat in heartbeats:
        heartbeat.start()

    async def hang(*_: Any) -> bool:
        await asyncio.sleep(60)
        return True

    records.remove = hang
    began = time.monotonic()
    registry.close()
    assert time.monotonic() - began < 1.6, "all at once, not one after the other"
    assert not any(heartbeat.healthy for heartbeat in heartbeats)


FORKS = """
import os, sys
from coord import Heartbeat, ServiceRegistry
registry = ServiceRegistry(sys.argv[1])
with Heartbeat(registry, {"role": "worker", "ttl": 60, "load": 1}) as heartbeat:
    parents = heartbeat.id
    if os.fork() == 0:
        heartbeat.stop()  # the parent's, so nothing
        with Heartbeat(registry, {"role": "worker", "ttl": 60, "load": 1}), heartbeat:
            assert heartbeat.id != parents
            print(len(registry.healthy_services("worker")), flush=True)
        sys.exit()
    os.wait()
    print(len(registry.healthy_services("worker")), flush=True)
"""


def test_a_forked_child_leaves_its_parents_service_alone(tmp_path: Any) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    done = subprocess.run(
        [sys.executable, "-c", FORKS, url], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "3\n1\n"), done.stderr


def test_closing_ends_a_watch() -> None:
    registry = ServiceRegistry("memory://")
    ended = threading.Event()

    def follow() -> None:
        for _ in registry.watch_services("worker"):
            pass
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    registry.heartbeat({"role": "worker", "ttl": 60, "load": 1})
    time.sleep(0.1)
    registry.close()
    assert ended.wait(10)
