"""`coord run` as a service of systemd with `Type=notify`: what arrives at a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord.cli.run import service_manager
from coord.cli.run.service_manager import ServiceManager, from_environment
from tests.support.processes import Runs
from tests.support.waits import eventually


class Systemd:
    """The end of the socket that systemd reads. `state` holds the last value of each variable."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.received: list[str] = []

    def read(self) -> list[str]:
        """All lines that have arrived since the test began."""
        while True:
            try:
                self.received += self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.received

    def wait_for(self, line: str) -> None:
        eventually(lambda: any(message.startswith(line) for message in self.read()))

    def signs_of_life(self) -> int:
        return self.read().count("WATCHDOG=1")

    def environment(self, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, **more}


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path, name = f"{tmp_path}/notify", f"@coord-test-{uuid.uuid4().hex}"
    service = Systemd(path if request.param == "path" else name)
    yield service
    service.socket.close()


def test_a_service_is_ready_then_leads_and_says_when_it_stops(systemd: Systemd, runs: Runs) -> None:
    first = runs.worker()
    runs.journal.wait_for(1)
    second = runs.run(
        "--", "sh", "-c", "env; exec sleep 60", env=systemd.environment(WATCHDOG_USEC="400000")
    )
    systemd.wait_for("READY=1")
    systemd.wait_for("STATUS=waiting for 'job': the leader is ")
    first.send_signal(signal.SIGTERM)
    systemd.wait_for("STATUS=leads 'job', token 2")
    assert "STOPPING=1" not in systemd.read()
    before = systemd.signs_of_life()
    eventually(lambda: systemd.signs_of_life() > before + 2)
    second.send_signal(signal.SIGTERM)
    out, err = second.communicate(timeout=30)
    assert "COORD_TOKEN=2" in out
    assert not any(name in out for name in service_manager.VARIABLES), "they are for coord run"
    systemd.wait_for("STOPPING=1")
    lines = [line for line in systemd.read() if line != "WATCHDOG=1"]
    assert [line.partition("=")[0] for line in lines] == [
        "READY", "STATUS", "STATUS", "STATUS", "STOPPING", "STATUS"
    ]  # fmt: skip
    assert lines[-1] == "STATUS=releases 'job'"
    assert "systemd" not in err


def test_a_waiting_candidate_sends_signs_of_life(systemd: Systemd, runs: Runs) -> None:
    runs.worker()
    runs.journal.wait_for(1)
    runs.run("--", "true", env=systemd.environment(WATCHDOG_USEC="200000"))
    eventually(lambda: systemd.signs_of_life() > 4)


def test_a_process_without_a_service_manager_sends_nothing(systemd: Systemd) -> None:
    for manager in (from_environment({}, 1, lambda: True), ServiceManager(None, 1.0, lambda: True)):
        manager.ready()
        manager.status("leads")
        manager.stopping()
        assert manager.watch(3.0) == 3.0
        assert manager.watch(None) is None
    assert systemd.read() == []


def test_the_watchdog_gets_nothing_while_the_process_is_wedged(systemd: Systemd) -> None:
    healthy = False
    environment = systemd.environment(WATCHDOG_USEC="1000", WATCHDOG_PID=str(os.getpid()))
    manager = from_environment(environment, os.getpid(), lambda: healthy)
    for _ in range(3):
        due = manager.watch(None)
        assert due is not None
        assert due <= 0.001
    assert systemd.signs_of_life() == 0
    healthy = True

    def signed() -> bool:
        manager.watch(None)
        return systemd.signs_of_life() > 0

    eventually(signed)


@pytest.mark.parametrize("limit", ["0", "", "x", "-1"])
def test_a_watchdog_without_a_limit_is_off(systemd: Systemd, limit: str) -> None:
    manager = from_environment(systemd.environment(WATCHDOG_USEC=limit), 1, lambda: True)
    assert manager.watch(None) is None


def test_a_watchdog_of_another_process_is_off(systemd: Systemd) -> None:
    environment = systemd.environment(WATCHDOG_USEC="1000", WATCHDOG_PID="2")
    assert from_environment(environment, 1, lambda: True).watch(None) is None


def test_what_a_full_socket_refuses_is_sent_later(systemd: Systemd) -> None:
    manager = ServiceManager(systemd.address, None, lambda: True)
    for number in range(2_000):  # more than the queue of the socket holds
        manager.status(f"number {number}")
    manager.ready()
    assert "READY=1" not in systemd.read()
    manager.status("the last\nline")
    assert systemd.read()[-2:] == ["STATUS=the last line", "READY=1"] or systemd.read()[-2:] == [
        "READY=1",
        "STATUS=the last line",
    ]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("vsock:2:1", "invalid NOTIFY_SOCKET 'vsock:2:1': must be a path or @ and a name"),
        ("/nowhere/socket", "cannot notify systemd at /nowhere/socket: No such file or directory"),
    ],
)
def test_a_socket_that_cannot_be_used_is_reported_once(runs: Runs, address: str, says: str) -> None:
    process = runs.run("--", "true", env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"})
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.startswith(f"coord run: {says}")
    assert err.count("\n") == 1
