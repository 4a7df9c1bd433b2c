"""Contract tests of the feed, which yields changed rows as soon as possible."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from coord.core.lease import Lease, Revision
from coord.runtime.timers import within
from coord.testing.contract.harness import ContractHarness, StoreDriver, applied, expect, same

WITHIN = 5.0
"""Seconds until a feed must yield a change. Stores are far faster; a loaded machine may not be."""


async def heard(
    queue: asyncio.Queue[Lease], condition: Callable[[Lease], bool], what: str
) -> Lease:
    """Wait for a row that `condition` accepts. Skip others: a feed may repeat or add rows."""
    rows: list[Lease] = []

    async def until() -> Lease:
        while True:
            lease = await queue.get()
            rows.append(lease)
            if condition(lease):
                return lease

    try:
        return await within(until(), WITHIN)
    except asyncio.TimeoutError:
        raise AssertionError(
            f"did not hear of {what} within {WITHIN:g} s, only of {rows}"
        ) from None


def _is_at(revision: Revision, lease: Lease) -> bool:
    return lease.revision == revision


class WatchContract(ContractHarness):
    def test_the_first_rows_are_those_that_exist(self) -> None:
        async def body(at: StoreDriver) -> None:
            roles = [at.fresh_role() for _ in range(3)]
            for role in roles[:2]:
                applied(await at.claim("a", 4, role=role, info={"n": 1}))
            async with at.feed(*roles) as queue:
                first = [await within(queue.get(), WITHIN) for _ in range(2)]
                same(
                    {lease.role: lease.revision for lease in first},
                    dict.fromkeys(roles[:2], Revision("a", 1, 4)),
                    "rows",
                )
                applied(await at.claim("b", 5, role=roles[2]))
                await heard(
                    queue, lambda lease: lease.role == roles[2], "a row that was not there before"
                )

        self.run(body)

    def test_release_and_takeover_by_another_store_are_heard(self) -> None:
        async def body(at: StoreDriver) -> None:
            other = await at.another()
            revision = applied(await other.claim("a", 1)).revision
            async with at.feed() as queue:
                await heard(queue, lambda lease: lease.revision == revision, "the row as it is")
                applied(await other.renew("a", 1, 2))
                released = applied(await other.release("a", 1, 3)).revision
                lease = await heard(queue, lambda lease: lease.vacant, "a release")
                same(lease.revision, released, "the released row")
                applied(await other.claim("b", 1, info={"n": 1}))
                lease = await heard(queue, lambda lease: lease.revision[:2] == ("b", 2), "a claim")
                same(dict(lease.info), {"n": 1}, "the info of a claim")
                taken = applied(await other.claim("c", 1, takeover=True, info={"n": 2}))
                lease = await heard(
                    queue, lambda lease: lease.revision[:2] == ("c", 3), "a takeover"
                )
                same(dict(lease.info), {"n": 2}, "the info of a takeover")
                expect(taken.holder == "c", "taken")

        self.run(body)

    def test_a_renewal_that_carries_an_info_is_heard_with_it(self) -> None:
        async def body(at: StoreDriver) -> None:
            other = await at.another()
            applied(await other.claim("a", 1, info={"n": 1}))
            async with at.feed() as queue:
                await heard(queue, lambda lease: lease.holder == "a", "the row as it is")
                applied(await other.renew("a", 1, 2))
                for beat in (3, 4):
                    row = applied(await other.renew("a", 1, beat, info={"n": beat})).revision
                    condition = functools.partial(_is_at, row)
                    lease = await heard(queue, condition, "a new info")
                    same(dict(lease.info), {"n": beat}, "the info of the row")

        self.run(body)

    def test_its_own_stores_writes_are_heard(self) -> None:
        async def body(at: StoreDriver) -> None:
            async with at.feed() as queue:
                await asyncio.sleep(0.05)
                applied(await at.claim("a", 1))
                await heard(queue, lambda lease: lease.holder == "a", "a claim")
                applied(await at.release("a", 1, 2))
                await heard(queue, lambda lease: lease.vacant, "a release")

        self.run(body)

    def test_only_the_roles_asked_for(self) -> None:
        async def body(at: StoreDriver) -> None:
            watched, not_watched = at.fresh_role(), at.fresh_role()
            async with at.feed(watched) as queue:
                await asyncio.sleep(0.05)
                applied(await at.claim("a", role=not_watched))
                applied(await at.claim("a", role=watched))
                first = await within(queue.get(), WITHIN)
                same(first.role, watched, "the role of the first row heard of")

        self.run(body)

    def test_every_role_those_that_appear_later_too(self) -> None:
        async def body(at: StoreDriver) -> None:
            there, later = at.fresh_role(), at.fresh_role()
            applied(await at.claim("a", 4, role=there))
            other = await at.another()
            at.role, other.role = there, later
            async with at.feed(every=True) as queue:
                await heard(
                    queue,
                    lambda lease: lease.role == there and lease.beat == 4,
                    "a row that was there",
                )
                applied(await other.claim("b", 1))
                await heard(
                    queue,
                    lambda lease: lease.role == later and lease.holder == "b",
                    "a role that came later",
                )
                applied(await other.release("b", 1, 2))
                await heard(
                    queue, lambda lease: lease.role == later and lease.vacant, "its release"
                )
                applied(await at.renew("a", 1, 5))
                applied(await at.release("a", 1, 6))
                await heard(
                    queue, lambda lease: lease.role == there and lease.vacant, "the other's release"
                )

        self.run(body)

    def test_two_feeds_and_the_end_of_one(self) -> None:
        async def body(at: StoreDriver) -> None:
            async with at.feed() as queue:
                async with at.feed() as second:
                    applied(await at.claim("a"))
                    await heard(
                        second, lambda lease: lease.holder == "a", "a claim, on the second feed"
                    )
                await heard(queue, lambda lease: lease.holder == "a", "a claim")
                applied(await at.release("a", 1, 2))
                await heard(
                    queue, lambda lease: lease.vacant, "a release, after the second feed had ended"
                )

        self.run(body)

    def test_closing_a_feed_that_waits(self) -> None:
        async def body(at: StoreDriver) -> None:
            async with at.feed():
                await asyncio.sleep(0.05)

        self.run(body)
