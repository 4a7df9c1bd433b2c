"""What callbacks raise, whatever it is, is a failed callback; and where callbacks run."""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from coord import AsyncCoordinator, Coordinator, LossReason, Term
from coord.election.callbacks import validate_callback
from coord.errors import BadArgument
from coord.runtime import threads
from coord.stores.memory.store import MemoryStore
from coord.testing import ElectionKit
from tests.support.waits import WITHIN, eventually, soon


async def broken(*_: object) -> None:
    waits = asyncio.ensure_future(asyncio.sleep(60))
    waits.cancel()
    await waits


def plainly_broken(*_: object) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("function", [broken, plainly_broken])
def test_from_threads(function: Any) -> None:
    lost: list[LossReason] = []
    with Coordinator(store=MemoryStore()) as coordinator:
        reports = [function, lambda term, reason: lost.append(reason)]
        lead = coordinator.leadership("r", ttl=5, on_elected=function, on_lost=reports)
        lead.start()
        assert eventually(lambda: lost == [LossReason.CALLBACK_FAILED])
        lead.stop()
        assert not lead.started


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a task cannot tell there whether it is being cancelled"
)
@pytest.mark.parametrize("function", [broken, plainly_broken])
def test_on_a_loop(function: Any) -> None:
    async def body() -> None:
        lost: asyncio.Queue[LossReason] = asyncio.Queue()
        async with AsyncCoordinator(store=MemoryStore()) as coordinator:
            reports = [function, lambda term, reason: lost.put_nowait(reason)]
            lead = coordinator.leadership("r", ttl=5, on_elected=function, on_lost=reports)
            await lead.start()
            assert await asyncio.wait_for(lost.get(), 5) is LossReason.CALLBACK_FAILED
            await lead.stop()
            assert not lead.started

    asyncio.run(body())


def test_a_loop_that_ends_cancels_a_callback_all_the_same() -> None:
    ended: list[str] = []

    async def lasts(term: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    async def body() -> None:
        coordinator = AsyncCoordinator(store=MemoryStore())
        lead = coordinator.leadership("r", ttl=5, on_elected=lasts)
        await lead.acquire()
        await asyncio.sleep(0.05)

    asyncio.run(body())
    assert ended == ["ended"]


class Own(BaseException):
    """What a library may raise to get past `except Exception`."""


BASE_EXCEPTIONS = (KeyboardInterrupt, GeneratorExit, SystemExit, Own)


@pytest.mark.parametrize("error", BASE_EXCEPTIONS)
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_base_exception_is_a_failed_callback(
    error: type[BaseException], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    reasons: list[LossReason] = []

    def fails(*_: object) -> None:
        raise error("from a callback")

    async def fails_later(*_: object) -> None:
        await asyncio.sleep(0)
        raise error("from a callback")

    callback = fails if kind == "plain" else fails_later
    with Coordinator("memory://") as c:
        later: list[Term] = []
        lead = c.leadership("r", ttl=0.4, on_elected=[callback, later.append])
        lead.on_lost(callback)
        lead.on_lost(lambda _, reason: reasons.append(reason))
        lead.start()
        # It leads again after a rest, and again: neither callback has ended its thread.
        eventually(lambda: reasons[:2] == [LossReason.CALLBACK_FAILED] * 2)
        assert later == []
        lead.stop()
    failed = [
        record for record in caplog.records if record.getMessage().startswith("callback.failed")
    ]
    assert len(failed) >= 4


@pytest.mark.parametrize("error", BASE_EXCEPTIONS)
def test_a_base_exception_on_a_loop_is_a_failed_callback(error: type[BaseException]) -> None:
    async def main() -> None:
        reasons: list[LossReason] = []

        def fails(*_: object) -> None:
            raise error("from a callback")

        async def fails_later(*_: object) -> None:
            raise error("from a callback")

        async with AsyncCoordinator("memory://") as c:
            lead = c.leadership("r", ttl=0.4, on_elected=fails, on_lost=[fails_later, fails])
            lead.on_lost(lambda _, reason: reasons.append(reason))
            await lead.start()
            await soon(lambda: reasons[:2] == [LossReason.CALLBACK_FAILED] * 2)

    asyncio.run(main())


def test_the_failed_callback_of_an_old_term_does_not_end_the_new_one() -> None:
    kit = ElectionKit()
    with kit.coordinator.leadership("r", ttl=5) as lead:
        assert lead.wait(10)
        first = lead.term
        kit.lose("r", LossReason.TAKEN)
        kit.win("r")
        assert lead.wait(10)
        second = lead.term
        elector = lead.inner.elector
        assert elector is not None
        failed = elector.lifecycle._callback_failed
        kit.coordinator.portal.call(lambda: _call(failed, first))
        assert lead.term is second
        kit.coordinator.portal.call(lambda: _call(failed, second))
        assert second.reason is LossReason.CALLBACK_FAILED
    kit.coordinator.close()


async def _call(function: Any, term: Term) -> None:
    function(term)


def test_a_thread_that_cannot_start_delays_callbacks_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Coordinator("memory://") as c:
        c.leaders()  # coord's own thread runs
        monkeypatch.setattr(threads, "_idle", [])
        monkeypatch.setattr(threading.Thread, "start", cannot_start)
        calls: list[object] = []
        lead = c.leadership(
            "r", ttl=0.9, on_elected=lambda _: calls.append(threading.current_thread().name)
        )
        lead.start()
        assert lead.wait(10)
        first = lead.term.deadline
        eventually(lambda: lead.term.deadline > first)  # renewed meanwhile
        assert calls == []
        monkeypatch.undo()
        eventually(lambda: calls == ["coord callbacks 'r'"])
        lead.stop()
    assert any(record.getMessage().startswith("callback.delayed") for record in caplog.records)


def cannot_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_same_leadership_gets_callbacks_in_a_child_that_its_callback_forked(
    tmp_path: Path,
) -> None:
    """The child goes on inside of the callback, on the only thread that it has."""
    pids: queue.SimpleQueue[int] = queue.SimpleQueue()
    parent = os.getpid()
    called = threading.Event()
    with Coordinator(f"sqlite:///{tmp_path}/coord.db") as c:

        def on_elected(term: Term) -> None:
            if os.getpid() != parent:
                called.set()
                return
            pid = os.fork()
            if pid:
                pids.put(pid)
                return
            status = 1
            try:
                lead.start()
                status = 0 if called.wait(WITHIN) and lead.is_leader else 2
                lead.stop()
                status = status or (3 if lead.started else 0)
            finally:
                os._exit(status)

        lead = c.leadership("r", ttl=1, on_elected=on_elected)
        lead.start()
        pid = pids.get(timeout=20)
        lead.stop()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class _Methods:
    def none(self) -> None: ...

    def method(self, term: object) -> None: ...

    def more(self, term: object, other: object) -> None: ...

    @staticmethod
    def static(term: object) -> None: ...

    def __call__(self, term: object) -> None: ...


def _keyword(term: object, *, other: object) -> None: ...


def _default(term: object, other: object = None) -> None: ...


def _many(*terms: object) -> None: ...


def _wraps_none() -> None: ...


_wrapped = functools.wraps(_wraps_none)(lambda term: None)


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda: None, False),
        (lambda term: None, True),
        (lambda term, other: None, False),
        (lambda term=None: None, True),
        (lambda *, term: None, False),
        (_default, True),
        (_keyword, False),
        (_many, True),
        (_wrapped, False),
        (_Methods().none, False),
        (_Methods().method, True),
        (_Methods().more, False),
        (_Methods.method, False),
        (_Methods.static, True),
        (_Methods(), True),
        (functools.partial(_default, other=1), True),
        (functools.partial(_default, 1, 2), False),
        (print, True),
    ],
)
def test_a_callback_that_cannot_be_called_is_refused_at_once(function: Any, fits: bool) -> None:
    if fits:
        assert validate_callback(function, "on_elected") is function
    else:
        with pytest.raises(BadArgument, match="must be a function that takes on_elected"):
            validate_callback(function, "on_elected")
