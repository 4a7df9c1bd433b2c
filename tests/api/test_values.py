"""The leases that users get, on every store: equal for one state, and not shared with other readers.
Invalid durations raise an error when they are passed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import coord
from coord import Coordinator
from coord.stores.memory.store import MemoryStore
from coord.testing import FaultyStore
from coord.testing.clocks import ManualClock
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]


def test_every_lookup_of_one_state_returns_an_equal_lease(two: Two) -> None:
    with two[0].leadership("r", ttl=60, renew_every=40, attempt_timeout=1) as lead:
        assert lead.wait(30)
        reader = two[1]
        looked_up = reader.leader("r")
        watch = reader.watch_leader("r")
        first = next(watch)
        cached, (listed,) = reader.leader("r"), reader.leaders()
        change = next(reader.watch_leaders())
        assert looked_up == first == cached == listed == change.leader
        assert looked_up is not None
        assert len({looked_up, first, cached, listed, change.leader}) == 1


def test_no_reader_can_change_what_another_one_reads(two: Two) -> None:
    tags = {"tags": [1]}
    reports: list[Any] = []
    follower = two[1].leadership("r", ttl=60, on_new_leader=[reports.append, reports.append])
    lead = two[0].leadership("r", ttl=60, renew_every=40, attempt_timeout=1, info=tags)
    with lead:
        assert lead.wait(30)
        follower.start()
        eventually(lambda: len(reports) == 2)
        reader, watches = two[1], [two[1].watch_leader("r"), two[1].watch_leader("r")]
        shown = [*reports, *(next(watch) for watch in watches)]
        tags["tags"].append(2)
        for _ in range(2):
            leases = [reader.leader("r"), two[0].leader("r"), *reader.leaders()]
            terms = [*reader.history("r"), next(reader.watch_leaders()).leader]
            for copy in [*shown, *leases, *terms]:
                info: Any = copy.info
                assert info["tags"] == [1]
                info["tags"].append(3)
        follower.stop()


@pytest.mark.parametrize("bad", [["r"], {}, None, 7, "", "x" * 121], ids=lambda bad: repr(bad)[:5])
def test_a_role_of_a_wrong_type_or_length_is_refused(bad: Any) -> None:
    with Coordinator("memory://") as c, pytest.raises(coord.BadArgument, match="invalid role"):
        c.leader(bad)


BAD = [math.nan, -5, 1e300, 10**400, math.inf, True, "1"]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: str(bad)[:5])
def test_an_invalid_duration_raises_when_it_is_passed(bad: Any) -> None:
    coordinator = Coordinator("memory://")
    lead = coordinator.leadership("r", ttl=30)
    registry, status = coordinator.services, {"role": "w", "ttl": 5, "load": 0}
    held = coordinator.leadership("held", ttl=30)
    term = held.acquire()
    assert term is not None
    calls: list[tuple[str, Callable[[], object]]] = [
        ("linger", lambda: lead.stop(linger=bad)),
        ("linger", lambda: held.stop(linger=bad)),
        ("timeout", lambda: term.lost.wait(bad)),
        ("timeout", lambda: lead.wait(bad)),
        ("timeout", lambda: lead.acquire(timeout=bad)),
        ("timeout", lambda: coordinator.check(bad)),
        ("timeout", lambda: Coordinator("memory://", timeout=bad)),
        ("timeout", lambda: coord.connect("memory://", timeout=bad)),
        ("cooldown", lambda: held.step_down(bad)),
        ("cooldown", lambda: coordinator.request_step_down("held", cooldown=bad)),
        ("max_lag", lambda: coord.health(max_lag=bad)),
        ("every", lambda: coord.Heartbeat(registry, status, every=bad)),
        ("ttl", lambda: registry.heartbeat({**status, "ttl": bad})),
        ("ttl", lambda: coord.Heartbeat(registry, {**status, "ttl": bad})),
        ("ttls_until_deletion", lambda: registry.purge_stale_services(bad)),
        ("seconds", lambda: ManualClock().advance(bad)),
        ("seconds", lambda: ManualClock().suspend(bad)),
        ("before", lambda: FaultyStore(MemoryStore()).slow("read", before=bad)),
        ("after", lambda: FaultyStore(MemoryStore()).slow("read", after=bad)),
    ]
    for name in (
        "ttl",
        "renew_every",
        "attempt_timeout",
        "margin",
        "drain_timeout",
        "at_most",
        "min_tenure",
    ):
        calls.append((name, lambda name=name: coordinator.leadership("r", **{name: bad})))
    for name, more in (
        ("ttl", {}),
        ("at_least", {"scope": "call"}),
        ("at_most", {}),
        ("timeout", {"otherwise": "wait"}),
    ):
        calls.append(
            (name, lambda name=name, more=more: coord.leader_only("r", **{name: bad}, **more))
        )
    try:
        for name, call in calls:
            with pytest.raises(coord.BadArgument, match=rf"^invalid .*{name}.*: must be "):
                call()
        assert held.is_leader
    finally:
        coordinator.close()


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, 10**400, True, "1"], ids=lambda bad: str(bad)[:5]
)
def test_an_invalid_load_raises_when_it_is_passed(bad: Any) -> None:
    registry, status = Coordinator("memory://").services, {"role": "w", "ttl": 5, "load": bad}
    for call in (
        lambda: registry.heartbeat(status),
        lambda: coord.Heartbeat(registry, status),
        lambda: coord.Heartbeat(registry, {"role": "w", "ttl": 5}, load=bad),
        lambda: coord.AsyncHeartbeat(registry.inner, {"role": "w", "ttl": 5}, load=bad),
    ):
        with pytest.raises(coord.BadArgument, match=r"^invalid .*load.*: must be "):
            call()


@pytest.mark.parametrize(("size", "fits"), [(16_384, True), (16_385, False)])
def test_the_limit_of_an_info_is_exact(size: int, fits: bool) -> None:
    info = {"a": "x" * (size - len('{"a": ""}'))}
    coordinator = Coordinator("memory://")
    if fits:
        assert coordinator.leadership("r", info=info) is not None
    else:
        with pytest.raises(coord.BadArgument, match=r"at most 16,384 bytes; it has 16,385$"):
            coordinator.leadership("r", info=info)
