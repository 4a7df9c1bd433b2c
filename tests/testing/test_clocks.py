"""The virtual loop: time jumps, machines have clocks of their own, nothing real is waited for."""

from __future__ import annotations

import asyncio
import time

import pytest

from coord import AsyncCoordinator
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine, World, run


def test_a_day_takes_no_time() -> None:
    async def main(machine: Machine) -> float:
        began = machine.loop.time()
        await asyncio.sleep(86_000)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 100)
        return machine.loop.time() - began

    began = time.monotonic()
    assert run(main) == pytest.approx(86_100, abs=0.01)
    assert time.monotonic() - began < 2


def test_what_never_ends_is_given_up() -> None:
    async def main(machine: Machine) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run(main, seconds=10)


def test_two_machines_drift_pause_and_sleep() -> None:
    world = World()
    fast, slow = world.machine("fast", 1.5), world.machine("slow", 0.5)
    woke: dict[str, float] = {}

    def sleeper(name: str, seconds: float) -> None:
        async def main() -> None:
            await asyncio.sleep(seconds)
            woke[name] = world.time

        (fast if name.startswith("fast") else slow).spawn(main)

    sleeper("fast", 15)
    sleeper("slow", 5)
    world.run(20)
    assert woke == {"fast": pytest.approx(10, abs=0.01), "slow": pytest.approx(10, abs=0.01)}
    sleeper("fast paused", 15)
    sleeper("slow suspended", 5)
    world.run(1)
    fast.pause(60)
    before = slow.now()
    slow.suspend(60)
    world.run(60)
    after = slow.now()
    assert after.awake - before.awake == pytest.approx(0, abs=1e-3)
    assert after.total - before.total == pytest.approx(30)
    world.run(30)
    assert woke["fast paused"] == pytest.approx(81, abs=0.01)  # late already when it went on
    assert woke["slow suspended"] == pytest.approx(90, abs=0.01)  # its timer had stood still
    world.close()


def test_production_code_leads_a_day_in_a_moment() -> None:
    async def main(machine: Machine) -> int:
        store = MemoryStore(now=lambda: machine.now().total)
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            lead = c.leadership("r", ttl=30)
            async with lead:
                assert await lead.wait(1)
                await asyncio.sleep(3_600)
                assert lead.term.token == 1
                machine.suspend(60)
                await asyncio.sleep(10)
                return lead.term.token

    assert run(main) == 2


def test_time_never_goes_back_when_a_turn_ends_after_the_end_of_a_run() -> None:
    world = World()
    times: list[float] = []
    try:
        machine = world.machine("a")
        machine.pause(1.0)
        machine.do(lambda: times.append(world.time))
        world.run(1.0)
        assert times
        assert world.time >= times[0] > 1.0
    finally:
        world.close()


def test_what_is_not_done_at_the_end_is_cancelled_in_the_order_of_its_creation() -> None:
    order: list[int] = []

    async def waits(number: int) -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            order.append(number)

    world = World()
    machine = world.machine("only")
    tasks: list[asyncio.Task[None]] = []
    for number in range(100):
        machine.do(lambda number=number: tasks.append(machine.loop.create_task(waits(number))))
    world.run(1.0)
    world.close()
    assert order == list(range(100))
