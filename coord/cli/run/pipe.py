"""What the runner and its guardian say to each other: frames through two pipes.

A frame is one byte of kind, four of length, and the payload. All are far below PIPE_BUF, save that
of a START with a very long URL, so that a frame is written whole or not at all."""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator

_HEAD = struct.Struct("<cI")
MOMENT = struct.Struct("<d")
"""A moment, in seconds on the clock that counts suspend."""
NUMBER = struct.Struct("<i")
ENDED = struct.Struct("<ci")
"""The payload of FINISHED: a cause, and the wait status of COMMAND."""


class Command(bytes, enum.Enum):
    """From the runner to the guardian."""

    START = b"S"
    """The deadline, then the variables for COMMAND's environment, each as NAME=VALUE and NUL."""
    EXTEND = b"X"
    """A later deadline."""
    SIGNAL = b"K"
    """A signal for COMMAND."""
    END = b"E"
    """End COMMAND: SIGTERM now, SIGKILL at the moment given."""


class Report(bytes, enum.Enum):
    """From the guardian to the runner."""

    STARTED = b"s"
    """COMMAND's process id, which is its group's too."""
    STOPPED = b"t"
    """COMMAND was stopped by a signal."""
    FINISHED = b"f"
    """COMMAND and its whole process group have ended."""


class Cause(bytes, enum.Enum):
    """Why COMMAND ended."""

    BY_ITSELF = b"i"
    DEADLINE = b"d"
    ORDERED = b"o"
    RUNNER_GONE = b"g"


def frame(kind: Command | Report, payload: bytes) -> bytes:
    return _HEAD.pack(kind.value, len(payload)) + payload


def variables(environment: dict[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())


def moment(payload: bytes) -> float:
    """The moment that a payload begins with."""
    (seconds,) = MOMENT.unpack_from(payload)
    return float(seconds)


def parse_variables(payload: bytes) -> dict[bytes, bytes]:
    pairs = (item.partition(b"=") for item in payload.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


class Reader:
    """Frames out of the reading end of a pipe. `ended` once nobody holds the other end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._held = b""

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """What has come, as kind and payload. Reads once: blocks only when nothing is there."""
        try:
            more = os.read(self.fd, 65536)
        except (BlockingIOError, InterruptedError):
            return
        self.ended = not more
        self._held += more
        while len(self._held) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._held)
            whole = _HEAD.size + length
            if len(self._held) < whole:
                return
            payload, self._held = self._held[_HEAD.size : whole], self._held[whole:]
            yield kind, payload


def write(fd: int, kind: Command | Report, payload: bytes) -> bool:
    """Write a frame, never waiting: whether it was written. A full pipe means that the reader is
    stopped."""
    try:
        os.write(fd, frame(kind, payload))
    except (BlockingIOError, BrokenPipeError):
        return False
    return True
