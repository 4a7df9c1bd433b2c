"""What others wrote into the store, on a terminal: shown, never obeyed, and never more than a
screen can take."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.cli import output
from tests.support.processes import Runs

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
EVIL = {
    "note": f"{ESCAPE}\nsecond line\r\u202egnp.exe\u200b\x9b31m\x7f",
    "big": "x" * 100_000,
    ESCAPE: [ESCAPE],
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢字 🙂 c:\\x", "plain ü 漢字 🙂 c:\\x"),
        (ESCAPE, "\\x1b]0;owned\\x07\\x1b[2J"),
        ("a\nb\r\t\0", "a\\nb\\r\\t\\x00"),
        (
            "\u202e\u2066\u200b\u2028\x85\x9b\x7f\xa0\ufeff",
            "\\u202e\\u2066\\u200b\\u2028\\x85\\x9b\\x7f\\xa0\\ufeff",
        ),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
        (None, ""),
        (7, "7"),
    ],
)
def test_plain(text: object, shown: str) -> None:
    assert output.sanitize(text) == shown


def test_plain_is_bounded() -> None:
    assert output.sanitize("x" * 200) == "x" * 200
    assert output.sanitize("x" * 201) == "x" * 199 + "…"
    assert len(output.sanitize("\x1b" * 10_000, 50)) == 50
    assert len(output.one_line("\x1b\n" * 100_000)) <= 2_000


def test_pairs() -> None:
    assert output.format_info(
        {"host": "a", "n": [1, None], "s": "two words", "e": "", "pid": 3}, but=("pid",)
    ) == ("host=a n=[1, null] s='two words' e=''")
    assert output.format_info({}) == ""
    assert output.format_info(["not", "a", "dict"]) == "['not', 'a', 'dict']"
    shown = output.format_info(EVIL)
    assert shown.isprintable()
    assert len(shown) <= 200


def test_json_is_complete_and_harmless() -> None:
    text = output.to_json(EVIL)
    assert json.loads(text) == EVIL
    assert text.isascii()
    assert text.isprintable()
    assert output.to_json({"a": "\x7f"}) == '{"a": "\\u007f"}'


@pytest.fixture
def evil(runs: Runs) -> Runs:
    """A leader, a service and their roles, all as bad as a row can be."""
    role = f"job {ESCAPE}\n"
    with coord.connect(runs.url) as c:
        lead = c.leadership(role, ttl=60, info={"host": ESCAPE, "pid": "\n"})
        assert lead.acquire(timeout=10)
        c.services.heartbeat(
            {"id": f"evil{ESCAPE}", "role": role, "ttl": 60, "load": 1, "host": "h" * 100_000}
        )
        path = runs.url.removeprefix("sqlite://")
        kept = Path(path).parent / "kept.db"
        with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(kept)) as copy:
            now.backup(copy)
    with closing(sqlite3.connect(kept)) as db, db:  # as it was, with the lease held
        db.execute(
            "UPDATE coord_leases SET info = ?, holder = ?",
            (json.dumps({"host": ESCAPE, **EVIL}), f"id{ESCAPE}"),
        )
    return Runs(runs.start, f"sqlite://{kept}", runs.journal)


def screens(evil: Runs) -> list[tuple[str, ...]]:
    role = f"job {ESCAPE}\n"
    return [("leader", role), ("status",), ("services",), ("services", role)]


def test_no_command_obeys_or_floods(evil: Runs) -> None:
    for words in screens(evil):
        status, out, err = evil.answer(*words, "--url", evil.url)
        assert (status, err) == (0, ""), words
        assert all(line.isprintable() for line in out.splitlines()), (words, out)
        assert "\\x1b]0;owned" in out, words
        assert len(out) < 4_000, words
        status, out, _ = evil.answer(*words, "--url", evil.url, "--json")
        assert status == 0, words
        entry = first_of(json.loads(out))
        if words[0] == "services":
            assert (entry["id"], len(entry["host"])) == (f"evil{ESCAPE}", 100_000), words
        else:
            assert entry["info"] == {"host": ESCAPE, **EVIL}, words
        assert out.isascii(), words


def first_of(answer: Any) -> Any:
    return answer[0] if isinstance(answer, list) else answer


def test_watch(evil: Runs) -> None:
    role = f"job {ESCAPE}\n"
    for more in ((role,), (), (role, "--json"), ("--json",)):
        process = evil.start(
            "-m", "coord", "watch", "--url", evil.url, *more, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
        process.communicate()
        assert line.rstrip("\n").isprintable()
        if "--json" in more:
            assert json.loads(line)["leader"]["info"] == {"host": ESCAPE, **EVIL}
        else:
            assert len(line) < 1_000


def test_run_says_who_leads(evil: Runs) -> None:
    status, out, err = evil.answer(
        "run", f"job {ESCAPE}\n", "--url", evil.url, "--no-wait", "--", "true"
    )
    assert (status, out) == (75, "")
    assert err.rstrip("\n").isprintable()
    assert len(err) < 1_000


def test_a_terminal_that_knows_only_ascii(evil: Runs) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = evil.start("-m", "coord", "status", "--url", evil.url, env=environment)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.isascii()


def test_run_logs_one_line_each(runs: Runs) -> None:
    status, out, err = runs.answer(
        "run", f"job {ESCAPE}\n", "-v", "--url", runs.url, "--info", "x=\x1b", "--", "true"
    )
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert len(lines) > 1
    assert all(line.startswith("coord run: ") and line.isprintable() for line in lines)
