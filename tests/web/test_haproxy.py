"""Behind a real HAProxy with the file of the documentation: requests reach the leader, and after
`kill -9` the next one; an open page of a mounted application does not keep a server from ending."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from coord import Coordinator
from tests.support.processes import python_environment
from tests.support.running import Running, free_port, running
from tests.support.waits import WITHIN, eventually
from tests.web.member import HOST

CONFIGURATION = Path(__file__).parent.parent.parent / "docs" / "deploy" / "haproxy" / "haproxy.cfg"
TTL, INTERVAL, CHECK_TIMEOUT = 4.0, 1.0, 1.0
"""The last two are those of the configuration."""
SLACK = 10.0
"""Seconds by which a busy machine may be late."""


@contextlib.contextmanager
def member(url: str, port: int) -> Iterator[Running]:
    """An application server that listens."""
    words = [sys.executable, "-m", "tests.web.member", url, str(port), str(TTL)]
    with running(words, url, **python_environment()) as server:
        server.until(lambda it: bool(it.lines("Uvicorn running")))
        yield server


def served_by(proxy: httpx.Client) -> int | None:
    """The process that answers; None if the proxy has no server."""
    try:
        answer = proxy.get("/who")
    except httpx.TransportError:  # a connection to a server that was killed
        return None
    return int(answer.text) if answer.status_code == 200 else None


@pytest.mark.needs("haproxy")
def test_requests_reach_the_next_leader_after_a_kill(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    public, item, two = free_port(), free_port(), free_port()
    text = CONFIGURATION.read_text(encoding="utf-8")
    for before, after in ((":8080", public), ("127.0.0.1:8001", item), ("127.0.0.1:8002", two)):
        assert before in text
        text = text.replace(before, f"127.0.0.1:{after}")
    assert f"hdr Host {HOST}" in text
    assert f"inter {INTERVAL:g}s" in text
    (tmp_path / "haproxy.cfg").write_text(text)
    with (
        member(url, item) as first,
        member(url, two) as second,
        running(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], url),
        Coordinator(url) as c,
        httpx.Client(  # with a new connection for each request
            base_url=f"http://127.0.0.1:{public}",
            headers={"Connection": "close"},
            timeout=WITHIN,
        ) as proxy,
    ):
        servers = {server.process.pid: server for server in (first, second)}
        lease = c.leader("scheduler")
        assert lease is not None
        leader = lease.info["pid"]
        # HAProxy takes every server for one that is up until its first check.
        eventually(lambda: {served_by(proxy) for _ in range(20)} == {leader})
        (other,) = servers.keys() - {leader}
        eventually(lambda: c.candidates("scheduler"))
        killed, began = time.time(), time.monotonic()
        os.kill(leader, signal.SIGKILL)
        eventually(lambda: served_by(proxy) == other, within=TTL + INTERVAL + SLACK + WITHIN)
        took = time.monotonic() - began
        elected = next(term.since for term in c.history("scheduler") if term.info["pid"] == other)
        print(f"served by the next leader {took:.1f} s after the kill, elected after "
              f"{elected - killed:.1f} s")  # fmt: skip
        assert elected - killed <= TTL + SLACK
        assert took - (elected - killed) <= INTERVAL + CHECK_TIMEOUT + SLACK
        assert {served_by(proxy) for _ in range(20)} == {other}


def test_a_mounted_page_does_not_keep_a_server_from_ending(tmp_path: Path) -> None:
    url, port = f"sqlite://{tmp_path}/coord.db", free_port()
    with (
        member(url, port) as server,
        httpx.stream(
            "GET", f"http://127.0.0.1:{port}/events", headers={"Host": HOST}, timeout=WITHIN
        ) as stream,
    ):
        lines = stream.iter_lines()
        assert any(line.startswith("data: ") for line in lines)
        server.process.send_signal(signal.SIGTERM)
        list(lines)  # the stream has an end
        server.process.wait(WITHIN)
        assert server.lines("Finished server process")
