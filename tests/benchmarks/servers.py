"""PostgreSQL, Redis and etcd beside their raw drivers: a claim, a renewal, ten thousand renewals, and
ten thousand roles elected."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from coord.core.operations import Renew
from coord.stores import urls
from coord.stores.protocol import Bulk, Store
from tests.benchmarks import crowded
from tests.benchmarks.alone import Tries, alone
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section
from tests.benchmarks.raw_servers import RAW, TTL, EtcdWire, PlainPostgreSQL, Raw, claim_of
from tests.benchmarks.setting import Setting
from tests.benchmarks.swaps import CoordStore, alternate, applied

SWAP_BOUND = 1.25
BATCH_BOUNDS = {"PostgreSQL": 0.6, "Redis": 1 / 1.5, "etcd": 1 / 1.5}
"""Renewals a second, at least, as a share of the raw batch."""
ELECTED_BOUND = 3.0
RAW_BATCHES = {
    "PostgreSQL": "the same function through asyncpg",
    "Redis": "the same scripts in one pipeline",
    "etcd": "the same requests through the same client",
}
TIMEOUT = 60.0


async def one_swap(name: str, url: str, times: int) -> list[Figure]:
    """A claim and a renewal, each in turns with the raw one."""
    store, raw = urls.open_url(url), RAW[name](url)
    await store.open(10)
    await raw.open()
    contender = CoordStore(store)
    aims = (Aim("≤", SWAP_BOUND, "ratio"),)
    figures = []
    for what, coord_call, other in (
        ("claim", contender.claim, raw.claim),
        ("renewal", contender.renew, raw.renew),
    ):
        # A token has one term: the raw side counts on from the claim before.
        taken = await alternate(times, coord_call, _later(other))
        reference = Reference(raw.statement, taken[1])
        figures.append(Figure(f"{name}: {what}", taken[0], "µs", aims, reference))
    if name == "etcd":
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        wire = EtcdWire(parts.hostname, parts.port)
        await wire.open()
        taken = await alternate(times, contender.renew, wire.swap)
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
    assert isinstance(store, Bulk)
    tokens: dict[str, int] = {}
    for begin in range(0, len(roles), 500):
        some = [claim_of(role, 1) for role in roles[begin : begin + 500]]
        for claim, answer in zip(some, await store.swap_all(some, TIMEOUT), strict=True):
            tokens[claim.role] = applied(answer).lease.token
    return tokens


async def many_renewals(name: str, url: str, count: int, rounds: int) -> list[Figure]:
    """Renewals a second, all put at once, in turns with the raw batch of as many."""
    store = urls.open_url(url)
    raws: dict[str, Raw] = {RAW_BATCHES[name]: RAW[name](url)}
    if name == "PostgreSQL":
        raws["one plain UPDATE, which locks in no order"] = PlainPostgreSQL(url)
    await store.open(10)
    roles = [f"many-{number}" for number in range(count)]
    raw_roles = [f"{role}-raw" for role in roles]
    tokens, beat, figures = await _claimed(store, roles), 1, list[Figure]()
    aims: tuple[Aim, ...] = (Aim("≥", BATCH_BOUNDS[name], "ratio"),)
    what = f"{name}: {count:,} renewals at once, a second (median of {rounds})"
    for reference, raw in raws.items():
        await raw.open()
        await raw.claim_many(raw_roles)

        async def renew_with_coord(number: int) -> None:
            nonlocal beat
            beat += 1
            renewals = [Renew(role, "me", tokens[role], beat, TTL) for role in roles]
            for result in await store.renew(renewals, TIMEOUT):
                applied(result)

        async def renew_raw(number: int, raw: Raw = raw) -> None:
            await raw.renew_many(raw_roles, number + 2)

        taken = await alternate(rounds, renew_with_coord, renew_raw, warm_up=1)
        await raw.close()
        coord_time, others = (count / (item / 1e6) for item in taken)
        figures.append(Figure(what, coord_time, "/s", aims, Reference(reference, others)))
        aims = ()
    await store.close()
    return figures


async def _raw_claims(raw: Raw, count: int) -> float:
    """Seconds of one raw batch of first claims."""
    await raw.open()
    began = time.perf_counter()
    await raw.claim_many([f"first-{number}" for number in range(count)])
    took = time.perf_counter() - began
    await raw.close()
    return took


def elected(
    name: str, new_url: Callable[[], str], count: int, ttl: float, rounds: int
) -> list[Figure]:
    """Seconds until a process that just started leads all of its roles, in turns with the raw
    batch; and until it has given all of them back."""
    started, stopped, raw = list[float](), list[float](), list[float]()
    for _ in range(rounds):
        raw.append(asyncio.run(_raw_claims(RAW[name](new_url()), count)))
        with crowded.Host(new_url(), count, ttl) as host:
            began = host.when("begins")
            host.when("stands")
            started.append(host.when("leads") - began)
            host.stop()
            stopped.append(-host.when("stops") + host.when("gave back"))
    what = f"{name}: {count:,} roles of one process"
    reference = Reference(f"{RAW_BATCHES[name]}, claims", statistics.median(raw))
    aims = (Aim("≤", ELECTED_BOUND, "ratio"),)
    return [
        Figure(
            f"{what} elected, from its start (median of {rounds})",
            statistics.median(started),
            "s",
            aims,
            reference,
        ),
        Figure(f"{what} given back", statistics.median(stopped), "s"),
    ]


def sections(where: Setting) -> list[Section]:
    times, many = where.pick(1000, 40, 3), where.pick(10_000, 500, 20)
    rounds, elections, ttl = where.pick(11, 3, 1), where.pick(3, 1, 1), where.pick(15.0, 5.0, 1.5)
    swaps, batches, tries = list[Figure](), list[Figure](), Tries(where)
    for name in where.servers:
        swaps += tries.figures(
            lambda name=name: asyncio.run(one_swap(name, where.server_url(name, "swap"), times)),
            f"{name}: swaps",
        )
        batches += tries.figures(
            lambda name=name: asyncio.run(
                many_renewals(name, where.server_url(name, "renewals"), many, rounds)
            ),
            f"{name}: renewals",
        )
        batches += tries.figures(
            lambda name=name: elected(
                name, lambda: where.server_url(name, "elected"), many, ttl, elections
            ),
            f"{name}: elections",
        )
    note = (
        f"Medians of {times} in turns, on one event loop and one server of this machine. The raw side sends what the "
        f"store sends, and reads the answer.{tries.note}"
    )
    many_note = (
        "A raw batch sends what the store sends: the functions of PostgreSQL with arrays, the scripts of Redis in one "
        "pipeline, or the nested transactions of etcd. It keeps no candidates, calls nobody and reads no row of an answer."
    )
    return [
        Section("PostgreSQL, Redis and etcd beside their drivers", swaps, note),
        Section("Many renewals and claims on PostgreSQL, Redis and etcd", batches, many_note),
    ]


if __name__ == "__main__":
    alone(sections)
