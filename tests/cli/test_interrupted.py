"""Commands that Ctrl-C interrupts between the write and its answer: they say what is known."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.cli import COMMANDS, exit_codes, main
from coord.election import operators, retirement
from coord.recipes import slot_elector
from coord.stores.sqlite.announcements import SQLiteAnnouncements as AnnouncementsOfSQLite

ROLE = "a job"
SHOWN = "`coord status --all`"
CASES: dict[str, tuple[Any, str, str]] = {
    "evict": (operators, "evict", f"have been evicted; `coord history 'a job'` and {SHOWN} show"),
    "pause": (operators, "pause", "is paused; `coord resume 'a job'` lets"),
    "resume": (operators, "resume", f"may have been resumed; {SHOWN}"),
    "step-down": (operators, "request_handover", "`coord history 'a job'` shows that"),
    "transfer": (operators, "request_handover", "`coord history 'a job'` shows that"),
    "retire": (retirement, "retire", "some of the roles may have been retired; run the"),
    "slots": (slot_elector, "change_slots", "may have been changed; `coord slots 'a job'` shows"),
    "purge": (
        AnnouncementsOfSQLite,
        "purge",
        "some records may have been deleted; run the command again",
    ),
}
WORDS = {
    "transfer": [ROLE, "--to", "other", "--yes"],
    "retire": ["--unused", "0s", "--yes"],
    "slots": [ROLE, "3"],
    "resume": [ROLE],
    "purge": ["--yes"],
}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A store where "a job" has a leader and another candidate."""
    url = f"sqlite:///{tmp_path}/coord.db"
    with coord.connect(url) as c, coord.connect(url) as other:
        assert c.leadership(ROLE, ttl=30).acquire(timeout=10)
        other.leadership(ROLE, ttl=1, info={"name": "other"}).start()
        while not c.candidates(ROLE):
            time.sleep(0.02)
        yield url


@pytest.mark.parametrize(("name", "applied"), [("pause", False), *((name, True) for name in CASES)])
def test_it_says_what_is_known(
    name: str,
    applied: bool,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, function, expected = CASES[name]
    original = getattr(place, function)

    async def interrupted(*arguments: Any, **more: Any) -> Any:
        if applied:
            await original(*arguments, **more)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    monkeypatch.setattr(place, function, interrupted)
    if name == "pause":
        # Whether the leader was asked before is another matter: see test_operators.
        monkeypatch.setattr(operators, "_ask_to_pause", _nothing)
        if not applied:
            expected = "is not paused yet, and the request may still arrive; `coord status --all`"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as caught:
            main([name, *WORDS.get(name, [ROLE, "--yes"]), "--url", url])
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (exit_codes.INTERRUPTED, "")
    assert err.startswith("coord: interrupted: ")
    assert expected in err
    assert err.rstrip().count("\n") == 0


async def _nothing(*_: Any) -> None:
    return None


def test_every_command_that_changes_a_store_is_here() -> None:
    others = {
        *("run", "once", "share"),  # they end their command: see tests/cli/run
        *("leader", "status", "top", "web", "watch", "history", "notes", "candidates", "services"),
        *("completion", "doctor"),
        "init",  # a repeated call completes it
        "migrate",  # see test_migrate
    }
    assert COMMANDS.keys() - others == CASES.keys()
