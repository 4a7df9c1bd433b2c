"""One contract for every board: written, read, told, run out by the store's clock, taken away."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from coord.core.announcements import (
    MAX_COUNTED,
    MAX_COUNTED_ROLES,
    Announcement,
    Candidate,
)
from coord.stores import urls
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import Announcements, HasAnnouncements
from coord.stores.sqlite import SQLiteStore, StoreClock

WITHIN = 30.0
"""Seconds to wait for what should come at once; a loaded machine may take its time."""


class Desk:
    """Boards of one store, each over a connection of its own where the store has connections."""

    def __init__(self, url: str, stack: contextlib.AsyncExitStack) -> None:
        self.url, self._stack = url, stack

    def board(self) -> Announcements:
        store = urls.open_url(self.url)
        self._stack.push_async_callback(store.close)
        assert isinstance(store, HasAnnouncements)
        return store.announcements()

    @contextlib.asynccontextmanager
    async def feed(
        self, board: Announcements
    ) -> AsyncIterator[Callable[[], Awaitable[Announcement]]]:
        """What is told, one by one."""
        async with contextlib.aclosing(board.watch()) as feed:  # type: ignore[type-var] # an async generator
            yield lambda: asyncio.wait_for(feed.__anext__(), WITHIN)


def run(url: str, body: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            desk = Desk(url, stack)
            board = desk.board()
            await board.withdraw([row.key for row in await board.read(None, WITHIN)], WITHIN)
            await board.purge(WITHIN)
            await body(desk)

    asyncio.run(asyncio.wait_for(main(), 60))


def notice(
    key: str = "k", role: str = "r", ttl: float = 60.0, urgent: bool = False, **body: Any
) -> Announcement:
    return Announcement(key, role, "candidate", body, ttl, urgent)


def keys(notices: list[Announcement]) -> list[str]:
    return sorted(notice.key for notice in notices)


def test_what_is_posted_is_read_by_another(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        announcement = Announcement("k", "r", "request", {"a": [1, None, {"b": 0.5}]}, 60.0, True)
        await board.post([announcement, notice("quiet")], WITHIN)
        for rows in (await other.read(None, WITHIN), await board.read(["r"], WITHIN)):
            first, quiet = sorted(rows, key=lambda item: item.key)
            assert (first.key, first.role, first.kind, first.body, first.ttl, first.urgent) == (
                "k",
                "r",
                "request",
                {"a": [1, None, {"b": 0.5}]},
                60.0,
                True,
            )
            assert not quiet.urgent
            assert 30 < first.remaining <= 60
            assert abs(first.posted_at - time.time()) < 30

    run(url, body)


def test_one_key_is_one_announcement(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        await board.post([notice("k", n=1), notice("l", n=1)], WITHIN)
        await other.post([notice("k", "another role", n=2)], WITHIN)
        rows = {row.key: (row.role, row.body) for row in await board.read(None, WITHIN)}
        assert rows == {"k": ("another role", {"n": 2}), "l": ("r", {"n": 1})}
        assert keys(await board.read(["r"], WITHIN)) == ["l"]

    run(url, body)


def test_by_roles(url: str) -> None:
    async def body(desk: Desk) -> None:
        board = desk.board()
        await board.post([notice(f"k{n}", f"r{n % 3}") for n in range(6)], WITHIN)
        assert keys(await board.read(["r0", "r2", "nobody's"], WITHIN)) == ["k0", "k2", "k3", "k5"]
        assert await board.read(["r"], WITHIN) == []
        assert await board.read([], WITHIN) == []
        assert len(await board.read(None, WITHIN)) == 6

    run(url, body)


def test_withdrawn(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        await board.post([notice(f"k{n}") for n in range(4)], WITHIN)
        await other.withdraw({"k0", "k2", "never there"}, WITHIN)
        await other.withdraw([], WITHIN)
        assert keys(await board.read(None, WITHIN)) == ["k1", "k3"]

    run(url, body)


def test_a_thousand_at_once(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        await board.post([notice(f"k{n:04}", f"r{n % 100}", n=n) for n in range(1_000)], WITHIN)
        assert {row.key: row.body for row in await other.read(None, WITHIN)} == {
            f"k{n:04}": {"n": n} for n in range(1_000)
        }
        assert len(await other.read([f"r{n}" for n in range(90)], WITHIN)) == 900
        await other.withdraw([f"k{n:04}" for n in range(1, 1_000)], WITHIN)
        assert keys(await board.read(None, WITHIN)) == ["k0000"]

    run(url, body)


FOREIGN = [
    "Überall läuft’s",
    "役割",
    "🦀" * 30,
    "'; DROP TABLE coord_announcements; --",
    '"\\{}\n\t',
    "$reql_type$",
    "{table}",
]


def test_foreign_text(url: str) -> None:
    body_of_all: dict[str, Any] = {
        **{text: text for text in FOREIGN},
        "$reql_type$": "TIME",
        "nul": "\0",
        "lone": "\ud800",
        "deep": [[[[[[[[[[[[[[[[[[[[[[[[[["down"]]]]]]]]]]]]]]]]]]]]]]]]]],
    }

    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        await board.post(
            [Announcement(text, text, text, body_of_all, 60.0, True) for text in FOREIGN], WITHIN
        )
        rows = await other.read(FOREIGN, WITHIN)
        assert keys(rows) == sorted(FOREIGN)
        assert all(
            (row.role, row.kind, row.body) == (row.key, row.key, body_of_all) for row in rows
        )
        async with desk.feed(other) as reports:
            assert sorted([(await reports()).role for _ in FOREIGN]) == sorted(FOREIGN)
        await other.withdraw(FOREIGN, WITHIN)
        assert await board.read(None, WITHIN) == []

    run(url, body)


def test_what_json_cannot_hold_is_refused(url: str) -> None:
    async def body(desk: Desk) -> None:
        board = desk.board()
        for bad in (float("nan"), {1}, object()):
            with pytest.raises((ValueError, TypeError)):
                await board.post([notice("k", bad=bad)], WITHIN)
        assert await board.read(None, WITHIN) == []

    run(url, body)


def test_it_runs_out_and_is_purged(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        short = [notice(f"short{n}", ttl=0.2, urgent=True) for n in range(150)]
        await board.post([*short, notice("long", urgent=True)], WITHIN)
        await asyncio.sleep(0.3)
        assert keys(await other.read(None, WITHIN)) == ["long"]
        assert keys(await other.read(["r"], WITHIN)) == ["long"]
        async with desk.feed(other) as reports:
            assert (await reports()).key == "long"
            await board.post([notice("next", urgent=True)], WITHIN)
            assert (await reports()).key == "next"
        await board.post([notice("short0", ttl=0.1)], WITHIN)  # which may sweep some of the others
        await asyncio.sleep(0.2)
        assert await other.purge(WITHIN) >= 1
        assert await board.purge(WITHIN) == 0
        assert keys(await board.read(None, WITHIN)) == ["long", "next"]

    run(url, body)


def test_a_post_tells_how_many_wait_for_the_roles_in_it(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        first, many = (
            Candidate("r", "one"),
            [Candidate("s", f"c{n:03}") for n in range(MAX_COUNTED + 10)],
        )
        assert await board.post([], WITHIN) == {}
        assert await board.post([Announcement("o", "r", "request", {}, 60.0)], WITHIN) == {}
        assert await board.post([first.announcement(60)], WITHIN) == {"r": 1}
        assert await other.post([Candidate("r", "two").announcement(60)], WITHIN) == {"r": 2}
        assert await other.post(
            [first.announcement(60), *(candidate.announcement(60) for candidate in many[:3])],
            WITHIN,
        ) == {"r": 2, "s": 3}
        assert await board.post([candidate.announcement(60) for candidate in many], WITHIN) == {
            "s": MAX_COUNTED
        }
        await other.withdraw([first.key], WITHIN)
        assert await board.post([Candidate("r", "two").announcement(60)], WITHIN) == {"r": 1}
        crowd = [Candidate(f"role {n}", "x").announcement(60) for n in range(MAX_COUNTED_ROLES + 5)]
        assert len(await board.post(crowd, WITHIN)) == MAX_COUNTED_ROLES

    run(url, body)


def test_posting_again_prolongs(url: str) -> None:
    async def body(desk: Desk) -> None:
        board = desk.board()
        await board.post([notice("k", ttl=0.3)], WITHIN)
        await board.post([notice("k", ttl=60.0)], WITHIN)
        await asyncio.sleep(0.4)
        (first,) = await board.read(None, WITHIN)
        assert first.remaining > 30

    run(url, body)


def test_the_feed(url: str) -> None:
    async def body(desk: Desk) -> None:
        board, other = desk.board(), desk.board()
        await board.post([notice("there", urgent=True, n=1), notice("quiet")], WITHIN)
        async with desk.feed(other) as reports:
            first = await reports()
            assert (first.key, first.body, first.urgent) == ("there", {"n": 1}, True)
            assert 30 < first.remaining <= 60
            await board.post([notice("more quiet"), notice("new", urgent=True)], WITHIN)
            assert (await reports()).key == "new"
            await board.withdraw(["new"], WITHIN)  # of which the feed says nothing
            await board.post([notice("there", urgent=True, n=1)], WITHIN)  # the same once more
            repeated = await reports()
            assert repeated.key == "there"
            assert repeated.remaining > 30
            await board.post([notice(f"many{n}", urgent=True) for n in range(50)], WITHIN)
            assert {(await reports()).key for _ in range(50)} == {f"many{n}" for n in range(50)}

    run(url, body)


POST = """
import asyncio, sys
from coord.core.announcements import Announcement
from coord.stores import urls
async def main():
    store = urls.open_url(sys.argv[1])
    posted = Announcement("theirs", "r", "request", {"from": "afar"}, 60.0, True)
    await store.announcements().post([posted], 10)
    await store.close()
asyncio.run(main())
"""


def test_another_process_is_heard(url: str) -> None:
    if url.startswith("memory"):
        pytest.skip("memory is one process's own")

    async def body(desk: Desk) -> None:
        board = desk.board()
        await board.post([notice("ours", urgent=True)], WITHIN)
        async with desk.feed(board) as reports:
            assert (await reports()).key == "ours"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", POST, url)
            events = await reports()
            assert (events.key, events.body) == ("theirs", {"from": "afar"})
            assert await process.wait() == 0
        assert keys(await board.read(["r"], WITHIN)) == ["ours", "theirs"]

    run(url, body)


def test_the_stores_clock_decides(tmp_path: Path) -> None:
    class Clock:
        total = wall = 1000.0

    memory = MemoryStore(lambda: Clock.total, lambda: Clock.wall)
    clock = StoreClock(lambda: Clock.total, lambda: Clock.wall, "this boot")
    store = SQLiteStore(str(tmp_path / "coord.db"), clock=clock)
    after = SQLiteStore(
        str(tmp_path / "coord.db"),
        clock=StoreClock(lambda: 0.0, lambda: Clock.wall, "the next boot"),
    )

    async def body(board: Announcements, again: Announcements) -> None:
        await board.post([notice("k", ttl=10.0)], WITHIN)
        Clock.wall += 1e6  # of no account
        Clock.total += 9.5
        (first,) = await again.read(["r"], WITHIN)
        assert (first.remaining, first.posted_at) == (0.5, 1000.0)
        Clock.total += 0.5
        assert await again.read(["r"], WITHIN) == []
        assert await again.purge(WITHIN) == 1
        Clock.total = Clock.wall = 1000.0
        await board.post([notice("k", ttl=10.0)], WITHIN)

    async def main() -> None:
        await body(memory.announcements(), memory.announcements())
        await body(store.announcements(), store.announcements())
        reborn = after.announcements()
        # The machine has restarted, or this is another clock: the wall clock decides.
        (first,) = await reborn.read(None, WITHIN)
        assert first.remaining == 10.0
        Clock.wall -= 6  # posted in the future: the wall clock says nothing
        assert await reborn.read(None, WITHIN) == []
        Clock.wall += 16
        assert await reborn.read(None, WITHIN) == []
        await reborn.post([notice("new")], WITHIN)  # deletes what has expired
        assert await reborn.purge(WITHIN) == 0
        await store.close()
        await after.close()

    asyncio.run(main())


def test_a_store_has_one_instance(tmp_path: Path) -> None:
    store: HasAnnouncements
    for store in (MemoryStore(), SQLiteStore(str(tmp_path / "coord.db"))):
        assert store.announcements() is store.announcements()


def test_one_query_each(url: str) -> None:
    """Counted where they leave the process, or reach the SQLite thread."""
    if url.startswith("memory"):
        pytest.skip("memory asks nobody")

    async def body(desk: Desk) -> None:
        store: Any = urls.open_url(url)
        board = store.announcements()
        count = 0
        place, name = {
            "sqlite": lambda: (store.database, "run"),
            "rethinkdb": lambda: (store.pool, "query"),
            "postgresql": lambda: (store.pool, "run"),
            "redis": lambda: (store.client, "pipeline_each"),
        }[url.partition(":")[0]]()
        really = getattr(place, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            return really(*arguments, **more)

        setattr(place, name, counted)
        await board.read(["r"], WITHIN)  # Redis is given the text of a script once
        await board.post([notice("k")], WITHIN)
        await board.withdraw(["k"], WITHIN)
        await board.purge(WITHIN)
        count = 0
        await board.post([notice(f"k{n}") for n in range(1_000)], WITHIN)
        assert count == 1
        await board.read(None, WITHIN)
        assert count == 2
        await board.read(["r"], WITHIN)
        assert count == 3
        await board.withdraw([f"k{n}" for n in range(1_000)], WITHIN)
        assert count == 4
        await board.purge(WITHIN)
        assert count == 5
        await store.close()

    run(url, body)
