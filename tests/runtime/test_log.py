"""Log events: a log that fails changes nothing, and says so on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from coord.runtime import log


class Broken(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError("a filter of the application")


@pytest.fixture
def standard() -> Iterator[logging.Logger]:
    logger, broken = logging.getLogger("coord"), Broken()
    logger.addFilter(broken)
    yield logger
    logger.removeFilter(broken)


@pytest.fixture
def configured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def fails(*_: object) -> str:
    raise BrokenPipeError("nobody reads this")


@pytest.mark.usefixtures("standard")
def test_a_filter_that_raises_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log.warning("leadership.lost", role="r", token=3)
    log.error("store.misbehaved", ValueError("x"), role="r")
    log.info("leadership.elected", role="r")
    assert capsys.readouterr().err.splitlines() == [
        "leadership.lost role='r' token=3 (not logged: ValueError)",
        "store.misbehaved role='r' (not logged: ValueError)",
    ]


@pytest.mark.usefixtures("configured")
def test_a_processor_that_raises_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.configure(processors=[fails])
    log.warning("leadership.lost", role="r")
    assert capsys.readouterr().err == "leadership.lost role='r' (not logged: BrokenPipeError)\n"


@pytest.mark.usefixtures("configured")
def test_configured_structlog_gets_the_event_and_its_fields() -> None:
    with structlog.testing.capture_logs() as entries:
        error = ValueError("x")
        log.error("store.misbehaved", error, role="r")
    assert entries == [
        {"event": "store.misbehaved", "log_level": "error", "role": "r", "exc_info": error}
    ]


def test_the_standard_log_has_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "coord"):
        log.info("leadership.elected", role="r", token=1)
    (record,) = caplog.records
    assert record.getMessage() == "leadership.elected role='r' token=1"
    assert record.__dict__["coord"] == {"role": "r", "token": 1}
