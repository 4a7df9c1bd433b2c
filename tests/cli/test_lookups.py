"""`coord leader`, `coord status` and `coord notes` on every store."""

from __future__ import annotations

import json
import os

import coord
from tests.support.processes import Runs
from tests.support.store_urls import shared_url

url = shared_url


def shown(runs: Runs) -> str:
    """Return the URL as commands print it."""
    with coord.connect(runs.url) as c:
        return c.url


def test_leader_and_status(runs: Runs) -> None:
    assert runs.answer("init", "--url", runs.url)[0] == 0
    status, out, err = runs.answer("leader", "job", "--url", runs.url)
    assert (status, out, err) == (1, "", "nobody leads 'job'\n")
    assert runs.answer("leader", "job", "--url", runs.url, "--json")[:2] == (1, "null\n")
    assert runs.answer("status", "--url", runs.url) == (
        0,
        f"no role on {shown(runs)} has a leader\n",
        "",
    )
    assert runs.answer("status", "--url", runs.url, "--json")[:2] == (0, "[]\n")

    leader = runs.worker("--info", "zone=[b]")
    runs.journal.wait_for(1)
    status, out, _ = runs.answer("leader", "job", "--url", runs.url)
    assert status == 0
    assert "token 1" in out
    status, out, _ = runs.answer("status", "--url", runs.url, "--json")
    (row,) = json.loads(out)
    assert (status, row["role"], row["token"], row["ttl"]) == (0, "job", 1, 30.0)
    assert 0 < row["remaining"] <= 30
    assert row["info"] == {"host": os.uname().nodename, "pid": leader.pid, "zone": "[b]"}
    _, out, _ = runs.answer("status", "--url", runs.url)
    assert out.splitlines()[0].split() == [
        "role",
        "leader",
        "token",
        "since",
        "left",
        "waiting",
        "info",
    ]
    assert "zone=[b]" in out.splitlines()[1]


def test_notes(runs: Runs) -> None:
    with coord.connect(runs.url) as c, c.leadership("job", ttl=5) as lead:
        assert lead.wait(10)
        assert runs.answer("notes", "job", "--url", runs.url)[:2] == (
            0,
            f"'job' has no notes on {shown(runs)}\n",
        )
        lead.term.note({"b": [1, {"x": "\x1b[31m"}], "a": 1.5})
        status, out, _ = runs.answer("notes", "job", "--url", runs.url)
        rows = [line.split(maxsplit=1) for line in out.splitlines()]
        assert (status, rows[0]) == (0, ["note", "value"])
        assert rows[1] == ["a", "1.5"]
        assert rows[2][0] == "b"
        assert "\x1b" not in out
    out = runs.answer("notes", "job", "--json", "--url", runs.url)[1]
    assert json.loads(out) == {"a": 1.5, "b": [1, {"x": "\x1b[31m"}]}
    assert runs.answer("notes", "x" * 121, "--url", runs.url)[0] == 2
