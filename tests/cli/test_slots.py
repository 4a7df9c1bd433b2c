"""`coord run --slots` and `coord slots`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from coord import Coordinator
from coord.cli import main
from coord.stores.protocol import Overridable
from tests.support.commands import run_here
from tests.support.processes import Runs
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url


@pytest.fixture
def held(url: str) -> Iterator[Coordinator]:
    """A store where one of two slots of "job" is held."""
    with Coordinator(url) as c, c.slots("job", 2, ttl=30) as lead:
        assert eventually(lambda: lead.is_leader)
        yield c


def test_the_number_is_shown_and_changed(held: Coordinator, runs: Runs, url: str) -> None:
    assert runs.answer("slots", "job", "--url", url)[:2] == (0, "'job' has 2 slots, 1 held\n")
    _, out, _ = runs.answer("slots", "job", "4", "--url", url)
    assert out == "'job' has 4 slots (before: 2), 1 held\n"
    _, out, _ = runs.answer("slots", "job", "--json", "--url", url)
    assert json.loads(out) == {"role": "job", "slots": 4, "held": 1}
    assert runs.answer("slots", "other", "--url", url) == (1, "", "'other' has no slots\n")
    status, _, error = runs.answer("slots", "job", "0", "--url", url)
    assert status == 2
    assert "must be a number from 1 to 64" in error


def test_who_changes_a_role_with_slots_must_name_a_slot(
    held: Coordinator, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "must name one slot, 'job#0' to 'job#1': each slot is a role of its own"
    for words in ("evict", "pause", "resume", "step-down"):
        assert run_here(words, "job", "--url", url) == (
            2,
            "",
            f"coord: invalid role 'job': {named}\n",
        )


def test_who_changes_a_slot_must_name_one_that_exists(held: Coordinator, url: str) -> None:
    named = "must name a slot of 'job' that exists: 'job#0' to 'job#1'"
    for words in ("evict", "pause", "resume", "step-down", "transfer --to abcd"):
        for role in ("job#2", "job#00", "job#x"):
            assert run_here(*words.split(), role, "--url", url) == (
                2,
                "",
                f"coord: invalid role '{role}': {named}\n",
            )


def test_slots_cannot_be_transferred(held: Coordinator, url: str) -> None:
    (lease,) = held.leaders()
    for role, slot in (("job", "job#0"), (lease.role, lease.role)):
        assert run_here("transfer", "--to", "abcd", role, "--url", url) == (
            2,
            "",
            f"coord: invalid role '{role}': must not be a slot or have slots: a slot cannot be "
            f"transferred, because nobody chooses who gets it; `coord step-down '{slot}'` gives it "
            "to another candidate\n",
        )


def test_who_looks_up_a_role_with_slots_learns_of_them(
    held: Coordinator, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*words: str) -> tuple[str, str]:
        with contextlib.suppress(SystemExit):
            main([*words, "--url", url])
        out, err = capsys.readouterr()
        return out, err

    hint = "coord: each slot of 'job' is a role of its own: 'job#0' to 'job#1'\n"
    assert answer("leader", "job") == ("", f"{hint}nobody leads 'job'\n")
    assert answer("leader", "other") == ("", "nobody leads 'other'\n")
    missing = "coord: 'job' has no such slot; it has 'job#0' to 'job#1'\n"
    assert answer("leader", "job#2") == ("", f"{missing}nobody leads 'job#2'\n")
    for command in ("history", "notes"):
        assert answer(command, "job", "--json")[1] == hint
        assert answer(command, "job#2", "--json")[1] == missing
        assert answer(command, "job/2", "--json")[1] == ""
    with held.slots("job", 2) as second, held.slots("job", 2) as third:
        assert eventually(lambda: second.wait(0) or third.wait(0))
        assert eventually(lambda: held.candidates("job"))
        assert "job#" in answer("candidates", "job")[0]


def test_a_command_runs_in_a_free_slot(held: Coordinator, runs: Runs, url: str) -> None:
    shell = "echo slot $COORD_SLOT of $COORD_ROLE under $COORD_TOKEN"
    command = ("--no-wait", "--", "sh", "-c", shell)
    status, out, error = runs.answer("run", "job", "--url", url, "--slots", "2", *command)
    free = ({0, 1} - {int(held.leaders()[0].role.partition("#")[2])}).pop()
    assert (status, out, error) == (0, f"slot {free} of job under 1\n", "")
    with held.slots("job", 2) as second:
        assert second.wait(20)
        status, out, error = runs.answer("run", "job", "--url", url, "--slots", "2", *command)
        assert (status, out) == (75, "")
        assert "not started, 'job' is held: all of its 2 slots are taken" in error
    status, _, error = runs.answer("run", "job", "--url", url, "--slots", "3", *command)
    assert status != 0
    assert "the role has 2" in error
    both = ("--slots", "2", "--priority", "3")
    status, _, error = run_here("run", "job", "--url", url, *both, *command)
    assert status == 2
    assert "--slots cannot be used with --priority" in error


def test_whoever_waits_says_how_many_slots_are_taken(
    held: Coordinator, runs: Runs, url: str
) -> None:
    if not isinstance(held.store, Overridable):
        pytest.skip("no role of this store can be paused")
    free = ({0, 1} - {int(held.leaders()[0].role.partition("#")[2])}).pop()
    held.pause(f"job#{free}")
    words = ("--slots", "2", "--timeout", "5", "--", "true")
    status, _, error = runs.answer("run", "job", "--url", url, *words)
    assert status == 76
    assert "waiting for 'job': 1 of its 2 slots is taken\n" in error
    words = ("--slots", "2", "--no-wait", "--", "true")
    status, _, error = runs.answer("run", "job", "--url", url, *words)
    assert status == 75
    assert "'job' is held: 1 of its 2 slots is taken\n" in error
