"""The rows in which a group agrees on its shards or slots: no user sees them, and they are retired
with their group."""

from __future__ import annotations

import threading
from collections.abc import Callable
from unittest import mock

import pytest

import coord
from coord import Coordinator
from coord.election import retirement
from coord.recipes import agreement
from coord.recipes.slot_elector import change_slots
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]


def test_no_user_sees_the_rows_in_which_groups_agree(two: Two) -> None:
    """Neither while they are written nor later: in lists, in feeds, in the history, by name."""
    shown: set[str] = set()

    def watch() -> None:
        shown.update(change.role for change in two[1].watch_leaders())

    watching = threading.Thread(target=watch)
    watching.start()
    with two[0].leadership("first", ttl=5) as lead:
        assert lead.wait(10)
        assert eventually(lambda: "first" in shown)
        with two[0].share("g", 2, ttl=5) as shares, two[0].slots("s", 2, ttl=5) as slot:
            assert slot.wait(10)
            assert shares.wait_settled(20)
            roles = {"first", "g/000", "g/001", "s#0"}
            assert eventually(lambda: shown >= roles - {"s#0"} and len(shown) >= 4)
            assert {lease.role for lease in two[1].leaders()} - roles <= {"s#1"}
            assert {term.role for term in two[1].history()} - roles <= {"s#1"}
            for row in ("g/", "s#"):
                assert two[1].leader(row) is None
                assert two[1].history(row) == []
                for change in (two[1].evict, two[1].pause, two[1].resume):
                    with pytest.raises(coord.BadArgument, match="must not end with"):
                        change(row)
            assert {"g/", "s#"}.isdisjoint(shown)
    two[1].close()
    watching.join(20)


def rows(c: Coordinator) -> set[str]:
    return {row.role for row in c.portal.call(lambda: c.session.read(None))}


def test_who_changes_a_role_with_slots_or_shards_must_name_one_of_them(two: Two) -> None:
    """Nobody is a candidate for the name itself, so a pause of it would have no effect."""
    a, b = two
    with (
        a.share("g", 2, ttl=5) as shares,
        a.share("named", ["eu", "us"], ttl=5) as named,
        a.slots("s", 1, ttl=5) as slot,
    ):
        assert slot.wait(10)
        assert shares.wait_settled(20)
        assert named.wait_settled(20)
        for role, expected in (
            ("g", "must name one shard, 'g/000' to 'g/001': each shard is a role of its own"),
            ("named", "must name one shard, 'named/NAME': each shard is a role of its own"),
            ("s", "must name one slot, 's#0': each slot is a role of its own"),
        ):
            for change in (b.evict, b.pause, b.resume, b.request_step_down):
                with pytest.raises(coord.BadArgument) as error:
                    change(role)
                assert str(error.value) == f"invalid role {role!r}: {expected}"
        assert b.pause("s#0") is not None
        assert b.resume("s#0")
        with a.leadership("s", ttl=5) as lead:  # a role of its own, with a row
            assert lead.wait(10)
            assert b.pause("s") is not None
            assert b.resume("s")


def test_who_changes_a_slot_or_a_shard_must_name_one_that_exists(two: Two) -> None:
    a, b = two

    def message(change: Callable[[str], object], role: str) -> str:
        with pytest.raises(coord.BadArgument) as error:
            change(role)
        return str(error.value)

    with (
        a.share("g", 2, ttl=5) as shares,
        a.share("named", ["eu", "us"], ttl=5) as named,
        a.slots("s", 2, ttl=5) as slot,
    ):
        assert slot.wait(10)
        assert shares.wait_settled(20)
        assert named.wait_settled(20)
        for change in (
            b.evict,
            b.pause,
            b.resume,
            b.request_step_down,
            lambda role: b.request_transfer(role, "abcd"),
        ):
            for role, expected in (
                ("g/002", "a shard of 'g' that exists: 'g/000' to 'g/001'"),
                ("g/1", "a shard of 'g' that exists: 'g/000' to 'g/001'"),
                (
                    "named/uk",
                    "a shard of 'named' that exists: 'named/eu', 'named/us', or a role of another "
                    "purpose that has had a leader",
                ),
                ("s#2", "a slot of 's' that exists: 's#0' to 's#1'"),
            ):
                assert message(change, role) == f"invalid role {role!r}: must name {expected}"
        for role, way in (
            ("g", "g/000"), ("g/000", "g/000"), ("named", "named/NAME"), ("s", "'s#0'"),
            (slot.term.role, f"'{slot.term.role}'"),
        ):  # fmt: skip
            text = message(lambda role: b.request_transfer(role, "abcd"), role)
            assert "cannot be transferred, because" in text
            assert f"`coord step-down {way}` gives it to another candidate" in text
        text = message(lambda role: b.request_transfer(role, "abcd"), "named/eu")
        assert text == (
            "invalid to 'abcd': must name one candidate that waits for 'named/eu' (waiting now: "
            "nobody); if 'named/eu' is a shard of 'named', it cannot be transferred, because the "
            "group decides who gets it; `coord step-down named/eu` gives it to another candidate"
        )
        assert b.pause("g/cleanup") is None  # a role that the group has nothing to do with
        assert b.resume("g/cleanup")
        # As `coord migrate --hold` does: a candidate for the role of the slot itself.
        with b.leadership(slot.term.role, ttl=5) as other:
            assert eventually(
                lambda: other.candidate in [item.id for item in b.candidates(slot.term.role)]
            )
            b.request_transfer(slot.term.role, str(other.candidate))
            assert other.wait(20)
        # A slot that was removed may still have a holder, and may be paused.
        b.pause("s#1", timeout=0)
        number = b.portal.call(lambda: change_slots(b.session, "s", 1))
        assert number == 2
        assert b.resume("s#1")
        assert "must name a slot of 's' that exists: 's#0'" in message(b.pause, "s#1")


def test_an_agreement_is_retired_when_nothing_of_its_group_is_left(two: Two) -> None:
    c = two[0]
    g, h = (c.share(group, 1, ttl=5) for group in "gh")
    with g, h, c.slots("s", 1, ttl=5) as slot:
        assert slot.wait(10)
        assert g.wait_settled(20)
        assert h.wait_settled(20)
    assert eventually(lambda: c.leaders() == [])
    assert rows(c) == {"g/", "g/000", "h/", "h/000", "s#", "s#0"}
    assert c.retire("h/000", unused=0) == ["h/000"]
    assert "h/" in rows(c)  # its name does not begin with the prefix
    assert c.retire("g", unused=0) == ["g/000"]
    assert "g/" in rows(c)  # it was written today
    with mock.patch.object(retirement, "AGREEMENT_AGE", 0.0):
        with c.slots("s", 1, ttl=5) as slot:
            assert slot.wait(10)
            assert c.retire(unused=0) == []
            assert rows(c) == {"s#", "s#0"}
        assert eventually(lambda: c.leaders() == [])
        assert c.retire("s#", unused=0) == ["s#0"]
    assert rows(c) == set()
    with c.share("g", 3, ttl=5) as shares:  # another number than before
        assert shares.wait_settled(20)


def test_a_member_that_starts_writes_an_old_agreement_again(two: Two) -> None:
    """So that it is not retired at this moment."""
    c = two[0]
    with c.share("g", 1, ttl=5):
        pass
    read = lambda: c.portal.call(lambda: c.session.read(["g/"]))[0]  # noqa: E731
    before = read()
    with c.share("g", 1, ttl=5):
        assert read() == before
    with mock.patch.object(agreement, "AGREEMENT_AGE", -1.0), c.share("g", 1, ttl=5):
        after = read()
        assert after.token > before.token
        assert after.info == before.info
    with pytest.raises(coord.SharesDiffer):
        c.share("g", 2, ttl=5).start()


def test_a_role_goes_to_nobody_who_waits_for_a_slot_of_its_name(two: Two) -> None:
    """Such a candidate never claims the role, which would be reserved for it."""
    a, b = two
    with a.slots("s", 1, ttl=5) as slots, a.leadership("s", ttl=5) as lead:
        assert slots.wait(10)
        assert lead.wait(10)
        with b.slots("s", 1, ttl=5, info={"name": "bee"}):
            eventually(lambda: [item.role for item in a.candidates("s")] == ["s#"])
            for transfer in (lambda: b.request_transfer("s", "bee"), lambda: lead.transfer("bee")):
                with pytest.raises(coord.BadArgument, match=r"waiting now: nobody"):
                    transfer()
        assert lead.is_leader
