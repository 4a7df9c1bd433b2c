"""PostgreSQL, Redis and etcd beside their raw drivers: a claim, a renewal, ten thousand renewals, and
ten thousand roles elected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from coord.core.operations import Renew
from coord.stores import urls
from coord.stores.protocol import Store
from tests.benchmarks import crowded
from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section
from tests.benchmarks.raw_servers import RAW, TTL, EtcdWire, Raw, claim_of
from tests.benchmarks.setting import Setting
from tests.benchmarks.swaps import Ours, alternate, applied

SWAP_BOUND = 1.25
BATCH_BOUNDS = {"PostgreSQL": 0.6, "Redis": 1 / 1.5, "etcd": 1 / 1.5}
"""Renewals a second, at least, as a share of the raw batch."""
ELECTED_BOUND = 3.0
TIMEOUT = 60.0


async def one_swap(name: str, url: str, times: int) -> list[Figure]:
    """A claim and a renewal, each in turns with the raw one."""
    store, raw = urls.open_url(url), RAW[name](url)
    await store.open(10)
    await raw.open()
    ours = Ours(store)
    aims = (Aim("≤", SWAP_BOUND, "ratio"),)
    figures = []
    for what, mine, other in (
        ("claim", ours.claim, raw.claim),
        ("renewal", ours.renew, raw.renew),
    ):
        # A token has one term: the raw side counts on from the claim before.
        taken = await alternate(times, mine, _later(other))
        reference = Reference(raw.statement, taken[1])
        figures.append(Figure(f"{name}: {what}", taken[0], "µs", aims, reference))
    if name == "etcd":
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        wire = EtcdWire(parts.hostname, parts.port)
        await wire.open()
        taken = await alternate(times, ours.renew, wire.swap)
        reference = Reference("the same over a connection without a library", taken[1])
        figures.append(Figure("etcd: renewal, once more", taken[0], "µs", (), reference))
        await wire.close()
    await raw.close()
    await store.close()
    return figures


def _later(work: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
    """Number the calls from 1: `open` has made call 0."""
    return lambda number: work(number + 1)


async def _claimed(store: Store, roles: Sequence[str]) -> dict[str, int]:
    """Take all roles; return their tokens."""
    tokens: dict[str, int] = {}
    for begin in range(0, len(roles), 500):
        some = [claim_of(role, 1) for role in roles[begin : begin + 500]]
        answers = await asyncio.gather(*(store.claim(claim, TIMEOUT) for claim in some))
        for claim, answer in zip(some, answers, strict=True):
            tokens[claim.role] = applied(answer).lease.token
    return tokens


async def many_renewals(name: str, url: str, count: int, rounds: int) -> Figure:
    """Renewals a second, all put at once, in turns with the raw batch of as many."""
    store, raw = urls.open_url(url), RAW[name](url)
    await store.open(10)
    await raw.open()
    roles = [f"many-{number}" for number in range(count)]
    tokens = await _claimed(store, roles)
    await raw.claim_many([f"{role}-raw" for role in roles])

    async def mine(number: int) -> None:
        renewals = [Renew(role, "me", tokens[role], number + 2, TTL) for role in roles]
        for result in await store.renew(renewals, TIMEOUT):
            applied(result)

    async def theirs(number: int) -> None:
        await raw.renew_many([f"{role}-raw" for role in roles], number + 2)

    taken = await alternate(rounds, mine, theirs, warm_up=1)
    await raw.close()
    await store.close()
    ours, others = (count / (item / 1e6) for item in taken)
    what = f"{name}: {count:,} renewals at once, a second (median of {rounds})"
    aims = (Aim("≥", BATCH_BOUNDS[name], "ratio"),)
    return Figure(what, ours, "/s", aims, Reference("raw batch of as many", others))


async def _raw_claims(raw: Raw, count: int) -> float:
    """Seconds of one raw batch of first claims."""
    await raw.open()
    began = time.perf_counter()
    await raw.claim_many([f"first-{number}" for number in range(count)])
    took = time.perf_counter() - began
    await raw.close()
    return took


def elected(name: str, url: str, raw_url: str, count: int, ttl: float) -> Figure:
    """Seconds until a process that just started leads all of its roles."""
    raw = asyncio.run(_raw_claims(RAW[name](raw_url), count))
    times = crowded.measure(url, count, ttl)
    aims = (Aim("≤", ELECTED_BOUND, "ratio"),)
    what = f"{name}: {count:,} roles of one process elected, from its start"
    return Figure(what, times.started, "s", aims, Reference("raw batch of as many claims", raw))


def sections(where: Setting) -> list[Section]:
    times, many = where.pick(1000, 40, 3), where.pick(10_000, 500, 20)
    rounds, ttl = where.pick(11, 2, 1), where.pick(15.0, 5.0, 1.5)
    swaps, renewals, elections = [], [], []
    for name in where.servers:
        swaps += asyncio.run(one_swap(name, where.server_url(name, "swap"), times))
        url = where.server_url(name, "renewals")
        renewals.append(asyncio.run(many_renewals(name, url, many, rounds)))
        url, raw_url = where.server_url(name, "elected"), where.server_url(name, "claims")
        elections.append(elected(name, url, raw_url, many, ttl))
    note = (
        f"Medians of {times} in turns, on one event loop and one server of this machine. The raw side sends what the "
        "store sends, and reads the answer. A raw batch is one statement (PostgreSQL), one pipeline of the same "
        "scripts (Redis), or transactions of compare-and-swaps of one key each (etcd)."
    )
    return [
        Section("PostgreSQL, Redis and etcd beside their drivers", swaps, note),
        Section("Many renewals and claims on PostgreSQL, Redis and etcd", [*renewals, *elections]),
    ]


if __name__ == "__main__":
    alone(sections)
