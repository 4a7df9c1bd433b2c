"""A store of another package: it registers a URL scheme, and everything of coord works with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.cli import COMMANDS
from tests.cli.test_migrate import KEPT, terms
from tests.support.commands import Answer, run_here
from tests.support.processes import ROOT, RUN_A_COMMAND, WORKER, Journal, Start
from tests.support.waits import eventually

BACKEND = '''
"""Leases in a file, for the schemes `notes` and `bare`. A store of `bare` has no extras."""

from coord.stores import sqlite
from coord.stores.sqlite import SQLiteStore


class NotesStore(SQLiteStore):
    """A subclass, which keeps announcements and records."""


class BareStore:
    """Only what every store has: neither announcements nor records."""

    def __init__(self, url, store):
        self.url, self.max_clock_skew = url, store.max_clock_skew
        for name in (
            "open", "claim", "renew", "release", "read", "past", "watch", "close", "abandon"
        ):
            setattr(self, name, getattr(store, name))


def open_url(url):
    scheme, _, path = url.partition(":")
    store = NotesStore(path, url=url)
    return BareStore(url, store) if scheme == "bare" else store


def admin(url):
    return sqlite.admin("sqlite:" + url.partition(":")[2])
'''
NAME = "coord_notes_for_cli_tests"


class Foreign:
    """Runs commands with a store of another package, which COORD_URL names."""

    def __init__(self, start: Start, place: Path, packages: Path, scheme: str) -> None:
        self.url = f"{scheme}:{place / 'notes.db'}"
        self._start = start
        path = os.pathsep.join([str(packages), str(ROOT)])
        self._environment = {"PYTHONPATH": path, "COORD_URL": self.url}

    def python(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return self._start(*arguments, env={**self._environment, **more})

    def answer(self, *words: str) -> Answer:
        if words[0] not in RUN_A_COMMAND:
            return run_here(*words, env={"COORD_URL": self.url})
        process = self.python("-m", "coord", *words)
        out, err = process.communicate("", timeout=60)
        return process.returncode, out, err

    def json(self, *words: str) -> Any:
        status, out, err = self.answer(*words, "--json")
        assert (status, err) == (0, ""), words
        return json.loads(out)


@pytest.fixture
def foreign(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Foreign]:
    """Commands with a URL scheme of an installed package."""
    packages = tmp_path / "packages"
    metadata = packages / f"{NAME}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (packages / f"{NAME}.py").write_text(BACKEND)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
    schemes = "".join(f"{scheme} = {NAME}\n" for scheme in ("notes", "bare"))
    (metadata / "entry_points.txt").write_text(f"[coord.stores]\n{schemes}")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setitem(sys.modules, NAME, None)  # This removes the module at the end.
    del sys.modules[NAME]
    return lambda scheme: Foreign(start, tmp_path, packages, scheme)


@pytest.mark.parametrize("how", ["url", "variable"])
def test_connect(
    foreign: Callable[[str], Foreign], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = foreign("notes")
    monkeypatch.setenv("COORD_URL", notes.url)
    with coord.connect(notes.url) if how == "url" else coord.connect() as c:
        assert c.url == notes.url
        with c.leadership("job", info={"name": "here"}) as lead:
            assert lead.wait(30)
            with c.leadership("job") as waits:
                eventually(
                    lambda: [candidate.id for candidate in c.candidates("job")] == [waits.candidate]
                )
        record = c.services.heartbeat({"id": "a", "role": "web", "ttl": 60, "load": 0})
        assert [
            healthy_service["id"] for healthy_service in c.services.healthy_services("web")
        ] == [record["id"]]
        assert c.unique_service("other", {"id": "x", "ttl": 60})


def test_every_command(foreign: Callable[[str], Foreign], journal: Journal) -> None:
    notes = foreign("notes")
    used = set()

    def use(*words: str) -> str:
        used.add(words[0])
        status, out, err = notes.answer(*words)
        assert (status, err) == (0, ""), words
        return out

    assert "is ready" in use("init")
    assert "ok" in use("doctor")
    assert "_COORD_COMPLETE" in use("completion", "bash")
    script = 'echo "$COORD_ROLE $COORD_TOKEN $COORD_URL"'
    assert use("run", "first", "--", "sh", "-c", script) == f"first 1 {notes.url}\n"

    run = ("-m", "coord", "run", "job", "--ttl", "10", "--info")
    leads = notes.python(*run, "name=one", "--", *WORKER, str(journal.path))
    journal.wait_for(1)
    waits = notes.python(*run, "name=two", "--", *WORKER, str(journal.path))
    with coord.connect(notes.url) as c:
        eventually(lambda: c.candidates("job"))
    assert notes.json("candidates", "job")
    assert use("candidates").splitlines()[1].split()[:2] == ["job", "two"]
    assert use("leader", "job").split()[:3] == ["one", "token", "1"]
    (row,) = notes.json("status")
    assert (row["role"], row["info"]["name"], row["waiting"]) == ("job", "one", 1)
    assert "one (pid" in use("status")
    assert "one (pid" in use("top")
    assert use("history", "job").splitlines()[1].split()[:2] == ["1", "one"]
    words = {"COMP_WORDS": "coord leader j", "COMP_CWORD": "2", "_COORD_COMPLETE": "bash_complete"}
    assert notes.python("-m", "coord", **words).communicate(timeout=60)[0] == "plain,job\n"

    watch = notes.python("-m", "coord", "watch", "job", "--json")
    used.add("watch")

    def watched(token: int | None) -> None:
        """Read the output of coord watch until it shows this term, or that nobody leads."""
        assert watch.stdout is not None
        leader = json.loads(watch.stdout.readline())["leader"]
        while (leader and leader["token"]) != token:
            leader = json.loads(watch.stdout.readline())["leader"]

    watched(1)
    output = use("transfer", "job", "--to", "two", "--yes")
    assert "two (pid" in output
    assert leads.wait(60) == 77
    watched(2)
    assert "nobody is the leader now" in use("step-down", "job", "--yes")
    assert waits.wait(60) == 77
    watched(None)
    assert use("pause", "job", "--yes") == "'job' is paused\n"
    assert use("resume", "job") == "'job' is resumed\n"

    services = coord.ServiceRegistry(notes.url)
    services.heartbeat({"id": "a", "role": "web", "load": 0, "ttl": 60})
    assert use("services", "web").splitlines()[1].split()[:2] == ["web", "a"]
    services.heartbeat({"id": "a", "role": "web", "load": 0, "ttl": 0.1})
    eventually(lambda: services.healthy_services("web") == [])
    assert use("services", "web").startswith("no healthy services")
    eventually(lambda: notes.json("purge", "--yes")["services"] == 1)
    assert "deleted 0 service records" in use("purge", "--yes")
    other = f"sqlite://{Path(notes.url.partition(':')[2]).parent}/other.db"
    use("init", "--url", other)
    assert "carried 2 roles over" in use("migrate", "--from", notes.url, "--to", other)
    hold = "import coord, os; coord.unique_service('held', dict(ttl=60)); os._exit(0)"
    assert notes.python("-c", hold).wait(60) == 0
    assert "(token 1) is evicted" in use("evict", "held", "--yes")
    use("notes", "job")
    assert "retired" in use("retire", "--unused", "90d", "--yes")
    assert used == {*COMMANDS} - {"web", "slots", "share", "once"}  # these have tests of their own


def test_a_store_with_leases_only(foreign: Callable[[str], Foreign], journal: Journal) -> None:
    """What needs announcements or records says so in one line. Everything else works."""
    bare = foreign("bare")
    assert bare.answer("init")[0] == 0
    assert bare.answer("doctor")[0] == 0
    run = ("-m", "coord", "run", "job", "--", *WORKER, str(journal.path))
    bare.python(*run)
    journal.wait_for(1)
    assert bare.json("leader", "job")["token"] == 1
    assert bare.answer("run", "job", "--no-wait", "--", "true")[0] == 75
    for words in (("status",), ("top",)):
        status, out, err = bare.answer(*words)
        assert (status, out.splitlines()[1].split()[0]) == (0, "job")
        needed = "must be a store with announcements (a method announcements()); use another store"
        wrong = coord.BadArgument(
            "store", bare.url, f"{needed}, to which `coord migrate` moves roles"
        )
        assert err == f"coord: cannot list the waiting candidates: {wrong}\n"
    assert bare.json("history", "job")[0]["token"] == 1
    needs = {
        "announcements (a method announcements())": (
            ("candidates",),
            ("share", "group", "--shards", "2", "--", "true"),
            # The error comes before the question, and also if nobody leads.
            ("step-down", "job"),
            ("step-down", "nobody"),
            ("transfer", "job", "--to", "x"),
        ),
        "leases that operators can revoke (a method override())": (
            ("pause", "job"),
            ("resume", "job"),
            ("evict", "job"),
            ("evict", "nobody"),
        ),
        "service records (a method records(table))": (("services",), ("purge",)),
        "notes and ticks (a method kept(role, timeout))": (
            ("notes", "job"),
            ("once", "job", "--tick", "1", "--", "true"),
        ),
        "rows that can be deleted (a method retire())": (("retire", "--unused", "1d"),),
    }
    for what, commands in needs.items():
        for words in commands:
            message = (
                f"must be a store with {what}; use another store, to which `coord migrate` moves "
                "roles"
            )
            for option in ((), ("--url", bare.url)):
                name = "--url" if option else "COORD_URL"
                expected = f"coord: {coord.BadArgument(name, bare.url, message)}\n"
                answer = bare.answer(words[0], *option, *words[1:])
                assert answer == (2, "", expected), words
    assert bare.json("leader", "job")["token"] == 1


def test_a_store_that_keeps_no_texts_is_no_destination_for_them(
    foreign: Callable[[str], Foreign], tmp_path: Path
) -> None:
    old = f"sqlite://{tmp_path}/old.db"
    terms(old, "job", 1, KEPT)
    bare = foreign("bare")
    assert bare.answer("init")[0] == 0
    status, out, err = bare.answer("migrate", "--from", old, "--to", bare.url)
    assert (status, out) == (78, "")
    assert "cannot keep notes and ticks, and 'job' has some" in err
    terms(old, "job", 1, "")
    status, out, err = bare.answer("migrate", "--from", old, "--to", bare.url)
    assert (status, err) == (0, "")
