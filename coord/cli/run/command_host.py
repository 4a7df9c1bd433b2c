"""A process that runs one COMMAND for each shard, each under a guardian of its own.

A guardian must be forked from a process with one thread, and shards come at any time. So `coord
share` forks this process first, and sends it one line of JSON for each thing to do. If `coord
share` ends, this process ends, and the guardians end their commands; a guardian also ends its
command in time if this process hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from coord.cli.run.guardian_client import GuardianClient


@dataclass(frozen=True)
class Ended:
    """COMMAND of a shard has ended.

    Attributes:
        status: The exit status as a shell reports it.
        survivors: Processes that could not be ended, for people.
    """

    status: int
    survivors: tuple[str, ...]


class CommandHost:
    """The side of `coord share`. It forks, so create it before any other thread exists.

    Args:
        command: The words of COMMAND.
        grace: Seconds between SIGTERM and SIGKILL.
        hidden: Variables of the environment that COMMAND does not get.
    """

    def __init__(self, command: Sequence[str], grace: float, hidden: Collection[str]) -> None:
        own_end, child_end = socket.socketpair()
        if os.fork() == 0:
            own_end.close()
            _serve(_Server(child_end, command, grace, hidden))
        child_end.close()
        self._socket = own_end
        self._sending = threading.Lock()
        self._ended: dict[str, Ended] = {}
        self._news = threading.Condition()
        self.gone = False
        """Whether the process has ended. Its guardians end their commands then."""

    def listen(self) -> None:
        """Receive reports until the process has ended. Run it in a thread."""
        with contextlib.suppress(OSError), self._socket.makefile("r") as lines:
            for line in lines:
                shard, status, survivors = json.loads(line)
                with self._news:
                    self._ended[shard] = Ended(status, tuple(survivors))
                    self._news.notify_all()
        with self._news:
            self.gone = True
            self._news.notify_all()

    def start(self, shard: str, variables: dict[str, str], deadline: float) -> None:
        """Start COMMAND for a shard, whose term ends at `deadline` unless it is extended."""
        with self._news:
            self._ended.pop(shard, None)
        self._send("start", shard, variables, deadline)

    def extend(self, shard: str, deadline: float) -> None:
        """Move the deadline, after a renewal."""
        self._send("extend", shard, deadline)

    def end(self, shard: str, kill_at: float) -> None:
        """End COMMAND of a shard: SIGTERM now, SIGKILL at `kill_at`."""
        self._send("end", shard, kill_at)

    def ended(self, shard: str, timeout: float) -> Ended | None:
        """Return how COMMAND of a shard ended; None if it has not ended after `timeout` seconds."""
        with self._news:
            self._news.wait_for(lambda: shard in self._ended or self.gone, timeout)
            return self._ended.get(shard)

    def close(self) -> None:
        """Let the process end, which ends whatever still runs."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _send(self, *words: Any) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(words).encode() + b"\n")


class _Server:
    """The forked process, which has one thread."""

    def __init__(
        self,
        connection: socket.socket,
        command: Sequence[str],
        grace: float,
        hidden: Collection[str],
    ) -> None:
        self._connection, self._command = connection, command
        self._grace, self._hidden = grace, hidden
        self._clients: dict[str, GuardianClient] = {}
        self._text = b""
        # A new guardian must not keep the pipes of the others open: they notice the end of this
        # process by the end of their pipes.
        os.register_at_fork(after_in_child=self._forget)

    def serve(self) -> None:
        """Do what comes until `coord share` has ended."""
        while True:
            waiting: list[Any] = [self._connection, *self._clients.values()]
            ready, _, _ = select.select(waiting, [], [])
            for key in ready:
                if key is self._connection:
                    data = self._connection.recv(65536)
                    if not data:
                        return
                    *lines, self._text = (self._text + data).split(b"\n")
                    for line in lines:
                        self._obey(*json.loads(line))
            for shard, client in list(self._clients.items()):
                if client in ready:
                    self._report(shard, client)

    def _obey(self, what: str, shard: str, *rest: Any) -> None:
        client = self._clients.get(shard)
        if what == "start" and client is None:
            client = GuardianClient(self._command, self._grace, hidden=self._hidden)
            self._clients[shard] = client
            client.start(*rest)
        elif what == "extend" and client is not None:
            client.extend(*rest)
        elif what == "end" and client is not None:
            client.end(*rest)

    def _report(self, shard: str, client: GuardianClient) -> None:
        client.read_reports()
        if client.finished is None and not client.gone:
            return
        finished = client.finished
        survivors = client.force() if finished is None else finished.survivors
        status = 128 + signal.SIGKILL if finished is None else finished.status
        client.wait()
        client.close()
        del self._clients[shard]
        self._connection.sendall(json.dumps([shard, status, list(survivors)]).encode() + b"\n")

    def _forget(self) -> None:
        clients, self._clients = self._clients, {}  # COMMAND is forked from the guardian
        self._connection.close()
        for client in clients.values():
            client.close()


def _serve(server: _Server) -> NoReturn:
    """Turn a process that was just forked into the host. It has no terminal of its own."""
    status = 70
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # they are for `coord share`
        server.serve()
        status = 0
    finally:
        os._exit(status)
