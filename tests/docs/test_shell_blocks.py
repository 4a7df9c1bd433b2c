"""Every shell block in README.md and docs/ runs: in a directory of its own, on a store of its own.

A `console` block must print what it shows, up to blanks, with `…` for whatever differs from run to
run. Addresses of RethinkDB (`rethinkdb://…/database`, `db1:28015`) are replaced by a real server. What
lasts is made short (`SHORTER`), and a virtual environment that a block makes is the one of the
tests: `.ci/run` makes real ones, by the same lines. Most commands of coord
run in forks of a process that has imported them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord import cli
from tests.docs.blocks import Block, blocks
from tests.docs.forks import start_forks, write_coord
from tests.support.forkserver import ForkServer
from tests.support.processes import python_environment

SHORTER = {"sleep 60": "sleep 0.2", "-m pytest": "-m pytest --version"}
URL, ADDRESS = re.compile(r"rethinkdb://[^/\s'\"]+/\w+"), re.compile(r"\bdb1:28015\b")
LANGUAGES = {"python", "sh", "bash", "console", "text", "mermaid"}
COMMANDS = ("coord", "python", "python3", "pip", "rethinkdb-dump", "rethinkdb-restore", "git")
SHELL = blocks({"sh", "bash", "console"})
SIGNALED = ("share", "web", "watch", "top")
"""The commands that last until a signal ends them: they start a Python of their own."""
VENV = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec {python} "$@"
mkdir -p "$3/bin"
for name in coord python; do printf '#!/bin/sh\\nexec %s "$@"\\n' "$name" > "$3/bin/$name"; done
printf '#!/bin/sh\\n[ "$1" = install ] || exit 1\\n' > "$3/bin/pip"
chmod +x "$3"/bin/*
"""


def needs_rethinkdb(block: Block) -> bool:
    return bool(URL.search(block.code) or ADDRESS.search(block.code))


WAITS = re.compile(r"^coord run: waiting for .*\n", re.MULTILINE)
"""What a command prints that waits for longer than a moment."""


def parameters(with_rethinkdb: bool) -> list[object]:
    return [
        pytest.param(item, id=item.where)
        for item in SHELL
        if needs_rethinkdb(item) is with_rethinkdb
    ]


@pytest.fixture(scope="module")
def shell_forks() -> Iterator[ForkServer]:
    """Processes that have imported the commands of coord."""
    commands = {module for name, (module, _) in cli.COMMANDS.items() if name not in SIGNALED}
    with start_forks(*sorted(commands)) as forks:
        yield forks


def run(script: str, home: Path, forks: ForkServer) -> tuple[int, str]:
    """Its status, and what it printed on both streams."""
    tools = home / ".tools"
    tools.mkdir()
    for name, text in (
        ("python3", VENV.format(python=sys.executable)),
        ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    write_coord(forks, tools, *SIGNALED)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    inherited = {name: value for name, value in os.environ.items() if name[:6] != "COORD_"}
    environment = {**inherited, "PATH": path, **python_environment(), "HOME": str(home)}
    environment |= {"XDG_STATE_HOME": str(home / "state"), "PYTHONDONTWRITEBYTECODE": "1"}
    with (home / ".said").open(
        "w+b"
    ) as output:  # a file: what a block leaves in the background may keep it open
        process = subprocess.Popen(
            ["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment, cwd=home, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return status, output.read().decode()


def steps(console: str) -> list[tuple[str, str]]:
    """Each command of a console block, and what it is said to print."""
    step_list: list[tuple[str, str]] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            step_list.append((line[2:], ""))
        else:
            command, shown = step_list[-1]
            step_list[-1] = (command, f"{shown}{line}\n")
    return step_list


def shows(shown: str, printed: str) -> bool:
    """Whether that is what was printed, up to blanks and `…`."""
    pattern = ".*".join(
        re.escape(" ".join(part.split())).replace(r"\ ", r"\s*") for part in shown.split("…")
    )
    return re.fullmatch(rf"\s*{pattern}\s*", " ".join(printed.split()), re.DOTALL) is not None


def check(block: Block, home: Path, forks: ForkServer) -> None:
    code = block.code
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    if block.language != "console":
        status, output = run(f"set -euo pipefail\n{code}", home, forks)
        assert status == 0, output
        return
    commands = steps(code)
    status, output = run(
        "\n".join(f"{command}\necho; echo -END-" for command, _ in commands), home, forks
    )
    printed = output.split("-END-\n")
    assert len(printed) == len(commands) + 1, output
    for (command, shown), whole in zip(commands, printed, strict=False):
        # On a busy machine the role is not free again at once.
        out = whole if "waiting for" in shown else WAITS.sub("", whole)
        assert not shown or shows(shown, out), f"$ {command}\nprints\n{out}\nand not\n{shown}"


@pytest.mark.parametrize("block", parameters(with_rethinkdb=False))
def test_it_runs(block: Block, tmp_path: Path, shell_forks: ForkServer) -> None:
    check(block, tmp_path, shell_forks)


@pytest.mark.parametrize("block", parameters(with_rethinkdb=True))
def test_it_runs_on_rethinkdb(
    block: Block, tmp_path: Path, rethinkdb_url: str, shell_forks: ForkServer
) -> None:
    server, database = re.fullmatch(
        r"rethinkdb://(?:[^@/]*@)?([^/]+)/(\w+)", rethinkdb_url
    ).groups()  # type: ignore[union-attr]
    code = ADDRESS.sub(server, URL.sub(rethinkdb_url, block.code)).replace(
        "-e coord", f"-e {database}"
    )
    check(Block(block.language, code, block.where), tmp_path, shell_forks)


def test_what_is_not_run_is_no_command() -> None:
    for block in blocks():
        assert block.language in LANGUAGES, f"{block.where}: {block.language!r}"
        if block.language == "text":
            first = [line.split()[0] for line in block.code.splitlines() if line.strip()]
            assert not set(first) & set(COMMANDS), (
                f"{block.where}: run it (sh, console), or say why it cannot be"
            )


def test_a_wrong_block_is_found(tmp_path: Path, shell_forks: ForkServer) -> None:
    check(Block("console", "$ echo one two\none … \n$ echo b\n", "here"), tmp_path, shell_forks)
    wrong = (
        ("sh", "false\ntrue\n"),
        ("console", "$ echo one\ntwo\n"),
        ("sh", "coord leader nobody\n"),
        ("console", "$ coord leader nobody\nsomebody\n"),
    )
    for number, (language, code) in enumerate(wrong):
        home = tmp_path / str(number)
        home.mkdir()
        with pytest.raises(AssertionError):
            check(Block(language, code, "here"), home, shell_forks)


def test_there_are_blocks() -> None:
    assert len(SHELL) >= 8
    assert any(needs_rethinkdb(item) for item in SHELL)
