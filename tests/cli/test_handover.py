"""`coord status`, `history`, `candidates`, `step-down`, `transfer`, `purge`, with real leaders in
real processes."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

import coord
from coord.cli.output import format_duration, format_time
from tests.support.processes import Runs
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url

ME = f"@{os.uname().nodename}"


@pytest.fixture
def pair(runs: Runs) -> Iterator[tuple[Runs, coord.Coordinator]]:
    """One leads "job" with `coord run`, another waits for it."""
    runs.worker("--ttl", "3", "--info", "name=one")
    runs.journal.wait_for(1)
    runs.worker("--ttl", "3", "--info", "name=two")
    with coord.connect(runs.url) as c:
        eventually(lambda: c.candidates("job"))
        yield runs, c


def test_status_history_candidates(pair: tuple[Runs, coord.Coordinator]) -> None:
    runs, c = pair
    # A shorter ttl would leave too little time for the request on a busy machine.
    assert c.unique_service("gone", {"ttl": 3})
    eventually(lambda: c.leader("gone") is None)
    _, out, _ = runs.answer("status", "--url", runs.url)
    assert out.splitlines()[0].split() == [
        "role",
        "leader",
        "token",
        "since",
        "left",
        "waiting",
    ]
    assert len(out.splitlines()) == 2
    _, out, _ = runs.answer("status", "--url", runs.url, "--all")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["gone", "nobody"],
        ["job", "one"],
    ]
    _, out, _ = runs.answer("status", "--url", runs.url, "--all", "--json")
    roles = {load["role"]: load for load in json.loads(out)}
    assert (roles["job"]["waiting"], roles["job"]["led"], roles["job"]["last_loss"]) == (
        1,
        True,
        None,
    )
    assert abs(roles["job"]["since"] - time.time()) < 60
    assert (roles["gone"]["led"], roles["gone"]["remaining"]) == (False, 0)
    _, out, _ = runs.answer("candidates", "--url", runs.url)
    assert out.splitlines()[1].split()[:3] == ["job", "two", "pid"]
    (waiting,) = json.loads(runs.answer("candidates", "job", "--url", runs.url, "--json")[1])
    assert waiting["info"]["name"] == "two"
    assert waiting["id"] == c.candidates("job")[0].id
    _, out, _ = runs.answer("history", "gone", "--url", runs.url)
    assert "ran out" in out
    _, out, _ = runs.answer("history", "job", "--url", runs.url)
    assert "leads" in out
    assert out.splitlines()[1].split()[:3] == ["1", "one", "pid"]
    assert runs.answer("history", "no", "--url", runs.url)[:2] == (
        0,
        f"'no' has no history on {c.url}\n",
    )
    assert runs.answer("candidates", "no", "--url", runs.url)[:2] == (
        0,
        f"no candidate waits for 'no' on {c.url}\n",
    )


def test_transfer(pair: tuple[Runs, coord.Coordinator]) -> None:
    runs, c = pair
    (waiting,) = c.candidates("job")
    status, out, err = runs.answer("transfer", "job", "--to", "nobody", "--yes", "--url", runs.url)
    assert (status, out) == (2, "")
    assert "one candidate that waits" in err
    status, out, err = runs.answer(
        "transfer", "job", "--to", "two", "--yes", "--url", runs.url, "--json"
    )
    assert (status, err) == (0, "")
    came = json.loads(out)
    assert (came["term"]["token"], came["reason"]) == (1, "stepped_down")
    assert came["by"].endswith(ME)
    assert (came["leader"]["holder"], came["leader"]["token"]) == (waiting.id, 2)
    assert came["seconds"] < 15
    runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    newest, before = json.loads(runs.answer("history", "job", "--url", runs.url, "--json")[1])
    assert (newest["token"], newest["until"], before["reason"], before["by"]) == (
        2,
        None,
        "stepped_down",
        came["by"],
    )
    assert "stepped_down" in runs.answer("status", "--url", runs.url)[1]


def test_step_down_asks_first(pair: tuple[Runs, coord.Coordinator]) -> None:
    runs, c = pair

    def answered(reply: str, *more: str) -> tuple[int, str, str]:
        return runs.answer("step-down", "job", "--url", runs.url, *more, stdin=reply)

    status, out, err = answered("n\n")
    assert (status, out) == (1, "")
    assert "to step down from 'job'? [y/N]" in err
    assert "nothing was changed" in err
    status, out, err = answered("")
    assert (status, out) == (2, "")
    assert "--yes" in err
    assert c.leader("job").token == 1  # type: ignore[union-attr]
    status, out, _ = answered("y\n", "--by", "ops\x1b", "--cooldown", "60")
    assert status == 0
    assert re.fullmatch(
        r"'job': one \(pid \d+ on .*\) stepped down; "
        r"(two \(pid \d+ on .*\)|candidate [0-9a-f]+) is the leader now "
        r"\(token 2\)\n",
        out,
    )
    runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    assert c.history("job")[1].by == "ops\x1b"
    assert "ops\\x1b" in runs.answer("history", "job", "--url", runs.url)[1]


def test_a_leader_that_does_not_hear(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("job", {"ttl": 60})  # it obeys in its next call, which never comes
        words = ("step-down", "job", "--yes", "--url", runs.url)
        status, out, err = runs.answer(*words, "--timeout", "0.3")
        assert (status, out) == (76, "")
        assert "is still the leader (token 1)" in err
        status, out, err = runs.answer(*words, "--no-wait")
        assert (status, err) == (0, "")
        assert re.fullmatch(r"'job': the request to pid \d+ on .* is stored\n", out)
        status, out, _ = runs.answer(*words, "--no-wait", "--json")
        assert json.loads(out)["seconds"] is None
        assert c.leader("job").token == 1  # type: ignore[union-attr]


def test_candidates_of_unique_service_obey(runs: Runs) -> None:
    with coord.connect(runs.url) as a, coord.connect(runs.url) as b:
        stopping = threading.Event()

        def call(coordinator: coord.Coordinator, name: str) -> None:
            while not stopping.wait(0.1):
                coordinator.unique_service("job", {"id": name, "ttl": 5})

        assert a.unique_service("job", {"id": "a", "ttl": 5})
        callers = [threading.Thread(target=call, args=item) for item in ((a, "a"), (b, "b"))]
        for caller in callers:
            caller.start()
        try:
            eventually(lambda: b.candidates("job"))
            assert "id=b" in runs.answer("candidates", "job", "--url", runs.url)[1]
            words = ("transfer", "job", "--to", "b", "--yes", "--url", runs.url)
            assert runs.answer(*words)[0] == 0
            assert (b.unique_service("job") or {})["id"] == "b"
            words = ("step-down", "job", "--yes", "--by", "ops", "--url", runs.url)
            assert runs.answer(*words)[0] == 0
            ended = next(term for term in b.history("job") if term.token == 2)
            assert (ended.reason, ended.by, ended.info["id"]) == ("stepped_down", "ops", "b")
            assert "id=b" in runs.answer("history", "job", "--url", runs.url)[1]
        finally:
            stopping.set()
            for caller in callers:
                caller.join()


def test_asking_when_nobody_leads(runs: Runs) -> None:
    assert runs.answer("init", "--url", runs.url)[0] == 0
    for words in (("step-down", "job"), ("transfer", "job", "--to", "x")):
        assert runs.answer(*words, "--yes", "--url", runs.url) == (
            1,
            "",
            "coord: nobody leads 'job'\n",
        )
    assert runs.answer("step-down", "job", "--yes", "--timeout", "-1", "--url", runs.url)[0] == 2
    assert runs.answer("step-down", "job", "--yes", "--cooldown", "nan", "--url", runs.url)[0] == 2


@pytest.mark.stores("sqlite")
def test_purge(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        for name, ttl in (("stale\x1b", 0.1), ("alive", 60)):
            c.services.heartbeat({"id": name, "role": "proxy", "ttl": ttl, "load": 1})
        # A lease that has run out is no stale record.
        assert c.unique_service("job", {"ttl": 3})
        eventually(lambda: c.leader("job") is None)
        time.sleep(0.4)
        assert [stale_service["id"] for stale_service in c.services.stale_services()] == [
            "stale\x1b"
        ]
        with pytest.raises(coord.BadArgument, match="ttls_until_deletion"):
            c.services.stale_services(0.5)
        status, out, err = runs.answer("purge", "--url", runs.url)
        assert status == 2
        assert "stale\\x1b" in out
        assert "alive" not in out
        assert "Delete 1 service record and" in err
        assert len(c.services.stale_services()) == 1
        status, out, _ = runs.answer("purge", "--yes", "--url", runs.url)
        assert status == 0
        assert out.splitlines()[-1] == "deleted 1 service record and 0 announcements"
        assert [healthy_service["id"] for healthy_service in c.services.healthy_services()] == [
            "alive"
        ]
    status, out, _ = runs.answer("purge", "--yes", "--url", runs.url, "--json")
    assert json.loads(out) == {"services": 0, "announcements": 0, "stale": []}
    with closing(sqlite3.connect(runs.url.removeprefix("sqlite://"))) as db:
        assert db.execute("SELECT role, token FROM coord_leases").fetchall() == [("job", 1)]


@pytest.mark.stores("sqlite")
def test_services_of_before_a_reboot_are_stale_by_the_wall_clock(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        for name in ("old", "young"):
            c.services.heartbeat({"id": name, "role": "proxy", "ttl": 60, "load": 1})
        with closing(sqlite3.connect(runs.url.removeprefix("sqlite://"))) as db, db:
            db.execute(
                "UPDATE coord_records_services SET clock = 'another', beat_at = beat_at + 1e6"
            )
            db.execute(
                "UPDATE coord_records_services SET last_heartbeat = last_heartbeat - 1000 WHERE id = '\"old\"'"
            )
        assert [stale_service["id"] for stale_service in c.services.stale_services()] == ["old"]
        assert c.services.purge_stale_services() == {"deleted": 1}
        assert c.services.stale_services() == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 s"),
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (10, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_300, "2 h"),
        (1e6, "12 d"),
    ],
)
def test_lasting(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_moment() -> None:
    assert (
        format_time(None) == format_time(0) == format_time(1e300) == format_time(float("nan")) == ""
    )
    assert len(format_time(time.time())) == len("12:00:00")
    assert format_time(86_400 * 10).startswith("1970-01-1")
