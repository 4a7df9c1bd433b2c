"""The command line without the cost of a new interpreter, for what a command prints and answers.

A new interpreter takes a tenth of a second of processor time until it has imported what a command
needs, and three tenths with the driver of RethinkDB. Tests of signals and streams start one.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest import mock

from coord.cli import main

Answer = tuple[int, str, str]
"""The exit status of a command, and what it wrote to stdout and stderr."""


def run_here(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Answer:
    """Run `coord` with these words in this process.

    Args:
        words: The words after `coord`.
        stdin: What the command reads.
        env: Variables to add to the environment.

    Raises:
        AssertionError: The command needs a process of its own, because it forks.
    """
    out, err = _stream(), _stream()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, env or {}))
        for name, stream in (("stdin", _stream(stdin)), ("stdout", out), ("stderr", err)):
            stack.enter_context(mock.patch.object(sys, name, stream))
        stack.enter_context(_no_process())
        try:
            main(words)
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int), status
    return status, _text(out), _text(err)


def _stream(text: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextmanager
def _no_process() -> Iterator[None]:
    """Fail what would fork, replace or end this process."""

    def fail(*arguments: Any) -> NoReturn:
        raise AssertionError(f"this command needs a process of its own: {arguments}")

    with ExitStack() as stack:
        for name in ("fork", "execv", "_exit"):
            stack.enter_context(mock.patch.object(os, name, fail))
        yield
