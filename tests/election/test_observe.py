"""`watch_leaders`: every role's changes, on every store; and leases of the dead, which a feed shows
without a clock."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any

from coord import AsyncCoordinator, Coordinator, Lease
from coord.core.lease import MAX_TOKEN
from coord.core.operations import Answer, Claim, Release, Renew
from coord.election.observe import MAX_OUTDATED, LeaderTracker, WatchedRoles, latest
from coord.stores.memory.store import MemoryStore
from coord.testing import Fault, FaultyStore
from coord.testing.clocks import Machine, run
from tests.support.store_time import RealTime

Two = tuple[Coordinator, Coordinator]


def test_every_role_and_those_that_come_later(store_time: RealTime, two: Two) -> None:
    changes: list[tuple[str, int | None]] = []

    def watch() -> None:
        for role, leader in two[1].watch_leaders():
            assert leader is None or leader.role == role
            changes.append((role, None if leader is None else leader.token))

    def expect(*expected: tuple[str, int | None]) -> None:
        store_time.until(lambda: sorted(changes, key=str) == sorted(expected, key=str), changes)
        changes.clear()

    assert two[0].unique_service("there", {"ttl": 30})
    assert two[0].unique_service("vacant", {"ttl": 0.3})
    store_time.sleep(0.4)
    store_time.start(watch)
    expect(("there", 1))
    assert two[0].unique_service("short", {"ttl": 0.5})
    expect(("short", 1))
    expect(("short", None))  # it ran out, and nobody wrote anything
    with two[0].leadership("later", ttl=1) as lead:
        assert lead.wait(5)
        store_time.sleep(1.2)  # renewals are no news
        expect(("later", 1))
    expect(("later", None))


class SilentStore(MemoryStore):
    """A store whose feed leaves renewals out, as a feed may."""

    reads = 0

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        self.reads += 1
        return await super().read(roles, timeout)

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        shown: dict[str, tuple[str | None, int]] = {}
        async for lease in super().watch(roles):
            if shown.get(lease.role) != (lease.holder, lease.token):
                shown[lease.role] = (lease.holder, lease.token)
                yield lease


def test_a_feed_without_renewals_shows_no_end_that_was_none(store_time: RealTime) -> None:
    async def main() -> None:
        store = SilentStore(now=store_time.total)
        async with store_time.async_coordinator(store=store) as c:
            lead = c.leadership("job", ttl=0.9)
            changes, of_all = c.watch_leader("job"), c.watch_leaders()
            assert await lead.acquire(timeout=5)
            assert (await _next(changes)).token == 1
            assert (await _next(of_all)).leader.token == 1
            following = [asyncio.ensure_future(_next(item)) for item in (changes, of_all)]
            before = store.reads
            for _ in range(12):  # three ttls
                await asyncio.sleep(0.25)
                held = await c.leader("job")
                assert held is not None
                assert held.token == 1
            assert not any(item.done() for item in following)
            assert store.reads - before <= 12  # about once in a ttl for each of the three
            await lead.stop()
            assert await following[0] is None
            assert await following[1] == ("job", None)
            for item in (changes, of_all):
                await item.aclose()  # type: ignore[attr-defined]

    store_time.run(main)


def test_it_goes_on_after_the_feed_broke() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        async with AsyncCoordinator(store=store) as c, AsyncCoordinator(store=store.inner) as other:
            changes = c.watch_leaders()
            ahead = asyncio.ensure_future(_next(changes))
            assert await other.unique_service("a", {"ttl": 30})
            assert (await ahead).role == "a"
            store.fail("watch", Fault.NOT_DONE, times=2)
            store.break_feeds()
            assert await other.unique_service("b", {"ttl": 30})  # in the gap
            role, leader = await _next(changes)
            assert (role, leader.token) == ("b", 1)
            await changes.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


async def _next(changes: AsyncIterator[Any]) -> Any:
    return await asyncio.wait_for(changes.__anext__(), 5)


class NoClock(MemoryStore):
    """A store whose feed gives every held row its whole ttl, as RethinkDB's does."""

    async def watch(self, roles: Any) -> AsyncIterator[Lease]:
        async for lease in super().watch(roles):
            yield Lease(
                lease.role, lease.holder, lease.token, lease.beat, lease.ttl, remaining=lease.ttl
            )


def test_the_lease_of_the_dead_is_nobody_even_where_the_feed_has_no_clock(
    store_time: RealTime,
) -> None:
    async def main() -> None:
        store = NoClock(now=store_time.total)
        assert isinstance(await store.claim(Claim("r", "dead", 1, 0.2), 1), Answer)
        await asyncio.sleep(0.3)
        async with store_time.async_coordinator(store=store) as c:
            first, every = c.watch_leader("r"), c.watch_leaders()
            assert await _next(first) is None
            ahead = [asyncio.ensure_future(changes.__anext__()) for changes in (first, every)]
            await asyncio.sleep(0.1)
            assert await c.leader("r") is None
            assert not any(future.done() for future in ahead)
            assert isinstance(
                await store.claim(Claim("r", "new", 1, 30, takeover=True, skew=0.0), 1), Answer
            )
            reports, change = await asyncio.wait_for(asyncio.gather(*ahead), 5)
            assert (reports.holder, change.role, change.leader.holder) == ("new", "r", "new")
            held = await c.leader("r")
            assert held is not None
            for changes in (first, every):
                await changes.aclose()  # type: ignore[attr-defined]

    store_time.run(main)


def test_who_is_slow_to_take_changes_hears_of_no_loss_that_was_none(
    store_time: RealTime, url: str
) -> None:
    async def main() -> None:
        async with (
            store_time.async_coordinator(url) as c,
            store_time.async_coordinator(url) as other,
            other.leadership("r", ttl=1) as lead,
        ):
            assert await lead.wait(5)
            first, every = c.watch_leader("r"), c.watch_leaders()
            assert (await _next(first)).token == 1
            assert (await _next(every)).leader.token == 1
            await asyncio.sleep(1.5)  # renewed meanwhile, and nobody takes a row
            ahead = [asyncio.ensure_future(changes.__anext__()) for changes in (first, every)]
            await asyncio.sleep(0.3)
            assert not any(future.done() for future in ahead)
            await lead.stop()
            reports, change = await asyncio.wait_for(asyncio.gather(*ahead), 5)
            assert (reports, change.leader) == (None, None)
            for changes in (first, every):
                await changes.aclose()  # type: ignore[attr-defined]

    store_time.run(main)


def test_a_story() -> None:
    tracker = LeaderTracker()
    assert not tracker.has_changed(0)
    assert not tracker.update(Lease("r"), 0)
    held = Lease("r", "a", 1, 1, 10, remaining=10)
    assert tracker.update(held, 5)
    assert not tracker.update(Lease("r", "a", 1, 2, 10, remaining=10), 10)
    assert not tracker.update(held, 12)  # an older row, repeated
    assert tracker.expires_at == 20
    assert not tracker.update(
        Lease("r", "a", 1, 2, 10, remaining=10), 15
    )  # the same row, without a clock
    assert tracker.expires_at == 20
    assert tracker.has_changed(20)
    assert tracker.leader(20) is None
    assert not tracker.update(
        Lease("r", "b", 2, 0, 5, remaining=5), 21
    )  # handed over: b does not lead yet
    assert tracker.update(Lease("r", "b", MAX_TOKEN, 1, 5, remaining=5), 21)


def test_a_feed_without_infos_does_not_hide_what_a_read_showed() -> None:
    read = Lease("r", "a", 3, 7, 30.0, 0.0, 30.0, {"name": "A"})
    renewed, next_term = Lease("r", "a", 3, 8, 30.0), Lease("r", "b", 4, 1, 30.0)
    lease = latest(latest(None, read, 0.0), renewed, 1.0)
    assert (lease.lease.beat, lease.lease.info) == (8, {"name": "A"})
    assert latest(lease, next_term, 2.0).lease.info == {}


def test_a_watch_that_is_cancelled_as_it_fails_leaves_no_report_of_asyncio() -> None:
    reports: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        async with AsyncCoordinator("memory://cancelled-as-it-fails") as c:

            async def rows() -> AsyncIterator[int]:
                yield 1
                loop.call_soon(consumer.cancel)
                raise RuntimeError("the feed failed")

            async def consume() -> None:
                async for _ in c.session.until_closed(rows()):
                    await asyncio.sleep(0)

            consumer = loop.create_task(consume())
            await asyncio.gather(consumer, return_exceptions=True)
            assert consumer.cancelled()

    asyncio.run(main())
    gc.collect()
    assert reports == []


class ThinStore(FaultyStore):
    """A store whose feed shows only the rows that a test sends."""

    def __init__(self) -> None:
        super().__init__(SilentStore())
        self.rows: list[asyncio.Queue[Lease]] = []

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        rows: asyncio.Queue[Lease] = asyncio.Queue()
        self.rows.append(rows)
        for lease in await self.inner.read(roles, 1):
            yield lease
        while True:
            yield await rows.get()

    def show(self, lease: Lease) -> None:
        for rows in self.rows:
            rows.put_nowait(lease)

    async def hold(self, beat: int, ttl: float = 10.0) -> Lease:
        """Claim the role, or renew the claim."""
        if beat == 1:
            result = await self.inner.claim(Claim("r", "a", beat, ttl), 1)
        else:
            [result] = await self.inner.renew([Renew("r", "a", 1, beat, ttl)], 1)
        assert isinstance(result, Answer)
        assert result.applied
        return result.lease


class Watched:
    """What `watch_leader` and `watch_leaders` said last, for one role."""

    def __init__(self, c: AsyncCoordinator) -> None:
        self.leaders: dict[str, Lease | None] = {}
        self.roles: dict[str, str | None] = {}
        self._tasks = [
            asyncio.ensure_future(self._watch_one(c)),
            asyncio.ensure_future(self._all(c)),
        ]

    async def _watch_one(self, c: AsyncCoordinator) -> None:
        async for leader in c.watch_leader("r"):
            self.leaders["one"] = leader

    async def _all(self, c: AsyncCoordinator) -> None:
        async for role, leader in c.watch_leaders():
            self.roles[role] = leader and leader.holder
            if role == "r":
                self.leaders["all"] = leader

    @property
    def holders(self) -> dict[str, str | None]:
        return {name: leader and leader.holder for name, leader in self.leaders.items()}

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


def on_virtual_time(story: Callable[[ThinStore, Watched], Coroutine[Any, Any, None]]) -> None:
    async def main(machine: Machine) -> None:
        store = ThinStore()
        store.inner._now = lambda: machine.now().total  # type: ignore[attr-defined]
        await store.hold(1)
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            watched = Watched(c)
            await asyncio.sleep(1.0)
            assert watched.holders == {"one": "a", "all": "a"}
            await story(store, watched)
            watched.stop()

    run(main)


def test_a_leader_is_looked_for_again_after_the_store_was_away() -> None:
    """Where the feed shows no renewals, nobody was said to lead for as long as the leader led."""

    async def story(store: ThinStore, watched: Watched) -> None:
        store.fail("read", Fault.NOT_DONE, times=None)
        for beat in range(2, 5):
            await asyncio.sleep(5.0)
            await store.hold(beat)
        assert watched.holders == {"one": None, "all": None}
        store.heal()
        await asyncio.sleep(2.5)
        assert watched.holders == {"one": "a", "all": "a"}

    on_virtual_time(story)


def test_a_write_that_a_feed_has_shown_and_that_was_lost_is_forgotten() -> None:
    async def story(store: ThinStore, watched: Watched) -> None:
        store.show(Lease("r", "b", 2, 1, 10.0, remaining=10.0))
        await asyncio.sleep(1.0)
        assert watched.holders == {"one": "b", "all": "b"}
        for beat in range(2, 5):
            await store.hold(beat)
            await asyncio.sleep(4.0)
        assert watched.holders == {"one": "a", "all": "a"}

    on_virtual_time(story)


def test_a_new_leader_whose_row_the_feed_has_lost_is_seen_within_half_a_minute() -> None:
    async def story(store: ThinStore, watched: Watched) -> None:
        await asyncio.sleep(15.0)
        assert watched.holders == {"one": None, "all": None}
        await store.inner.claim(Claim("r", "b", 1, 60.0, takeover=True), 1)
        await asyncio.sleep(31.0)
        assert watched.holders == {"one": "b", "all": "b"}

    on_virtual_time(story)


def test_a_new_role_whose_row_the_feed_has_lost_is_seen_within_half_a_minute() -> None:
    async def story(store: ThinStore, watched: Watched) -> None:
        store.fail("read", Fault.NOT_DONE, times=None)
        await asyncio.sleep(30.0)
        await store.inner.claim(Claim("new", "b", 1, 60.0), 1)
        store.heal()
        await asyncio.sleep(2.5)
        assert watched.roles["new"] == "b"
        await store.inner.claim(Claim("newer", "c", 1, 60.0), 1)
        await asyncio.sleep(31.0)
        assert watched.roles["newer"] == "c"

    on_virtual_time(story)


def test_a_short_lease_after_a_long_one_is_read_again_when_it_expires() -> None:
    async def story(store: ThinStore, watched: Watched) -> None:
        store.show(Lease("r", "a", 1, 2, 600.0, remaining=600.0))
        await store.hold(2, ttl=600.0)
        await asyncio.sleep(20.0)
        assert watched.holders == {"one": "a", "all": "a"}
        await store.inner.release(Release("r", "a", 1, 3), 1)
        store.show(Lease("r", "b", 2, 1, 5.0, remaining=5.0))
        await asyncio.sleep(1.0)
        assert watched.holders == {"one": "b", "all": "b"}
        await asyncio.sleep(20.0)
        assert watched.holders == {"one": None, "all": None}

    on_virtual_time(story)


def test_all_rows_are_read_only_now_and_then() -> None:
    async def story(store: ThinStore, watched: Watched) -> None:
        await store.hold(2, ttl=600.0)
        store.show(Lease("r", "a", 1, 2, 600.0, remaining=600.0))
        await asyncio.sleep(1.0)
        before = store.inner.reads  # type: ignore[attr-defined]
        await asyncio.sleep(120.0)
        assert store.inner.reads - before == 4  # type: ignore[attr-defined]

    on_virtual_time(story)


def test_a_watcher_of_all_roles_forgets_roles_that_were_retired() -> None:
    watched = WatchedRoles(None, 0.0)
    for number in range(1_000):
        watched.received(Lease(f"r{number}", "a", 1, 1, 30.0, remaining=30.0), 1.0)
        watched.received(Lease(f"r{number}", None, 1, 2, 30.0), 2.0)
    watched.received(Lease("led", "a", 1, 1, 30.0, remaining=30.0), 2.0)
    led = Lease("led", "a", 1, 2, 30.0, remaining=30.0)
    assert watched.read(None, [led, Lease("r7", None, 1, 2, 30.0)], 30.0) == []
    assert set(watched._trackers) == {"led", "r7"}
    ((role, leader),) = watched.read(None, [], 60.0)
    assert (role, leader) == ("led", None)
    assert watched._trackers == {}
    assert watched.due(70.0) == []
    changes = watched.received(Lease("r7", "b", 2, 1, 30.0, remaining=30.0), 61.0)
    assert [change.role for change in changes] == ["r7"]


def test_a_watcher_forgets_when_the_leases_of_earlier_leaders_would_have_expired() -> None:
    watched, terms, ttl = WatchedRoles(None, 0.0), 1_000, 3_600.0
    for term in range(1, terms + 1):
        watched.received(Lease("r", "a", term, 1, ttl, remaining=ttl), term / 10)
        watched.received(Lease("r", None, term, 2, ttl), term / 10)
        assert len(watched._reads) <= MAX_OUTDATED + 2
    watched.received(Lease("r", "a", terms + 1, 1, ttl, remaining=ttl), 200.0)
    watched.read(None, [Lease("r", "a", terms + 1, 2, ttl, remaining=ttl)], ttl)  # all rows
    assert watched.due(ttl + 1) == []
    watched.read(None, [Lease("r", "a", terms + 1, 2, ttl, remaining=ttl)], 2 * ttl - 1)
    assert watched.due(2 * ttl + 0.1) == ["r"]
