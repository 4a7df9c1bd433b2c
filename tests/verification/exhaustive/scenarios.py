"""Stories that end well, and do not where a rule is broken. Each returns how many events it
took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from coord.core.actions import Send
from coord.core.lease import REVOKED, Lease
from coord.core.operations import Claim, Renew
from coord.core.phases import HOLDING, Phase
from tests.verification.exhaustive.model import ROLE, Packet, Setup, Violation, World


class Teller:
    """A world, told event by event. A violation carries how many there were."""

    def __init__(self, setup: Setup, candidates: int = 2) -> None:
        self.world, self.events = World(setup, candidates), 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.world, name)

        def event(*arguments: Any, **named: Any) -> Any:
            self.events += 1
            with counted(self):
                return method(*arguments, **named)

        return event

    def sent(self, slot: int, *, copy: bool = False) -> int:
        """Where the last request (or its answer) of that candidate is on the net."""
        return max(i for i, p in enumerate(self.world.packets) if p.slot == slot and p.copy == copy)

    def exchange(self, slot: int) -> None:
        """The candidate acts, and is answered at once."""
        self.act(slot)
        self.arrive(self.sent(slot))
        self.answer(self.sent(slot))

    def phase(self, slot: int) -> Phase:
        return self.world.candidates[slot].election.phase


@contextmanager
def counted(teller: Teller) -> Iterator[None]:
    try:
        yield
    except Violation as violation:
        violation.events = teller.events
        raise


def first_claim_arrives_twice(setup: Setup) -> int:
    """The copy of a first claim is shown by a feed, lost in a failover, and arrives when the term
    has been renewed."""
    t = Teller(setup)
    t.act(0)
    t.duplicate(t.sent(0))
    t.arrive(t.sent(0))
    t.answer(t.sent(0))
    t.exchange(1)
    shown = t.ahead(t.sent(0, copy=True))
    if shown is not None:
        t.whisper(1, shown)
    for _ in range(2):
        for _ in range(2):
            t.pass_time(1)
        t.exchange(0)
    t.arrive(t.sent(0, copy=True))
    if t.world.candidates[1].election.in_flight is None:
        action = t.act(1)
        if not hasattr(action, "operation"):
            return t.events
    t.arrive(t.sent(1))
    t.answer(t.sent(1))
    return t.events


def shorter_renewal(setup: Setup) -> int:
    """A holder that was set to a shorter ttl renews a lease that was promised for longer."""
    t = Teller(setup)
    t.exchange(0)
    row, timing = t.world.row, setup.timing
    brief = Renew(ROLE, str(row.holder), row.token, row.beat + 1, timing.ttl / 2)
    t.world.packets += (Packet(0, Send(brief, 1), t.world.candidates[0].now, copy=True),)
    t.arrive(t.sent(0, copy=True))
    return t.events


def answer_to_an_earlier_request(setup: Setup) -> int:
    """A shell that batches renewals reports a time of sending before that of the claim: the
    deadline stays."""
    t = Teller(setup)
    t.pass_time(1)
    t.exchange(0)
    t.try_now(0)
    t.act(0)
    index = t.sent(0)
    sent_at = t.world.candidates[0].now
    t.world.packets = tuple(
        replace(p, sent_at=sent_at.after(-0.5)) if i == index else p
        for i, p in enumerate(t.world.packets)
    )
    t.arrive(index)
    t.answer(t.sent(0))
    return t.events


def taken_while_draining(setup: Setup) -> int:
    """The row is edited by hand while the work of a term that was given up goes on: the loss has
    been told already."""
    t = Teller(setup)
    t.exchange(0)
    t.resign(0)
    t.tamper(replace(t.world.row, holder="9.0", token=7, remaining=setup.timing.ttl))
    t.try_now(0)
    t.exchange(0)
    assert t.phase(0) not in HOLDING
    return t.events


def shown_then_lost(setup: Setup) -> int:
    """A feed shows a renewal that is then lost in a failover. The next one must not leave the same
    sight behind."""
    t = Teller(setup)
    t.exchange(0)
    t.exchange(1)
    for _ in range(2):
        t.pass_time(1)
    t.act(0)  # it renews; a feed shows the write, and it is lost
    lost = t.sent(0)
    shown = t.ahead(lost)
    t.whisper(1, shown)
    t.drop(lost)
    for _ in range(2):
        t.pass_time(0.9)
    t.fail(0, unknown=True)
    t.exchange(0)  # the second attempt is in time
    assert t.world.candidates[0].leads
    for _ in range(3):
        t.pass_time(0.75)
        action = t.act(1)
        if hasattr(action, "operation"):
            t.arrive(t.sent(1))
            t.answer(t.sent(1))
    return t.events


def override_shown_then_lost(setup: Setup) -> int:
    """A feed shows that the leader was evicted, and the write is lost in a failover. The leader
    goes on, and the operator evicts it again: that is another sight, from which a challenger
    counts."""
    t = Teller(setup)
    t.exchange(0)
    t.exchange(1)
    t.pass_time(1)
    t.send_override(REVOKED)
    row, runs_out = t.world.row, t.world.runs_out
    t.override_arrives()
    t.whisper(1, t.shown())
    t.world.row, t.world.runs_out = row, runs_out  # lost
    for _ in range(3):
        t.pass_time(2)
        t.exchange(0)
    t.send_override(REVOKED)
    t.override_arrives()
    t.whisper(1, t.shown())
    t.pass_time(1)
    action = t.act(1)
    if hasattr(action, "operation"):
        t.arrive(t.sent(1))
        t.answer(t.sent(1))
    return t.events


def row_deleted_by_hand(setup: Setup) -> int:
    """Who remembers a token never leads under the same one again, though the row be deleted."""
    t = Teller(setup)
    t.exchange(0)
    t.tamper(Lease(ROLE))
    t.try_now(0)
    t.exchange(0)  # the store says that it is not ours
    t.drain(0)
    action = t.act(0)
    assert isinstance(action.operation, Claim)
    t.arrive(t.sent(0))
    t.answer(t.sent(0))
    assert t.phase(0) is Phase.LEADING
    return t.events


ALL = (
    first_claim_arrives_twice,
    shorter_renewal,
    answer_to_an_earlier_request,
    taken_while_draining,
    shown_then_lost,
    override_shown_then_lost,
    row_deleted_by_hand,
)
