"""`coord init`, `doctor`, `leader`, `status` on SQLite; what they say, and their exit statuses."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

import coord
from tests.support.commands import run_here
from tests.support.processes import Runs, blocked


def findings(runs: Runs) -> tuple[int, dict[str, dict[str, str]]]:
    status, out, err = runs.answer("doctor", "--url", runs.url, "--json")
    assert err == ""
    return status, {load["what"]: load for load in json.loads(out)}


def test_version_and_help(runs: Runs) -> None:
    assert runs.answer("--version") == (0, f"coord, version {coord.__version__}\n", "")
    status, out, _ = run_here("run", "--help")
    assert status == 0
    for code in ("2", "69", "70", "75", "76", "77", "78", "126", "127", "128+n"):
        assert any(line.split()[:1] == [code] for line in out.splitlines()), (
            f"{code} is not documented"
        )
    for command in ("run", "leader", "status", "watch", "services", "init", "doctor"):
        assert runs.answer(command, "--help")[0] == 0


def test_an_unknown_command(runs: Runs) -> None:
    status, _, err = runs.answer("lead")
    assert status == 2
    assert "No such command 'lead'" in err


def test_init_makes_the_file_and_may_be_repeated(runs: Runs) -> None:
    path = runs.url.removeprefix("sqlite://")
    for output in (f"created {path}\n", ""):
        assert runs.answer("init", "--url", runs.url) == (0, f"{output}{runs.url} is ready\n", "")
    with sqlite3.connect(runs.url.removeprefix("sqlite://")) as connection:
        assert list(connection.execute("SELECT * FROM coord_leases")) == []
    connection.close()


def test_the_guard_of_a_file_is_always_on(runs: Runs) -> None:
    status, out, _ = runs.answer("init", "--guard", "--url", runs.url)
    assert (status, "always on" in out) == (0, True)
    status, _, err = runs.answer("init", "--no-guard", "--url", runs.url)
    assert (status, "always on" in err) == (2, True)


def test_init_where_nothing_can_be_made(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, out, err = runs.answer("init", "--url", f"sqlite://{tmp_path}/file/leases.db")
    assert (status, out) == (78, "")
    assert err.startswith("coord: ")
    assert len(err.splitlines()) == 1


def test_doctor_on_a_healthy_file(runs: Runs) -> None:
    runs.answer("init", "--url", runs.url)
    status, problems = findings(runs)
    assert status == 0
    problems.pop("container", None)  # only where the tests run in a container
    assert {what: first["level"] for what, first in problems.items()} == dict.fromkeys(
        (
            "lease clock",
            "clock",
            "file",
            "restart",
            "journal",
            "synchronous",
            "content",
            "log",
            "write",
        ),
        "ok",
    )
    assert problems["journal"]["detail"] == "wal"
    status, out, _ = runs.answer("doctor", "--url", runs.url)
    assert status == 0
    assert "the leader's clock counts suspend" in out


def test_doctor_makes_nothing(runs: Runs) -> None:
    status, problems = findings(runs)
    assert (status, problems["file"]["level"]) == (0, "warn")
    assert not Path(runs.url.removeprefix("sqlite://")).exists()


@pytest.mark.parametrize("spoilt", ["foreign", "garbage", "locked", "directory"])
def test_doctor_finds_what_is_wrong(runs: Runs, spoilt: str) -> None:
    path = runs.url.removeprefix("sqlite://")
    held = None
    if spoilt == "foreign":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (x)")
        connection.close()
    elif spoilt == "garbage":
        Path(path).write_bytes(b"this is no database at all " * 100)
    elif spoilt == "directory":
        os.mkdir(path)
    else:
        runs.answer("init", "--url", runs.url)
        held = blocked(runs.url)
    status, problems = findings(runs)
    if held is not None:
        held.close()
    assert status == 1
    errors = [row for row in problems.values() if row["level"] == "error"]
    assert len(errors) == 1
    assert errors[0]["advice"]
    assert path in errors[0]["detail"]


@pytest.mark.parametrize(
    "words",
    [
        ("leader", "job"),
        ("status",),
        ("status", "--all"),
        ("candidates",),
        ("history", "job"),
        ("watch",),
        ("watch", "job"),
        ("top", "--once"),
        ("services", "job"),
        ("step-down", "job", "--yes"),
        ("transfer", "job", "--to", "x", "--yes"),
        ("purge", "--yes"),
    ],
    ids=" ".join,
)
def test_a_look_up_of_a_wrong_url_says_so_and_creates_nothing(
    words: tuple[str, ...], runs: Runs, tmp_path: Path
) -> None:
    path = tmp_path / "typo" / "leases.db"
    status, out, err = runs.answer(*words, "--url", f"sqlite://{path}")
    assert (status, out) == (78, "")
    assert err.startswith(f"coord: no such database: {path}. Check the URL.")
    assert len(err.splitlines()) == 1
    assert not path.parent.exists()


def test_leader_on_a_store_that_does_not_answer(runs: Runs) -> None:
    status, out, err = runs.answer("leader", "job", "--url", "rethinkdb://127.0.0.1:1/db")
    assert (status, out) == (69, "")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["leader job", "status", "init", "doctor"])
def test_bad_urls(runs: Runs, command: str) -> None:
    status, out, err = runs.answer(*command.split(), "--url", "mysql://me:secret@host/db")
    assert (status, out) == (2, "")
    assert err.startswith("coord: invalid --url ")
    assert "secret" not in err


def test_doctor_lists_bad_service_records(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        kept = c.services.heartbeat({"role": "proxy", "ttl": 60, "load": 1})
    with sqlite3.connect(runs.url.removeprefix("sqlite://")) as db:
        db.execute("UPDATE coord_records_services SET ttl = 'soon'")
    db.close()
    status, problems = findings(runs)
    assert status == 0
    record = problems[f"service record {kept['id']!r}"]
    assert record["level"] == "warn"
    assert "ttl" in record["detail"]
