"""Which candidate gets what another one leaves: fixed stories on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coord import AsyncCoordinator, Term
from coord.core.operations import Claim, Result
from coord.core.timing import Timing
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine, World, run
from tests.recipes.worlds import Peer
from tests.verification.simulation.drive import quiet

TTL = 10.0


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait on virtual time until the condition holds, and return whether it does."""
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        await asyncio.sleep(0.05)
    return condition()


def test_a_shard_goes_to_another_member_if_the_one_whose_turn_it_is_rests() -> None:
    """Each of two members fails on its first shard and does not claim it for a ttl. So each claims
    the shard of the other, as soon as it has been free for some time."""
    failed: dict[int, str] = {}

    async def story(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)

        def fails_first(name: str) -> Callable[[int, Term], None]:
            def on_gained(shard: int, term: Term) -> None:
                if name not in failed.values():
                    failed[shard] = name
                    raise RuntimeError("cannot begin")

            return on_gained

        async with (
            AsyncCoordinator(store=store, now=machine.now) as a,
            AsyncCoordinator(store=store, now=machine.now) as b,
        ):
            members = {
                name: c.share("g", 2, ttl=TTL, on_gained=fails_first(name))
                for name, c in (("a", a), ("b", b))
            }
            async with members["a"], members["b"]:
                assert await until(lambda: len(failed) == 2, TTL / 2), failed
                assert not any(shares.mine for shares in members.values())
                assert await until(
                    lambda: all(len(shares.mine) == 1 for shares in members.values()),
                    Timing.of(TTL).renew_every + TTL / 4,
                )
                for name, shares in members.items():
                    assert failed[next(iter(shares.mine))] != name

    with quiet():
        run(story)


def test_the_slot_of_a_killed_holder_goes_to_one_that_waits() -> None:
    world = World()
    store = MemoryStore(now=lambda: world.time)
    try:
        holder, waits = (Peer(world, store, None, 1.0) for _ in range(2))
        leads = [peer.coordinator.slots("r", 1, ttl=TTL) for peer in (holder, waits)]
        holder.machine.spawn(leads[0].start)
        assert world.run(TTL, lambda: leads[0].held is not None)
        waits.machine.spawn(leads[1].start)
        assert not world.run(2 * TTL, lambda: leads[1].held is not None)
        holder.machine.kill()
        assert world.run(2 * TTL, lambda: leads[1].held is not None)
        assert leads[1].term.token == 2
    finally:
        world.close()


def test_a_clock_that_is_days_off_does_not_make_candidates_write_without_a_pause() -> None:
    """An old row of the number is written again, and each write is news for the others."""

    class Counting(MemoryStore):
        claims = 0

        async def claim(self, claim: Claim, timeout: float) -> Result:
            self.claims += claim.role == "dock#"
            assert self.claims < 100, "the number of slots is written again and again"
            return await super().claim(claim, timeout)

    async def main(machine: Machine) -> None:
        store = Counting(now=lambda: machine.now().total, wall=lambda: 1_000.0)
        async with AsyncCoordinator(store=store) as first, AsyncCoordinator(store=store) as second:
            for coordinator in (first, second):
                await coordinator.slots("dock", 2, ttl=3).start()
            await asyncio.sleep(10)
            assert store.claims <= 3

    run(main)
