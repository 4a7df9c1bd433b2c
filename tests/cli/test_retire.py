"""`coord retire` on every store."""

from __future__ import annotations

import json

import pytest

import coord
from coord.cli.commands.retire import duration
from tests.support.processes import Runs
from tests.support.store_urls import shared_url

url = shared_url


def test_retire(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        for role in ("report-1", "report-2", "other"):
            assert c.unique_service(role, {"id": role, "ttl": 60})
            c.release(role)
    words = ("retire", "--url", runs.url, "--prefix", "report-")
    assert runs.answer(*words, "--unused", "90d", "--yes")[:2] == (
        0,
        "retired 0 roles whose names begin with 'report-'\n",
    )
    status, out, err = runs.answer(*words, "--unused", "0s", stdin="n\n")
    assert (status, out) == (1, "")
    assert "Retire 2 roles whose names begin with 'report-'? [y/N]" in err
    status, out, _ = runs.answer(*words, "--unused", "0s", "--yes", "--json")
    assert (status, json.loads(out)) == (0, {"retired": ["report-1", "report-2"]})
    status, out, _ = runs.answer("retire", "--url", runs.url, "--unused", "0s", "--yes")
    assert (status, out) == (0, "retired 1 role\n")
    status, out, err = runs.answer(*words, "--unused", "3 months", "--yes")
    assert (status, out) == (2, "")
    assert "invalid --unused '3 months': must be a number with a unit: 90d" in err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 7_776_000), ("1.5h", 5_400), ("30min", 1_800), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text, "unused") == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1w", "1 d", "99999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(coord.BadArgument, match="unused"):
        duration(text, "unused")
