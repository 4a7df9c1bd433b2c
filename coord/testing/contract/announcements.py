"""Contract tests of announcements. A store that keeps none passes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from coord.core.announcements import MAX_COUNTED, Announcement, Candidate
from coord.runtime.timers import within
from coord.stores.protocol import Announcements, HasAnnouncements
from coord.testing.contract.harness import ContractHarness, StoreDriver, expect, same

WITHIN = 10.0
"""Seconds until the feed must yield what was posted."""

Body = Callable[[StoreDriver, Announcements, Announcements], Awaitable[None]]


class AnnouncementContract(ContractHarness):
    def test_what_is_announced_is_read_by_another(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            key, text = _key(), {"a": [1, None, {"b": 0.5}], "text": "ü🦑'\"\\", "$x": "{table}"}
            posted = Announcement(key, at.role, "request", text, 60.0, True)
            await first.post([posted, _notice(at.role)], self.timeout)
            for reader in (first, second):
                by_key = {item.key: item for item in await reader.read([at.role], self.timeout)}
                same(len(by_key), 2, "announcements about the role")
                item = by_key[key]
                same(
                    (item.role, item.kind, dict(item.body), item.ttl, item.urgent),
                    (at.role, "request", text, 60.0, True),
                    "the announcement as read",
                )
                expect(50 < item.remaining <= 60, f"remaining is about the ttl: {item.remaining}")
                everything = {item.key for item in await reader.read(None, self.timeout)}
                expect(everything >= set(by_key), "they are among those about all roles")

        self._announce(body)

    def test_announcements_by_role(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            roles = [at.fresh_role() for _ in range(3)]
            await first.post([_notice(role) for role in roles for _ in range(2)], self.timeout)
            by_key = await second.read([roles[0], roles[2], at.role], self.timeout)
            same(
                sorted(item.role for item in by_key),
                sorted([roles[0]] * 2 + [roles[2]] * 2),
                "the roles of what is read",
            )
            same(await second.read([], self.timeout), [], "announcements about no role")

        self._announce(body)

    def test_an_announcement_replaces_that_with_its_key(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            key, role = _key(), at.fresh_role()
            await first.post([_notice(at.role, key=key, ttl=0.3, n=1)], self.timeout)
            await second.post([_notice(role, key=key, n=2)], self.timeout)
            same(await first.read([at.role], self.timeout), [], "about the first role, at once")
            await asyncio.sleep(0.3 + self.slack)
            same(await first.read([at.role], self.timeout), [], "about the first role")
            (item,) = await first.read([role], self.timeout)
            same((item.key, dict(item.body)), (key, {"n": 2}), "about the second role")

        self._announce(body)

    def test_an_announcement_that_is_withdrawn(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            keys = [_key() for _ in range(4)]
            await first.post([_notice(at.role, key=key) for key in keys], self.timeout)
            await second.withdraw({keys[0], keys[2], _key()}, self.timeout)
            await second.withdraw([], self.timeout)
            by_key = await first.read([at.role], self.timeout)
            same({item.key for item in by_key}, {keys[1], keys[3]}, "those that are left")

        self._announce(body)

    def test_an_announcement_expires(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            short, long = _key(), _key()
            await first.post(
                [_notice(at.role, key=short, ttl=0.2), _notice(at.role, key=long)], self.timeout
            )
            await asyncio.sleep(0.2 + self.slack)
            for by_key in (
                await second.read([at.role], self.timeout),
                await second.read(None, self.timeout),
            ):
                keys = {item.key for item in by_key}
                expect(short not in keys and long in keys, "only that which has not expired")
            expect(await second.purge(self.timeout) >= 0, "purge counts what it deletes")
            (item,) = await first.read([at.role], self.timeout)
            same(item.key, long, "purge leaves what has not expired")

        self._announce(body)

    def test_a_post_counts_the_candidates(self) -> None:
        async def body(at: StoreDriver, board: Announcements, other_board: Announcements) -> None:
            other = at.fresh_role()
            same(dict(await board.post([], self.timeout)), {}, "nothing is posted")
            request = Announcement(_key(), at.role, "request", {}, 60.0)
            same(dict(await board.post([request], self.timeout)), {}, "no candidate is posted")
            first, second = (Candidate(at.role, secrets.token_hex(8)) for _ in range(2))
            same(
                dict(await board.post([first.announcement(60)], self.timeout)),
                {at.role: 1},
                "one candidate",
            )
            same(
                dict(await other_board.post([second.announcement(60)], self.timeout)),
                {at.role: 2},
                "two candidates",
            )
            crowd = [
                Candidate(other, secrets.token_hex(8)).announcement(60)
                for _ in range(MAX_COUNTED + 5)
            ]
            same(
                dict(await board.post([first.announcement(60), *crowd], self.timeout)),
                {at.role: 2, other: MAX_COUNTED},
                "candidates are counted up to a limit",
            )
            await other_board.withdraw([first.key], self.timeout)
            same(
                dict(await board.post([second.announcement(60)], self.timeout)),
                {at.role: 1},
                "after one was withdrawn",
            )

        self._announce(body)

    def test_the_feed_of_urgent_announcements(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            there, later = _key(), _key()
            await first.post(
                [_notice(at.role, key=there, urgent=True, n=1), _notice(at.role)], self.timeout
            )
            async with aclosing(second.watch()) as feed:  # type: ignore[type-var] # a generator

                async def next_announcement(key: str) -> Announcement:
                    async def until() -> Announcement:
                        async for item in feed:
                            expect(item.urgent, "the feed yields urgent announcements only")
                            if item.key == key:
                                return item
                        raise AssertionError("the feed ended by itself")

                    try:
                        return await within(until(), WITHIN)
                    except asyncio.TimeoutError:
                        raise AssertionError(f"not heard of {key} within {WITHIN:g} s") from None

                item = await next_announcement(there)
                same((item.role, dict(item.body)), (at.role, {"n": 1}), "one that existed")
                await first.post([_notice(at.role, key=later, urgent=True, n=2)], self.timeout)
                same(dict((await next_announcement(later)).body), {"n": 2}, "one that was posted")
                await first.post([_notice(at.role, key=there, urgent=True, n=3)], self.timeout)
                same(
                    dict((await next_announcement(there)).body),
                    {"n": 3},
                    "one that was posted again",
                )

        self._announce(body)

    def test_many_announcements_at_once(self) -> None:
        async def body(at: StoreDriver, first: Announcements, second: Announcements) -> None:
            notices = [_notice(at.role, n=number) for number in range(500)]
            await first.post(notices, self.timeout)
            by_key = {item.key: dict(item.body) for item in await second.read([at.role], 10)}
            same(by_key, {item.key: dict(item.body) for item in notices}, "all of them")
            await second.withdraw(list(by_key), self.timeout)
            same(await first.read([at.role], self.timeout), [], "after all were withdrawn")

        self._announce(body)

    def _announce(self, body: Body) -> None:
        async def with_both(at: StoreDriver) -> None:
            other = await at.another()
            first, second = at.store, other.store
            if isinstance(first, HasAnnouncements) and isinstance(second, HasAnnouncements):
                await body(at, first.announcements(), second.announcements())

        self.run(with_both)


def _key() -> str:
    return f"contract {secrets.token_hex(8)}"


def _notice(
    role: str, *, key: str = "", ttl: float = 60.0, urgent: bool = False, **body: Any
) -> Announcement:
    return Announcement(key or _key(), role, "request", body, ttl, urgent)
