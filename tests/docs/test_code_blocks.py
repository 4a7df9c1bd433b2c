"""Every Python block in README.md and docs/ runs, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks
from tests.docs.forks import start_forks
from tests.support.forkserver import ForkServer

BLOCKS = blocks({"python"})
LIBRARIES = ("apscheduler.schedulers.background", "celery", "fastapi", "flask")
"""What takes most of the time of the blocks that import it."""


@pytest.fixture(scope="module")
def code_forks() -> Iterator[ForkServer]:
    """Processes that have imported coord and the libraries; warnings are errors in them."""
    with start_forks(*LIBRARIES, warnings="error") as forks:
        yield forks


def run(code: str, home: Path, forks: ForkServer) -> tuple[int, str]:
    """The status of a block, and what it printed on both streams."""
    environment = {**os.environ, "XDG_STATE_HOME": str(home), "COORD_URL": ""}
    with (home / ".said").open("w+b") as output:
        stream = output.fileno()
        program = forks.start(
            "-c", code, stdout=stream, stderr=stream, environment=environment, cwd=home
        )
        try:
            status = program.wait(60)
        finally:
            program.kill()
        output.seek(0)
        return status, output.read().decode()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_it_runs(block: Block, tmp_path: Path, code_forks: ForkServer) -> None:
    code = block.code.replace("sqlite:///tmp/", f"sqlite://{tmp_path}/")
    status, output = run(code, tmp_path, code_forks)
    assert status == 0, output


def test_a_wrong_block_is_found(tmp_path: Path, code_forks: ForkServer) -> None:
    for code, reason in (
        ("coord.connect('memory://')", "NameError: name 'coord' is not defined"),
        ("import fastapi, warnings; warnings.warn('old')", "UserWarning: old"),
        ("raise SystemExit('no')", "no\n"),
    ):
        status, output = run(code, tmp_path, code_forks)
        assert status == 1
        assert reason in output
    status, output = run("print(__name__, __import__('os').getcwd())", tmp_path, code_forks)
    assert (status, output) == (0, f"__main__ {tmp_path}\n")


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 3
