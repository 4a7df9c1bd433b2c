"""`coord watch` and `coord services`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import pytest

import coord
from tests.support.processes import Runs
from tests.support.store_urls import shared_url

url = shared_url


def test_watch_prints_each_change_at_once(runs: Runs) -> None:
    assert runs.answer("init", "--url", runs.url)[0] == 0
    with coord.connect(runs.url) as c:
        watching = runs.start(
            "-m", "coord", "watch", "job", "--url", runs.url, "--json", stdout=subprocess.PIPE
        )
        assert watching.stdout is not None

        def token() -> int | None:
            leader = json.loads(watching.stdout.readline())["leader"]  # type: ignore[union-attr]
            return None if leader is None else int(leader["token"])

        assert token() is None
        lead = c.leadership("job", ttl=5, info={"node": "a"})
        assert lead.acquire(timeout=10)
        assert token() == 1
        began = time.monotonic()
        lead.stop()
        assert token() is None
        assert time.monotonic() - began < 3
        watching.kill()
        watching.communicate()


def test_watch_for_people(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        lead = c.leadership("job", ttl=5, info={"node": "a"})
        assert lead.acquire(timeout=10)
        watching = runs.start.fork(
            "-m", "coord", "watch", "job", "--url", runs.url, stdout=subprocess.PIPE
        )
        assert watching.stdout is not None
        line = watching.stdout.readline()
        watching.kill()
        watching.communicate()
        assert "token 1" in line
        assert "node=a" in line


@pytest.mark.stores("sqlite", "rethinkdb", "postgresql", "redis")
def test_services(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        c.services.heartbeat({"id": "busy", "role": "proxy", "ttl": 60, "load": 9})
        c.services.heartbeat({"id": "idle", "role": "proxy", "ttl": 60, "load": 1})
        c.services.heartbeat({"id": "evil\x1b[31m", "role": "other", "ttl": 60, "load": 1})
    status, out, _ = runs.answer("services", "proxy", "--url", runs.url)
    assert status == 0
    assert out.index("idle") < out.index("busy")
    assert "other" not in out
    status, out, _ = runs.answer("services", "--url", runs.url)
    assert "\x1b" not in out
    assert "evil\\x1b" in out
    status, out, _ = runs.answer("services", "--url", runs.url, "--json")
    assert {load["id"] for load in json.loads(out)} == {"busy", "idle", "evil\x1b[31m"}
    assert runs.answer("services", "nobody", "--url", runs.url)[1].startswith("no healthy services")


def test_watch_every_role(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 30})
        watching = runs.start.fork(
            "-m", "coord", "watch", "--url", runs.url, stdout=subprocess.PIPE
        )
        as_json = runs.start.fork(
            "-m", "coord", "watch", "--url", runs.url, "--json", stdout=subprocess.PIPE
        )
        assert watching.stdout is not None
        assert as_json.stdout is not None
        assert "  there  token 1  " in watching.stdout.readline()
        assert json.loads(as_json.stdout.readline())["role"] == "there"
        lead = c.leadership("later", ttl=5, info={"node": "a"})
        assert lead.acquire(timeout=10)
        line = watching.stdout.readline()
        assert "  later  token 1  " in line
        # The feeds of RethinkDB and Redis carry no info.
        assert "node=a" in line or runs.url.startswith(("rethinkdb:", "redis:"))
        output = json.loads(as_json.stdout.readline())
        assert (output["role"], output["leader"]["token"]) == ("later", 1)
        info = {"host": socket.gethostname(), "pid": os.getpid(), "node": "a"}
        assert output["leader"]["info"] in (
            info,
            {} if runs.url.startswith(("rethinkdb:", "redis:")) else info,
        )
        lead.stop()
        assert watching.stdout.readline().rstrip().endswith("nobody leads 'later'")
        output = json.loads(as_json.stdout.readline())
        assert (output["role"], output["leader"]) == ("later", None)
        for process in (watching, as_json):
            process.kill()
            process.communicate()


def test_ctrl_c_is_quiet(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 30})
        for words in (("watch",), ("watch", "there")):
            watching = runs.start.fork("-m", "coord", *words, "--url", runs.url)
            assert watching.stdout is not None
            line = watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            out, err = watching.communicate(timeout=20)
            assert err == "\n"  # below the ^C
            # Python writes a line again if the signal comes while it flushes that line.
            assert out in ("", line)
            assert watching.returncode == 130
