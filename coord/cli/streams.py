"""Standard streams that are closed, full or broken, and never change what a command does.

`protect` replaces `sys.stdout` and `sys.stderr`. What cannot be written is then dropped, and
`error` says why. The exception is stdout whose reader has ended: that raises BrokenPipeError,
because a command such as `coord watch | head -1` must end then.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """A descriptor to which every write succeeds."""

    def __init__(self, number: int, *, may_break: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self.may_break = may_break
        self.failed: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        while True:
            try:
                written: int | None = super().write(data)
            except OSError as err:
                if isinstance(err, BrokenPipeError) and self.may_break:
                    raise
                self.failed = self.failed or err
                return memoryview(data).nbytes
            if written is not None:
                return written
            # The descriptor is non-blocking, and the pipe is full.
            with contextlib.suppress(OSError):
                select.select([], [self], [])


_stdout: _Descriptor | None = None


def protect() -> None:
    """Make `sys.stdout` and `sys.stderr` safe to write to.

    Standard descriptors that are closed become /dev/null, so that no other file gets their number.
    Streams that the caller of `main` has replaced stay as they are, except that characters which
    they cannot encode are escaped.
    """
    global _stdout
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        number = 1 if name == "stdout" else 2
        if stream is getattr(sys, f"__{name}__"):
            descriptor = _Descriptor(number, may_break=number == 1)
            if number == 1:
                _stdout = descriptor
            setattr(sys, name, _text(descriptor, stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _text(descriptor: _Descriptor, replaced: TextIO | None) -> TextIO:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if replaced is not None:
            replaced.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor),
        encoding=getattr(replaced, "encoding", None),
        errors="backslashreplace",
        line_buffering=not descriptor.may_break or descriptor.isatty(),
    )


def error() -> str:
    """Return why output was dropped, for people; empty if none was."""
    failed = None if _stdout is None else _stdout.failed
    return "" if failed is None else failed.strerror or type(failed).__name__


def discard() -> None:
    """Let stdout lead nowhere, because nobody reads it. Python writes the rest when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
