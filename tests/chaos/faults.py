"""The kinds of fault. Each is a coroutine that injects, holds and heals, and says whom it hit and
from when to when."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos import orders
from tests.chaos.crew import Member
from tests.chaos.recorder import now
from tests.chaos.scene import Fault, NotNow, Scene
from tests.chaos.stage import APART

FREEZES_WITHIN = 30.0
"""Seconds in which a worker surely answers. If nobody waited for its answer any longer, it would
stop itself later, and nobody would let it go on."""
FOLLOWED_WITHIN = 5.0
"""Ttls for which a leader that is stopped in the act stays stopped longer while nobody follows it:
on a busy machine a takeover takes a while."""


async def kill(scene: Scene, fault: Fault) -> None:
    first = scene.victim()
    fault.take(first)
    await first.kill()
    await asyncio.sleep(scene.between(0.1, 1.0))
    await first.start()


async def _freeze(fault: Fault, first: Member, seconds: float) -> None:
    fault.take(first)
    fault.detail = f"{seconds:.2f} s"
    first.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    first.send(signal.SIGCONT)


async def stop(scene: Scene, fault: Fault) -> None:
    """Beyond the ttl, and beyond a takeover."""
    await _freeze(fault, scene.victim(0.95), scene.between(1.4, 2.4) + 0.5)


async def stop_in_act(scene: Scene, fault: Fault) -> None:
    """The same, and surely the leader, and surely between its check and its act: what fencing is
    there for."""
    first, seconds = scene.victim(1.0), scene.between(1.4, 2.4) + 0.5
    fault.take(first)
    answers = ("frozen", "not leading")
    answer = await first.ask("freeze", answers, FREEZES_WITHIN)
    if answer is None:
        raise RuntimeError(f"{first.name} did not obey within {FREEZES_WITHIN:g} s")
    if answer != "frozen":
        raise NotNow
    fault.begin, fault.detail, token = now(), f"{seconds:.2f} s", scene.crew.token
    await asyncio.sleep(seconds)
    until = now() + FOLLOWED_WITHIN * scene.ttl
    if scene.crew.token == token:
        while scene.crew.token == token and now() < until:  # noqa: ASYNC110  # a note tells it
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # the next leader writes
    first.send(signal.SIGCONT)


async def pause(scene: Scene, fault: Fault) -> None:
    """Shorter than the margin."""
    await _freeze(fault, scene.victim(), scene.between(0.02, 0.2))


async def step_down(scene: Scene, fault: Fault) -> None:
    first = scene.victim(1.0)
    fault.take(first)
    first.tell("step_down")
    await asyncio.sleep(scene.between(0.5, 1.0))


async def file_locked(scene: Scene, fault: Fault) -> None:
    """Somebody else holds the write lock of the file."""
    seconds = scene.lasting(0.05, 2.0)
    release = await scene.stage.lock()
    fault.everybody, fault.begin, fault.detail = True, now(), f"{seconds:.2f} s"
    await asyncio.sleep(seconds)
    release()


def network(mode: str, low: float, high: float) -> Callable[[Scene, Fault], Awaitable[None]]:
    """A worker, mostly the leader, or at times everybody, is cut off or hampered, for so many ttls.

    On a cluster at times only on the way to one node.
    """

    async def hamper(scene: Scene, fault: Fault) -> None:
        members = [scene.victim()] if scene.chance.random() < 0.8 else scene.crew.free()
        fault.take(*members)
        fault.everybody = len(members) == len(scene.crew.members)
        seconds = scene.lasting(low, high)
        node = scene.chance.randrange(8)  # one of them, or all when there is none with that number
        proxies = [
            proxy
            for member in members
            for number, proxy in enumerate(scene.stage.proxies_of(member.index))
            if number == node
            or node >= len(scene.stage.proxies_of(member.index))
            or len(scene.stage.nodes) == 1
        ]
        fault.detail = f"{seconds:.2f} s, {len(members)} workers, {len(proxies)} ways"
        for proxy in proxies:
            proxy.set(mode, delay=scene.between(0.03, 0.3))
        await asyncio.sleep(seconds)
        for proxy in proxies:
            proxy.set("pass")

    return hamper


def server(
    how: str, which: str, low: float, high: float
) -> Callable[[Scene, Fault], Awaitable[None]]:
    """A server is killed and started again, or stopped and continued, after so many ttls."""

    async def trouble(scene: Scene, fault: Fault) -> None:
        stage = scene.stage
        number: int | None = scene.chance.randrange(len(stage.nodes))
        if which in ("primary", "standby"):
            number = await stage.primary()
        if which == "standby" and number is not None:
            number = 1 - number
        if number is None:
            raise NotNow
        seconds = scene.lasting(low, high)
        fault.everybody, fault.begin = True, now()
        fault.detail = f"node {number}, {seconds:.2f} s"
        if how == "kill":
            await stage.kill(number)
            await asyncio.sleep(seconds)
            await stage.restart(number)
        else:
            stage.freeze(number)
            await asyncio.sleep(seconds)
            stage.thaw(number)

    return trouble


async def node_cut_off(scene: Scene, fault: Fault) -> None:
    """A node, often the primary, loses the others, and they it; all clients still reach all of
    them.

    Either nothing passes and nobody is told, or every connection breaks and no new one comes about.
    """
    stage = scene.stage
    number = scene.chance.randrange(len(stage.nodes))
    if scene.chance.random() < 0.5 and (primary := await stage.primary()) is not None:
        number = primary
    seconds, silently = scene.lasting(0.5, 9.0), scene.chance.random() < 0.5
    fault.everybody, fault.begin = True, now()
    fault.detail = f"node {number}, {'silently, ' if silently else ''}{seconds:.2f} s"
    stage.cut_off(number, silently)
    await asyncio.sleep(seconds)
    stage.join_again()


async def promotion(scene: Scene, fault: Fault) -> None:
    """The primary is killed, its standby takes its place, and it comes back as the new standby."""
    fault.everybody, fault.begin = True, now()
    fault.detail = await scene.stage.promote()


async def clock_stepped(scene: Scene, fault: Fault) -> None:
    """A server's wall clock jumps, anywhere within what `max_clock_skew` allows, and stays
    there."""
    number, seconds = (
        scene.chance.randrange(len(scene.stage.nodes)),
        scene.chance.uniform(-APART, APART) / 2,
    )
    fault.everybody, fault.begin, fault.detail = True, now(), f"node {number} to {seconds:+.1f} s"
    scene.stage.step_clock(number, seconds)
    await asyncio.sleep(scene.between(0.5, 1.0))


@dataclass(frozen=True)
class Kind:
    """`from_end`: failover is counted from when the fault was healed; before that nobody could
    lead."""

    inject: Callable[[Scene, Fault], Awaitable[None]]
    weight: float = 1.0
    on_store: bool = False
    from_end: bool = False


KINDS: dict[str, Kind] = {
    "kill": Kind(kill, 2.0),
    "stop": Kind(stop, 2.0),
    "stop in act": Kind(stop_in_act, 2.0),
    "pause": Kind(pause),
    "step down": Kind(step_down, 0.7),
    "order to step down": Kind(orders.order_to_step_down, 0.7),
    "transfer": Kind(orders.transfer, 1.5),
    "file locked": Kind(file_locked, on_store=True, from_end=True),
    "blackhole": Kind(network("blackhole", 0.2, 2.5), 1.5),
    "stall": Kind(network("stall", 0.2, 2.5), 1.5),
    "delay": Kind(network("delay", 0.5, 3.0)),
    "reset": Kind(network("reset", 0.2, 2.0), 1.5),
    "refuse": Kind(network("refuse", 0.2, 2.0), 0.7),
    "server killed": Kind(server("kill", "any", 0.0, 2.0), on_store=True, from_end=True),
    "server stopped": Kind(server("stop", "any", 0.1, 2.5), on_store=True, from_end=True),
    "primary killed": Kind(server("kill", "primary", 1.0, 6.0), 1.5, on_store=True),
    "primary stopped": Kind(server("stop", "primary", 0.3, 9.0), 1.0, on_store=True),
    "node killed": Kind(server("kill", "any", 0.5, 4.0), 0.7, on_store=True),
    "node stopped": Kind(server("stop", "any", 0.3, 9.0), 0.7, on_store=True),
    "node cut off": Kind(node_cut_off, 1.5, on_store=True),
    "node partitioned": Kind(node_cut_off, 1.5, on_store=True),
    "promotion": Kind(promotion, 1.5, on_store=True, from_end=True),
    "standby killed": Kind(server("kill", "standby", 0.3, 3.0), 0.7, on_store=True),
    "standby stopped": Kind(server("stop", "standby", 0.3, 3.0), 0.7, on_store=True, from_end=True),
    "evict": Kind(orders.evict),
    "pause role": Kind(orders.pause_role, from_end=True),
    "retire": Kind(orders.retire),
    "clock stepped": Kind(clock_stepped, on_store=True),
}


async def inject(scene: Scene, kind: str) -> Fault:
    """One fault from start to end. Raises `NotNow`."""
    how, fault = KINDS[kind], Fault(kind)
    if how.on_store and scene.store_busy:
        raise NotNow
    scene.store_busy = scene.store_busy or how.on_store
    try:
        await how.inject(scene, fault)
    finally:
        if how.on_store:
            scene.store_busy = False
        for member in fault.members:
            member.busy = False
    fault.end = now()
    return fault


def pick(scene: Scene) -> str:
    kinds = list(scene.stage.kinds)
    return scene.chance.choices(kinds, [KINDS[kind].weight for kind in kinds])[0]
