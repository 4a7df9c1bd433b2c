"""When a heartbeat counts, when the next attempt is made, and that none comes after the end."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from coord import (
    AsyncHeartbeat,
    AsyncServiceRegistry,
    Heartbeat,
    ServiceRegistry,
    StoreUnavailable,
)
from coord.runtime.retry import rng
from coord.services.heartbeat import HeartbeatState
from coord.stores.memory.records import MemoryRecords
from tests.support.waits import eventually

STATUS = {"id": "a", "role": "worker", "ttl": 60, "load": 1}


def test_a_heartbeat_under_way_is_not_stored_after_stop() -> None:
    calls = 0
    under_way, may_end = threading.Event(), threading.Event()

    def status() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            under_way.set()
            may_end.wait(30)
        return dict(STATUS)

    with ServiceRegistry("memory://") as registry:
        heartbeat = Heartbeat(registry, status, every=0.01)
        heartbeat.start()
        thread = heartbeat._thread
        assert thread is not None
        assert under_way.wait(30)
        heartbeat.stop()  # waits a second for the function, and not longer
        assert registry.healthy_services() == []
        may_end.set()
        thread.join(30)
        assert not thread.is_alive()
        assert registry.healthy_services() == []


class SlowToAnswer(MemoryRecords):
    """Writes at once, and answers later than the ttl."""

    async def register(self, *arguments: Any) -> Any:
        stored = await super().register(*arguments)
        await asyncio.sleep(0.3)
        return stored


def test_the_ttl_counts_from_the_request_and_not_from_the_answer() -> None:
    with ServiceRegistry("memory://") as registry:
        registry.inner.records = SlowToAnswer()
        status = {"role": "worker", "ttl": 0.2, "load": 1}
        with Heartbeat(registry, status, every=60) as heartbeat:
            assert heartbeat.record is not None
            assert not heartbeat.healthy


def test_the_ttl_of_an_asyncio_heartbeat_counts_from_the_request_too() -> None:
    async def main() -> None:
        async with AsyncServiceRegistry("memory://") as registry:
            registry.records = SlowToAnswer()
            status = {"role": "worker", "ttl": 0.2, "load": 1}
            async with AsyncHeartbeat(registry, status, every=60) as heartbeat:
                assert heartbeat.record is not None
                assert not heartbeat.healthy

    asyncio.run(main())


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each random wait is as long as it may be."""
    monkeypatch.setattr(rng, "uniform", lambda low, high: high)


def test_the_wait_after_a_failure_grows_and_starts_again_after_a_success(
    longest_waits: None,
) -> None:
    state = HeartbeatState(STATUS, None, None)
    outage = StoreUnavailable("down")
    assert [state.on_failed(outage) for _ in range(6)] == [0.25, 0.5, 1, 2, 4, 5]
    assert state.on_stored(dict(STATUS), time.monotonic()) == 20
    assert state.healthy
    assert [state.on_failed(outage) for _ in range(2)] == [0.25, 0.5]


def test_the_wait_after_a_failure_is_no_longer_than_the_usual_one(longest_waits: None) -> None:
    state = HeartbeatState(STATUS, None, 0.3)
    assert [state.on_failed(StoreUnavailable("down")) for _ in range(3)] == [0.25, 0.3, 0.3]


def test_a_service_is_unhealthy_as_soon_as_its_heartbeat_stops() -> None:
    with ServiceRegistry("memory://") as registry:
        heartbeat = Heartbeat(registry, STATUS)
        heartbeat.start()
        eventually(lambda: heartbeat.healthy)
        heartbeat.stop()
        assert not heartbeat.healthy
