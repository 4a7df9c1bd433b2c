"""What the workers write to: an unfenced row and any number of fenced ones in SQLite, behind a
socket, in a process of its own.

The journal is written in the transaction of the write itself, so its order is the order in which
things happened. `python -m tests.chaos.resource SOCKET FILE [--blind]`; `--blind` (for the test of
the judge) fences nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from coord import StaleToken
from coord.fencing import sql_write
from tests.chaos.lifeline import die_with_parent
from tests.chaos.recorder import now

SCHEMA = """
CREATE TABLE resource (name TEXT PRIMARY KEY, writer TEXT, fencing_token INTEGER);
CREATE TABLE journal (seq INTEGER PRIMARY KEY, name TEXT, token INTEGER, process TEXT, accepted INTEGER, at REAL);
INSERT INTO resource (name) VALUES ('fenced'), ('unfenced');
"""


class Resource:
    def __init__(self, path: Path, blind: bool) -> None:
        self.blind = blind
        self.db = sqlite3.connect(path, isolation_level=None)
        # Nobody pulls the plug on this process: the disk need not be waited for.
        self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + SCHEMA)

    def write(self, name: str, token: int, process: str) -> bool:
        """Whether it was accepted."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            accepted = True
            self.db.execute("INSERT OR IGNORE INTO resource (name) VALUES (?)", (name,))
            if name != "unfenced" and not self.blind:
                try:
                    sql_write(self.db, "resource", {"name": name}, {"writer": process}, token)
                except StaleToken:
                    accepted = False
            else:
                self.db.execute("UPDATE resource SET writer = ? WHERE name = ?", (process, name))
            self.db.execute(
                "INSERT INTO journal (name, token, process, accepted, at) VALUES (?, ?, ?, ?, ?)",
                (name, token, process, accepted, now()),
            )
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return accepted

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break  # half a request, of one who was killed
                accepted = self.write(**json.loads(line))
                writer.write(b"1\n" if accepted else b"0\n")
        except ConnectionError:
            pass
        finally:
            writer.close()


class ResourceClient:
    """A worker's connection to the resource, for any of its threads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def write(self, name: str, token: int, process: str) -> bool:
        """Whether it was accepted. Raises OSError when there is no answer: it may then have been
        accepted or not."""
        line = json.dumps({"name": name, "token": token, "process": process}) + "\n"
        with self._lock:
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX)
                    self._socket.settimeout(5.0)
                    self._socket.connect(self._path)
                self._socket.sendall(line.encode())
                answer = self._socket.recv(2)
            except OSError:
                self._socket = None
                raise
            if len(answer) != 2:
                self._socket = None
                raise OSError("the resource hung up")
        return answer == b"1\n"


def journal(path: Path) -> list[dict[str, Any]]:
    """All that the resource was asked to write, in order."""
    db = sqlite3.connect(path)
    try:
        rows = db.execute(
            "SELECT name, token, process, accepted, at FROM journal ORDER BY seq"
        ).fetchall()
    finally:
        db.close()
    return [
        dict(zip(("name", "token", "process", "accepted", "at"), row, strict=True)) for row in rows
    ]


async def _main(path: str, file: str, blind: bool) -> None:
    resource = Resource(Path(file), blind)
    server = await asyncio.start_unix_server(resource.serve, path)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(_main(sys.argv[1], sys.argv[2], "--blind" in sys.argv))
