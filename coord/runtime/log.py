"""Log events: few, with stable names and fields.

They go to structlog if the application has configured it, otherwise through the standard `logging`
to the logger `coord`. Nothing is configured here: without handlers the standard library shows
warnings and errors only.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

_standard = logging.getLogger("coord")


def emit(level: int, event: str, *, exception: BaseException | None = None, **fields: Any) -> None:
    """Write one event; `exception` adds its traceback."""
    # Importing structlog takes 50 ms, which the first election of a process must not wait for. So
    # it is imported when an event is written; an application that configured it has imported it.
    configured = sys.modules.get("structlog")
    if configured is not None and configured.is_configured():
        if exception is not None:
            fields["exc_info"] = exception
        configured.get_logger("coord").log(level, event, **fields)
    elif _standard.isEnabledFor(level):
        import structlog

        text = structlog.processors.KeyValueRenderer()(_standard, "log", dict(fields))
        _standard.log(level, "%s %s", event, text, exc_info=exception, extra={"coord": fields})


def debug(event: str, **fields: Any) -> None:
    if _standard.isEnabledFor(logging.DEBUG):
        emit(logging.DEBUG, event, **fields)


def info(event: str, **fields: Any) -> None:
    emit(logging.INFO, event, **fields)


def warning(event: str, **fields: Any) -> None:
    emit(logging.WARNING, event, **fields)


def error(event: str, exception: BaseException | None = None, **fields: Any) -> None:
    emit(logging.ERROR, event, exception=exception, **fields)
