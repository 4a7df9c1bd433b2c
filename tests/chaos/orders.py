"""What operators do: they ask the leader to step down, and to hand the role to a certain candidate,
alive or not; they evict it, pause and resume the role, and retire roles.

An operator asks through the store, by the board; a transfer is at times the leader's own doing. The
one that is named was at times killed or stopped just before, while the board still lists it: then
another has to get the role, later."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from coord import AsyncCoordinator, CoordError, Lease, NotLeader, StoreUnavailable
from tests.chaos.crew import Member
from tests.chaos.jobs import RETIRED_PREFIX, ROLE
from tests.chaos.recorder import now
from tests.chaos.scene import Fault, NotNow, Scene

LISTED_WITHIN = 3.0
ASKED_WITHIN = 3.0
RESUMED_WITHIN = 60.0


async def order_to_step_down(scene: Scene, fault: Fault) -> None:
    leader = _leader(scene)
    fault.take(leader)
    cooldown = scene.chance.choice((None, scene.between(0.2, 1.0)))
    await _ask(
        scene,
        fault,
        lambda operator: operator.request_step_down(ROLE, by="operator", cooldown=cooldown),
    )
    await _given_way(scene, fault, leader)
    await asyncio.sleep(scene.between(0.5, 1.0))


async def transfer(scene: Scene, fault: Fault) -> None:
    leader = _leader(scene)
    others = [item for item in scene.crew.free() if item is not leader]
    if not others:
        raise NotNow
    to = scene.chance.choice(others)
    fault.take(leader, to)
    fault.to, fault.to_is = to.name, scene.chance.choice(("alive", "alive", "killed", "stopped"))
    await _listed(scene, to)
    if fault.to_is == "killed":
        await to.kill()
    elif fault.to_is == "stopped":
        to.send(signal.SIGSTOP)
    try:
        fault.begin = now()
        if scene.chance.random() < 0.7:
            fault.detail = f"to {to.name} ({fault.to_is}), by an operator"
            await _ask(
                scene,
                fault,
                lambda operator: operator.request_transfer(ROLE, to.name, by="operator"),
            )
        else:
            fault.detail, fault.token = (
                f"to {to.name} ({fault.to_is}), by the leader",
                scene.crew.token,
            )
            answer = await leader.ask(
                f"transfer {to.name}", ("handing over", "not handing over"), ASKED_WITHIN
            )
            fault.missed = answer != "handing over"
        await _given_way(scene, fault, leader)
        await asyncio.sleep(scene.between(0.5, 1.2))
    finally:
        if fault.to_is == "killed":
            await to.start()
        elif fault.to_is == "stopped":
            to.send(signal.SIGCONT)


async def evict(scene: Scene, fault: Fault) -> None:
    """Take the lease away from the leader, which is at times stopped: the role passes when the
    lease that it was granted has run out."""
    leader = _leader(scene)
    fault.take(leader)
    stopped = scene.chance.random() < 0.4
    fault.detail = "of one that is stopped" if stopped else ""
    if stopped:
        leader.send(signal.SIGSTOP)
    try:
        fault.begin = now()
        await _override(scene, fault, lambda operator: operator.evict(ROLE, by="operator"))
        await asyncio.sleep(scene.between(0.8, 1.6))
    finally:
        if stopped:
            leader.send(signal.SIGCONT)


async def pause_role(scene: Scene, fault: Fault) -> None:
    """Nobody is elected until the role is resumed. The leader is asked to release it, or not."""
    fault.everybody, fault.begin = True, now()
    patience = scene.chance.choice((0.0, scene.ttl))
    seconds = scene.between(0.3, 2.0)
    fault.detail = f"{seconds:.2f} s" + ("" if patience else ", nobody is asked")
    try:
        await _override(
            scene, fault, lambda operator: operator.pause(ROLE, by="operator", timeout=patience)
        )
        await asyncio.sleep(seconds)
    finally:
        await _resume(scene)


async def retire(scene: Scene, fault: Fault) -> None:
    """Delete the rows of the roles of calls that nobody holds at the moment."""
    fault.begin, unused = now(), scene.chance.choice((0.0, 0.3))
    operator = scene.chance.choice(scene.operators)
    try:
        roles = await operator.retire(RETIRED_PREFIX, unused=unused)
    except CoordError as err:
        fault.missed, fault.detail = True, type(err).__name__
    else:
        fault.missed, fault.detail = not roles, f"{len(roles)} roles"


async def _override(
    scene: Scene, fault: Fault, asking: Callable[[AsyncCoordinator], Awaitable[Lease | None]]
) -> None:
    try:
        lease = await asking(scene.chance.choice(scene.operators))
    except NotLeader:
        fault.missed = True  # it has lost the role meanwhile
    except StoreUnavailable as err:
        fault.missed, fault.detail = True, f"{fault.detail} {type(err).__name__}"
    else:
        fault.token = 0 if lease is None else lease.token


async def _resume(scene: Scene) -> None:
    """Resume the role, whatever the store suffers from meanwhile: nobody else does."""
    until = now() + RESUMED_WITHIN
    while True:
        try:
            await scene.chance.choice(scene.operators).resume(ROLE, by="operator")
            return
        except StoreUnavailable:
            if now() > until:
                raise
            await asyncio.sleep(0.1)


def _leader(scene: Scene) -> Member:
    leader = scene.crew.leader
    if leader is None or leader.busy:
        raise NotNow
    return leader


async def _listed(scene: Scene, to: Member) -> None:
    """Wait until the board shows that it waits, to somebody."""
    until = now() + LISTED_WITHIN
    while now() < until:
        for operator in scene.operators:
            with contextlib.suppress(CoordError):
                if any(
                    candidate.info.get("name") == to.name
                    for candidate in await operator.candidates(ROLE)
                ):
                    return
        await asyncio.sleep(0.05)
    raise NotNow


async def _ask(
    scene: Scene, fault: Fault, asking: Callable[[AsyncCoordinator], Awaitable[Lease]]
) -> None:
    """Of every node, because a request is valid for two ttls by their clocks: where they are further
    apart, only the node that the leader listens to hears of it in time. What cannot be asked of
    any, because of another fault, has missed."""
    requests = await asyncio.gather(
        *(asking(operator) for operator in scene.operators), return_exceptions=True
    )
    tokens = [request.token for request in requests if isinstance(request, Lease)]
    failed = [request for request in requests if isinstance(request, BaseException)]
    for err in failed:
        if not isinstance(err, CoordError):
            raise err
    if tokens:
        fault.token = min(tokens)
    else:
        fault.missed, fault.detail = True, f"{fault.detail}: {type(failed[0]).__name__}"


async def _given_way(scene: Scene, fault: Fault, leader: Member) -> None:
    """Wait until that term is over, for as long as an order stands."""
    until = now() + 2 * scene.ttl
    while not fault.missed and not _lost(scene, leader, fault.token):
        fault.missed = now() > until
        await asyncio.sleep(0.005)


def _lost(scene: Scene, leader: Member, token: int) -> bool:
    return any(
        note["note"] == "lost" and note["process"] == leader.name and note["token"] >= token
        for note in reversed(scene.crew.notes[-200:])
    )
