"""A process with a scheduler on a shared job store, which writes the fire time of each run to a
journal. `python -m tests.integrations.apscheduler.worker URL JOBS JOURNAL [RUNS]`: with RUNS it
kills itself after so many, between two of them, as `kill -9` does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED

import coord
from coord.integrations.apscheduler import LeaderBackgroundScheduler

EVERY = 0.5
TTL = 3.0


def work() -> int:
    return coord.require_term().token


def main(url: str, jobs: str, journal: str, runs: int = 0) -> None:
    scheduler = LeaderBackgroundScheduler(
        coordinator=coord.connect(url),
        ttl=TTL,
        missed="all",
        look_every=0.2,
        timezone="UTC",
        jobstores={"default": {"type": "sqlalchemy", "url": jobs}},
        job_defaults={"misfire_grace_time": None, "coalesce": False, "max_instances": 20},
    )
    done = threading.Semaphore(0)

    def write(event: Any) -> None:
        with Path(journal).open("a") as lines:
            lines.write(f"{event.scheduled_run_time.timestamp():.3f} {event.retval}\n")
        done.release()

    scheduler.add_listener(write, EVENT_JOB_EXECUTED)
    scheduler.add_job(work, "interval", seconds=EVERY, id="j", replace_existing=True)
    scheduler.start()
    Path(f"{journal}.{os.getpid()}").touch()  # it is a candidate
    for _ in range(runs):
        done.acquire()
    while runs:
        with scheduler._jobstores_lock:  # no job is being submitted
            if not scheduler._executors["default"].inner._instances:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:4], runs=int(sys.argv[4]) if len(sys.argv) > 4 else 0)
