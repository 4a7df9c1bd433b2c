"""A lease is a value: equal for two reads of one state, and its info belongs to the reader."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from coord.core.announcements import CANDIDATE, Announcement, Candidate
from coord.core.history import parse
from coord.core.lease import Lease, copy_info, with_remaining

HELD = Lease("r", "a", 3, 7, 30.0, 1000.0, 12.5, {"name": "A", "tags": [{"k": [1]}]}, 900.0)


def test_two_reads_of_one_state_are_equal() -> None:
    later = dataclasses.replace(HELD, remaining=2.0)
    assert later == HELD
    assert hash(HELD) == hash(later)
    assert len({HELD, later}) == 1


@pytest.mark.parametrize(
    "change", [{"role": "s"}, {"holder": "b"}, {"holder": None}, {"token": 4}, {"beat": 8}]
)
def test_two_states_are_not_equal(change: dict[str, Any]) -> None:
    assert dataclasses.replace(HELD, **change) != HELD


def test_each_access_returns_a_copy_of_the_info() -> None:
    lease = Lease("r", "a", 1, 1, info={"tags": [{"k": [1]}], "pair": (1, 2), "name": "A"})
    first: Any = lease.info
    first["name"] = "changed"
    first["tags"][0]["k"].append(2)
    first["pair"].append(3)
    assert lease.info == {"tags": [{"k": [1]}], "pair": [1, 2], "name": "A"}


def test_a_lease_at_a_later_time_is_the_same_state_and_shares_nothing_that_can_be_changed() -> None:
    later = with_remaining(HELD, 2.0)
    assert later == HELD
    assert (later.remaining, later.since) == (2.0, HELD.since)
    changed: Any = later.info
    changed["tags"].append(2)
    assert later.info == HELD.info == {"name": "A", "tags": [{"k": [1]}]}


def test_a_past_term_and_a_candidate_do_not_share_their_info_with_the_store() -> None:
    info = {"tags": [1]}
    (term,) = parse("r", [{"token": 1, "holder": "h", "since": 1.0, "info": info}])
    body = {"id": "c", "info": info, "priority": 0, "since": 1.0}
    candidate = Candidate.of(Announcement("k", "r", CANDIDATE, body, 1.0))
    assert candidate is not None
    for source in (term.info, candidate.info):
        source["tags"].append(2)
    assert info == {"tags": [1]}


def test_a_deeply_nested_info_is_copied_without_recursion() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    copied = copy_info({"deep": deep})["deep"]
    depth = 0
    while copied:
        (copied,), depth = copied, depth + 1
    assert depth == 100_000


def test_a_lease_survives_pickle_copy_and_replace() -> None:
    for again in (pickle.loads(pickle.dumps(HELD)), copy.deepcopy(HELD), dataclasses.replace(HELD)):
        assert again == HELD
        assert dataclasses.asdict(again) == dataclasses.asdict(HELD)
        assert again.info == {"name": "A", "tags": [{"k": [1]}]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        HELD.info = {}  # type: ignore[misc]
