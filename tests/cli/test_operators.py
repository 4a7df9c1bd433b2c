"""`coord evict`, `coord pause` and `coord resume`, with real leaders in real processes."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from unittest import mock

import pytest

import coord
from coord.cli import options
from coord.cli.commands.operators import outcome_of_pause
from tests.support.commands import run_here
from tests.support.processes import Runs
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url


@pytest.fixture
def pair(runs: Runs) -> Iterator[tuple[Runs, coord.Coordinator]]:
    """One leads "job" with `coord run`, another waits for it."""
    runs.worker("--ttl", "3", "--info", "name=one")
    runs.journal.wait_for(1)
    runs.worker("--ttl", "3", "--info", "name=two")
    with coord.connect(runs.url) as c:
        eventually(lambda: c.candidates("job"))
        yield runs, c


def test_evict(pair: tuple[Runs, coord.Coordinator]) -> None:
    runs, c = pair
    status, out, err = runs.answer("evict", "job", "--url", runs.url, stdin="n\n")
    assert (status, out) == (1, "")
    assert re.search(r"Evict one \(pid \d+ on .*\) \(token 1\) from 'job'\? \[y/N\]", err)
    assert c.leader("job").token == 1  # type: ignore[union-attr]
    status, out, err = runs.answer("evict", "job", "--yes", "--by", "ann", "--url", runs.url)
    assert (status, err) == (0, "")
    assert re.fullmatch(
        r"'job': one \(pid \d+ on .*\) \(token 1\) is evicted; its lease runs for at most 3 s more, "
        r"and then another candidate is elected\n",
        out,
    )
    runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    newest, evicted = c.history("job")
    assert (newest.token, evicted.reason, evicted.by) == (2, "evicted", "ann")
    status, out, err = runs.answer("evict", "none", "--yes", "--url", runs.url)
    assert (status, out) == (1, "")
    assert err == "coord: not the leader of 'none': nobody leads it\n"


def test_evict_ends_only_the_term_that_was_confirmed(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        first, second = (c.leadership("job", ttl=30) for _ in range(2))
        assert first.acquire(timeout=10)
        process = runs.start.fork("-m", "coord", "evict", "job", "--url", runs.url)
        assert process.stderr is not None
        shown = ""
        while not shown.endswith("[y/N]: "):
            shown += process.stderr.read(1)
        assert "(token 1)" in shown
        first.stop()
        assert second.acquire(timeout=10).token == 2  # type: ignore[union-attr]
        out, err = process.communicate("y\n", timeout=20)
        assert (process.returncode, out) == (1, "")
        assert "the term with token 1 has ended, and another one has begun" in err
        assert c.leader("job").token == 2  # type: ignore[union-attr]
        with pytest.raises(coord.BadArgument, match="invalid token '2': must be an int"):
            c.evict("job", token="2")  # type: ignore[arg-type]
        assert c.evict("job", token=2).token == 2
        second.stop()


@pytest.mark.parametrize(
    ("words", "led"),
    [
        ("step-down job", True),
        ("transfer job --to three", True),
        ("pause job", True),
        ("pause job", False),
        ("evict job", True),
    ],
)
def test_a_leader_that_was_elected_after_the_question_is_left_alone(
    url: str, words: str, led: bool
) -> None:
    """The user has confirmed another state of the role than the one that is there now."""
    with coord.connect(url) as c:
        first, second, third = (
            c.leadership("job", ttl=30, info={"name": name}) for name in ("one", "two", "three")
        )
        if led:
            assert first.acquire(timeout=10)
            third.start()
        two: list[coord.Term | None] = []

        def confirm(question: str, *, yes: bool) -> None:
            assert not yes
            assert ("one (pid" if led else "which nobody leads") in question
            third.stop()
            first.stop()
            two.append(second.acquire(timeout=10))

        if led:
            eventually(lambda: c.candidates("job"))
        with mock.patch.object(options, "confirm", confirm):
            status, out, err = run_here(*words.split(), "--url", url)
        last = 1 if led else 0
        assert (status, out) == (1, "")
        why = "the term with token 1 has ended, and another one has begun"
        why = why if led else "its present term has token 1, not 0"
        assert err.startswith(f"coord: not the leader of 'job': {why}")
        assert two[0] is not None
        assert two[0].held
        assert c.leader("job").token == last + 1  # type: ignore[union-attr]
        assert c.resume("job") is False
        second.stop()


def test_pause_and_resume(pair: tuple[Runs, coord.Coordinator]) -> None:
    runs, c = pair
    status, out, err = runs.answer("pause", "job", "--yes", "--by", "ann", "--url", runs.url)
    assert (status, err) == (0, "")
    assert re.fullmatch(
        r"'job' is paused; one \(pid \d+ on .*\) \(token 1\) is not the leader any longer\n", out
    )
    assert c.history("job")[0].reason == "paused"
    _, out, _ = runs.answer("status", "--url", runs.url)
    assert "nobody (paused by ann)" in out
    (row,) = json.loads(runs.answer("status", "--json", "--url", runs.url)[1])
    assert (row["paused"], row["led"], row["holder"]) == (True, False, None)
    late = runs.worker("--ttl", "30", "--no-wait")
    _, err = late.communicate(timeout=20)
    assert late.returncode == 75
    assert "not started, 'job' is paused by ann; `coord resume job` lets candidates be" in err
    late = runs.worker("--ttl", "30", "--timeout", "3")
    _, err = late.communicate(timeout=20)
    assert late.returncode == 76
    assert "it is paused by ann; `coord resume job`" in err
    assert len(runs.journal.stretches()) == 1
    answer = runs.answer("resume", "job", "--json", "--url", runs.url)
    assert (answer[0], json.loads(answer[1])) == (0, {"role": "job", "resumed": True})
    runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    status, out, err = runs.answer("resume", "job", "--url", runs.url)
    assert (status, out, err) == (1, "", "coord: 'job' is not paused\n")


@pytest.mark.parametrize(
    ("words", "message", "now"),
    [
        (
            ("pause", "job"),
            "coord: interrupted: 'job' is paused as soon as {leader} (token 1), which was asked to,"
            " has released it; after that `coord resume job` lets candidates be elected again",
            True,
        ),
        (
            ("step-down", "job", "--by", "ann"),
            "coord: interrupted: the leader of 'job' may still hand it over; "
            "`coord history job` shows that",
            False,
        ),
    ],
)
def test_a_command_that_is_interrupted_says_what_goes_on(
    runs: Runs, words: tuple[str, ...], message: str, now: bool
) -> None:
    released = threading.Event()
    with coord.connect(runs.url) as c:
        lead = c.leadership(
            "job", ttl=30, info={"name": "one"}, on_lost=lambda *_: released.wait(30)
        )
        term = lead.acquire(timeout=10)
        assert term is not None
        process = runs.start.fork("-m", "coord", *words, "--yes", "--url", runs.url)
        assert term.lost.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        released.set()
        leader = re.sub(r"one \(pid \d+ on [^)]*\)", "{leader}", err)
        assert (process.returncode, out, leader.rstrip()) == (130, "", message)
        lead.stop()
        assert eventually(lambda: c.leader("job") is None)
        assert c.resume("job") is now


def test_a_pause_that_is_interrupted_once_it_is_done_says_how_to_resume() -> None:
    coordinator = coord.Coordinator("memory://")
    assert outcome_of_pause(coordinator, "job") == (
        "'job' is not paused yet, and the request may still arrive; `coord status --all` shows "
        "that, and `coord resume job` lets candidates be elected again"
    )
    coordinator.pause("job")
    resume = "`coord resume job` lets candidates be elected again"
    assert outcome_of_pause(coordinator, "job") == f"'job' is paused; {resume}"
    coordinator.close()
    message = outcome_of_pause(coordinator, "job")
    assert message.startswith("'job' may be paused (")
    assert message.endswith(resume)
