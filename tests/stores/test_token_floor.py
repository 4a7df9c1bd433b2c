"""A backup that is restored hands out no token twice, once the floor was raised. On real files and
a real server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Union

import pytest

import coord
from coord.cli import main
from coord.errors import BadArgument
from coord.stores import urls
from tests.stores.rethinkdb.kit import ask, db, r

FLOOR = 202611240930  # the date and time: a floor that needs no looking up


def token(url: str, role: str = "job", **settings: int) -> int:
    """Of a term that begins and ends now."""
    with coord.connect(url) as c:
        term = c.leadership(role, ttl=5, **settings).acquire(timeout=10)
        assert term is not None
        return term.token


def init(url: str, *words: str) -> list[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
        main(["init", "--url", url, *words])
    assert ended.value.code in (0, None)
    return output.getvalue().splitlines()


class OnSQLite:
    def __init__(self, directory: Path) -> None:
        self.path, self.copy = directory / "coord.db", directory / "backup.db"
        self.url = f"sqlite://{self.path}"

    def back_up(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as file:
            file.execute("VACUUM INTO ?", (str(self.copy),))

    def restore(self) -> None:
        until = (
            time.monotonic() + 10
        )  # nothing may run: a feed's thread that still closes would write its log again
        while any(item.name.startswith("coord sqlite") for item in threading.enumerate()):
            assert time.monotonic() < until
            time.sleep(0.01)
        for part in ("-wal", "-shm"):
            Path(f"{self.path}{part}").unlink(missing_ok=True)
        shutil.copy(self.copy, self.path)


class OnRethinkDB:
    """By the vendor's own commands."""

    def __init__(self, directory: Path, url: str) -> None:
        self.url, self.file = url, directory / "backup.tar.gz"
        self.address, self.database = url.removeprefix("rethinkdb://").split("/")

    def back_up(self) -> None:
        self._run("rethinkdb-dump", "-f", str(self.file), "-e", self.database)

    def restore(self) -> None:
        ask(self.url, r.db_drop(self.database))
        self._run("rethinkdb-restore", str(self.file))
        init(self.url)  # a dump knows no settings of tables

    def _run(self, name: str, *words: str) -> None:
        command = [str(Path(sys.executable).parent / name), "-c", self.address, *words]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr


Place = Union[OnSQLite, OnRethinkDB]


@pytest.fixture(params=["sqlite", pytest.param("rethinkdb", marks=pytest.mark.rethinkdb)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield OnSQLite(tmp_path)
    else:
        yield OnRethinkDB(tmp_path, request.getfixturevalue("rethinkdb_url"))


def test_after_a_restore_tokens_repeat_until_the_floor_is_raised(place: Place) -> None:
    assert token(place.url) == 1
    place.back_up()
    handed_out = [1, token(place.url), token(place.url)]
    assert token(place.url, "later") == 1  # a role that the backup does not know
    fence = coord.Fence("the data", newest=max(handed_out))

    place.restore()
    repeated = token(place.url)
    assert repeated in handed_out  # what the floor is there for
    with pytest.raises(coord.StaleToken):
        fence(print, term=repeated)

    place.restore()
    assert init(place.url, "--token-floor", str(FLOOR), "--role", "later", "--role", "job")[
        -2:-1
    ] == [f"no token is below {FLOOR}: 2 roles changed"]
    assert token(place.url) == FLOOR + 1
    assert token(place.url, "later") == FLOOR + 1
    fence(print, term=FLOOR + 1)
    output = init(place.url, "--token-floor", str(FLOOR), "--role", "later")
    assert output[-2:-1] == [f"no token is below {FLOOR}: 0 roles changed"]
    assert token(place.url) == FLOOR + 2


def test_a_leader_whose_token_is_raised_has_lost_and_leads_again(place: Place) -> None:
    lost: list[tuple[int, str]] = []
    init(place.url)
    with coord.connect(place.url) as c:
        lead = c.leadership(
            "job", ttl=4, on_lost=lambda term, why: lost.append((term.token, str(why)))
        )
        with lead:
            assert lead.wait(10)
            held = lead.term
            init(place.url, "--token-floor", "50")
            with coord.connect(
                place.url
            ) as other:  # nobody takes what a leader may still believe in
                assert other.leadership("job", ttl=4).acquire(blocking=False) is None
            assert held.lost.wait(10)
            assert lead.wait(10)
            assert lead.term.token == 51
    assert lost[0] == (1, "taken")


def test_rows_written_by_hand_get_the_floor_too(rethinkdb_url: str) -> None:
    table = db(rethinkdb_url).table("coord_leases")
    ask(
        rethinkdb_url,
        table.insert([{"id": "a", "token": "seven"}, {"id": "b"}, {"id": "c", "token": 900}]),
    )
    init(rethinkdb_url, "--token-floor", "100")
    assert [token(rethinkdb_url, role) for role in "abc"] == [101, 101, 901]
    assert ask(rethinkdb_url, table.filter(r.row["token"].lt(100)).count()) == [0]


def test_a_candidate_of_its_own_floor(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    assert [token(url), token(url, token_floor=41), token(url)] == [1, 42, 43]
    assert token(url, token_floor=7) == 44
    assert token(url, "last", token_floor=2**53 - 1) == 2**53


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin in their own turn there")
def test_a_floor_holds_from_the_first_claim_on() -> None:
    """Where tasks are eager, that is sent while the candidate is being made."""

    async def body() -> int:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        async with coord.AsyncCoordinator("memory://") as coordinator:
            term = await coordinator.leadership("job", token_floor=41).acquire(timeout=5)
            assert term is not None
            return term.token

    assert asyncio.run(body()) == 42


@pytest.mark.parametrize("bad", [-1, 2**53, True, 1.0, "7", None])
def test_what_is_no_floor(tmp_path: Path, bad: object) -> None:
    admin = urls.open_admin(f"sqlite://{tmp_path}/coord.db")
    calls: list[Callable[[], object]] = [
        lambda: coord.Coordinator("memory://").leadership("job", token_floor=bad),
        lambda: asyncio.run(admin.raise_token_floor(bad, (), 5)),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(BadArgument, match="token_floor"):
            call()
