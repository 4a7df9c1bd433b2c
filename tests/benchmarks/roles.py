"""One process that holds many roles: batches, memory, CPU, and whether a term was lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from coord import Coordinator
from coord.async_leadership import AsyncLeadership
from coord.operations import Renew, Result
from tests.benchmarks.report import Row

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE


class Held:
    """`roles` leaderships in one coordinator, and what their renewals cost."""

    def __init__(self, url: str, roles: int, ttl: float) -> None:
        self.coordinator = Coordinator(url)
        self.coordinator.check()
        self.batches: list[tuple[int, float]] = []
        renew = self.coordinator.inner.store.renew

        async def timed(renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
            began = time.perf_counter()
            results = await renew(renewals, timeout)
            self.batches.append((len(renewals), time.perf_counter() - began))
            return results

        self.coordinator.inner.store.renew = timed  # type: ignore[method-assign]
        self.coordinator.inner._renewals._ask = timed
        before = resident()
        began = time.monotonic()
        self.leads: list[AsyncLeadership] = self.coordinator.engine.call(lambda: self._start(roles, ttl))
        while not all(lead.is_leader for lead in self.leads):
            if time.monotonic() - began > 120:
                raise TimeoutError(f"{sum(lead.is_leader for lead in self.leads)} of {roles} were elected")
            time.sleep(0.05)
        self.elected_in = time.monotonic() - began
        self.bytes_each = (resident() - before) / roles
        self.tokens = [lead.term.token for lead in self.leads]

    async def _start(self, roles: int, ttl: float) -> list[AsyncLeadership]:
        leads = [self.coordinator.inner.leadership(f"role-{number}", ttl=ttl) for number in range(roles)]
        await asyncio.gather(*(lead.start() for lead in leads))
        return leads

    def hold(self, seconds: float) -> float:
        """Hold on; the share of one core that it took."""
        self.batches.clear()
        began, cpu = time.monotonic(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - cpu) / (time.monotonic() - began)

    def lost(self) -> int:
        now = [lead.term.token if lead.is_leader else None for lead in self.leads]
        return sum(before != after for before, after in zip(self.tokens, now, strict=True))


def measure(url: str, roles: int, ttl: float, seconds: float, raw_rate: float | None) -> list[Row]:
    """`raw_rate`: renewals a second of the store's own batch, measured just before."""
    held = Held(url, roles, ttl)
    share = held.hold(seconds)
    lost = held.lost()
    renewals = sum(count for count, _ in held.batches)
    rate = renewals / sum(took for _, took in held.batches)
    most = max(count for count, _ in held.batches)
    held.coordinator.close()
    name = f"{roles:,} roles, ttl {ttl:g} s, held {seconds:g} s"
    return [
        Row(f"{name}: terms lost", lost, "", bound="0", met=lost == 0),
        Row(f"{name}: renewals", renewals, "", against="largest batch", other=None, bound=f"batches of up to {most:,}"),
        Row(
            "renewals a second while a batch is under way",
            rate,
            "/s",
            "the raw batch",
            raw_rate,
            "≥ 0.7 of raw",
            None if raw_rate is None else rate >= 0.7 * raw_rate,
        ),
        Row("CPU of the process", share * 100, "% of a core", bound="< 25", met=share < 0.25),
        Row("memory a role", held.bytes_each / 1000, "kB", bound="≤ 6", met=held.bytes_each <= 6000),
        Row("all elected within", held.elected_in, "s"),
    ]
