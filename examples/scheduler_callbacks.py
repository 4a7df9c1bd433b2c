"""A scheduler that runs on the leader only: callbacks start and pause it, and jobs use the token.

Run it in two terminals: python examples/scheduler_callbacks.py

Stop the leader with Ctrl-C, and the other process continues at once. Kill it with `kill -9`, and
the other one continues within the ttl.
"""

import contextlib
import sys
import threading

import coord


class Ticker:
    """A placeholder for your scheduler: it works at intervals while it is not paused."""

    def __init__(self) -> None:
        self.running = threading.Event()

    def start(self, term: coord.Term) -> None:
        print(f"elected, token {term.token}: the ticker runs", flush=True)
        self.term = term
        self.running.set()

    def pause(self, term: coord.Term, why: coord.LossReason) -> None:
        self.running.clear()
        print(f"lost ({why}): the ticker is paused", flush=True)

    def run(self, ticks: int) -> None:
        for number in range(ticks):
            self.running.wait()
            if self.term.held:
                print(f"tick {number} under token {self.term.token}", flush=True)
            self.term.lost.wait(0.2)


def main() -> None:
    ticker = Ticker()
    coordinator = coord.connect(sys.argv[1] if len(sys.argv) > 1 else None)
    lead = coordinator.leadership("ticker", ttl=5, on_elected=ticker.start, on_lost=ticker.pause)
    with contextlib.suppress(KeyboardInterrupt), lead:
        ticker.run(ticks=int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
    coordinator.close()


if __name__ == "__main__":
    main()
