"""Whatever goes wrong, in whatever command: one line that says what to do, no traceback, no
password."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coord.cli import COMMANDS
from tests.support.forkserver import Forked, ForkServer
from tests.support.levels import by_level, deeper
from tests.support.processes import MARK, Runs, end_marked, python_environment

WORDS: dict[str, list[str]] = {
    "run": ["run", "job", "--no-wait", "--", "true"],
    "leader": ["leader", "job"],
    "status": ["status"],
    "top": ["top", "--once"],
    "watch": ["watch"],
    "watch ROLE": ["watch", "job"],
    "history": ["history", "job"],
    "candidates": ["candidates"],
    "step-down": ["step-down", "job", "--yes"],
    "transfer": ["transfer", "job", "--to", "x", "--yes"],
    "evict": ["evict", "job", "--yes"],
    "pause": ["pause", "job", "--yes"],
    "resume": ["resume", "job"],
    "slots": ["slots", "job"],
    "retire": ["retire", "--unused", "90d", "--yes"],
    "share": ["share", "job", "--shards", "2", "--", "true"],
    "services": ["services"],
    "purge": ["purge", "--yes"],
    "notes": ["notes", "job"],
    "init": ["init"],
}
"""All that ask a store once; `doctor` lists findings instead, `once` says that it waits, and `web` and
`migrate` have tests of their own."""
FEW = by_level(
    ("run", "leader", "watch", "step-down", "services", "init"), tuple(WORDS), tuple(WORDS)
)
"""Commands for a test whose answer does not depend on the command; with COORD_LONG=1 all."""
WITH_A_ROLE = (
    *("run", "leader", "watch ROLE", "history", "notes", "step-down", "transfer"),
    *("evict", "pause", "resume"),
)


def test_none_is_left_out() -> None:
    others = {"doctor", "completion", "web", "migrate", "once"}
    assert {*WORDS} - {"watch ROLE"} == {*COMMANDS} - others


class Failing:
    """Runs commands side by side, a few at a time: of twenty that begin together on a busy machine,
    one may get no connection in time."""

    def __init__(self, python: ForkServer, directory: Path) -> None:
        self._python, self._directory = python, directory

    def all(
        self,
        url: str,
        names: Iterable[str] = tuple(WORDS),
        role: str = "job",
        at_once: int = 4,
    ) -> dict[str, tuple[int, str]]:
        """The status and the one line of each command. `at_once` of them run side by side."""
        remaining, results = list(names), {}
        while group := remaining[:at_once]:
            begun = [(name, self._begin(name, self._words(name, url, role))) for name in group]
            results |= {name: self._end(name, process) for name, process in begun}
            del remaining[:at_once]
        return results

    def _begin(self, name: str, words: list[str]) -> Forked:
        out, err = self._files(name)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            return self._python.start(
                "-m",
                "coord",
                *words,
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
                environment={**os.environ, **python_environment(), **MARK},
            )

    def _end(self, name: str, process: Forked) -> tuple[int, str]:
        status = process.wait(90)
        return self._check(name, status, *(path.read_text() for path in self._files(name)))

    def _files(self, name: str) -> tuple[Path, Path]:
        return self._directory / f"{name}.out", self._directory / f"{name}.err"

    def _words(self, name: str, url: str, role: str) -> list[str]:
        command, *more = (role if word == "job" else word for word in WORDS[name])
        return [command, "--url", url, *more]

    def _check(self, name: str, status: int, out: str, err: str) -> tuple[int, str]:
        assert out == "", name
        assert err.startswith("coord"), (name, err)
        assert err.count("\n") == 1, (name, err)
        assert err.rstrip("\n").isprintable(), (name, err)
        assert "Traceback" not in err, (name, err)
        assert "geheim" not in err, (name, err)
        return status, err


@pytest.fixture
def failing(command_forks: ForkServer, tmp_path: Path) -> Iterator[Failing]:
    yield Failing(command_forks, tmp_path)
    end_marked()


def check(results: dict[str, tuple[int, str]], status: int, text: str) -> None:
    assert results
    for name, (exit_status, line) in results.items():
        assert exit_status == status, (name, line)
        assert text in line, (name, line)


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"rethinkdb://me:geheim@127.0.0.1:{server.getsockname()[1]}/db"


@deeper
def test_a_wrong_url(failing: Failing) -> None:
    check(failing.all("rethinkdb://me:geheim@host:port/db", FEW), 2, "a port must be a number")
    check(failing.all("mysql://me:geheim@host/db", ["leader", "init"]), 2, "mysql")


def test_nobody_there(failing: Failing) -> None:
    url = "rethinkdb://me:geheim@127.0.0.1:1/db"
    check(failing.all(url, at_once=len(WORDS)), 69, "127.0.0.1:1")  # they wait together


def test_nobody_answers(failing: Failing, silent: str) -> None:
    check(failing.all(silent, ["leader", "watch", "step-down"]), 69, "127.0.0.1")


@deeper
def test_no_rights(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check(failing.all(f"sqlite://{tmp_path}/file/leases.db", FEW), 78, str(tmp_path))


@deeper
def test_another_programs_file(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database at all\n" * 100)
    check(failing.all(f"sqlite://{tmp_path}/notes.txt", FEW), 78, "notes.txt")


def test_a_bad_role(failing: Failing, url: str) -> None:
    for role, names in (("", WITH_A_ROLE), ("r" * 121, FEW[:2])):
        check(failing.all(url, names, role), 2, "must be a string of 1 to 120 bytes")


@deeper
def test_not_set_up(failing: Failing, rethinkdb_server: Any) -> None:
    url = rethinkdb_server.url(f"cli_{uuid.uuid4().hex[:8]}")
    check(failing.all(url, {*FEW} - {"init"}, at_once=2), 78, "coord init")


def test_usage(runs: Runs) -> None:
    for words in (
        ["leader"],
        ["status", "--nonsense"],
        ["nonsense"],
        ["services", "a", "b"],
        ["top", "--json=1"],
    ):
        status, out, err = runs.answer(*words)
        assert (status, out) == (2, "")
        assert err.startswith("coord: ")
        assert err.count("\n") == 1
        assert "--help" in err


def test_a_pipe_that_is_closed(runs: Runs) -> None:
    assert runs.answer("init", "--url", runs.url)[0] == 0
    process = runs.start("-m", "coord", "watch", "job", "--url", runs.url)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    other = runs.run("--", "sleep", "1")
    assert other.wait(20) == 0
    assert process.wait(20) == 141
    assert process.stderr.read() == ""


def test_a_command_that_does_not_exist(runs: Runs) -> None:
    for word, advice in (
        ("statu", " Did you mean status?"),
        ("stepdown", " Did you mean step-down?"),
        ("xyzzy", ""),
    ):
        assert runs.answer(word) == (
            2,
            "",
            f"coord: No such command '{word}'.{advice} (see coord --help)\n",
        )


def test_an_option_is_named_as_it_is_written(runs: Runs) -> None:
    status, out, err = runs.answer("purge", "--ttls", "0", "--yes", "--url", runs.url)
    assert (status, out) == (2, "")
    assert err == "coord: invalid --ttls 0: must be between 1 and 1,000,000 ttls\n"


def test_a_process_without_free_descriptors(runs: Runs) -> None:
    """Neither the pipes of `coord run` nor a module that is imported late can be opened."""
    code = (
        "import os, resource, sys; from coord.cli import main;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20));"
        "any(os.dup(2) is None for _ in range(20 - len(os.listdir('/proc/self/fd')) + 1));"
        "main(sys.argv[1:])"
    )
    for words in (WORDS["run"], WORDS["leader"]):
        process = runs.start("-c", code, *words, env={"COORD_URL": runs.url})
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (69, ""), err
        assert err == (
            "coord: cannot run this command: Too many open files; raise the limit of open files "
            "(ulimit -n)\n"
        )
