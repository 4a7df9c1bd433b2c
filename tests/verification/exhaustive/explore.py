"""Every interleaving within bounds: breadth first through all events of all states of a `World`,
tick by tick.

All states of one tick are gone through before the next, so that the first visit to a state is also
the one with the longest future.

What costs nothing: any delay of anything, of a candidate, a request, an answer; a request or an
answer that is lost (it is never delivered, and the sender gives up). What is counted against the
bounds: see `Bounds`."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from coord.core.actions import Wait
from coord.core.lease import PAUSED, REVOKED
from coord.core.operations import Read
from coord.core.phases import HOLDING, Phase
from tests.verification.exhaustive.canonical import FAR, key
from tests.verification.exhaustive.model import Candidate, Packet, Setup, Violation, World

Move = tuple[Any, ...]


@dataclass(frozen=True)
class Bounds:
    """How far to go.

    delays    how often a tick passes with somebody's request or answer still under way (a loss is a
    delay that outlasts
              the sender's patience)
    faults    a request applied after its sender gave up, an early failure, a duplicate, a crash, a
    step of the store's
              clock, a suspend
    whispers  what a feed shows: the row as it is, as it was, or with a write that may yet be lost;
    or `try_now` orders    give up, stand down, abandon; and, with `transfers`, hand over to another
    keeps     texts that holders want their role to keep
    prompt    candidates act, drain and time out as soon as they can; the net still takes what time
    it likes
    operators the orders are those of operators: evict, pause, resume, each as a swap that may travel
    for long
    retires   an order may be to delete the row, a request that may travel for long"""

    candidates: int = 2
    ticks: int = 14
    delays: int = FAR
    faults: int = 1
    whispers: int = 1
    orders: int = 1
    keeps: int = 0
    states: int = 1_000_000
    kinds: frozenset[str] = frozenset(
        {"late", "early", "twice", "crash", "clock", "sleep", "true", "old", "ahead", "ask"}
    )
    rests: tuple[float, ...] = (0,)
    lingers: tuple[float, ...] = (0,)
    prompt: bool = False
    transfers: bool = False
    operators: bool = False
    retires: bool = False


@dataclass
class Report:
    states: int = 0
    events: int = 0
    ticks: int = 0
    complete: bool = False
    seconds: float = 0.0
    terms: int = 0
    violation: Violation | None = None
    trace: list[Move] = field(default_factory=list)

    def __str__(self) -> str:
        reach = "all within the bounds" if self.complete else "cut off"
        violation = f"; VIOLATED: {self.violation}" if self.violation else ""
        return (
            f"{self.states:,} distinct states, {self.events:,} events, {self.ticks} ticks, up to {self.terms} terms "
            f"({reach}), {self.seconds:.1f} s{violation}"
        )


def moves(world: World, bounds: Bounds) -> list[Move]:
    """Every event that can happen now.

    Where candidates are prompt, one that has something to do comes first, with whatever may befall
    itself before that: what others do in the same instant makes no difference to it, nor it to
    them."""
    waiting = bounds.prompt and any(
        candidate.election.in_flight is not None
        and candidate.now.total - candidate.sent_at.total >= candidate.election.in_flight.timeout
        for candidate in world.candidates
    )
    options: list[Move] = []
    for slot, candidate in enumerate(world.candidates):
        own = _candidate_moves(world, bounds, slot, candidate)
        if bounds.prompt and _busy(candidate):
            return own
        options += own
    faults = world.faults < bounds.faults
    kinds = bounds.kinds
    for index, packet in enumerate(world.packets):
        if packet.answer is not None:
            options.append(("answer", index))
        else:
            options.append(("arrive", index))
            if (
                faults
                and "twice" in kinds
                and not packet.copy
                and not isinstance(packet.send.operation, Read)
            ):
                options.append(("duplicate", index))
    if bounds.operators:
        options += _operator_moves(world, bounds)
    if bounds.retires:
        if world.retirement is not None:
            options.append(("retirement_arrives",))
        elif world.orders < bounds.orders and world.row.token:
            options.append(("send_retirement",))
    if faults and "clock" in kinds and world.setup.skew:
        options.append(("step_clock", 0 if world.step else world.setup.skew))
    if faults and "restore" in kinds and world.older.revision != world.row.revision:
        stopped = all(candidate.election.phase is Phase.UNSEEN for candidate in world.candidates)
        if stopped and not world.packets:
            options.append(("restore",))
    same_term = world.older.holder == world.row.holder and world.older.token == world.row.token
    if faults and "restore carelessly" in kinds and same_term and world.older != world.row:
        options.append(("restore_carelessly",))
    delayed = sum(candidate.election.in_flight is not None for candidate in world.candidates)
    if not waiting and world.delays + delayed <= bounds.delays:
        options.append(("pass_time", 1))
        if faults and "sleep" in kinds:
            options += [("pass_time", 1, (slot,)) for slot in range(len(world.candidates))]
    return options


def _operator_moves(world: World, bounds: Bounds) -> list[Move]:
    if world.override is not None:
        return [("override_arrives",)]
    if world.orders >= bounds.orders:
        return []
    row = world.row
    options: list[Move] = []
    if row.paused:
        return [("send_override", REVOKED)]
    options.append(("send_override", PAUSED))
    if row.holder is not None and not row.revoked:
        options.append(("send_override", REVOKED))
    options += [
        ("pause_in_turn", slot)
        for slot, candidate in enumerate(world.candidates)
        if candidate.election.phase is Phase.LEADING
    ]
    return options


def _busy(candidate: Candidate) -> bool:
    """Whether this candidate would do something now, were it asked. Worlds share the candidates
    that an event did not change, so each is asked once."""
    if candidate.busy is None:
        candidate.busy = _has_something_to_do(candidate)
    return candidate.busy


def _has_something_to_do(candidate: Candidate) -> bool:
    election = candidate.election
    if candidate.working and not candidate.open:
        return True
    if election.phase is Phase.STOPPED:
        return False
    if election.in_flight is not None and (
        election.phase not in HOLDING or candidate.now.total < election.deadline
    ):
        return False
    trial = candidate.copied().election
    return not isinstance(trial.step(candidate.now), Wait) or trial.phase is not election.phase


def _candidate_moves(world: World, bounds: Bounds, slot: int, candidate: Candidate) -> list[Move]:
    kinds, packets = bounds.kinds, world.packets
    faults, whispers, orders = (
        world.faults < bounds.faults,
        world.whispers < bounds.whispers,
        world.orders < bounds.orders,
    )
    election = candidate.election
    phase, flying = election.phase, election.in_flight
    if phase is Phase.STOPPED:
        return [("crash", slot)] if faults and "crash" in kinds else []
    options: list[Move] = []
    if flying is None:
        options.append(("act", slot))
    else:
        over = candidate.now.total - candidate.sent_at.total >= flying.timeout
        if phase in HOLDING and candidate.now.total >= election.deadline:
            options.append(("act", slot))
        unseen = any(
            p.send is flying and p.answer is None for p in packets
        )  # the store has not seen it yet
        if over or (faults and "early" in kinds):
            options.append(("fail", slot, True, False))
        if faults and unseen and "late" in kinds and not isinstance(flying.operation, Read):
            options.append(("fail", slot, True, True))
        if faults and unseen and "early" in kinds:
            options.append(("fail", slot, False, False))
    if candidate.working and not candidate.open:
        options.append(("drain", slot))
    if orders and election.campaigning and not bounds.operators:
        for linger in bounds.lingers:
            options.append(("stop", slot, linger))
            if phase is Phase.LEADING:
                options += [("resign", slot, rest, linger) for rest in bounds.rests]
        if phase is Phase.LEADING and bounds.transfers:
            others = [other for other in range(len(world.candidates)) if other != slot]
            options += [
                ("transfer", slot, other, rest) for other in others for rest in bounds.rests
            ]
    if orders and phase is Phase.DRAINING and candidate.working:
        options.append(("abandon", slot))
    writable = phase in (Phase.LEADING, Phase.DRAINING) and candidate.now.total < election.deadline
    if world.keeps < bounds.keeps and writable:
        options.append(("keep", slot))
    if faults and "crash" in kinds and phase is not Phase.UNSEEN:
        options.append(("crash", slot))
    if whispers and phase in (Phase.FOLLOWING, Phase.LEADING) and election.observed is not None:
        if "true" in kinds and world.row.revision != election.observed.revision:
            options.append(("whisper", slot, "true"))
        if "old" in kinds and world.older.revision != election.observed.revision:
            options.append(("whisper", slot, "old"))
        if "ask" in kinds and not election._try_now:
            options.append(("try_now", slot))
        if "ahead" in kinds:
            for index, packet in enumerate(packets):
                if (
                    packet.answer is None
                    and packet.slot != slot
                    and not isinstance(packet.send.operation, Read)
                ):
                    options.append(("whisper", slot, index))
    return options


ORDERS = frozenset(
    ("resign", "stop", "abandon", "transfer", "pause_in_turn", "send_override", "send_retirement")
)
FAULTS = frozenset(("crash", "duplicate", "step_clock", "restore", "restore_carelessly"))


def after(world: World, move: Move) -> World:
    """The world after that event. Raises `Violation`."""
    new = world.copied()
    name = move[0]
    if name == "whisper":
        new.whispers += 1
        what = move[2]
        lease = new.shown() if what == "true" else new.older if what == "old" else new.ahead(what)
        if lease is not None:
            new.whisper(move[1], lease)
        return new
    if name in ORDERS:
        new.orders += 1
    elif name in FAULTS:
        new.faults += 1
    elif name == "keep":
        new.keeps += 1
    elif name == "try_now":
        new.whispers += 1
    elif name == "pass_time":
        new.tick += 1
        if new.count_delays:
            new.delays += sum(
                candidate.election.in_flight is not None for candidate in new.candidates
            )
        new.faults += len(move) > 2
    elif name == "fail":
        candidate = new.candidates[move[1]]
        flying = candidate.election.in_flight
        assert flying is not None
        new.faults += (
            move[3] or not move[2] or candidate.now.total - candidate.sent_at.total < flying.timeout
        )
    getattr(new, name)(*move[1:])
    return new


def explore(setup: Setup, bounds: Bounds, *, seconds: float = 600.0) -> Report:
    """Go through all of it; stop at the first violation, whose trace is the way there."""
    collects = gc.isenabled()
    gc.disable()  # worlds hold no cycles, and there are very many of them
    try:
        return _explore(setup, bounds, seconds)
    finally:
        if collects:
            gc.enable()


def _explore(setup: Setup, bounds: Bounds, seconds: float) -> Report:
    started = time.perf_counter()
    report = Report()
    first = World(setup, bounds.candidates)
    first.count_delays = bounds.delays < FAR
    keys: set[int] = {key(first)}
    layer: list[tuple[World, Any]] = [(first, None)]
    for tick in range(bounds.ticks + 1):
        report.ticks = tick
        later: list[tuple[World, Any]] = []
        stack = layer
        while stack:
            world, way = stack.pop()
            for move in moves(world, bounds):
                if move[0] == "pass_time" and tick == bounds.ticks:
                    continue
                report.events += 1
                try:
                    new = after(world, move)
                    if bounds.keeps:
                        new.check_texts()
                    _drop_answers(new)
                    name = key(new)
                    if name in keys:
                        continue
                    if name % 32 == 0 and not setup.leaders_only:
                        _come_to_rest(new)
                except Violation as violation:
                    report.violation = violation
                    report.trace = _unrolled((move, way))
                    report.states, report.seconds = len(keys), time.perf_counter() - started
                    return report
                keys.add(name)
                report.terms = max(report.terms, new.last_token)
                (later if move[0] == "pass_time" else stack).append((new, (move, way)))
            if len(keys) >= bounds.states or time.perf_counter() - started > seconds:
                report.states, report.seconds = len(keys), time.perf_counter() - started
                return report
        layer = later
    report.complete = True
    report.states, report.seconds = len(keys), time.perf_counter() - started
    return report


def _drop_answers(world: World) -> None:
    """Forget the answers that nobody waits for any more: they change nothing."""
    for packet in world.packets:
        if packet.answer is not None and not _awaited(packet, world):
            world.packets = tuple(
                p for p in world.packets if p.answer is None or _awaited(p, world)
            )
            return


def _awaited(packet: Packet, world: World) -> bool:
    return world.candidates[packet.slot].election.in_flight is packet.send


def _come_to_rest(world: World) -> None:
    for slot, candidate in enumerate(world.candidates):
        if not candidate.election.campaigning and not world.stops(slot):
            raise Violation("a candidate that does not stand never stops", f"candidate {slot}")


def _unrolled(way: Any) -> list[Move]:
    trace: list[Move] = []
    while way is not None:
        move, way = way
        trace.append(move)
    return trace[::-1]


def replay(setup: Setup, trace: list[Move], candidates: int = 2) -> Iterator[tuple[Move, World]]:
    """The states along a trace, for people to read."""
    world = World(setup, candidates)
    for move in trace:
        world = after(world, move)
        _drop_answers(world)
        yield move, world


__all__ = ["Bounds", "Report", "after", "explore", "key", "moves", "replay"]
