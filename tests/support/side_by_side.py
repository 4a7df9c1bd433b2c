"""Many commands of coord side by side, each in a process of its own that has imported coord already.

Run as a program, it forks a process for each command and prints their answers. It has no threads.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import coord.api.sync_coordinator  # with what every command needs
import coord.cli
from coord.stores.rethinkdb import driver
from tests.support.commands import Answer


def run_side_by_side(
    start: Callable[..., subprocess.Popen[str]],
    directory: Path,
    commands: Sequence[Sequence[str]],
    at_once: int,
) -> list[Answer]:
    """Run commands of coord to their ends, and return their answers.

    Args:
        start: Starts a Python program.
        directory: A place for what the commands print.
        commands: For each command the words after `coord`.
        at_once: How many of them run at a time.
    """
    words = ("-m", "tests.support.side_by_side", str(directory), str(at_once))
    process = start(*words, json.dumps(commands))
    out, err = process.communicate("", timeout=90)
    assert err == ""
    return [(status, *texts) for status, *texts in json.loads(out)]


def main(directory: Path, at_once: int, commands: Sequence[Sequence[str]]) -> None:
    """Run the commands, and print their answers in JSON."""
    for module in {module for module, _ in coord.cli.COMMANDS.values()}:
        importlib.import_module(module)
    if any(word.startswith("rethinkdb:") for words in commands for word in words):
        driver.reql()
    gc.freeze()  # Otherwise each process would copy and collect what this one has imported.
    answers: list[Answer] = []
    while group := commands[len(answers) : len(answers) + at_once]:
        begun = [_begin(words, directory / str(number)) for number, words in enumerate(group)]
        answers += [_end(*item) for item in begun]
    print(json.dumps(answers))


def _begin(words: Sequence[str], place: Path) -> tuple[int, Path]:
    pid = os.fork()
    if pid == 0:
        for descriptor, name in ((1, "out"), (2, "err")):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(place.with_suffix(f".{name}"), flags), descriptor)
        coord.cli.main(words)
    return pid, place


def _end(pid: int, place: Path) -> Answer:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    out, err = (place.with_suffix(f".{name}").read_text() for name in ("out", "err"))
    return status, out, err


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
