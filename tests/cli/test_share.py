"""`coord share`: one command for each shard, ended before the shard goes to another member."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from coord import Coordinator
from tests.support.commands import run_here
from tests.support.processes import Process, Runs, Start, lives
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url

SCRIPT = """
echo begin $COORD_SHARD $COORD_TOKEN $$ >>{journal}
trap 'sleep 0.3; echo end $COORD_SHARD $COORD_TOKEN $$ >>{journal}; exit 0' TERM
while :; do sleep 0.05; done
"""


class Shards:
    """`coord share` on four shards, and what its commands have written."""

    def __init__(self, start: Start, url: str, directory: Path) -> None:
        self._start, self.url = start, url
        self.journal = directory / "shards"
        self._script = SCRIPT.format(journal=self.journal)

    def share(self, *words: str) -> Process:
        options = ("--shards", "4", "--ttl", "3", "--url", self.url, *words)
        command = ("sh", "-c", self._script)
        return self._start.fork("-m", "coord", "share", "ingest", *options, "--", *command)

    def lines(self) -> list[tuple[str, int, int, int]]:
        text = self.journal.read_text() if self.journal.exists() else ""
        words = [line.split() for line in text.splitlines()]
        return [(what, int(shard), int(token), int(pid)) for what, shard, token, pid in words]

    def running(self) -> dict[int, tuple[int, int]]:
        """The token and the process of each shard whose command runs. No shard has two."""
        shards: dict[int, tuple[int, int]] = {}
        for what, shard, token, pid in self.lines():
            if what == "begin":
                before = shards.get(shard)
                assert before is None or not lives(before[1]), "two commands of a shard"
                shards[shard] = (token, pid)
            else:
                assert shards.pop(shard) == (token, pid)
        return shards


@pytest.fixture
def shards(start: Start, url: str, tmp_path: Path) -> Shards:
    return Shards(start, url, tmp_path)


def test_each_shard_has_one_command_that_ends_before_the_shard_moves(shards: Shards) -> None:
    first = shards.share()
    assert eventually(lambda: len(shards.running()) == 4)
    second = shards.share()
    assert eventually(
        lambda: sorted(token for token, _ in shards.running().values()) == [1, 1, 2, 2]
    )
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 128 + signal.SIGTERM
    assert eventually(
        lambda: sorted(token for token, _ in shards.running().values()) == [1, 1, 3, 3]
    )
    first.send_signal(signal.SIGINT)
    assert first.wait(20) == 128 + signal.SIGINT
    assert shards.running() == {}
    with Coordinator(shards.url) as c:
        assert c.leaders() == []


def test_commands_end_with_a_killed_coord_share(shards: Shards) -> None:
    first = shards.share()
    assert eventually(lambda: len(shards.running()) == 4)
    pids = [pid for _, pid in shards.running().values()]
    first.kill()
    first.wait(20)
    assert eventually(lambda: not any(lives(pid) for pid in pids))


def test_a_command_that_ends_is_started_again(start: Start, url: str, tmp_path: Path) -> None:
    journal = tmp_path / "ended"
    command = ("sh", "-c", f"echo $COORD_ROLE $COORD_TOKEN >>{journal}; exit 3")
    options = ("--shards", "1", "--ttl", "3", "--url", url)
    process = start("-m", "coord", "share", *options, "ingest", "--", *command)
    assert eventually(lambda: journal.exists() and len(journal.read_text().splitlines()) == 2)
    assert set(journal.read_text().splitlines()) == {"ingest/000 1"}
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert "coord share: shard 0: COMMAND ended with status 3; again in 1 s" in error


def test_members_with_other_shards_are_refused(runs: Runs, shards: Shards) -> None:
    shards.share()
    assert eventually(lambda: len(shards.running()) == 4)
    words = ("share", "ingest", "--shards", "5", "--url", shards.url, "--", "true")
    status, _, error = runs.answer(*words)
    assert status != 0
    assert "its members share 4 shards, and this one 5 shards" in error
    status, _, error = run_here("share", "ingest", "--shards", "0", "--", "true")
    assert status == 2
    assert "must be a whole number from 1 to 4,096" in error
