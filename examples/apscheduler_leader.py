"""APScheduler on the leader only: paused in every process, and resumed on the leader.

Needs: pip install 'coord[apscheduler]'
Run it in two terminals: python examples/apscheduler_leader.py

Stop the leader with Ctrl-C, and the other process continues at once. A job that runs when the role
is lost ends before another process gets the role.
"""

import contextlib
import logging
import sys
import time

import coord
from coord.integrations.apscheduler import LeaderBackgroundScheduler


def tick() -> None:
    print(f"tick under token {coord.require_term().token}", flush=True)


def main(url: str | None, seconds: float) -> None:
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    coordinator = coord.connect(url)
    scheduler = LeaderBackgroundScheduler(
        role="scheduler",
        coordinator=coordinator,
        ttl=5,
        missed="once",  # the next leader runs what was due while nobody led, once
        timezone="UTC",
    )

    @scheduler.leadership.on_elected
    def resumed(term: coord.Term) -> None:
        print(f"elected, token {term.token}: resumed", flush=True)

    @scheduler.leadership.on_lost
    def paused(term: coord.Term, why: coord.LossReason) -> None:
        print(f"lost ({why}): paused", flush=True)

    scheduler.add_job(tick, "interval", seconds=0.3, id="tick")
    with contextlib.suppress(KeyboardInterrupt):
        scheduler.start()
        time.sleep(seconds)
    scheduler.shutdown()
    coordinator.close()


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else None, float(sys.argv[2]) if len(sys.argv) > 2 else 1e6
    )
