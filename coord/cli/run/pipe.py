"""The protocol between the runner and its guardian: frames through two pipes.

A frame is one byte for its kind, four for the length, and the payload. Frames are far smaller than
PIPE_BUF, so the kernel writes a frame completely or not at all. The exception is a START with a
very long URL.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator, Sequence

_HEAD = struct.Struct("<cI")
MOMENT = struct.Struct("<d")
"""A time in seconds, on the clock that counts suspend."""
NUMBER = struct.Struct("<i")
_ENDED = struct.Struct("<ci")
MAX_SURVIVORS = 5
"""Processes that a FINISHED names at most."""


class Command(bytes, enum.Enum):
    """What the runner tells the guardian to do."""

    START = b"S"
    """Start COMMAND. Payload: the deadline, then variables, each as NAME=VALUE and NUL."""
    EXTEND = b"X"
    """Move the deadline. Payload: the new deadline."""
    SIGNAL = b"K"
    """Pass a signal on to COMMAND. Payload: its number."""
    END = b"E"
    """End COMMAND: SIGTERM now, SIGKILL at the time in the payload."""


class Report(bytes, enum.Enum):
    """What the guardian reports to the runner."""

    STARTED = b"s"
    """COMMAND runs. Payload: its process id, which is also that of its group."""
    STOPPED = b"t"
    """COMMAND was stopped by a signal."""
    NOT_PERMITTED = b"n"
    """A signal was not passed on, because COMMAND runs as another user. Payload: its number."""
    FINISHED = b"f"
    """COMMAND and its descendants have ended, except those in the payload. Payload: the cause, the
    wait status of COMMAND, and the processes that could not be ended, each with NUL."""


class Cause(bytes, enum.Enum):
    """Why COMMAND ended."""

    BY_ITSELF = b"i"
    DEADLINE = b"d"
    ORDERED = b"o"
    RUNNER_GONE = b"g"


def frame(kind: Command | Report, payload: bytes) -> bytes:
    """Return a frame as bytes."""
    return _HEAD.pack(kind.value, len(payload)) + payload


def variables(environment: dict[str, str]) -> bytes:
    """Return environment variables as the payload of START."""
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())


def ended(cause: Cause, status: int, survivors: Sequence[str]) -> bytes:
    """Return the payload of FINISHED."""
    named = list(survivors[:MAX_SURVIVORS])
    if len(survivors) > MAX_SURVIVORS:
        named.append(f"{len(survivors) - MAX_SURVIVORS} more")
    return _ENDED.pack(cause.value, status) + b"".join(os.fsencode(name) + b"\0" for name in named)


def parse_ended(payload: bytes) -> tuple[Cause, int, tuple[str, ...]]:
    """Return cause, wait status and survivors of a FINISHED."""
    cause, status = _ENDED.unpack_from(payload)
    names = payload[_ENDED.size :].split(b"\0")[:-1]
    return Cause(cause), status, tuple(os.fsdecode(name) for name in names)


def moment(payload: bytes) -> float:
    """Return the time that a payload begins with."""
    (seconds,) = MOMENT.unpack_from(payload)
    return float(seconds)


def parse_variables(payload: bytes) -> dict[bytes, bytes]:
    """Return the environment variables of a START."""
    pairs = (item.partition(b"=") for item in payload.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


class Reader:
    """Reads frames from a pipe. `ended` is true when nobody holds the writing end any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._held = b""

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Read once, and yield the complete frames as kind and payload."""
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
    """Write a frame without blocking, and return whether it was written.

    The pipe is full only if the reader is stopped.
    """
    try:
        os.write(fd, frame(kind, payload))
    except (BlockingIOError, BrokenPipeError):
        return False
    return True
