"""A resource that checks fencing tokens, in the process of the test, for workers that are really
killed and frozen.

It writes down each accepted write, in the order in which it accepted them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import NamedTuple


class Write(NamedTuple):
    """An accepted write."""

    place: str
    token: int
    worker: int


class FencedResource:
    """Serves on a Unix socket. Each place (a shard, a slot) remembers its newest token."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.writes: list[Write] = []
        self.refused = 0
        self._newest: dict[str, int] = {}
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            lines = connection.makefile("rw")
            for line in lines:
                write = Write(*json.loads(line))
                with self._lock:
                    accepted = write.token >= self._newest.get(write.place, 0)
                    if accepted:
                        self._newest[write.place] = write.token
                        self.writes.append(write)
                    else:
                        self.refused += 1
                lines.write("1\n" if accepted else "0\n")
                lines.flush()

    def workers_of_tokens(self) -> dict[tuple[str, int], set[int]]:
        """Which workers wrote under each token of each place: one, unless a token came twice."""
        workers: dict[tuple[str, int], set[int]] = {}
        for write in list(self.writes):
            workers.setdefault((write.place, write.token), set()).add(write.worker)
        return workers

    def problems(self) -> list[str]:
        """What must never happen: a token of two workers, or an older token after a newer one."""
        wrong = [
            f"token {token} of {place} came twice: {workers}"
            for (place, token), workers in self.workers_of_tokens().items()
            if len(workers) > 1
        ]
        newest: dict[str, int] = {}
        for write in list(self.writes):
            if write.token < newest.get(write.place, 0):
                wrong.append(f"an older token was accepted: {write}")
            newest[write.place] = write.token
        return wrong


class Client:
    """The connection of one worker, for any of its threads."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rw")

    def write(self, place: str, token: int) -> bool:
        """Write, and return whether that was accepted."""
        with self._lock:
            self._lines.write(json.dumps([place, token, os.getpid()]) + "\n")
            self._lines.flush()
            return self._lines.readline() == "1\n"
