"""Feeds that reconnect: what ends one, what is reported, and how long the next one waits."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime import retry
from coord.runtime.retry import Backoff, reconnecting
from coord.testing.clocks import run


@pytest.fixture(autouse=True)
def structlog_is_configured() -> Iterator[None]:
    logging.getLogger("coord").setLevel(logging.DEBUG)
    structlog.configure()
    yield
    structlog.reset_defaults()
    logging.getLogger("coord").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait is as long as it can be."""
    monkeypatch.setattr(retry.rng, "uniform", lambda low, high: high)


def feeds(
    *parts: list[int | Exception],
) -> tuple[Callable[[], AsyncIterator[int]], list[float]]:
    """Feeds that end after these rows or with this error; the last one never ends."""
    opened: list[float] = []
    waiting = list(parts)

    async def feed() -> AsyncIterator[int]:
        opened.append(asyncio.get_running_loop().time())
        for item in waiting.pop(0) if waiting else []:
            if isinstance(item, Exception):
                raise item
            yield item
        if not waiting and len(opened) > len(parts):
            await asyncio.Event().wait()

    return feed, opened


def followed(
    seconds: float,
    *parts: list[int | Exception],
    on_row: Callable[[int], None] = lambda row: None,
    refused_pause: float = 0.0,
) -> tuple[list[int], list[float], int]:
    """The rows, the times at which feeds were opened, and how many feeds broke."""
    rows: list[int] = []
    broken: list[None] = []
    feed, opened = feeds(*parts)

    def receive(row: int) -> None:
        rows.append(row)
        on_row(row)

    async def body() -> None:
        task = asyncio.ensure_future(
            reconnecting(
                feed, receive, Backoff(1.0, 8.0), lambda: broken.append(None), refused_pause
            )
        )
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(lambda machine: body())
    start = opened[0]
    return rows, [time - start for time in opened], len(broken)


def test_rows_of_every_feed_arrive_in_order() -> None:
    rows, _, broken = followed(60, [1, 2], [StoreUnavailable("away")], [3], [4])
    assert rows == [1, 2, 3, 4]
    assert broken == 4


def test_the_wait_doubles_up_to_its_limit_and_starts_again_after_a_row() -> None:
    error = StoreUnavailable("away")
    _, opened, _ = followed(60, [error], [error], [error], [error], [error], [1, error], [error])
    waits = [round(after - before, 3) for before, after in itertools.pairwise(opened)]
    assert waits == [1, 2, 4, 8, 8, 1, 2]


def test_a_refusal_waits_longer() -> None:
    _, opened, _ = followed(100, [StoreRefused("no rights")], refused_pause=60.0)
    assert [round(time) for time in opened] == [0, 60]


def test_an_outage_is_for_debugging_and_a_defect_is_a_warning() -> None:
    with capture_logs() as logs:
        followed(60, [StoreUnavailable("away")], [ValueError("bad row")])
    assert logs == [
        {"event": "feed.broken", "log_level": "debug", "error": "StoreUnavailable"},
        {
            "event": "feed.failed",
            "log_level": "warning",
            "error": "ValueError",
            "detail": "bad row",
        },
    ]


def test_a_listener_that_raises_does_not_end_the_feed() -> None:
    def fail_once(row: int) -> None:
        if row == 1:
            raise RuntimeError("a defect")

    with capture_logs() as logs:
        rows, _, broken = followed(60, [1, 2], [3], on_row=fail_once)
    assert rows == [1, 3]
    assert [log["event"] for log in logs] == ["feed.failed", "feed.broken"]
    assert broken == 2
