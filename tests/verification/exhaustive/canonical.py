"""Which states of a `World` are one and the same.

Two are when nothing that will ever be decided can tell them apart: times are taken relative to each
clock's now and cut off where they no longer matter, tokens are counted from the lowest, beats by
their order among those of their writer.

A `Part` is what one candidate, packet or row contributes. It is computed once, because worlds share
what an event did not change. Only its tokens and beats depend on the rest of the world."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from coord.core.election import Election
from coord.core.lease import PAUSED, REVOKED, Lease
from coord.core.operations import Claim, Operation, Read, Release
from coord.core.phases import HOLDING, Phase
from tests.verification.exhaustive.model import Candidate, Packet, World

PHASES = {phase: number for number, phase in enumerate(Phase)}
FAR = 99  # means "so long ago, or so far ahead, that it makes no difference"
SHIFT = 64
"""A beat and its writer are one number, which sorts as the pair of them does."""


@functools.cache
def _number(holder: str) -> int:
    """The number of a holder, which is called `slot.incarnation`, or is no candidate. 0: nobody."""
    if holder in (REVOKED, PAUSED):
        return 9_001 + (holder == PAUSED)
    slot, _, incarnation = holder.partition(".")
    return 100 * int(incarnation) + int(slot) + 1


@functools.cache
def _text(text: str) -> tuple[int, int]:
    """A kept text: the token and the number of it."""
    token, number = map(int, text.split())
    return token, number


PAUSED_BEAT = _number(PAUSED) << SHIFT
"""What a leader leaves that is asked to pause."""


class Part:
    """What a candidate, a packet or a row contributes to the key.

    Attributes:
        writers: The writers of the world in which this was computed.
        fixed: All that is the same in any world. It determines how many tokens and beats there are.
        hashed: The hash of `fixed`.
        tokens: The tokens, from the lowest of the world.
        lowest: The lowest of those tokens that say where the world's begin.
        beats: The beats with their writers, by their order in the world.
        ordered: `beats`, and those that only take a place in the order.
    """

    __slots__ = ("beats", "fixed", "hashed", "lowest", "ordered", "tokens", "writers")

    hashed: int
    ordered: tuple[int, ...]

    def __init__(self, writers: Mapping[int, int]) -> None:
        self.writers = writers
        self.fixed: list[Any] = []
        self.tokens: list[int] = []
        self.lowest = 1 << SHIFT
        self.beats: list[int] = []

    def complete(self, *ordered: int) -> Part:
        self.hashed = hash(tuple(self.fixed))
        self.ordered = (*self.beats, *ordered)
        return self

    def revision(self, holder: str | None, token: int, beat: int) -> None:
        if holder is None:
            self.fixed.append(0)
            writer = self.writers.get(token, -1) + 1
        else:
            writer = _number(holder)
            self.fixed.append(writer)
        self.tokens.append(token)
        self.lowest = min(self.lowest, token)
        self.beats.append((writer << SHIFT) + beat)

    def lease(self, lease: Lease) -> None:
        self.revision(lease.holder, lease.token, lease.beat)
        self.fixed.append(lease.ttl)

    def operation(self, operation: Operation) -> None:
        fixed = self.fixed
        if isinstance(operation, Read):
            fixed.append(0)
            return
        writer = _number(operation.holder)
        self.beats.append((writer << SHIFT) + operation.beat)
        if isinstance(operation, Claim):
            fixed += (1, writer, operation.takeover, operation.expected is not None)
            self.tokens.append(operation.floor)
            self.lowest = min(self.lowest, operation.floor)
            if operation.expected is not None:
                self.revision(*operation.expected)
            return
        self.tokens.append(operation.token)
        if isinstance(operation, Release):
            to = 0 if operation.to is None else _number(operation.to)
            fixed += (2, writer, operation.linger, to)
        else:
            fixed += (3, writer)
        self.text(operation.keep)

    def text(self, text: str | None) -> None:
        if text is None:
            self.fixed.append(0)
        else:
            token, number = _text(text)
            self.fixed.append(number)
            self.tokens.append(token)


def key(world: World) -> int:
    """What tells this state from every other: a hash. All numbers that are hashed are
    non-negative: Python gives -1 and -2 one hash."""
    parts, under_way = _parts(world), [packet.part for packet in world.packets]
    beats: set[int] = set()
    lowest = parts[0].lowest
    for part in (*parts, *under_way):
        beats.update(part.ordered)
        if part.lowest < lowest:
            lowest = part.lowest
    order = {beat: rank for rank, beat in enumerate(sorted(beats))}
    start = lowest - FAR
    clock = world.clock + world.step
    skew = world.setup.skew or 0
    numbers: list[Any] = [
        max(world.runs_out - clock + 2 * skew + 1, 0) if world.row.holder is not None else 0,
        world.floor - start if world.floor else 0,
        world.step,
        world.faults,
        world.whispers,
        world.orders,
        world.delays,
        world.keeps,
    ]
    if world.keeps:
        numbers += (world.kept[0] - start, world.kept[1])
    for part in parts:
        numbers.append(part.hashed)
        numbers += [token - start for token in part.tokens]
        numbers += [order[beat] for beat in part.beats]
    if under_way:
        numbers += sorted(
            (
                _waiting(packet, world),
                packet.part.hashed,
                *[token - start for token in packet.part.tokens],
                *[order[beat] for beat in packet.part.beats],
            )
            for packet in world.packets
        )
    return hash(tuple(numbers))


def _parts(world: World) -> list[Part]:
    """Return the parts of the world in their order, without the packets, whose parts are computed
    as well."""
    writers = world.writers
    row: Part
    *leases, row = world.part
    if leases[0] is not world.row or leases[1] is not world.older or row.writers is not writers:
        row = _row(world)
        world.part = (world.row, world.older, row)
    parts = [row]
    for slot, candidate in enumerate(world.candidates):
        part = candidate.part
        if part is None or part.writers is not writers:
            part = candidate.part = _seat(slot, candidate, writers)
        parts.append(part)
    if world.notes or world.override is not None or world.retirement is not None:
        parts.append(_rest(world))
    for packet in world.packets:
        if packet.part is None or packet.part.writers is not writers:
            packet.part = _packet(packet, writers)
    return parts


def _waiting(packet: Packet, world: World) -> int:
    """Return who waits for the answer to a packet; 9 is nobody."""
    awaited = world.candidates[packet.slot].election.in_flight is packet.send and not packet.copy
    return packet.slot if awaited else 9


def _row(world: World) -> Part:
    part = Part(world.writers)
    part.lease(world.row)
    part.revision(*world.older.revision)
    return part.complete(PAUSED_BEAT)


def _seat(slot: int, candidate: Candidate, writers: Mapping[int, int]) -> Part:
    part = Part(writers)
    fixed = part.fixed
    e: Election = candidate.election
    awake, total = candidate.now
    observed, flying = e.observed, e.in_flight
    holding = e.phase in HOLDING
    fixed += (
        PHASES[e.phase],
        candidate.incarnation,
        e.campaigning,
        e._claim_unknown,
        e._try_now,
        e._work_running,
        candidate.working,
        candidate.ended,
        candidate.open > 0,
        max(e._retry_at - total, 0),
        max(e._cooldown_until - total, 0),
        max(e._linger_until - total, 0),
        observed is not None,
    )
    part.tokens.append(e.token_floor)
    writer = 100 * candidate.incarnation + slot + 1 << SHIFT
    part.beats.append(writer + e._beat)
    if observed is not None:
        part.lease(observed)
    if holding:
        part.tokens.append(e.token)
        successor = 0 if e._successor is None else _number(e._successor)
        fixed += (e.deadline - total + FAR, max(e._renew_at - total, 0), successor)
    elif observed is not None:
        delay = e.takeover_delay
        fixed.append(min(max(awake - e._observed_at, 0), observed.ttl + delay))
        fixed.append(min(max(e._store_expiry - total + delay, 0), FAR))
    if candidate.texts:
        keeping = e.keeping
        fixed += (keeping.number, keeping.sent, keeping.stored, keeping.unknown, keeping.refused)
        part.text(keeping.text)
        part.tokens += candidate.texts
    fixed.append(len(candidate.texts))
    if flying is not None:
        sent = candidate.sent_at
        part.operation(flying.operation)
        fixed += (min(total - sent.total, 64), e._observed_at > sent.awake, flying.timeout)
    return part.complete(writer)  # beat 0 is what a handover leaves


def _packet(packet: Packet, writers: Mapping[int, int]) -> Part:
    part = Part(writers)
    answer = packet.answer
    part.fixed.append(packet.copy)
    part.operation(packet.send.operation)
    if answer is not None:
        part.fixed += (answer.applied, max(answer.lease.remaining + FAR, 0))
        part.lease(answer.lease)
    return part.complete()


def _rest(world: World) -> Part:
    """What operators have under way, and what candidates have noted."""
    part = Part(world.writers)
    part.fixed += (world.override is not None, world.retirement is not None)
    if world.override is not None:
        writer = _number(world.override.holder)
        part.fixed.append(writer)
        part.beats.append((writer << SHIFT) + world.override.beat)
        part.revision(*world.override.expected)
    if world.retirement is not None:
        part.revision(*world.retirement.expected)
    for slot, note in sorted(world.notes.items()):
        part.revision(*note.revision)
        part.fixed += (slot, min(world.candidates[slot].now.awake - note.since, FAR))
    return part.complete()
