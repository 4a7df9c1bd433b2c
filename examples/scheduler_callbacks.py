"""A scheduler that runs on the leader only: callbacks start and pause it, jobs carry the token.

Run it in two terminals: python examples/scheduler_callbacks.py Stop one with Ctrl-C and see the
other go on at once; kill -9 it and see the other go on within the ttl."""

import sys
import threading

import coord


class Ticker:
    """Stands for your scheduler: does something every so often, while it is not paused."""

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
    with coordinator.leadership("ticker", ttl=5, on_elected=ticker.start, on_lost=ticker.pause):
        ticker.run(ticks=int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
    coordinator.close()


if __name__ == "__main__":
    main()
