"""The examples with schedulers, servers and shards do what they say, with the real libraries and
real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.running import EXAMPLES, Running, free_port, running

PYTHON = [sys.executable, "-W", "error"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/coord.db"


def pids(program: Running, pattern: str) -> list[int]:
    """Who said that, line by line."""
    return [
        int(match.group(1)) for line in list(program.said) if (match := re.search(pattern, line))
    ]


def post(address: str) -> tuple[int, str]:
    return get(urllib.request.Request(address, method="POST"))


def get(address: str | urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as err:
        return err.code, err.read().decode()


def test_apscheduler_runs_on_the_leader_and_is_paused_elsewhere(url: str) -> None:
    command = [*PYTHON, "apscheduler_leader.py"]
    with running(command, url) as first:
        first.until(lambda it: len(it.lines("tick under token 1")) >= 2)
        with running(command, url) as second:
            first.until(lambda it: len(it.lines("tick")) >= 5)
            assert second.said == []
            first.stop(signal.SIGTERM)
            assert first.said[-1] == "lost (released): paused"
            second.until(lambda it: len(it.lines("tick under token 2")) >= 2)
            assert second.said[0] == "elected, token 2: resumed"


def test_of_several_uvicorn_workers_one_does_the_job(url: str) -> None:
    port = free_port()
    command = [
        *PYTHON[:1],
        "-m",
        "uvicorn",
        "fastapi_workers:app",
        "--workers",
        "2",
        "--port",
        str(port),
    ]
    pattern = r"worker (\d+) reports"
    with running(command, url) as server:
        server.until(lambda it: len(it.lines("Application startup complete")) == 2)
        server.until(lambda it: len(pids(it, pattern)) >= 5)
        assert len(set(pids(server, pattern))) == 1
        leader = pids(server, pattern)[0]
        leaders: dict[int, bool] = {}
        for _ in range(200):
            status, body = get(f"http://127.0.0.1:{port}/")
            assert status == 200
            leaders[json.loads(body)["pid"]] = json.loads(body)["leads"]
            if len(leaders) > 1 and leader in leaders:
                break
        assert [pid for pid, leads in leaders.items() if leads] in ([leader], [])
        writes = set()
        for _ in range(200):
            writes.add(post(f"http://127.0.0.1:{port}/write"))
            if {status for status, _ in writes} == {200, 503}:
                break
        writes |= {post(f"http://127.0.0.1:{port}/write") for _ in range(20)}
        assert {status for status, _ in writes} == {200, 503}
        assert {body for status, body in writes if status == 200} == {
            f'{{"pid":{leader},"token":1}}'
        }
        status, body = get(f"http://127.0.0.1:{port}/healthz")
        assert (status, json.loads(body)["healthy"]) == (200, True)
        os.kill(leader, signal.SIGKILL)
        server.until(lambda it: pids(it, pattern)[-1] != leader)
        assert server.lines("reports")[-1].endswith("under token 2")
        server.stop()


def test_of_gunicorns_forked_workers_one_does_the_job(url: str) -> None:
    port = free_port()
    command = [
        *PYTHON[:1],
        "-m",
        "gunicorn",
        "--config",
        "gunicorn_prefork.py",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    pattern = r"worker (\d+) writes"
    with running([*command, "gunicorn_prefork:app"], url) as server:
        server.until(lambda it: len(it.lines("Booting worker")) >= 3)
        server.until(lambda it: len(pids(it, pattern)) >= 5)
        assert len(set(pids(server, pattern))) == 1
        leader = pids(server, pattern)[0]
        assert leader != server.process.pid  # a worker, not the master that loaded the application
        assert get(f"http://127.0.0.1:{port}/")[0] == 200
        os.kill(leader, signal.SIGKILL)
        server.until(lambda it: pids(it, pattern)[-1] != leader)
        assert server.lines("writes")[-1].endswith("under token 2")
        server.stop()


def test_shards_are_shared_fairly_and_taken_over(url: str) -> None:
    command = [*PYTHON, "sharded_worker.py"]
    with running(command, url) as first:
        first.until(lambda it: bool(it.said) and it.said[-1] == "holds 12 of 12")
        with running(command, url) as second:
            for item in (first, second):
                item.until(lambda it: bool(it.said) and it.said[-1] == "holds 6 of 12")
            second.stop(signal.SIGKILL)
            first.until(lambda it: it.said[-1] == "holds 12 of 12")


def test_requests_go_to_a_healthy_backend(url: str) -> None:
    def port(program: Running) -> int:
        program.until(lambda it: bool(it.lines("on port")))
        return int(program.lines("on port")[0].split()[-1])

    with running([*PYTHON, "registry_proxy.py", "proxy"], url) as proxy:
        address = f"http://127.0.0.1:{port(proxy)}/"
        assert get(address) == (503, "no backend is healthy\n")
        backend = [*PYTHON, "registry_proxy.py", "backend"]
        with running(backend, url) as first, running(backend, url) as second:
            both = {f"backend {port(first)}\n", f"backend {port(second)}\n"}
            proxy.until(lambda _: {get(address)[1] for _ in range(10)} == both)
            second.stop(signal.SIGTERM)
            assert {get(address) for _ in range(10)} == {(200, f"backend {port(first)}\n")}


def test_the_cron_line_runs_its_job_once(url: str, tmp_path: Path) -> None:
    command = ["./cron_and_beat.sh"]
    with running(command, url) as first:
        first.until(lambda it: it.said == ["nightly, token 1"])
        assert first.process.wait(20) == 0
    with running(command, url) as second:
        assert second.process.wait(20) == 0
        second._reader.join(5)
        (line,) = second.said
        assert line.startswith("coord once: not started: tick ")
        assert line.endswith("T03:00:00Z of 'nightly' was run, under token 1")


def test_celerys_beat_runs_once(url: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "from celery import Celery\n"
        "app = Celery('tasks', broker='memory://')\n"
        "app.conf.beat_schedule = {'often': {'task': 'tasks.nothing', 'schedule': 0.3}}\n"
    )

    def beat(name: str) -> list[str]:
        schedule = ["--schedule", f"{tmp_path}/{name}", "--pidfile="]
        celery = [
            "celery",
            "--workdir",
            str(tmp_path),
            "-A",
            "tasks",
            "beat",
            "-l",
            "info",
            *schedule,
        ]
        return ["coord", "run", "--ttl", "3", "celery-beat", "--", *celery]

    with running(beat("one"), url) as first:
        first.until(lambda it: len(it.lines("Sending due task often")) >= 2)
        with running(beat("two"), url) as second:
            second.until(lambda it: bool(it.lines("waiting for")))
            first.until(lambda it: len(it.lines("Sending due task often")) >= 6)
            assert len(second.said) == len(second.lines("waiting for")) == 1
            first.stop(signal.SIGTERM)
            second.until(lambda it: len(it.lines("Sending due task often")) >= 2)


def test_of_two_beats_with_the_scheduler_of_coord_one_sends(url: str, tmp_path: Path) -> None:
    command = ["celery", "-A", "celery_beat", "beat", "-l", "info", "--pidfile="]
    command += ["--scheduler", "coord.integrations.celery:LeaderScheduler", "--schedule"]
    environment = {"BROKER": "memory://", "NO_COLOR": "1"}
    with running([*command, f"{tmp_path}/one"], url, **environment) as first:
        first.until(lambda it: len(it.lines("Sending due task report")) >= 2)
        with running([*command, f"{tmp_path}/two"], url, **environment) as second:
            second.until(lambda it: bool(it.lines("beat: Starting")))
            sent = len(first.lines("Sending due task report"))
            first.until(lambda it: len(it.lines("Sending due task report")) >= sent + 3)
            assert second.lines("Sending due task") == []
            first.stop(signal.SIGTERM)
            second.until(lambda it: len(it.lines("Sending due task report")) >= 2)
            assert second.lines("leadership.elected role='reports' token=2")


def test_a_paused_old_leader_is_refused_by_a_document(rethinkdb_url: str) -> None:
    done = subprocess.run(
        # The driver imports distutils, up to Python 3.11.
        [
            *PYTHON,
            "-W",
            "ignore:The distutils package is deprecated:DeprecationWarning",
            str(EXAMPLES / "fenced_rethinkdb.py"),
            rethinkdb_url,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "first leads",
        "second leads",
        "second has written",
        "first is refused",
        "the report was written by second",
    ]


def test_shell_examples_say_at_their_head_what_they_are() -> None:
    for path in EXAMPLES.glob("*.sh"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 60, path.name
        assert any("Run it" in line for line in lines[:15]), path.name
        subprocess.run(["sh", "-n", str(path)], check=True)
