"""APScheduler on the leader only: paused in every process, and resumed by a callback on the leader.

Needs: pip install apscheduler
Run it in two terminals: python examples/apscheduler_leader.py

Stop the leader with Ctrl-C, and the other process continues at once. A job that runs when the role
is lost ends before another process gets the role.
"""

import contextlib
import logging
import sys
import threading
import time

from apscheduler.schedulers.background import BackgroundScheduler

import coord

working = threading.Lock()
scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True})


def main(url: str | None, seconds: float) -> None:
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    coordinator = coord.connect(url)
    lead = coordinator.leadership("scheduler", ttl=5)

    def tick() -> None:
        with working:
            term = lead.held
            if term is not None:
                print(f"tick under token {term.token}", flush=True)

    @lead.on_elected
    def resume(term: coord.Term) -> None:
        print(f"elected, token {term.token}: resumed", flush=True)
        scheduler.resume()

    @lead.on_lost
    def pause(term: coord.Term, why: coord.LossReason) -> None:
        scheduler.pause()
        with working:  # another process gets the role only after this function has returned
            print(f"lost ({why}): paused", flush=True)

    scheduler.add_job(tick, "interval", seconds=0.3)
    scheduler.start(paused=True)
    with contextlib.suppress(KeyboardInterrupt), lead:
        time.sleep(seconds)
    coordinator.close()
    scheduler.shutdown()


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else None, float(sys.argv[2]) if len(sys.argv) > 2 else 1e6
    )
