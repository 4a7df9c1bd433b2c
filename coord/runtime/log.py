"""What coord says in the log: few events, with stable names and fields (docs/events.md lists them).

They go to structlog when the application has configured it, else through the standard `logging` to
the logger `coord`. Nothing is configured here: without handlers the standard library shows warnings
and errors, and no more."""

from __future__ import annotations

import logging
import sys
from typing import Any

_standard = logging.getLogger("coord")


def emit(level: int, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """One event. `error` adds its traceback."""
    # Importing structlog takes 50 ms, which the first election of a process must not wait for: it
    # is imported where something is to be written, and an application that has configured it has
    # imported it.
    configured = sys.modules.get("structlog")
    if configured is not None and configured.is_configured():
        if error is not None:
            fields["exc_info"] = error
        configured.get_logger("coord").log(level, event, **fields)
    elif _standard.isEnabledFor(level):
        import structlog

        text = structlog.processors.KeyValueRenderer()(_standard, "log", dict(fields))
        _standard.log(level, "%s %s", event, text, exc_info=error, extra={"coord": fields})


def debug(event: str, **fields: Any) -> None:
    if _standard.isEnabledFor(logging.DEBUG):
        emit(logging.DEBUG, event, **fields)


def info(event: str, **fields: Any) -> None:
    emit(logging.INFO, event, **fields)


def warning(event: str, **fields: Any) -> None:
    emit(logging.WARNING, event, **fields)


def error(event: str, error: BaseException | None = None, **fields: Any) -> None:
    emit(logging.ERROR, event, error=error, **fields)
