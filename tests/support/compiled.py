"""Compiles the tests once, before the processes of a run begin, where they were never compiled.

All processes of a run import the same tests at the same time. In a new clone each of them would
compile all of these, and coord.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

PROCESSES = 2
TIMEOUT = 120
"""Seconds after which an import hangs. Its test says so where it is collected."""
FEW = 8
"""As many files without compiled code are left to the processes of the run."""


def compile_once(config: pytest.Config, folder: Path) -> None:
    """Import the tests in short-lived processes, if this process is about to start others.

    pytest rewrites the assertions of a test that is imported, and keeps the compiled code. An
    import that fails here fails again where the tests are collected, and is reported there.

    Args:
        config: That of this process. Nothing happens in a process of pytest-xdist, without
            pytest-xdist, or where the command line names some of the tests only.
        folder: The package of the tests, below the directory that they are imported from.
    """
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        return
    if config.args != config.getini("testpaths") or not os.access(folder, os.W_OK):
        return
    files = without_compiled_code(folder)
    if len(files) <= FEW:
        return
    children = []
    for share in range(PROCESSES):
        child = os.fork()
        if child == 0:
            import_all(files[share::PROCESSES], folder.parent)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def without_compiled_code(folder: Path) -> list[Path]:
    """Return the files of tests whose compiled code this version of pytest has not kept yet."""
    suffix = f".{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"
    return [
        file
        for file in sorted(folder.rglob("test_*.py"))
        if not (file.parent / "__pycache__" / (file.stem + suffix)).exists()
    ]


def import_all(files: list[Path], root: Path) -> None:
    """Import files below a directory, silently, and end this process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else an import takes Ctrl-C for its failure
        signal.alarm(TIMEOUT)
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        for file in files:
            # Also a test that skips itself, which is no Exception.
            with suppress(BaseException):
                importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))
    finally:
        os._exit(0)
