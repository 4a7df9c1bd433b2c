"""A small world for the pure core: real `Election`s, a store that is one row, and the net between
them.

Everything that can happen is a method here. Each one moves the world on by one event and then looks
at what must hold in every state; what does not hold is raised as a `Violation` that names the rule.
The explorer copies worlds to try every event in every state, the hypothesis machine drives a single
one, and the scenarios of `mutants.py` are told in the same words. Times are exact: integers in the
explorer, binary fractions elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from coord.core import swaps
from coord.core.actions import Elected, Lost, Send, Wait
from coord.core.election import Election
from coord.core.lease import (
    PAUSED,
    Lease,
    LossReason,
    Observation,
    Revision,
    with_remaining,
)
from coord.core.operations import Answer, Claim, Failure, Override, Read, Release, Renew, Retire
from coord.core.phases import HOLDING, Phase
from coord.core.timing import Instant, Timing

ROLE = "role"


class Violation(AssertionError):
    """Something that must never be was. `rule` says in a few words what."""

    def __init__(self, rule: str, detail: str = "") -> None:
        self.rule = rule
        self.events = 0  # how many it took, where a story tells
        super().__init__(f"{rule}: {detail}" if detail else rule)


@dataclass(frozen=True)
class Rules:
    """What a swap does to a row: the module that the stores use, or a mutant of it."""

    claim: Any = swaps.claim
    renew: Any = swaps.renew
    release: Any = swaps.release
    override: Any = swaps.override
    retire: Any = swaps.retire
    born: Any = swaps.born
    keeps: Callable[[Renew | Release, bool], bool] = lambda operation, applied: applied


class Notes:
    """The observations that candidates leave to those that come after them; or a mutant of it.

    Each seat is a machine with a clock of its own, and its candidates come one after another.
    """

    def recalled(self, notes: Mapping[int, Observation], slot: int) -> Observation | None:
        """Return what the candidate on seat `slot` recalls."""
        return notes.get(slot)


@dataclass(frozen=True)
class Setup:
    """What a world is made of. `rates`: how many units each candidate's clock gains in one unit of
    true time."""

    timing: Timing = field(
        default_factory=lambda: Timing(ttl=16, renew_every=4, attempt_timeout=4, margin=4)
    )
    rates: tuple[float, ...] = (3, 4)
    origins: tuple[float, ...] = (0, 0, 0, 0, 0)
    """What each candidate's clock shows in the beginning: their machines were started at
    different times."""
    store_rate: float = 4
    skew: float | None = 8
    takeover_delay: tuple[float, ...] = (0, 0, 0, 0, 0)
    election: type[Election] = Election
    swaps: Rules = field(default_factory=Rules)
    notes: Notes | None = None
    leaders_only: bool = (
        False  # look for nothing but two leaders at once (what a mutant breaks in the end)
    )


@dataclass(slots=True, eq=False)
class Packet:
    """A request on its way, or the answer to it on its way back. A `copy` gets no answer."""

    slot: int
    send: Send
    sent_at: Instant
    answer: Answer | None = None
    epoch: int = 0
    copy: bool = False
    part: Any = field(default=None, init=False, repr=False)
    """The explorer's: what it contributes to the key of a world."""


def _copier(names: Iterable[str]) -> Callable[[Any, Any], None]:
    """A function that assigns these attributes of one object to another. The explorer copies
    millions of times, and compiled assignments take a third of a loop over the names."""
    lines = [f"    new.{name} = old.{name}" for name in names]
    scope: dict[str, Any] = {}
    exec("\n".join(["def copy(old, new):", *lines]), scope)
    copy: Callable[[Any, Any], None] = scope["copy"]
    return copy


_copy_election = _copier(each.name for each in fields(Election))


def _copied(election: Election) -> Election:
    new = object.__new__(type(election))
    _copy_election(election, new)
    if more := getattr(election, "__dict__", None):  # what a mutant keeps in addition
        new.__dict__.update(more)
    return new


class Candidate:
    """One seat: the incarnation that sits on it, its clocks, and what we, not it, know of its
    term."""

    __slots__ = (
        *("election", "now", "incarnation", "open", "ended", "working", "promise"),
        *("epoch", "remembers", "sent_at", "revision", "sight_at", "unsure", "texts"),
        *("busy", "part"),
    )

    def __init__(self, election: Election, now: Instant, incarnation: int = 0) -> None:
        self.election, self.now, self.incarnation = election, now, incarnation
        self.open = 0  # the token of the term that was announced and not yet lost
        self.ended = False  # whether that term's deadline has been seen to pass
        self.working = False  # announced, and not yet drained
        self.promise = 0.0  # until when the store's answers allow it to believe
        self.epoch = 0  # the store's epoch when the claim of that term was applied
        self.remembers = 0  # the highest token that any answer showed it
        self.sent_at = now
        self.revision: Revision | None = None  # what it last saw, and since when on its awake clock
        self.sight_at = now.awake
        self.unsure = False  # a claim's outcome is unknown, and nothing has been read since
        self.texts: tuple[int, ...] = ()  # the token of each text that it wanted to be kept
        # The explorer's: whether it has something to do now, and what it contributes to the key.
        self.busy: bool | None = None
        self.part: Any = None

    def copied(self) -> Candidate:
        new = Candidate.__new__(Candidate)
        _copy_candidate(self, new)
        new.busy = new.part = None
        new.election = _copied(self.election)
        return new

    @property
    def leads(self) -> bool:
        return self.election.leads(self.now)


_copy_candidate = _copier(Candidate.__slots__)


class World:
    """See the module. `row.remaining` is worked out when the row is read: it runs out at `runs_out`
    of `clock`."""

    def __init__(self, setup: Setup, candidates: int | None = None) -> None:
        self.setup = setup
        self.row = self.older = Lease(ROLE)
        self.runs_out = self.clock = self.step = 0.0 if isinstance(setup.store_rate, float) else 0
        self.packets: tuple[Packet, ...] = ()
        self.writers: dict[int, int] = {
            0: -1
        }  # by token: who wrote it, as `100 * incarnation + slot`
        self.notes: Mapping[int, Observation] = {}
        # Since when each machine has known the revision that it received last, on its own clock.
        self.sights: Mapping[int, Observation] = {}
        self.override: Override | None = None  # what an operator has sent, and has not arrived
        self.overrides = 0
        self.retirement: Retire | None = None  # likewise, to delete the row
        self.floor = 0
        self.last_token = self.epoch = 0
        self.kept = (0, 0)  # the token of the text that the role keeps, and its number
        assert (candidates or 0) <= len(setup.rates), "a clock for each candidate"
        origins = [self.clock + origin for origin in setup.origins]
        self.candidates = [
            self._born(slot, Instant(origins[slot], origins[slot]))
            for slot in range(candidates or len(setup.rates))
        ]
        # The explorer's, used by it alone.
        self.tick = self.delays = self.faults = self.whispers = self.orders = self.keeps = 0
        self.count_delays = False
        self.part: tuple[Lease | None, Lease | None, Any] = (None, None, None)

    def copied(self) -> World:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.candidates = self.candidates.copy()
        return new

    def _born(self, slot: int, now: Instant, incarnation: int = 0) -> Candidate:
        s = self.setup
        election = s.election(
            ROLE,
            f"{slot}.{incarnation}",
            s.timing,
            max_clock_skew=s.skew,
            takeover_delay=s.takeover_delay[slot],
        )
        return Candidate(election, now, incarnation)

    def _own(self, slot: int) -> Candidate:
        """The candidate of that seat, ours to change."""
        self.candidates[slot] = candidate = self.candidates[slot].copied()
        return candidate

    def pass_time(self, true: float, asleep: tuple[int, ...] = ()) -> None:
        """True time goes on. A machine that is asleep counts it on its total clock alone (rule
        7)."""
        self.clock += true * self.setup.store_rate
        for slot, rate in enumerate(self.setup.rates[: len(self.candidates)]):
            candidate = self._own(slot)
            elapsed = true * rate
            candidate.now = Instant(
                candidate.now.awake + (0 if slot in asleep else elapsed),
                candidate.now.total + elapsed,
            )
        self.check()

    def step_clock(self, step: float) -> None:
        """The store's clock is off by so much from here on: within its bound, in whatever
        direction."""
        self.step = step

    def act(self, slot: int) -> Any:
        candidate = self._own(slot)
        action = self._call(candidate, candidate.election.step, candidate.now)
        if candidate.open and not candidate.leads:
            self._violated(
                "a term that has ended is not told", f"candidate {slot}, token {candidate.open}"
            )
        if isinstance(action, Send):
            self._sent(slot, candidate, action)
        return action

    def _sent(self, slot: int, candidate: Candidate, send: Send) -> None:
        operation = send.operation
        if not self.setup.leaders_only:
            if send.timeout <= 0:
                raise Violation("a request has no time", repr(send))
            if isinstance(operation, Claim) and candidate.working:
                raise Violation("a claim is sent before the work has ended", f"candidate {slot}")
            if isinstance(operation, Claim) and not candidate.election.campaigning:
                raise Violation("a candidate that does not stand claims", f"candidate {slot}")
            if isinstance(operation, Claim) and candidate.unsure:
                raise Violation(
                    "a claim follows an unknown one without a look", f"candidate {slot}"
                )
            observed = candidate.election.observed
            if isinstance(operation, Claim) and observed is not None and observed.paused:
                raise Violation("a candidate claims a paused role", f"candidate {slot}")
            if isinstance(operation, Claim) and operation.takeover and observed is not None:
                waited = candidate.now.awake - candidate.sight_at
                if operation.expected != candidate.revision or waited < observed.ttl:
                    raise Violation(
                        "a takeover that is not due", f"after {waited} of {observed.ttl}"
                    )
            if isinstance(operation, Release) and candidate.working:
                raise Violation(
                    "a lease is released before the work has ended", f"candidate {slot}"
                )
            if isinstance(operation, Renew) and candidate.election.deadline <= candidate.now.total:
                raise Violation("a term that has ended is renewed", f"candidate {slot}")
        candidate.sent_at = candidate.now
        self.packets += (Packet(slot, send, candidate.now),)
        self.check()

    def answer(self, index: int, retry_in: float = 0) -> None:
        """The answer comes in. One that nobody waits for any more changes nothing, and is told all
        the same."""
        packet = self.packets[index]
        self.packets = self.packets[:index] + self.packets[index + 1 :]
        candidate, answer = self._own(packet.slot), packet.answer
        assert answer is not None
        awaited = candidate.election.in_flight is packet.send
        if awaited:
            operation, timing = packet.send.operation, self.setup.timing
            if answer.applied and isinstance(operation, Claim):
                candidate.promise = packet.sent_at.total + timing.ttl - timing.margin
                candidate.epoch = packet.epoch
            elif answer.applied and isinstance(operation, Renew):
                candidate.promise = max(
                    candidate.promise, packet.sent_at.total + timing.ttl - timing.margin
                )
            candidate.unsure = False
        self._call(
            candidate,
            candidate.election.reply,
            packet.send,
            answer,
            packet.sent_at,
            candidate.now,
            retry_in,
        )
        if awaited and not answer.applied and isinstance(packet.send.operation, Claim):
            self._recall(packet.slot, candidate)
        if awaited:
            candidate.remembers = max(candidate.remembers, answer.lease.token)

    def fail(self, slot: int, unknown: bool, stays: bool = False, retry_in: float = 0) -> None:
        """The sender gives its request up. `stays`: the request (or its answer) goes on travelling,
        and may arrive."""
        candidate = self._own(slot)
        send = candidate.election.in_flight
        assert send is not None
        if not stays:
            self.packets = tuple(p for p in self.packets if p.send is not send or p.copy)
        candidate.unsure = candidate.unsure or (unknown and isinstance(send.operation, Claim))
        self._call(
            candidate,
            candidate.election.reply,
            send,
            Failure(unknown),
            candidate.sent_at,
            candidate.now,
            retry_in,
        )

    def drain(self, slot: int) -> None:
        candidate = self._own(slot)
        candidate.working = False
        self._call(candidate, candidate.election.drained, candidate.now)

    def abandon(self, slot: int) -> None:
        candidate = self._own(slot)
        self._call(candidate, candidate.election.abandon, candidate.now)

    def resign(self, slot: int, rest: float = 0, linger: float = 0) -> None:
        candidate = self._own(slot)
        election, now = candidate.election, candidate.now
        self._call(
            candidate,
            lambda: election.resign(now, LossReason.STEPPED_DOWN, rest=rest, linger=linger),
        )

    def transfer(self, slot: int, to: int, rest: float = 0) -> None:
        candidate, other = self._own(slot), self.candidates[to].election.candidate
        election, now = candidate.election, candidate.now
        self._call(
            candidate,
            lambda: election.resign(now, LossReason.STEPPED_DOWN, rest=rest, to=other, by="us"),
        )

    def pause_in_turn(self, slot: int) -> None:
        """The leader hears of an operator who pauses the role, and releases it to nobody."""
        candidate = self._own(slot)
        election, now = candidate.election, candidate.now
        self._call(candidate, lambda: election.resign(now, LossReason.PAUSED, to=PAUSED, by="us"))

    def stop(self, slot: int, linger: float = 0) -> None:
        candidate = self._own(slot)
        election, now = candidate.election, candidate.now
        self._call(candidate, lambda: election.stop(now, linger=linger))

    def keep(self, slot: int) -> None:
        """The holder of a term wants its role to keep a text, which says whose it is."""
        candidate = self._own(slot)
        election = candidate.election
        candidate.texts += (election.token,)
        number = self._call(candidate, election.keep, f"{election.token} {len(candidate.texts)}")
        assert number == len(candidate.texts)

    def try_now(self, slot: int) -> None:
        self._own(slot).election.try_now()

    def crash(self, slot: int) -> None:
        """The process dies and another one sits down, under a new id. What it had sent goes on
        travelling."""
        old = self.candidates[slot]
        observation = old.election.observation
        if self.setup.notes is not None and observation is not None:
            kept = self.notes.get(slot)
            if kept is None or kept.revision != observation.revision:
                self.notes = {**self.notes, slot: observation}
        self.candidates[slot] = self._born(slot, old.now, old.incarnation + 1)

    def _recall(self, slot: int, candidate: Candidate) -> None:
        if self.setup.notes is None:
            return
        observation = self.setup.notes.recalled(self.notes, slot)
        if observation is not None:
            self._call(candidate, candidate.election.recall, observation)

    def restore(self) -> None:
        """All candidates were stopped, and the store is restored from a backup: the row is as it
        was before the last write."""
        self.tamper(self.older)

    def restore_carelessly(self) -> None:
        """The same while candidates run. It ends no epoch: the leader should be the only one."""
        self.row, self.runs_out = self.older, self.clock + self.step + self.older.remaining

    def send_override(self, holder: str) -> None:
        """An operator reads the row, and asks for a swap of exactly that row. It travels."""
        self.overrides += 1
        self.override = Override(ROLE, self.row.revision, holder, self.overrides, ttl=1)

    def override_arrives(self) -> None:
        """The operator's swap is applied, or refused: somebody has written since the look."""
        operation, row = self.override, self.shown()
        assert operation is not None
        self.override = None
        after: Lease | None = self.setup.swaps.override(row, operation, 0.0)
        if after is None:
            return
        if self.row.token == 0:
            after = self.setup.swaps.born(after, operation, self.floor)
        if not self.setup.leaders_only:
            if row.revision != operation.expected:
                raise Violation(
                    "an operator ends what was not looked at", f"{row.revision} {operation}"
                )
            if after.token != row.token and row.token:
                raise Violation("an operator changes the token", f"{after.revision}")
        self.older = row
        self.row, self.runs_out = after, self.clock + self.step + after.remaining
        self.check()

    def send_retirement(self) -> None:
        """An operator reads the row, and asks to delete exactly that row. It travels."""
        self.retirement = Retire(ROLE, "", self.row.revision, float("inf"))

    def retirement_arrives(self) -> None:
        operation, row = self.retirement, self.shown()
        assert operation is not None
        self.retirement = None
        if row.token and self.setup.swaps.retire(row, operation, ""):
            if not self.setup.leaders_only and not row.vacant:
                raise Violation("a row is deleted that is not vacant", f"{row.revision}")
            self.floor = max(self.floor, row.token)
            self.older, self.row, self.runs_out = row, Lease(ROLE), 0
        self.check()

    def shown(self) -> Lease:
        """The row, as the store would show it now."""
        return self._as_of_now(self.row, self.runs_out)

    def _as_of_now(self, row: Lease, runs_out: float) -> Lease:
        return row if row.vacant else with_remaining(row, runs_out - self.clock - self.step)

    def _swapped(self, row: Lease, operation: Any) -> Lease | None:
        r = self.setup.swaps
        swap = {Claim: r.claim, Renew: r.renew, Release: r.release}[type(operation)]
        after: Lease | None = swap(row, operation, 0.0)
        if after is not None and isinstance(operation, Claim) and row.token == 0:
            born: Lease = self.setup.swaps.born(after, operation, self.floor)
            return born
        return after

    def arrive(self, index: int) -> None:
        """A request reaches the store and is applied, or not. The answer sets out if somebody waits
        for it."""
        packet = self.packets[index]
        operation = packet.send.operation
        row = self.shown()
        if isinstance(operation, Read):
            answer = Answer(False, row)
        else:
            after = self._swapped(row, operation)
            if isinstance(operation, (Renew, Release)) and operation.keep is not None:
                self._kept(row, operation, after is not None)
            answer = (
                Answer(False, row)
                if after is None
                else Answer(True, self._written(packet, row, after))
            )
        awaited = self.candidates[packet.slot].election.in_flight is packet.send and not packet.copy
        rest = self.packets[:index] + self.packets[index + 1 :]
        self.packets = (
            (*rest, Packet(packet.slot, packet.send, packet.sent_at, answer, self.epoch))
            if awaited
            else rest
        )
        self.check()

    def _written(self, packet: Packet, row: Lease, after: Lease) -> Lease:
        operation = packet.send.operation
        if not self.setup.leaders_only:
            if after.token < row.token or (
                isinstance(operation, Claim) and after.token == row.token
            ):
                raise Violation(
                    "a stored token does not rise", f"{row.revision} -> {after.revision}"
                )
            if row.paused:
                raise Violation("a paused role is taken", f"{row.revision} -> {after.revision}")
            if after.revision == row.revision:
                raise Violation("a write leaves the same sight behind", f"{after.revision}")
            if isinstance(operation, Renew) and (
                after.remaining < row.remaining or after.ttl < row.ttl
            ):
                raise Violation(
                    "a renewal shortens the lease", f"{row.remaining} -> {after.remaining}"
                )
            if isinstance(operation, (Renew, Release)) and row.holder != operation.holder:
                raise Violation(
                    "somebody else's lease is changed", f"{row.revision} -> {after.revision}"
                )
        if isinstance(operation, Claim):
            slot, incarnation = operation.holder.split(".")
            self.writers = {**self.writers, after.token: 100 * int(incarnation) + int(slot)}
        self.older = row
        self.row, self.runs_out = after, self.clock + self.step + after.remaining
        return after

    def _kept(self, row: Lease, operation: Renew | Release, applied: bool) -> None:
        if not self.setup.swaps.keeps(operation, applied):
            return
        token, number = map(int, (operation.keep or "").split())
        if (token, number) < self.kept or token != row.token:
            self._violated("a text is kept under another token", f"{token}, row {row.revision}")
        self.kept = (token, number)

    def duplicate(self, index: int) -> None:
        self.packets += (replace(self.packets[index], copy=True),)

    def drop(self, index: int) -> None:
        self.packets = self.packets[:index] + self.packets[index + 1 :]

    def whisper(self, slot: int, lease: Lease) -> None:
        """A feed shows this, whether it is so or not."""
        candidate = self._own(slot)
        self._call(candidate, candidate.election.hint, lease, candidate.now)

    def ahead(self, index: int) -> Lease | None:
        """The row as it would be after that request: a feed may show it, and the write be lost all
        the same."""
        operation = self.packets[index].send.operation
        return None if isinstance(operation, Read) else self._swapped(self.shown(), operation)

    def tamper(self, row: Lease) -> None:
        """Somebody edits the table by hand. Terms from before and after may overlap then: an epoch
        has ended."""
        self.row, self.runs_out = row, self.clock + self.step + row.remaining
        self.epoch += 1
        self.last_token = 0

    def _call(self, candidate: Candidate, method: Any, *arguments: Any) -> Any:
        election = candidate.election
        before = (election.phase, election.token, election.deadline)
        result = method(*arguments)
        if (
            before[0] in HOLDING
            and (election.phase, election.token) == before[:2]
            and election.deadline < before[2]
        ):
            self._violated("a deadline moves back", f"{before[2]} -> {election.deadline}")
        if election.observed is not None and election.observed.revision != candidate.revision:
            candidate.revision, candidate.sight_at = election.observed.revision, candidate.now.awake
            self._check_observed(candidate)
        if election._events:
            for event in election.take_events():
                self._apply_event(candidate, event)
        self.check()
        return result

    def _check_observed(self, candidate: Candidate) -> None:
        """What a machine knows of a revision, it knows since the first of its candidates did."""
        slot = int(candidate.election.candidate.partition(".")[0])
        sight = self.sights.get(slot)
        if self.setup.notes is None or candidate.revision is None:
            return
        if sight is not None and sight.revision == candidate.revision:
            candidate.sight_at = sight.since
        else:
            self.sights = {**self.sights, slot: Observation(candidate.revision, candidate.sight_at)}

    def _apply_event(self, candidate: Candidate, event: Any) -> None:
        if isinstance(event, Elected):
            token = event.lease.token
            if candidate.open or candidate.working:
                self._violated(
                    "elected while the last term goes on", f"{candidate.open} -> {token}"
                )
            if token <= max(
                self.last_token if candidate.epoch == self.epoch else 0, candidate.remembers
            ):
                self._violated("tokens do not rise", f"{self.last_token} -> {token}")
            self.last_token = (
                max(self.last_token, token) if candidate.epoch == self.epoch else self.last_token
            )
            candidate.open, candidate.working, candidate.ended = token, True, False
        elif isinstance(event, Lost):
            if candidate.open != event.token:
                self._violated(
                    "lost twice, or without having been elected",
                    f"token {event.token}: {event.reason}",
                )
            candidate.open = 0

    def _violated(self, rule: str, detail: str) -> None:
        if not self.setup.leaders_only:
            raise Violation(rule, detail)

    def check(self) -> None:
        leaders = 0
        for candidate in self.candidates:
            if candidate.election.phase is Phase.LEADING and candidate.leads:
                if candidate.now.total >= candidate.promise:
                    self._violated(
                        "a term is believed past its deadline", f"token {candidate.election.token}"
                    )
                if candidate.open != candidate.election.token or candidate.ended:
                    self._violated(
                        "leads without having been elected, or again",
                        f"token {candidate.election.token}",
                    )
                leaders += 1
            elif candidate.open:
                candidate.ended = True
        if leaders > 1:
            led = [candidate for candidate in self.candidates if candidate.leads]
            if sum(candidate.epoch == self.epoch for candidate in led) > 1:
                raise Violation(
                    "two leaders at once", ", ".join(f"{m.election.candidate}" for m in led)
                )

    def check_texts(self) -> None:
        """What a candidate says of its texts is so: those that it reports as kept are, and those
        that it reports as never written are not."""
        for candidate in self.candidates:
            keeping, election = candidate.election.keeping, candidate.election
            reported = keeping.stored
            if reported and (candidate.texts[reported - 1], reported) > self.kept:
                self._violated("a text is reported as kept that is not", f"number {reported}")
            for number, token in enumerate(candidate.texts, 1):
                if number <= max(reported, keeping.unknown):
                    continue
                holds = election.phase in HOLDING and election.token == token
                under_way = election.in_flight is not None and keeping.sent >= number
                over = not under_way and (keeping.text is None or not holds)
                if over and self.kept[0] == token and self.kept[1] >= number:
                    self._violated("a text is kept that is reported as not", f"number {number}")

    def stops(self, slot: int) -> bool:
        """Whether a candidate that does not stand any more comes to rest, when nothing hinders
        it."""
        world = self.copied()
        for _ in range(12):
            action = world.act(slot)
            candidate = world.candidates[slot]
            if candidate.election.phase is Phase.STOPPED:
                return True
            if candidate.election.in_flight is not None:
                world.settle(slot)
            elif candidate.working:
                world.drain(slot)
            elif isinstance(action, Wait):
                world.pass_time(action.seconds / min(self.setup.rates))
        return False

    def settle(self, slot: int) -> None:
        """The request that this candidate waits for is answered at once (or, where it was lost,
        given up)."""
        send = self.candidates[slot].election.in_flight
        for _ in range(2):
            for index, packet in enumerate(self.packets):
                if packet.send is send and not packet.copy:
                    (self.arrive if packet.answer is None else self.answer)(index)
                    break
        if send is not None and self.candidates[slot].election.in_flight is send:
            self.fail(slot, unknown=True)
