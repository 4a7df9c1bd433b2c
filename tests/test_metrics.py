"""`coord.metrics`: what a scrape says of elections, and that nothing is imported or kept while it
is off."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import coord
from coord import Coordinator
from coord.election import lifecycle
from coord.stores.memory.store import MemoryStore


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    collector = CollectorRegistry()
    yield collector
    coord.metrics.disable()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def eventually(registry: CollectorRegistry, name: str, least: float, **labels: str) -> float:
    until = time.monotonic() + 30
    while (number := value(registry, name, **labels) or 0.0) < least:
        assert time.monotonic() < until, (name, number)
        time.sleep(0.01)
    return number


def test_elections_losses_tokens_and_renewals_are_counted(registry: CollectorRegistry) -> None:
    coord.metrics.enable(registry)
    coord.metrics.enable(registry)  # once more does nothing
    with Coordinator(store=MemoryStore()) as c:
        lead = c.leadership("a", ttl=0.9, renew_every=0.1)
        with lead:
            assert lead.wait(5)
            eventually(registry, "coord_renewal_seconds_count", 2)
            assert value(registry, "coord_is_leader", role="a") == 1
            assert value(registry, "coord_fencing_token", role="a") == 1
            assert value(registry, "coord_elections_total", role="a") == 1
            lead.step_down(cooldown=0)
            assert lead.wait(5)
            assert value(registry, "coord_fencing_token", role="a") == 2
        assert value(registry, "coord_is_leader", role="a") == 0
    assert value(registry, "coord_losses_total", role="a", reason="stepped_down") == 1
    assert value(registry, "coord_losses_total", role="a", reason="released") == 1
    assert value(registry, "coord_elections_total", role="a") == 2
    renewals = value(registry, "coord_renewal_left_seconds_count")
    assert renewals == value(registry, "coord_renewal_seconds_count")
    assert (value(registry, "coord_renewal_seconds_bucket", le="0.5") or 0) > 0
    assert (
        value(registry, "coord_renewal_left_seconds_bucket", le="0.1") == 0
    )  # 0.675 s less what went by
    assert value(registry, "coord_renewal_left_seconds_bucket", le="1.0") == renewals
    assert b"coord_is_leader" in generate_latest(registry)


def test_the_gauge_reads_the_clock_at_the_scrape(registry: CollectorRegistry) -> None:
    """A leader whose loop stands still does not go on saying that it leads."""
    coord.metrics.enable(registry)
    c = Coordinator(store=MemoryStore())
    with c.leadership("a", ttl=0.6) as lead:
        assert lead.wait(5)
        eventually(registry, "coord_is_leader", 1, role="a")
        c.portal.loop().call_soon_threadsafe(time.sleep, 1.2)
        time.sleep(0.8)
        assert value(registry, "coord_is_leader", role="a") == 0
        assert (
            value(registry, "coord_losses_total", role="a", reason="expired") is None
        )  # nobody could count it yet
    c.close()


def test_a_term_that_was_held_before_is_shown_from_its_next_renewal_on(
    registry: CollectorRegistry,
) -> None:
    with Coordinator(store=MemoryStore()) as c, c.leadership("a", ttl=0.9, renew_every=0.1) as lead:
        assert lead.wait(5)
        coord.metrics.enable(registry)
        assert value(registry, "coord_is_leader", role="a") is None
        eventually(registry, "coord_is_leader", 1, role="a")


def test_off_again_and_into_another_registry(registry: CollectorRegistry) -> None:
    other = CollectorRegistry()
    coord.metrics.enable(other)
    coord.metrics.enable(registry)
    assert b"coord" not in generate_latest(other)
    coord.metrics.disable()
    assert b"coord" not in generate_latest(registry)
    assert lifecycle.observer is None
    coord.metrics.disable()


def test_off_nothing_is_imported() -> None:
    code = (
        "import coord, sys; c = coord.Coordinator('memory://'); lead = c.leadership('r', ttl=5); "
        "lead.acquire(timeout=5); "
        "c.close(); assert 'prometheus_client' not in sys.modules and 'coord.metrics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)


def test_without_the_client_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(coord.CoordError, match=r"coord\[prometheus\]"):
        coord.metrics.enable()
    assert lifecycle.observer is None


def test_in_the_clients_multiprocess_mode_it_is_set_at_each_change(tmp_path: Path) -> None:
    code = (
        "import coord\n"
        "from prometheus_client import CollectorRegistry, multiprocess\n"
        "coord.metrics.enable()\n"
        "c = coord.Coordinator('memory://'); lead = c.leadership('r', ttl=5)\n"
        "registry = CollectorRegistry(); multiprocess.MultiProcessCollector(registry)\n"
        "lead.acquire(timeout=5)\n"
        "assert registry.get_sample_value('coord_is_leader', {'role': 'r'}) == 1\n"
        "c.close()\n"
        "assert registry.get_sample_value('coord_is_leader', {'role': 'r'}) == 0\n"
        "assert registry.get_sample_value('coord_elections_total', {'role': 'r'}) == 1\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, env=environment)
