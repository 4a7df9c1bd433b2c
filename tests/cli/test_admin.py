"""The commands on real servers."""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.stores.rethinkdb import driver, parse_url
from tests.cli.test_errors import FEW, Failing, check
from tests.stores.rethinkdb.kit import ask
from tests.support.forkserver import ForkServer
from tests.support.levels import deeper
from tests.support.processes import Journal, Runs, Start, boottime
from tests.support.store_urls import any_server
from tests.support.waits import eventually

r, url = driver.reql(), any_server


@pytest.fixture
def on_rethinkdb(start: Start, rethinkdb_url: str, journal: Journal) -> Runs:
    return Runs(start, rethinkdb_url, journal)


@pytest.fixture
def on_server(start: Start, url: str, journal: Journal) -> Runs:
    return Runs(start, url, journal)


@pytest.mark.stores("rethinkdb")
def test_init_and_doctor(rethinkdb_server: Any, runs: Runs) -> None:
    url = rethinkdb_server.url(f"cli_{uuid.uuid4().hex[:8]}")
    status, _, err = runs.answer("run", "job", "--url", url, "--", "true")
    assert status == 78
    assert "coord init" in err
    status, out, _ = runs.answer("doctor", "--url", url, "--json")
    assert status == 1
    assert any(
        load["level"] == "error" and "coord init" in load["advice"] for load in json.loads(out)
    )
    status, out, err = runs.answer("init", "--url", url)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith("created the database")
    assert len(runs.answer("init", "--url", url)[1].splitlines()) == 1
    assert runs.answer("doctor", "--url", url)[0] == 0


def test_the_guard_is_put_on_and_taken_off(on_rethinkdb: Runs) -> None:
    runs = on_rethinkdb
    status, out, _ = runs.answer("init", "--guard", "--url", runs.url)
    installed = "installed the write hook on coord_leases"
    assert (status, out.splitlines()[0][: len(installed)]) == (0, installed)
    assert "has the write hook" in runs.answer("doctor", "--url", runs.url, "--json")[1]
    status, out, _ = runs.answer("init", "--no-guard", "--url", runs.url)
    assert (status, out.splitlines()[0]) == (0, "removed the write hook from coord_leases")


def test_run_and_takeover(on_server: Runs) -> None:
    runs = on_server
    first = runs.worker("--ttl", "2", flags=["--ignore-term", "--grandchild"])
    runs.journal.wait_for(1, "grandchild")
    runs.worker("--ttl", "2")
    time.sleep(0.8)
    killed = boottime()
    first.kill()
    taken = runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    assert taken.first - killed < 15  # the ttl is 2 s; the rest is for a busy machine
    status, out, _ = runs.answer("status", "--url", runs.url, "--json")
    assert (status, [(load["role"], load["token"]) for load in json.loads(out)]) == (
        0,
        [("job", 2)],
    )


def test_operators(on_server: Runs) -> None:
    runs = on_server
    watching = runs.start.fork("-m", "coord", "watch", "--json", "--url", runs.url)
    runs.worker("--ttl", "3", "--info", "name=one")
    runs.journal.wait_for(1)
    runs.worker("--ttl", "3", "--info", "name=two")
    with coord.connect(runs.url) as c:
        eventually(lambda: c.candidates("job"))
        if has_records := not runs.url.startswith("etcd:"):
            c.services.heartbeat({"id": "stale", "role": "proxy", "ttl": 0.1, "load": 1})
    (row,) = json.loads(runs.answer("status", "--url", runs.url, "--json")[1])
    assert (row["token"], row["led"], row["waiting"]) == (1, True, 1)
    status, out, err = runs.answer(
        "transfer", "job", "--to", "two", "--yes", "--by", "ops", "--url", runs.url
    )
    assert (status, err) == (0, "")
    assert "is the leader now (token 2)" in out
    runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    _, before = json.loads(runs.answer("history", "job", "--url", runs.url, "--json")[1])
    assert (before["reason"], before["by"]) == ("stepped_down", "ops")
    assert "two" in runs.answer("top", "--url", runs.url)[1]
    if has_records:
        purge = ("purge", "--yes", "--url", runs.url)
        eventually(lambda: "deleted 1 service record" in runs.answer(*purge)[1])
    assert watching.stdout is not None
    tokens = []
    while 2 not in tokens:
        output = json.loads(watching.stdout.readline())
        assert output["role"] == "job"
        tokens.append(output["leader"] and output["leader"]["token"])
    assert tokens[0] == 1


@deeper
@pytest.mark.stores("rethinkdb")
def test_no_rights(command_forks: ForkServer, tmp_path: Path, rethinkdb_url: str) -> None:
    failing = Failing(command_forks, tmp_path)
    user = {"id": f"u{uuid.uuid4().hex[:8]}", "password": "geheim"}
    ask(rethinkdb_url, r.db("rethinkdb").table("users").insert(user))
    url = rethinkdb_url.replace("://", f"://{user['id']}:geheim@")
    check(failing.all(url, FEW), 78, "permission")
    wrong = rethinkdb_url.replace("://", f"://{user['id']}:geheim2@")
    check(failing.all(wrong, ["leader", "watch", "init"]), 78, "wrong user or password")


@pytest.mark.stores("rethinkdb")
def test_a_password_from_a_file(runs: Runs, rethinkdb_url: str, tmp_path: Path) -> None:
    """It is in no environment, and COMMAND can use its URL from any directory."""
    user = f"u{uuid.uuid4().hex[:8]}"
    ask(rethinkdb_url, r.db("rethinkdb").table("users").insert({"id": user, "password": "geheim"}))
    rights = {"read": True, "write": True}
    ask(rethinkdb_url, r.db(parse_url(rethinkdb_url).database).grant(user, rights))
    (tmp_path / "password").write_text("geheim\n")
    url = rethinkdb_url.replace("://", f"://{user}@")
    script = 'cd /; env; exec "$@"'
    leader = (sys.executable, "-m", "coord", "leader", "job")
    words = ("-m", "coord", "run", "job", "--url", url, "--password-file", "password", "--")
    process = runs.start(*words, "sh", "-c", script, "sh", *leader, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "geheim" not in out
    added = f"password_file={tmp_path}/password"
    assert f"COORD_URL={url}{'&' if '?' in url else '?'}{added}\n" in out
    assert "token 1" in out.splitlines()[-1]
    assert runs.run("--url", url, "--", "true").wait(60) == 78


def test_a_database_without_announcements(
    on_rethinkdb: Runs, command_forks: ForkServer, tmp_path: Path
) -> None:
    url = on_rethinkdb.url
    ask(url, r.db(parse_url(url).database).table_drop("coord_announcements"))
    with coord.connect(url) as c:
        assert c.unique_service("job", {"ttl": 30})
        status, out, err = on_rethinkdb.answer("status", "--url", url)
        assert status == 0
        assert "waiting" not in out
        assert "job" in out
        assert "cannot list the waiting candidates" in err
        assert "coord init" in err
        (row,) = json.loads(on_rethinkdb.answer("status", "--json", "--url", url)[1])
        assert row["waiting"] is None
        status, out, err = on_rethinkdb.answer("purge", "--yes", "--url", url)
        assert (status, out) == (0, "deleted 0 service records\n")
        assert "coord init" in err
        failing = Failing(command_forks, tmp_path)
        check(failing.all(url, ["candidates", "step-down", "transfer"]), 78, "coord init")
