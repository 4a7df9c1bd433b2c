"""Learn that the process is about to end, before the server that it runs in begins to wait.

A web server such as uvicorn handles SIGTERM itself: it waits for open connections, and only then
ends the application. A role must not be held, and a stream must not stay open, for that long.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def before_shutdown(function: Callable[[], None]) -> Callable[[], None]:
    """Call `function` at each SIGINT and SIGTERM, and then the handler that is installed now.

    A signal that has no handler in Python stays as it is. Only the main thread of the main
    interpreter can install handlers; elsewhere this does nothing.

    Args:
        function: It is called in a signal handler, so it must return at once, and take no lock.

    Returns:
        A function that undoes this. It belongs into the same thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    active = [True]
    installed: list[tuple[int, Callable[[int, FrameType | None], object], Handler]] = []
    for number in SIGNALS:
        before = signal.getsignal(number)
        if not callable(before):
            continue
        handler = _chained(function, before, active)
        with contextlib.suppress(ValueError):  # a subinterpreter, as in mod_wsgi
            signal.signal(number, handler)
            installed.append((number, handler, before))

    def remove() -> None:
        active.clear()
        for number, handler, before in installed:
            # Somebody else may have put a handler above this one, which calls it.
            if signal.getsignal(number) is handler:
                signal.signal(number, before)

    return remove


Handler = Callable[[int, "FrameType | None"], object]


def _chained(function: Callable[[], None], before: Handler, active: list[bool]) -> Handler:
    def handler(number: int, frame: FrameType | None) -> None:
        if active:
            function()
        before(number, frame)

    return handler
