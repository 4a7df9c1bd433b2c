"""A wrapped store keeps the announcements and the service records of the store that it wraps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from coord import AsyncCoordinator, BadArgument
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import HasAnnouncements, HasRecords, Store
from coord.testing import ElectionKit, Fault, FaultyStore, History
from coord.testing.history.recording import RecordingStore

Wrap = Callable[[Any], Any]
WRAPPERS = pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(FaultyStore, id="faulty"),
        pytest.param(lambda store: RecordingStore(store, History(), "p"), id="recording"),
        pytest.param(lambda store: RecordingStore(FaultyStore(store), History(), "p"), id="both"),
    ],
)


class LeasesOnly:
    """A store that keeps leases and nothing else."""

    url, max_clock_skew = "leases://", None


class KeepsEverything(LeasesOnly):
    """A store whose announcements and records are plain objects that a test can recognise."""

    def __init__(self) -> None:
        self.kept = object()

    def announcements(self) -> object:
        return self.kept

    def records(self, table: str) -> object:
        return (self.kept, table)


@WRAPPERS
def test_a_wrapper_hands_on_what_the_inner_store_keeps(wrap: Wrap) -> None:
    inner = KeepsEverything()
    store = wrap(inner)
    assert isinstance(store, HasAnnouncements)
    assert isinstance(store, HasRecords)
    assert store.announcements() is inner.kept
    assert cast("object", store.records("t")) == (inner.kept, "t")


@WRAPPERS
def test_a_wrapper_of_a_store_without_them_says_which_store_lacks_what(wrap: Wrap) -> None:
    store = wrap(LeasesOnly())
    with pytest.raises(BadArgument, match=r"'leases://': .*announcements"):
        store.announcements()
    with pytest.raises(BadArgument, match=r"'leases://': .*service records"):
        store.records("t")


def test_announcements_and_records_do_not_fail_by_instruction() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        store.down(Fault.NOT_DONE)
        assert await store.announcements().read(None, 1) == []
        assert await store.records("services").healthy(None, 1) == []
        assert store.calls == []

    asyncio.run(main())


@WRAPPERS
def test_a_service_is_registered_on_a_wrapped_store(wrap: Wrap) -> None:
    async def main() -> None:
        async with AsyncCoordinator(store=wrap(MemoryStore())) as coordinator:
            records = coordinator.session.records("services")
            await records.register({"id": "a", "role": "web", "load": 0, "ttl": 30.0}, "n", 1)
            assert [record["id"] for record in await records.healthy("web", 1)] == ["a"]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_coordinator_of_the_election_kit_has_services() -> None:
    kit = ElectionKit()
    with kit.as_default():
        assert list(kit.coordinator.services.healthy_services("web")) == []


@WRAPPERS
def test_a_role_is_handed_over_on_a_wrapped_store(wrap: Callable[[Store], Store]) -> None:
    async def main() -> None:
        store = wrap(MemoryStore())
        async with AsyncCoordinator(store=store) as first, AsyncCoordinator(store=store) as second:
            a, b = first.leadership("r", ttl=1), second.leadership("r", ttl=1)
            await a.acquire(timeout=5)
            await b.start()
            while not await first.candidates("r"):  # noqa: ASYNC110 # only loud ones are told
                await asyncio.sleep(0.01)
            await a.transfer(str(b.candidate))
            assert await b.wait(5)
            assert b.term.token == 2

    asyncio.run(asyncio.wait_for(main(), 20))
