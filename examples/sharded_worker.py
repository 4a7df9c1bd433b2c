"""A sharded worker: each process works on its share of many shards. Start more, and they share
again.

Run it in several terminals: python examples/sharded_worker.py
Each shard has one worker and a fencing token; a process renews all of its shards in one query.
"""

import contextlib
import sys
import time

import coord

SHARDS = 12


def main(url: str | None = None, seconds: str = "1e6") -> None:
    until, printed = time.monotonic() + float(seconds), None
    with coord.connect(url) as coordinator:
        shares = coordinator.share("sharded-worker", SHARDS, ttl=3)

        @shares.work
        def work(shard: int, term: coord.Term) -> None:
            while not term.lost.wait(0.1):
                _ = shard, term.token  # do the shard's work here, and send the token with writes

        with shares:
            while time.monotonic() < until:
                if printed != len(shares.mine):
                    printed = len(shares.mine)
                    print(f"holds {printed} of {SHARDS}", flush=True)
                time.sleep(0.2)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
