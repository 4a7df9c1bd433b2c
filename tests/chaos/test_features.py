"""Chaos with each feature: workers that share, call, run ticks and publish, and operators that
intervene."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.jobs import FAULTS, FEATURES
from tests.chaos.test_chaos import Chaos, kept
from tests.support import requirements

STORES = ("sqlite", "rethinkdb", "postgresql")
SECONDS = {"share": 600.0, "all": 600.0}
"""Seconds of a long run, where it is not three minutes."""
BRIEF = "stop in act,evict,kill,retire,pause role,transfer"
WRITTEN = {"once": "ticks run", "info": "changes of the info"}


def test_all_features_keep_every_promise(tmp_path: Path) -> None:
    words = ("--features", "all", "--ttl", "1.5", "--calm", "0.3", "--kinds", BRIEF)
    chaos = Chaos(tmp_path, "all", "sqlite", 8, *words)
    try:
        result = kept(chaos)
        assert set(result["faults"]) == set(BRIEF.split(",")), chaos.log
        done = result["of_features"]
        assert done["roles that somebody held"] > 40, chaos.log
        assert done["ticks run"] >= 2
        assert done["changes of the info"] >= 1
        assert done["leases overridden by operators"] >= 3  # evicted, paused, resumed
        assert done["rows retired"] >= 1
        assert sum(result["held_at_the_end"]["share"]) == 12
    finally:
        chaos.end()


@pytest.mark.longest
@pytest.mark.timeout(3000)
@pytest.mark.cluster
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("feature", [*FEATURES, "all"])
def test_minutes_of_chaos(feature: str, store: str, tmp_path: Path) -> None:
    if store != "sqlite":
        requirements.need(store)
    seconds = SECONDS.get(feature, 180.0)
    chaos = Chaos(tmp_path, feature, store, seconds, "--features", feature, "--ttl", "3")
    try:
        result = kept(chaos)
        assert result["tokens_twice"] == 0
        for kind in FAULTS.get(feature, ()):
            assert result["faults"].get(kind, 0) >= 1 or kind == "retire", chaos.log
        if feature in WRITTEN:
            assert result["of_features"][WRITTEN[feature]] > 20
    finally:
        chaos.end()
