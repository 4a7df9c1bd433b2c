"""Which states of a `World` are one and the same.

Two are when nothing that will ever be decided can tell them apart: times are taken relative to each
clock's now and cut off where they no longer matter, tokens are counted from the lowest, beats by
their order among those of their writer."""

from __future__ import annotations

import functools
from typing import Any

from coord.core.election import Election
from coord.core.lease import PAUSED, REVOKED, Lease, Observation
from coord.core.operations import Claim, Operation, Read, Release
from coord.core.phases import HOLDING, Phase
from tests.verification.exhaustive.model import Candidate, Packet, World

PHASES = {phase: number for number, phase in enumerate(Phase)}
FAR = 99  # means "so long ago, or so far ahead, that it makes no difference"


@functools.cache
def _number(holder: str) -> int:
    """The number of a holder, which is called `slot.incarnation`, or is no candidate."""
    if holder in (REVOKED, PAUSED):
        return 9_000 + (holder == PAUSED)
    slot, _, incarnation = holder.partition(".")
    return 100 * int(incarnation) + int(slot)


class _Names:
    """Tokens from the lowest, beats by their order among those of their writer: what is left
    without names."""

    def __init__(self, world: World) -> None:
        self.writers = world.writers
        beats: set[tuple[int, int]] = set()
        leases = [world.row, world.older]
        tokens = [world.row.token, world.older.token]
        for slot, candidate in enumerate(world.candidates):
            election = candidate.election
            writer = 100 * candidate.incarnation + slot
            beats.update(((writer, election._beat), (writer, 0)))  # 0: what a handover leaves
            if election.observed is not None:
                leases.append(election.observed)
                tokens.append(election.observed.token)
        for lease in leases:
            beats.add((self.writer(lease.holder, lease.token), lease.beat))
        for packet in world.packets:
            operation = packet.send.operation
            if packet.answer is not None:
                lease = packet.answer.lease
                tokens.append(lease.token)
                beats.add((self.writer(lease.holder, lease.token), lease.beat))
            if not isinstance(operation, Read):
                beats.add((self.writer(operation.holder, 0), operation.beat))
                if isinstance(operation, Claim):
                    tokens.append(operation.floor)
                    if operation.expected is not None:
                        holder, token, beat = operation.expected
                        tokens.append(token)
                        beats.add((self.writer(holder, token), beat))
        beats.add((_number(PAUSED), 0))  # what a leader leaves that is asked to pause
        if world.retirement is not None:
            holder, token, beat = world.retirement.expected
            tokens.append(token)
            beats.add((self.writer(holder, token), beat))
        if world.override is not None:
            holder, token, beat = world.override.expected
            tokens.append(token)
            beats.add((self.writer(holder, token), beat))
            beats.add((_number(world.override.holder), world.override.beat))
        for note in world.notes.values():
            holder, token, beat = note.revision
            tokens.append(token)
            beats.add((self.writer(holder, token), beat))
        self.base = min(tokens)
        self.beats = {pair: rank for rank, pair in enumerate(sorted(beats))}

    def writer(self, holder: str | None, token: int) -> int:
        if holder is None:
            return self.writers.get(token, -1)
        return _number(holder)

    def revision(self, holder: str | None, token: int, beat: int) -> tuple[int, ...]:
        writer = self.writer(holder, token)
        return (0 if holder is None else writer + 1, token - self.base, self.beats[writer, beat])

    def lease(self, lease: Lease) -> tuple[Any, ...]:
        return (*self.revision(lease.holder, lease.token, lease.beat), lease.ttl)

    def operation(self, operation: Operation) -> tuple[Any, ...]:
        if isinstance(operation, Read):
            return (0,)
        writer = self.writer(operation.holder, 0)
        beat = self.beats[writer, operation.beat]
        if isinstance(operation, Claim):
            expected = () if operation.expected is None else self.revision(*operation.expected)
            return (1, writer, beat, expected, operation.takeover, operation.floor - self.base)
        if isinstance(operation, Release):
            to = 0 if operation.to is None else self.writer(operation.to, 0) + 1
            token = operation.token - self.base + FAR
            return (2, writer, beat, token, operation.linger, to, self.text(operation.keep))
        token = operation.token - self.base + FAR
        return (3, writer, beat, token, self.text(operation.keep))

    def text(self, text: str | None) -> tuple[int, ...]:
        """A kept text: the token and the number of it."""
        if text is None:
            return ()
        token, number = map(int, text.split())
        return (token - self.base + FAR, number)


def key(world: World) -> tuple[Any, ...]:
    """What tells this state from every other. All numbers in it are non-negative: Python gives -1
    and -2 one hash."""
    names = _Names(world)
    skew = world.setup.skew or 0
    seats = tuple(_seat(candidate, names) for candidate in world.candidates)
    packets = sorted(_packet(packet, world, names) for packet in world.packets)
    clock = world.clock + world.step
    return (
        seats,
        names.lease(world.row),
        max(world.runs_out - clock + 2 * skew + 1, 0) if world.row.holder is not None else 0,
        names.revision(*world.older.revision),
        tuple(packets),
        tuple(_note(slot, note, world, names) for slot, note in sorted(world.notes.items())),
        _override(world, names),
        () if world.retirement is None else names.revision(*world.retirement.expected),
        world.floor - names.base + FAR if world.floor else 0,
        world.step,
        world.faults,
        world.whispers,
        world.orders,
        world.delays,
        world.keeps,
        (world.kept[0] - names.base + FAR, world.kept[1]) if world.keeps else (),
    )


def _seat(candidate: Candidate, names: _Names) -> tuple[Any, ...]:
    e: Election = candidate.election
    total = candidate.now.total
    observed, flying = e.observed, e.in_flight
    holding = e.phase in HOLDING
    waited = due = 0.0
    if observed is not None and not holding:
        waited = min(max(candidate.now.awake - e._observed_at, 0), observed.ttl + e.takeover_delay)
        due = min(max(e._store_expiry - total + e.takeover_delay, 0), FAR)
    return (
        PHASES[e.phase],
        candidate.incarnation,
        (
            e.campaigning,
            e._claim_unknown,
            e._try_now,
            e._work_running,
            candidate.working,
            candidate.ended,
            candidate.open > 0,
        ),
        (e.token - names.base + FAR, e.deadline - total + FAR) if holding else (),
        () if observed is None else names.lease(observed),
        waited,
        due,
        names.beats[_number(e.candidate), e._beat],
        e.token_floor - names.base + FAR,
        max(e._renew_at - total, 0) if holding else 0,
        max(e._retry_at - total, 0),
        max(e._cooldown_until - total, 0),
        max(e._linger_until - total, 0),
        _texts(candidate, names),
        names.writer(e._successor, 0) + 1 if holding and e._successor is not None else 0,
        ()
        if flying is None
        else (
            names.operation(flying.operation),
            min(total - candidate.sent_at.total, 64),
            e._observed_at > candidate.sent_at.awake,
            flying.timeout,
        ),
    )


def _texts(candidate: Candidate, names: _Names) -> tuple[Any, ...]:
    if not candidate.texts:
        return ()
    keeping = candidate.election.keeping
    numbers = (keeping.number, keeping.sent, keeping.stored, keeping.unknown, keeping.refused)
    return (
        *numbers,
        names.text(keeping.text),
        *(token - names.base + FAR for token in candidate.texts),
    )


def _note(slot: int, note: Observation, world: World, names: _Names) -> tuple[Any, ...]:
    waited = world.candidates[slot].now.awake - note.since
    return (slot, names.revision(*note.revision), min(waited, FAR))


def _override(world: World, names: _Names) -> tuple[Any, ...]:
    operation = world.override
    if operation is None:
        return ()
    writer = _number(operation.holder)
    expected = names.revision(*operation.expected)
    return (writer, names.beats[writer, operation.beat], expected)


def _packet(packet: Packet, world: World, names: _Names) -> tuple[Any, ...]:
    awaited = world.candidates[packet.slot].election.in_flight is packet.send and not packet.copy
    answer = packet.answer
    return (
        packet.slot if awaited else 9,
        names.operation(packet.send.operation),
        ()
        if answer is None
        else (answer.applied, *names.lease(answer.lease), max(answer.lease.remaining + FAR, 0)),
        packet.copy,
    )
