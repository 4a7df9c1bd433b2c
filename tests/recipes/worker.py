"""A worker process of the tests: `python -m tests.recipes.worker share|slots URL RESOURCE TTL N`.

It writes to the fenced resource all the time while it holds a shard or a slot.
"""

from __future__ import annotations

import sys
import threading

import coord
from tests.recipes.resource import Client


def main(kind: str, url: str, resource: str, ttl: str, number: str) -> None:
    client = Client(resource)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with coord.connect(url, timeout=60) as coordinator:  # many begin at once
        if kind == "share":
            shares = coordinator.share("ingest", int(number), ttl=float(ttl))

            @shares.work
            def work(shard: int, term: coord.Term) -> None:
                while not term.lost.wait(0.05):
                    client.write(str(shard), term.token)

            with shares:
                print("ready", flush=True)
                ended.wait()
            return
        slots = coordinator.slots("ingest", int(number), ttl=float(ttl))
        with slots:
            print("ready", flush=True)
            while not ended.is_set():
                held = slots.held
                if held is None:
                    ended.wait(0.02)
                    continue
                client.write(str(held.slot), held.token)
                held.lost.wait(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
