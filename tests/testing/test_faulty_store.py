"""The faulty store does what it is told and nothing else; the recording store changes nothing and
misses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coord import AccessDenied, StoreUnavailable
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import Store
from coord.testing import Fault, FaultyStore, History, RecordingStore, StoreContract, judge

CLAIM = Claim("r", "me", 1, 30.0, takeover=True)  # takes whatever is there


class TestWrappedStoresKeepTheContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _memory(self) -> None:
        self.memory = MemoryStore()

    def make_store(self) -> Store:
        return RecordingStore(FaultyStore(self.memory), History(), "p")


def run(body: Callable[[FaultyStore, MemoryStore], Awaitable[None]]) -> None:
    async def main() -> None:
        memory = MemoryStore()
        store = FaultyStore(memory)
        try:
            await body(store, memory)
        finally:
            await store.close()

    asyncio.run(main())


async def token(memory: MemoryStore) -> int:
    return next((row.token for row in await memory.read(["r"], 1)), 0)


@pytest.mark.parametrize(
    ("fault", "unknown", "permanent", "done"),
    [
        (Fault.NOT_DONE, False, False, 0),
        (Fault.UNKNOWN_DONE, True, False, 1),
        (Fault.UNKNOWN_NOT_DONE, True, False, 0),
        (Fault.PERMANENT, False, True, 0),
        (Fault.HANG, True, False, 0),
    ],
)
def test_each_class_of_error(fault: Fault, unknown: bool, permanent: bool, done: int) -> None:
    async def body(store: FaultyStore, memory: MemoryStore) -> None:
        store.fail("claim", fault)
        result = await store.claim(CLAIM, 0.05)
        assert isinstance(result, Failure)
        assert (result.unknown, result.permanent) == (unknown, permanent)
        assert await token(memory) == done
        after = await store.claim(CLAIM, 0.05)  # it was told of one only
        assert isinstance(after, Answer)
        assert after.applied
        store.fail("renew", fault)
        renew = Renew("r", "me", done + 1, 5, 30.0)
        results = await store.renew([renew], 0.05)
        assert isinstance(results[0], Failure)
        assert (await memory.read(["r"], 1))[0].beat == (5 if done else 1)
        store.fail("release", fault)
        assert isinstance(await store.release(Release("r", "me", done + 1, 6), 0.05), Failure)
        assert (await memory.read(["r"], 1))[0].vacant == bool(done)
        store.fail("read", fault)
        with pytest.raises(AccessDenied if permanent else StoreUnavailable):
            await store.read(["r"], 0.05)
        assert store.calls == ["claim", "claim", "renew", "release", "read"]

    run(body)


def test_a_store_may_raise_what_it_should_not() -> None:
    async def body(store: FaultyStore, memory: MemoryStore) -> None:
        store.fail("claim", Fault.RAISES)
        with pytest.raises(RuntimeError, match="lets it raise"):
            await store.claim(CLAIM, 1)

    run(body)


def test_what_is_given_up_arrives_later_all_the_same() -> None:
    async def body(store: FaultyStore, memory: MemoryStore) -> None:
        store.slow("claim", before=0.05)
        result = await store.claim(CLAIM, 0.01)
        assert isinstance(result, Failure)
        assert result.unknown
        assert await token(memory) == 0
        await asyncio.sleep(0.2)
        assert await token(memory) == 1
        store.slow("claim", after=0.05)
        result = await store.claim(CLAIM, 0.01)
        assert isinstance(result, Failure)
        assert await token(memory) == 2  # done; only the answer was late
        store.slow("claim", before=0.01, after=0.01)
        assert isinstance(await store.claim(CLAIM, 5), Answer)

    run(body)


def test_down_until_healed() -> None:
    async def body(store: FaultyStore, memory: MemoryStore) -> None:
        store.down()
        for _ in range(3):
            assert isinstance(await store.claim(CLAIM, 1), Failure)
        with pytest.raises(StoreUnavailable):
            await store.open(1)
        with pytest.raises(StoreUnavailable):
            await anext(store.watch(["r"]))
        store.heal()
        assert isinstance(await store.claim(CLAIM, 1), Answer)
        await store.open(1)

    run(body)


def test_feeds_lose_repeat_run_ahead_and_die() -> None:
    async def body(store: FaultyStore, memory: MemoryStore) -> None:
        feed = store.watch(["r"])

        async def hint() -> int:
            return (await asyncio.wait_for(anext(feed), 1)).token

        first = asyncio.ensure_future(hint())
        await asyncio.sleep(0.01)
        await memory.claim(CLAIM, 1)
        assert await first == 1
        store.lose_hints(1)
        store.repeat_hints(1)
        await memory.claim(CLAIM, 1)
        await memory.claim(CLAIM, 1)
        assert [await hint(), await hint()] == [3, 3]
        store.whisper(Lease("r", "ghost", 99, 1, 30.0))
        assert await hint() == 99
        store.break_feeds()
        with pytest.raises(StoreUnavailable):
            await hint()
        again = store.watch(["r"])
        assert (await anext(again)).token == 3
        await again.aclose()  # type: ignore[attr-defined]

    run(body)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="release"):
        FaultyStore(MemoryStore()).fail("revive", Fault.NOT_DONE)  # type: ignore[arg-type]


def test_the_recording_store_writes_down_every_class_of_outcome() -> None:
    async def main() -> None:
        history, memory = History(), MemoryStore()
        faulty = FaultyStore(memory)
        store = RecordingStore(faulty, history, "p")
        await store.read(["r"], 1)
        await store.claim(CLAIM, 1)
        await store.renew([Renew("r", "me", 1, 2, 30.0), Renew("s", "me", 1, 2, 30.0)], 1)
        for fault in (Fault.NOT_DONE, Fault.UNKNOWN_DONE, Fault.RAISES):
            faulty.fail("release", fault)
            try:
                await store.release(Release("r", "me", 1, 3), 1)
            except RuntimeError:
                assert fault is Fault.RAISES
        faulty.fail("read", Fault.NOT_DONE)
        with pytest.raises(StoreUnavailable):
            await store.read(["r"], 1)
        await store.read(["r"], 1)
        shown = [
            (operation.action, operation.outcome, operation.result.get("applied"))
            for operation in history.operations()
        ]
        assert shown == [
            ("read", "ok", None),
            ("claim", "ok", True),
            ("renew", "ok", True),
            ("renew", "ok", False),
            ("release", "fail", None),
            ("release", "unknown", None),
            ("release", "unknown", None),
            ("read", "unknown", None),
            ("read", "ok", None),
        ]
        assert judge(history) == []
        await memory.claim(CLAIM, 1)  # behind the history's back
        await store.read(["r"], 1)
        assert [item.rule for item in judge(history)] == ["linearizability"]

    asyncio.run(main())
