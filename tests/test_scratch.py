"""The files of a run are in memory, and are removed with it, also with a run that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import scratch
from tests.support.processes import ROOT, python_environment
from tests.support.waits import eventually

HOLDER = """
import pathlib, sys, tempfile
from tests.support import scratch

scratch.IN_MEMORY, scratch.NEEDED = pathlib.Path(sys.argv[1]), 0
scratch.free_memory = lambda: 1
with scratch.directory_in_memory() as directory:
    assert tempfile.mkdtemp().startswith(str(directory))
    print(directory, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_the_files_in_memory_are_removed(tmp_path: Path, killed: bool) -> None:
    environ = python_environment()
    environ.pop("TMPDIR", None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environ,
    ) as holder:
        assert holder.stdout is not None
        directory = Path(holder.stdout.readline().strip())
        assert directory.is_relative_to(tmp_path)
        assert list(directory.iterdir()) != []
        if killed:
            holder.send_signal(signal.SIGKILL)
    eventually(lambda: not directory.exists())
    assert holder.returncode == (-signal.SIGKILL if killed else 0)


def test_a_directory_of_the_user_or_too_little_memory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "free_memory", lambda: scratch.NEEDED - 1)
    monkeypatch.delenv("TMPDIR", raising=False)
    with scratch.directory_in_memory() as directory:
        assert directory is None
    monkeypatch.setattr(scratch, "NEEDED", 0)
    monkeypatch.setattr(scratch, "free_memory", lambda: 1)
    assert scratch.fits(tmp_path)
    no_programs = os.statvfs_result((*os.statvfs(tmp_path)[:8], os.ST_NOEXEC, 255))
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: no_programs)
        assert not scratch.fits(tmp_path)
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    with scratch.directory_in_memory() as directory:
        assert directory is None
    assert list(tmp_path.iterdir()) == []


def test_small_files_are_in_memory_and_in_the_directory_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY", tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    for temporary, parent in (("/var/tmp", tmp_path), (str(run), run)):
        monkeypatch.setattr("tempfile.tempdir", temporary)
        with scratch.small_directory_in_memory() as directory:
            assert directory.parent == parent
        assert not directory.exists()
