"""When a feed of PostgreSQL looks at its rows, in numbers: no server and no clock."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from coord.core.lease import Lease
from coord.stores.postgresql import feed as feed_module
from coord.stores.postgresql.connection import Pool
from coord.stores.postgresql.feed import MAX_INTERVAL, LeaseFeed
from coord.stores.postgresql.looks import BURST, LookSchedule
from coord.stores.postgresql.url import parse_url

SLACK = 0.05


@dataclass
class Leader:
    """A leader that renews every `period` seconds, up to `late` seconds late, until it dies."""

    role: str
    ttl: float
    period: float
    begins: float = 0.0
    dies: float = float("inf")
    late: float = 0.01

    def row(self, now: float) -> Lease:
        beat = max(int((min(now, self.dies) - self.begins) / self.period), 0)
        late = self.late * random.Random(f"{self.role} {beat}").random()
        written = self.begins + beat * self.period + late
        if written > now:
            beat, written = beat - 1, written - self.period
        return Lease(self.role, "a", 1, beat + 1, self.ttl, remaining=self.ttl - (now - written))


def looks(
    leaders: list[Leader], interval: float, until: float, slack: float = SLACK
) -> list[tuple[float, str, float]]:
    """When each renewal was first seen, whose it was, and how old it was by then; one entry with an
    empty role for each look."""
    schedule, now, beats = LookSchedule(slack), 0.37, dict[str, int]()
    history = []
    while now < until:
        history.append((now, "", 0.0))
        for row in (leader.row(now) for leader in leaders):
            schedule.saw(row, now)
            if beats.get(row.role) != row.beat:
                beats[row.role] = row.beat
                history.append((now, row.role, row.ttl - row.remaining))
        schedule.looked(now, interval)
        due = schedule.next_look(interval)
        assert now < due < now + 2 * interval
        now = due + 0.002
    return history


@pytest.mark.parametrize("period", [1.0, 0.8, 0.5])
def test_each_renewal_is_seen_a_moment_after_it_was_written(period: float) -> None:
    history = looks([Leader("r", 3.0, period)], 0.75, 60.0)
    ages = [age for at, role, age in history if role and at > 3.0]
    assert len(ages) >= 55
    assert max(ages) < SLACK + 0.05


def test_a_renewal_that_is_late_is_looked_for_once_more() -> None:
    history = looks([Leader("r", 30.0, 10.0, late=0.12)], 1.0, 300.0)
    ages = [age for at, role, age in history if role and at > 30.0]
    assert max(ages) < 0.3


@pytest.mark.parametrize(("ttl", "interval"), [(3.0, 0.75), (5.0, 1.0), (15.0, 1.0), (30.0, 1.0)])
def test_there_are_no_more_looks_than_at_a_fixed_pace(ttl: float, interval: float) -> None:
    history = looks([Leader("r", ttl, ttl / 3)], interval, 100.0)
    assert sum(not role for _, role, _ in history) <= 100.0 / interval + BURST
    ages = [age for at, role, age in history if role and at > ttl]
    assert max(ages) < SLACK + 0.05


def test_many_roles_do_not_cost_more_looks_than_one() -> None:
    leaders = [Leader(f"r{n}", 3.0, 1.0, begins=n * 0.0137) for n in range(70)]
    history = looks(leaders, 0.75, 60.0)
    assert sum(not role for _, role, _ in history) <= 60.0 / 0.75 + BURST
    assert max(age for _, role, age in history if role) < 1.5


def test_two_roles_with_renewals_close_together_share_the_look() -> None:
    both = [Leader("a", 3.0, 1.0), Leader("b", 3.0, 1.0, begins=0.045)]
    history = looks(both, 0.75, 60.0, slack=0.02)
    assert sum(not role for _, role, _ in history) <= 73
    ages = [age for at, role, age in history if role and at > 3.0]
    assert sorted(ages)[len(ages) * 9 // 10] < 0.1


def test_a_leader_that_died_costs_no_more_looks_than_a_fixed_pace() -> None:
    history = looks([Leader("r", 30.0, 10.0, dies=25.0)], 1.0, 55.0)
    after = [at for at, role, _ in history if not role and at >= 25.0]
    assert len(after) <= 30.0 + BURST
    # The last renewal before it died was seen at once.
    assert [age for at, role, age in history if role and at > 15.0][-1] < SLACK + 0.05


def test_a_clock_that_is_wrong_delays_a_look_no_longer_than_without_a_plan() -> None:
    for remaining in (-1e9, 0.0, 29.9, 1e9):
        schedule = LookSchedule(SLACK)
        schedule.saw(Lease("r", "a", 1, 1, 30.0, remaining=remaining), 100.0)
        schedule.looked(100.0, 1.0)
        assert 100.0 < schedule.next_look(1.0) < 102.0
        schedule.saw(Lease("r", "a", 1, 5, 30.0, remaining=-remaining), 101.0)
        schedule.looked(101.0, 1.0)
        assert 101.0 < schedule.next_look(1.0) < 103.0


def test_a_role_that_nobody_holds_is_looked_at_at_the_usual_pace() -> None:
    schedule = LookSchedule(SLACK)
    schedule.saw(Lease("r", "a", 1, 1, 3.0, remaining=2.9), 10.0)
    schedule.saw(Lease("r", None, 1, 2, 3.0), 10.5)
    schedule.looked(10.5, 0.75)
    assert schedule.next_look(0.75) == 11.25


def test_a_vacant_role_is_looked_at_no_more_often_than_usual() -> None:
    """Its next claim is notified. A look right after a release would compete with the claim."""
    pool: Any = SimpleNamespace(url=parse_url("postgresql://host/database"))
    feed = LeaseFeed(pool, ["r"])
    feed._ttls["r"] = 0.0
    assert feed.next_look(10.0, MAX_INTERVAL) == 10.0 + MAX_INTERVAL


def test_a_look_at_all_rows_forgets_roles_that_were_retired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A role whose release was not seen is in the schedule, too."""
    monkeypatch.setattr(feed_module.rows, "lease", lambda row, _role: row["lease"])

    class Server:
        present: tuple[str, ...] = ()

        async def fetch(self, *_: object) -> list[dict[str, object]]:
            return [
                {"role": role, "lease": Lease(role, "a", 1, 1, 30.0, remaining=30.0)}
                for role in self.present
            ]

    async def main() -> None:
        feed, server = LeaseFeed(Pool(parse_url("postgresql://localhost/x")), None), Server()
        for number in range(20):
            server.present = ("led", f"r{number}")
            shown = await feed.look(server, None)  # type: ignore[arg-type]
            assert f"r{number}" in {lease.role for lease in shown}
        assert set(feed._known) == set(feed._ttls) == {"led", "r19"}
        assert set(feed._schedule._rows) == {"led", "r19"}
        server.present = ()
        assert await feed.look(server, {"led"}) == []  # type: ignore[arg-type]
        assert set(feed._known) == {"led", "r19"}  # only some rows were read

    asyncio.run(main())
