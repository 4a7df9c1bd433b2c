"""A handler of the application's log that blocks: renewals go on, and calls return."""

from __future__ import annotations

import contextvars
import functools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import coord
from coord.runtime import log, log_writer
from coord.runtime.log_writer import MAX_PENDING, LogWriter
from coord.runtime.portal import Portal
from coord.stores.memory.store import MemoryStore
from coord.stores.sqlite import SQLiteStore
from tests.support.waits import eventually


class Handler(logging.Handler):
    """Notes events, and waits in one of them.

    Attributes:
        events: The events that are written.
        opened: Not set while the handler blocks.
    """

    def __init__(self, blocks_in: str = "") -> None:
        super().__init__()
        self.events: list[logging.LogRecord] = []
        self.opened = threading.Event()
        self.waits = threading.Event()
        self._blocks_in = blocks_in

    def emit(self, record: logging.LogRecord) -> None:
        if self._blocks_in and self._blocks_in in record.getMessage():
            self.waits.set()
            assert self.opened.wait(60)
        self.events.append(record)

    def names(self) -> list[str]:
        return [record.getMessage().split()[0] for record in self.events]


@pytest.fixture
def handler(request: pytest.FixtureRequest) -> Iterator[Handler]:
    """A handler of coord's log that blocks in the event that the test's parameter names."""
    handler = Handler(getattr(request, "param", ""))
    logger = logging.getLogger("coord")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    handler.opened.set()
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("handler", ["leadership.elected"], indirect=True)
@pytest.mark.parametrize("kind", [MemoryStore, SQLiteStore])
def test_a_term_is_renewed_while_a_handler_blocks(
    kind: Any, handler: Handler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, renewed = kind.renew, []

    async def noted(store: Any, *args: Any, **kwargs: Any) -> Any:
        results = await renew(store, *args, **kwargs)
        renewed.extend(results)
        return results

    monkeypatch.setattr(kind, "renew", noted)
    url = "memory://" if kind is MemoryStore else f"sqlite://{tmp_path}/coord.db"
    with coord.Coordinator(url) as c:
        c.leadership("r", ttl=1).start()
        assert handler.waits.wait(60)
        eventually(lambda: len(renewed) >= 3)
        assert "leadership.elected" not in handler.names()
        handler.opened.set()
        eventually(lambda: "leadership.elected" in handler.names())


def test_what_a_call_has_logged_is_written_when_it_returns(handler: Handler) -> None:
    portal = Portal("test")

    async def logs(number: int) -> None:
        log.info("event", number=number)

    try:
        for number in range(100):
            portal.call(lambda number=number: logs(number))  # type: ignore[misc]
            assert handler.events[-1].__dict__["coord"] == {"number": number}
            assert handler.events[-1].threadName == "test"
    finally:
        portal.stop()
    assert len(handler.events) == 100


def test_a_record_has_the_time_of_its_event(handler: Handler) -> None:
    writer = LogWriter()
    written: list[threading.Thread] = []

    def work() -> None:
        log.hand_over(writer.put)
        with handler.lock:  # type: ignore[union-attr] # a handler with a lock
            log.info("event")
            written.append(threading.current_thread())
            time.sleep(0.2)
            assert handler.events == []

    begun = time.time()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    writer.flush(60)
    (record,) = handler.events
    assert begun <= record.created < time.time() - 0.2
    assert record.thread == thread.ident


def test_flush_does_not_wait_for_itself_or_for_long() -> None:
    writer, opened = LogWriter(), threading.Event()
    order: list[str] = []

    def first() -> None:
        writer.flush(60)
        order.append("first")
        opened.wait(60)

    writer.put(first)
    writer.put(lambda: order.append("second"))
    writer.flush(0.01)
    writer.flush(300)  # nobody waits for it again
    assert "second" not in order
    opened.set()
    eventually(lambda: order == ["first", "second"])


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(handler: Handler) -> None:
    writer, opened = LogWriter(), threading.Event()
    numbers: list[int] = []
    writer.put(functools.partial(opened.wait, 60))  # type: ignore[arg-type] # what it returns
    for number in range(MAX_PENDING + 5):
        writer.put(functools.partial(numbers.append, number))
    opened.set()
    writer.flush(60)
    assert numbers == list(range(len(numbers)))
    (record,) = handler.events
    assert record.__dict__["coord"] == {"events": MAX_PENDING + 5 - len(numbers)}
    assert len(numbers) in (MAX_PENDING, MAX_PENDING - 1)  # the first may not have begun


@pytest.mark.parametrize("handler", ["event number=0"], indirect=True)
def test_a_handler_that_raises_system_exit_loses_its_own_event_only(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(_timeout: float) -> bool:
        raise SystemExit(3)

    monkeypatch.setattr(handler.opened, "wait", leave)
    writer = LogWriter()

    def work() -> None:
        log.hand_over(writer.put)
        for number in range(3):
            log.warning("event", number=number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    writer.flush(60)
    assert [record.__dict__["coord"]["number"] for record in handler.events] == [1, 2]
    assert capsys.readouterr().err == "event number=0 (not logged: SystemExit)\n"


def test_filters_see_the_context_variables_of_the_caller(handler: Handler) -> None:
    request = contextvars.ContextVar("request", default=0)
    values: list[int] = []
    handler.addFilter(lambda _record: values.append(request.get()) or True)  # type: ignore[func-returns-value]
    portal = Portal("test")

    async def logs() -> None:
        log.info("event")

    try:
        for number in (7, 8):
            contextvars.copy_context().run(
                lambda number=number: (request.set(number), portal.call(logs))
            )  # type: ignore[misc]
    finally:
        portal.stop()
    assert values == [7, 8]


def test_no_event_is_lost_if_the_start_of_the_thread_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = LogWriter()
    order: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(log_writer, "start_thread_soon", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.put(lambda: order.append("first"))
    writer.put(lambda: order.append("second"))
    writer.flush(60)
    assert order == ["first", "second"]


def test_a_signal_handler_does_not_wait_for_the_start_that_it_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer, start = LogWriter(), log_writer.start_thread_soon
    order: list[str] = []
    values: list[list[str]] = []

    def interrupted(*args: Any) -> None:
        monkeypatch.setattr(log_writer, "start_thread_soon", start)
        writer.put(lambda: order.append("of the signal handler"))
        writer.flush(60)
        values.append(order.copy())
        start(*args)

    monkeypatch.setattr(log_writer, "start_thread_soon", interrupted)
    writer.put(lambda: order.append("first"))
    writer.put(lambda: order.append("last"))
    writer.flush(60)
    assert values == [["first", "of the signal handler"]]
    assert order == ["first", "of the signal handler", "last"]


STOPS_IN_A_HANDLER = """
import logging, os, signal, sys
import coord

class Slow(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        if record.getMessage() == "work":
            os.kill(os.getpid(), signal.SIGTERM)  # while this thread has the handler's lock

logging.basicConfig(level=logging.INFO, handlers=[Slow(sys.stdout)], format="%(message)s")
coordinator = coord.Coordinator("memory://")
lead = coordinator.leadership("r")

def stop(*_):
    lead.stop()
    coordinator.close()
    raise SystemExit(3)

signal.signal(signal.SIGTERM, stop)
lead.start()
lead.wait()
logging.getLogger("app").info("work")
"""


def test_a_signal_handler_may_stop_while_its_thread_logs() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STOPS_IN_A_HANDLER],
        stdout=subprocess.PIPE,
        timeout=60,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "leadership.elected",
        "work",
        "leadership.lost",
    ]
