"""What coord writes to the log: few events, with stable names and fields (docs/events.md lists
them).

Events go to structlog when the application has configured it, else to the logger `coord` of the
standard library. coord configures neither: without handlers the standard library shows warnings and
errors only. No event raises, because a log never decides anything: if the application's logging
fails, the event goes to stderr. A thread that must not wait for the application's logging hands its
events over to another (`hand_over`).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

_standard = logging.getLogger("coord")
_this_thread = threading.local()


def hand_over(put: Callable[[Callable[[], None]], None]) -> None:
    """Let the events of this thread be written by another, from now on.

    Args:
        put: Called with a function that writes one event and never raises.
    """
    _this_thread.put = put


def emit(level: int, event: str, *, exception: BaseException | None = None, **fields: Any) -> None:
    """Write one event. It never raises an `Exception`.

    Args:
        level: A level of the module `logging`.
        event: The name of the event.
        exception: An exception whose traceback is added; None means none.
        **fields: What else is known.
    """
    try:
        # An application that has configured structlog has imported it.
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            more = {} if exception is None else {"exc_info": exception}
            logger = structlog.get_logger("coord")
            write = functools.partial(logger.log, level, event, **fields, **more)
        elif _standard.isEnabledFor(level):
            write = functools.partial(_standard.handle, _record(level, event, exception, fields))
        else:
            return
    except Exception as err:
        write = functools.partial(_raise, err)
    put = getattr(_this_thread, "put", None)
    if put is None:
        _guarded(write, level, event, fields, Exception)
    else:
        # Of another thread, even SystemExit would only end that thread, silently.
        guarded = functools.partial(_guarded, write, level, event, fields, BaseException)
        # Processors and filters see the context variables of this task.
        put(functools.partial(contextvars.copy_context().run, guarded))


def _record(
    level: int, event: str, exception: BaseException | None, fields: dict[str, Any]
) -> logging.LogRecord:
    """Return a record with the time and the thread of now, whoever writes it when."""
    exc_info = None if exception is None else (type(exception), exception, exception.__traceback__)
    arguments, extra = (event, _rendered(fields)), {"coord": fields}
    return _standard.makeRecord(
        _standard.name, level, __file__, 0, "%s %s", arguments, exc_info, extra=extra
    )


def _guarded(
    write: Callable[[], object],
    level: int,
    event: str,
    fields: dict[str, Any],
    caught: type[BaseException],
) -> None:
    try:
        write()
    except caught as err:  # a filter, a processor or a broken pipe of the application
        _emit_to_stderr(level, event, fields, err)


def _raise(err: Exception) -> None:
    raise err


def _emit_to_stderr(level: int, event: str, fields: dict[str, Any], failed: BaseException) -> None:
    with contextlib.suppress(Exception):  # stderr may be closed, too
        if level >= logging.WARNING:
            text = f"{event} {_rendered(fields)} (not logged: {type(failed).__name__})\n"
            sys.stderr.write(text)


def _rendered(fields: dict[str, Any]) -> str:
    try:
        # Importing structlog takes 50 ms, which the first election of a process must not wait for,
        # so it is imported when the first event is written.
        from structlog.processors import KeyValueRenderer
    except Exception:  # the process is out of file descriptors, for example
        return " ".join(f"{name}={value!r}" for name, value in fields.items())
    return str(KeyValueRenderer()(_standard, "log", dict(fields)))


def debug(event: str, **fields: Any) -> None:
    """Write an event for the developers of an application."""
    if _standard.isEnabledFor(logging.DEBUG):
        emit(logging.DEBUG, event, **fields)


def info(event: str, **fields: Any) -> None:
    """Write an event of the ordinary course."""
    emit(logging.INFO, event, **fields)


def warning(event: str, **fields: Any) -> None:
    """Write an event that somebody should look at."""
    emit(logging.WARNING, event, **fields)


def error(event: str, exception: BaseException | None = None, **fields: Any) -> None:
    """Write an event that is a fault. `exception` adds its traceback; None means none."""
    emit(logging.ERROR, event, exception=exception, **fields)
