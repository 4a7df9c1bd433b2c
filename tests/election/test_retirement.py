"""Roles that nobody needs are retired, and their tokens never fall (rule 12)."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import coord
from coord import BadArgument, Coordinator, SlotsDiffer
from coord.api.overview import load_overview
from coord.core.operations import Claim, Result, Retire
from coord.election import retirement
from coord.integrations.asgi import Lead
from coord.recipes import agreement
from coord.stores.memory import MemoryStore
from coord.stores.protocol import HasAnnouncements, Retirable
from coord.stores.urls import open_admin
from tests.support.store_time import RealTime
from tests.support.waits import eventually


def led(c: Coordinator, role: str, times: int = 1) -> int:
    """The token of the last of so many terms."""
    token = 0
    for _ in range(times):
        with c.leadership(role, ttl=5) as lead:
            assert lead.wait(10)
            token = lead.term.token
    return token


def test_unused_roles_of_a_prefix_are_retired(url: str) -> None:
    with Coordinator(url) as c:
        if not isinstance(c.store, Retirable):
            pytest.skip("this store deletes no rows")
        last = led(c, "report-1", 3)
        led(c, "report-2")
        led(c, "other")
        assert c.retire("report-", unused=3_600) == []
        with c.leadership("report-held", ttl=5) as lead:
            assert lead.wait(10)
            lead.term.note("x", 1)
            c.pause("report-paused")
            assert c.retire("report-", unused=0) == ["report-1", "report-2"]
        assert c.retire("report-", unused=0) == []  # the last one keeps notes
        assert c.history("report-1") == []
        assert {row.role for row in c.portal.call(lambda: c.session.read(None))} == {
            "other",
            "report-held",
            "report-paused",
        }
        again = led(c, "report-1")
        assert again > last
        assert led(c, "other") > 1
        tokens = {role: led(c, role) for role in ("another", "report-new")}
        assert c.retire(unused=0) == ["another", "other", "report-1", "report-new"]
        assert led(c, "another") > tokens["another"]
        assert led(c, "report-1") > again


class TakenInBetween(MemoryStore):
    """Somebody leads a role after it was found to be unused."""

    async def retire(self, requests: list[Retire], timeout: float) -> list[bool]:  # type: ignore[override]
        from coord.core.operations import Claim

        result: Result = await self.claim(Claim("b", "x", 1, 30), 1)
        assert result.applied  # type: ignore[union-attr]
        return list(await super().retire(requests, timeout))


def test_a_role_that_is_claimed_meanwhile_stays() -> None:
    with Coordinator(store=TakenInBetween()) as c:
        for role in "abc":
            led(c, role)
        assert c.retire(unused=0) == ["a", "c"]
        assert c.leader("b") is not None


def test_the_number_of_slots_is_not_forgotten() -> None:
    with Coordinator("memory://") as c:
        with c.slots("dock", 2, ttl=5) as lead:
            assert lead.wait(10)
        assert c.retire(unused=0) in (["dock#0"], ["dock#1"])
        with pytest.raises(SlotsDiffer), c.slots("dock", 3, ttl=5) as lead:
            lead.acquire(timeout=5)


class RetiresFirst(MemoryStore):
    """Somebody retires the row of the group when a member writes it again."""

    async def claim(self, claim: Claim, timeout: float) -> Result:
        rows = await self.read([claim.role], timeout)
        if rows and not self._floors:
            await self.retire([Retire(claim.role, "", rows[0].revision, time.time())], timeout)
        return await super().claim(claim, timeout)


def test_a_group_that_is_retired_while_a_member_starts_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The member that has read its old row writes a new one, and nobody starts with others."""
    monkeypatch.setattr(agreement, "AGREEMENT_AGE", 0.0)
    with Coordinator(store=RetiresFirst()) as c:
        c.portal.call(lambda: agreement.agree(c.session, "g/", {"shards": 2}))
        there = c.portal.call(lambda: agreement.agree(c.session, "g/", {"shards": 3}))
        assert there == {"shards": 3}
        (row,) = c.portal.call(lambda: c.session.read(["g/"]))
        assert (row.info, row.token) == ({"shards": 3}, 2)


def test_the_row_of_a_group_stays_while_it_has_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """The member rests, so the group has no other row."""
    monkeypatch.setattr(retirement, "AGREEMENT_AGE", 0.0)

    def retired(c: Coordinator) -> set[str]:
        c.retire(unused=0)
        return {row.role for row in c.portal.call(lambda: c.session.read(None))}

    with Coordinator("memory://") as c:
        with c.share("g", 1, ttl=5) as shares:
            assert shares.wait_settled(10)
            c.request_step_down("g/000", cooldown=1e6)
            eventually(lambda: not shares.mine and c.leader("g/000") is None)
            eventually(lambda: retired(c) == {"g/"})
        eventually(lambda: retired(c) == set())


@pytest.mark.parametrize("role", ["dock#", "ingest/"])
def test_nobody_is_a_candidate_for_the_row_of_a_group(role: str) -> None:
    """A candidate would overwrite what the group has agreed on."""
    calls: list[Callable[[Coordinator], object]] = [
        lambda c: c.leadership(role),
        lambda c: c.slots(role, 2),
        lambda c: c.unique_service(role, {"ttl": 5}),
        lambda c: c.once(role, 1, int),
        lambda c: c.pause(role),
        lambda c: coord.leader_only(role),
        lambda c: Lead(role),
    ]
    with Coordinator("memory://") as c:
        for call in calls:
            with pytest.raises(BadArgument, match=f"invalid (role|job) '{role}': must not end"):
                call(c)
        assert c.leader(role) is None
        assert c.unique_service(role) is None


def test_rows_of_agreements_are_no_roles(store_time: RealTime, url: str) -> None:
    """A group needs the row, and nobody leads it."""
    with store_time.coordinator(url) as c:
        changes = c.watch_leaders()
        shows_info = not url.startswith("redis")  # there the feed leaves out the info of a claim
        for kind, group, role in ((c.slots, "dock", "dock#0"), (c.share, "ingest", "ingest/000")):
            with kind(group, 1, ttl=5):
                while (change := next(changes)).role != role or change.leader is None:
                    assert change.role == role or not shows_info
                assert {lease.role for lease in c.leaders()} == {role}
            while (change := next(changes)).role != role or change.leader is not None:
                assert change.role == role or not shows_info
        with c.slots("dock", 1), c.slots("dock", 1), c.share("ingest", 1):  # they wait, and meet
            if isinstance(c.store, HasAnnouncements):
                assert store_time.until(lambda: {"dock#"} == {row.role for row in c.candidates()})
            shown = c.portal.call(lambda: load_overview(c.inner, every=True))
        assert {lease.role for lease in shown.leases} == {"dock#0", "ingest/000"}
        rows = {lease.role for lease in c.portal.call(lambda: c.session.read(None))}
        assert rows == {"dock#", "dock#0", "ingest/", "ingest/000"}


class Without(MemoryStore):
    retire = None  # type: ignore[assignment]


def test_arguments() -> None:
    with Coordinator("memory://") as c:
        with pytest.raises(BadArgument, match="invalid unused -1"):
            c.retire(unused=-1)
        with pytest.raises(BadArgument, match="invalid prefix"):
            c.retire("x" * 121, unused=1)
    with (
        Coordinator(store=Without()) as c,
        pytest.raises(BadArgument, match="rows that can be deleted"),
    ):
        c.retire(unused=1)


def test_a_raised_floor_is_never_below_the_tokens_of_retired_roles(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path / 'leases.db'}"
    with Coordinator(url) as c:
        led(c, "tenant-1", 5)
        assert c.retire("tenant-", unused=0) == ["tenant-1"]
        asyncio.run(open_admin(url).raise_token_floor(2, ["tenant-1", "other"], 10))
        assert led(c, "tenant-1") == 6
        assert led(c, "other") == 3


def test_sqlite_refuses_to_delete_a_row_whose_token_could_come_again(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with Coordinator(f"sqlite://{path}") as c:
        led(c, "report-1", 2)
        led(c, "kept", 2)
        assert c.retire("report-", unused=0) == ["report-1"]
        led(c, "report-1")
    with closing(sqlite3.connect(path)) as conn:
        for statement in (
            "DELETE FROM coord_leases WHERE role = 'kept'",
            "DELETE FROM coord_leases WHERE role = 'report-1'",  # its token is above the floor
            "DELETE FROM coord_floors",
            "UPDATE coord_floors SET token = 1",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="coord: "):
                conn.execute(statement)
