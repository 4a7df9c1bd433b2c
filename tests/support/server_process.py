"""A server process of a test: started in a session of its own, and ended by its process id."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def stands_still(pid: int) -> bool:
    """Whether all its threads have stopped: a signal takes its time, in which one may still answer
    a query."""
    states = []
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):  # none on other systems than Linux
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            states.append(file.read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZX" for state in states)


FIRST_PORT = 10_000
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _bound() -> socket.socket:
    """Return a socket that is bound to a free port.

    A server is started a moment later. Connections that begin meanwhile get ports of the range of
    the system, so the port is below that range.
    """
    last = int(PORT_RANGE.read_text().split()[0]) if PORT_RANGE.exists() else 0
    for _ in range(100):
        port = random.SystemRandom().randrange(FIRST_PORT, last) if last > FIRST_PORT else 0
        item = socket.socket()
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            item.bind(("127.0.0.1", port))
        except OSError:  # somebody has it
            item.close()
        else:
            return item
    raise RuntimeError("found no free port")


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody listens on; all are held together for a moment, so that they differ."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            held.append(_bound())
        yield [item.getsockname()[1] for item in held]
    finally:
        for item in held:
            item.close()


_REAPER = """
while read -r action pid; do
  kept=
  for other in $pids; do
    [ "$other" = "$pid" ] || kept="$kept $other"
  done
  pids=$kept
  [ "$action" = ended ] || pids="$pids $pid"
done
[ -z "$pids" ] || kill -KILL $pids
"""


class Reaper:
    """Kills the servers of this process when it has ended, even if it was killed itself.

    A shell reads the ids of the servers from a pipe, which closes with this process. Servers have
    sessions of their own, so nothing else would end them.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def started(self, pid: int) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                ["sh", "-c", _REAPER],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            atexit.register(self.end)
        self._write("started", pid)

    def ended(self, pid: int) -> None:
        self._write("ended", pid)

    def end(self) -> None:
        """Kill the servers that run, and end."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    def _write(self, action: str, pid: int) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody has killed the shell
                self._process.stdin.write(f"{action} {pid}\n")
                self._process.stdin.flush()


reaper = Reaper()


class ServerProcess:
    """One server, which can be stopped, killed, frozen and started again."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Path | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it printed, for failed tests."""
        return "" if self._output is None else self._output.read_text(errors="replace")

    def run(self, command: Sequence[str], output: Path, **options: Any) -> None:
        """Start the server; `options` are those of Popen. A Ctrl-C at the tests reaches them first,
        and they end it."""
        assert self._process is None, "it runs already"
        self._output = output
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                list(command),
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **options,
            )
        reaper.started(self.pid)

    @property
    def ended_by_itself(self) -> bool:
        """Whether it was started, was not ended by the test, and does not run."""
        return self._process is not None and self._process.poll() is not None

    def check_it_runs(self) -> None:
        """Raise an exception with its output if it ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended with {self._process.returncode}:\n{self.log[-2000:]}")

    def wait_until_it_listens(self, host: str, port: int, timeout: float) -> None:
        """Wait until it accepts connections. Raise an exception with its output if it ends, or does
        not listen within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.check_it_runs()
            try:
                socket.create_connection((host, port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"it does not listen after {timeout} s:\n{self.log[-2000:]}")

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a failing process would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while not stands_still(self.pid) and time.monotonic() < deadline:
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(sign)
            if sign != signal.SIGKILL:
                # A frozen process acts on this signal only once it runs again.
                process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        reaper.ended(process.pid)
