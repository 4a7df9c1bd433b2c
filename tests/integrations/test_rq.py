"""`rq cron` under `coord run`, as docs/how-to/rq.md has it: one of two schedulers enqueues."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support import redis_server, requirements
from tests.support.running import Running, running
from tests.support.waits import eventually

pytestmark = [pytest.mark.needs("redis"), pytest.mark.server]

JOBS = "def report() -> None:\n    pass\n"
CRON = """\
from rq import cron
from rq_jobs import report

cron.register(report, queue_name="default", interval=1)
"""


@pytest.fixture
def queue() -> Iterator[redis_server.Server]:
    requirements.need("redis")
    with redis_server.Server() as server:
        yield server


def test_one_of_two_schedulers_enqueues_also_after_a_kill(
    queue: redis_server.Server, tmp_path: Path
) -> None:
    (tmp_path / "rq_jobs.py").write_text(JOBS)
    (tmp_path / "rq_cron.py").write_text(CRON)
    client = redis.Redis(queue.host, queue.port)
    url = f"sqlite://{tmp_path}/coord.db"
    address = f"redis://{queue.host}:{queue.port}/0"
    command = [sys.executable, "-m", "coord", "run", "rq-cron", "--ttl", "3", "--"]
    command += [str(Path(sys.executable).parent / "rq"), "cron", "--url", address, "rq_cron"]
    path = {"PYTHONPATH": str(tmp_path)}

    def enqueued(program: Running) -> int:
        return len(program.lines("Enqueued job"))

    with running(command, url, **path) as first:
        first.until(lambda it: enqueued(it) >= 1)
        with running(command, url, **path) as second:
            second.until(lambda it: bool(it.lines("waiting for 'rq-cron'")))
            jobs = enqueued(first)
            first.until(lambda it: enqueued(it) >= jobs + 2)
            assert enqueued(second) == 0
            first.process.send_signal(signal.SIGKILL)
            second.until(lambda it: enqueued(it) >= 2)
            second.stop(signal.SIGTERM)
            # A killed scheduler may have enqueued a job without a word.
            logged = enqueued(first) + enqueued(second)
            eventually(lambda: client.llen("rq:queue:default") >= logged)
            assert client.llen("rq:queue:default") <= logged + 1
