"""A sharded worker: each process leads its share of many roles. Start more, and they share again.

Run it in several terminals: python examples/sharded_worker.py
Each shard has one owner and a fencing token; a process renews all of its shards in one query.
"""

import contextlib
import math
import random
import sys
import time

import coord

SHARDS = [f"shard-{number}" for number in range(12)]


class Worker:
    def __init__(self, coordinator: coord.Coordinator) -> None:
        self.coordinator = coordinator
        self.mine: dict[str, coord.Leadership] = {}

    def balance(self, workers: int) -> None:
        """Take one step towards a fair share: release shards, or claim some that are free."""
        for shard in [shard for shard, lead in self.mine.items() if not lead.is_leader]:
            self.mine.pop(shard).stop()
        missing = math.ceil(len(SHARDS) / workers) - len(self.mine)
        for shard in list(self.mine)[: max(0, -missing)]:
            self.mine.pop(shard).stop()
        if missing > 0:
            taken = {lease.role for lease in self.coordinator.leaders()}
            free = [shard for shard in SHARDS if shard not in taken]
            for shard in random.sample(free, min(missing, len(free))):
                lead = self.coordinator.leadership(shard, ttl=3)
                if lead.acquire(blocking=False) is not None:
                    self.mine[shard] = lead

    def work(self) -> None:
        for lead in self.mine.values():
            if (term := lead.held) is not None:
                _ = term.token  # do the shard's work here, and send this with each write


def main(url: str | None = None, seconds: str = "1e6") -> None:
    until, said = time.monotonic() + float(seconds), None
    with coord.connect(url) as coordinator:
        worker, services = Worker(coordinator), coordinator.services
        with coord.Heartbeat(services, {"role": "sharded-worker", "ttl": 3, "load": 0}):
            while time.monotonic() < until:
                worker.balance(max(1, len(services.healthy_services("sharded-worker"))))
                worker.work()
                if said != len(worker.mine):
                    said = len(worker.mine)
                    print(f"holds {said} of {len(SHARDS)}", flush=True)
                time.sleep(0.2)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
