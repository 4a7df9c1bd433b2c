"""`before_shutdown` is called first, whichever handler the signal has, and leaves no handler behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from coord.runtime.shutdown import before_shutdown

messages: list[str] = []


def server(number: int, frame: FrameType | None) -> None:
    messages.append(f"server {number}")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A server that handles both signals."""
    messages.clear()
    before: dict[int, Any] = {
        number: signal.signal(number, server) for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_called_before_the_server(number: signal.Signals) -> None:
    remove = before_shutdown(lambda: messages.append("first"))
    signal.raise_signal(number)
    assert messages == ["first", f"server {number}"]
    remove()
    assert signal.getsignal(number) is server
    signal.raise_signal(number)
    assert messages[2:] == [f"server {number}"]


def test_two_that_are_removed_in_any_order() -> None:
    first = before_shutdown(lambda: messages.append("one"))
    two = before_shutdown(lambda: messages.append("two"))
    first()  # below the handler of the other, which calls it
    signal.raise_signal(signal.SIGTERM)
    assert messages == ["two", f"server {signal.SIGTERM:d}"]
    two()
    signal.raise_signal(signal.SIGTERM)
    assert messages[2:] == [f"server {signal.SIGTERM:d}"]


def test_a_signal_without_a_handler_stays_as_it_is() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    remove = before_shutdown(lambda: messages.append("first"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.raise_signal(signal.SIGINT)
    assert messages[0] == "first"
    remove()


def test_another_thread_installs_nothing() -> None:
    thread = threading.Thread(target=lambda: before_shutdown(lambda: messages.append("first"))())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is server
