"""The runner behind `coord run`: it waits for the role, and renews the lease while COMMAND runs.

Its main thread never asks the store, so that a store that hangs cannot delay a signal.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, NamedTuple

from coord.cli import exit_codes, output
from coord.cli.run import process
from coord.cli.run.guardian import KILL_WAIT
from coord.cli.run.guardian_client import GuardianClient
from coord.cli.run.messages import messages
from coord.cli.run.pipe import Cause
from coord.cli.run.service_manager import ServiceManager
from coord.cli.run.signals import THAT_END_WAITING, SignalInbox, start_daemon_thread
from coord.core.lease import Lease, LossReason
from coord.election.operators import paused_by
from coord.errors import AcquireTimeout, CoordError, StoreUnavailable
from coord.runtime import clock

if TYPE_CHECKING:
    from coord.api.sync_coordinator import Coordinator
    from coord.api.sync_leadership import Leadership
    from coord.cli.run.tick import CommandTick, TickOptions
    from coord.election.term import Term


class RunOptions(NamedTuple):
    """The settings of `coord run`. Durations are in seconds."""

    role: str
    ttl: float
    margin: float
    grace: float
    wait: bool
    timeout: float | None
    info: Mapping[str, Any]
    priority: int
    min_tenure: float
    at_least: float
    """How long nobody else gets the role after COMMAND has started, even if COMMAND ends sooner."""
    slots: int | None
    """How many may hold the role; None if it has one holder."""
    command_url: str | None
    """The URL with its secrets, for the environment of COMMAND; None if COMMAND gets none."""
    tick: TickOptions | None = None
    """The tick that COMMAND is run for; None for `coord run`."""


ANNOUNCE_AFTER = 0.3
"""Seconds of waiting before the message about it: a free role is acquired sooner."""


class ChosenTerm:
    """The term under which COMMAND is started; at most one.

    A process that was stopped for a ttl may lose a term before it has seen it. COMMAND is never
    started under such a term, so nobody sets `ended` for it.

    Attributes:
        ended: Set when COMMAND has ended, or when it is certain that it is not started.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._term: Term | None = None
        self._lock = threading.Lock()

    def take(self, term: Term) -> bool:
        """Choose this term. Return False if it is over already."""
        with self._lock:
            if not term.held:
                return False
            self._term = term
            return True

    def until_ended(self, term: Term, reason: LossReason) -> None:
        """Block `on_lost` until COMMAND has ended: only then is the lease released (rule 3)."""
        with self._lock:
            chosen = self._term is term
        if chosen:
            self.ended.wait()


class Standby:
    """Waits for the role on a thread of its own, from its creation on.

    It calls `notify` when it has set `answered`. Then `term` is set, or `why_not()` prints the
    reason. A term that `take` refuses is over, and it waits for the next one.
    """

    def __init__(
        self,
        job: RunOptions,
        coordinator: Coordinator,
        leadership: Leadership,
        notify: Callable[[], None],
        *,
        tick: CommandTick | None = None,
        take: Callable[[Term], bool] = lambda term: term.held,
    ) -> None:
        self._tick, self._take = tick, take
        self.job, self._coordinator, self._leadership, self._notify = (
            job,
            coordinator,
            leadership,
            notify,
        )
        self.answered = False
        self.term: Term | None = None
        self.situation = f"waiting for {job.role!r}"
        """What this process does, for people."""
        self._led_by = ""
        self._store_error = ""
        self._error: BaseException | None = None
        start_daemon_thread(self._acquire)

    def _acquire(self) -> None:
        tick = self._tick
        try:
            if tick is None or tick.look():
                self.term = self._acquired()
            self._store_error = self._coordinator.session.last_error
            if self.term is None and tick is None and not self._store_error:
                self._led_by = self._held_by()
        except BaseException as err:
            self._store_error = self._coordinator.session.last_error
            self._error = err
        self.answered = True
        self._notify()

    def _acquired(self) -> Term | None:
        """Return the term under which COMMAND is started; None if it is not started."""
        job, began = self.job, clock.total_seconds()
        timeout = whole = job.timeout if job.wait else None
        while True:
            try:
                term = self._leadership.acquire(blocking=job.wait, timeout=timeout)
            except AcquireTimeout as err:
                # Only the last part of the time may have been left for this attempt.
                raise AcquireTimeout(job.role, whole or 0.0, err.detail) from None
            if term is None or not self._is_to_run(term):
                return None
            if self._take(term):
                return term
            if whole is not None:
                timeout = max(0.0, began + whole - clock.total_seconds())

    def _is_to_run(self, term: Term) -> bool:
        """Return whether COMMAND is to be run, if the term is not over."""
        try:
            return self._tick is None or self._tick.claimed(term)
        except CoordError:
            if term.held:
                raise
            return True  # it was lost before it was seen, and `take` refuses it

    def why_not(self) -> int:
        """Print why this process is not the leader, and return the exit status."""
        err = self._error
        if err is not None and not isinstance(err, CoordError):
            raise err
        if err is None and self._tick is not None and (done := self._tick.done) is not None:
            messages.print(
                f"not started: tick {self._tick.name} of {self.job.role!r} was run, under token "
                f"{done.token}"
            )
            return 0
        waited = err is None or isinstance(err, AcquireTimeout)
        if isinstance(err, StoreUnavailable) or (self._store_error and waited):
            error = err if isinstance(err, StoreUnavailable) else self._store_error
            messages.print(f"the store does not answer ({error}); run `coord doctor` to check it")
            return exit_codes.UNAVAILABLE
        if err is None:
            messages.print(f"not started, {self.job.role!r} is {self._led_by}")
            return exit_codes.TAKEN
        messages.print(str(err))
        return exit_codes.of(err)

    def announce(self) -> None:
        """Print that this process waits, and who leads, without blocking the caller."""
        start_daemon_thread(self._announce)

    def _announce(self) -> None:
        try:
            by: str | None = self._leader()
        except CoordError as err:
            by = str(err)
        except CancelledError:
            return  # The coordinator was closed, so nobody waits any more.
        if by is not None and not self.answered:
            self.situation = f"waiting for {self.job.role!r}: {by}"
            messages.print(self.situation)
            self._notify()

    def _held_by(self) -> str:
        session = self._coordinator.session
        if self.job.slots is not None:
            return f"held: {self._slots_held(self.job.slots)}"
        held = self._coordinator.portal.call(functools.partial(session.held, self.job.role))
        if held is None:
            return "free again: the lease was released meanwhile"
        lease, seconds = held
        if lease.paused:
            return paused_by(lease)
        if lease.revoked:
            return f"not free yet: its lease was revoked, and runs for {seconds:.1f} s more"
        return (
            f"held by {describe_leader(lease)}, token {lease.token}, for {seconds:.1f} s more "
            "unless the lease is renewed"
        )

    def _leader(self) -> str | None:
        """Return who leads; None if it is this process, whose claim was just applied."""
        if self.job.slots is not None:
            return self._slots_held(self.job.slots)
        lease = self._coordinator.leader(self.job.role)
        if lease is not None and lease.holder == self._leadership.candidate:
            return None
        if lease is not None:
            return f"the leader is {describe_leader(lease)}, token {lease.token}"
        held = self._coordinator.portal.call(
            functools.partial(self._coordinator.session.held, self.job.role)
        )
        if held is not None and held[0].paused:
            return f"it is {paused_by(held[0])}"
        return "it has no leader yet"

    def _slots_held(self, slots: int) -> str:
        """Return how many slots are held: a free one may be paused, or its claim takes long."""
        from coord.recipes.slot_elector import slot_role

        roles = [slot_role(self.job.role, slot) for slot in range(slots)]
        session = self._coordinator.session
        rows = self._coordinator.portal.call(functools.partial(session.read, roles))
        held = sum(row.led for row in rows)
        are = "is" if held == 1 < slots else "are"
        return f"{'all' if held == slots else held} of its {slots} slots {are} taken"


def describe_leader(lease: Lease) -> str:
    """Return where a leader says that it runs, or otherwise its id."""
    return output.describe_candidate(lease.holder, lease.info)


TAKEN_GRACE = 0.2
"""Seconds between SIGTERM and SIGKILL if another candidate already holds the role."""
RELEASE_TIMEOUT = 3.0
"""Seconds that the release may take at least; a leader tries for ttl / 3. A lease that is not
released expires."""


class Runner:
    """Runs COMMAND while this process is the leader. `guarded` must exist before `coordinator`."""

    def __init__(
        self,
        job: RunOptions,
        guarded: GuardianClient,
        coordinator: Coordinator,
        manager: ServiceManager,
    ) -> None:
        self.job = job
        self.guarded = guarded
        self.coordinator = coordinator
        self.manager = manager
        self.inbox = SignalInbox(guarded)
        self._backstop: float | None = None
        self._started_at = -float("inf")
        self._chosen = ChosenTerm()
        self._tick: CommandTick | None = None
        self._not_recorded = 0  # the exit status, if the run of a tick could not be recorded
        self._end_signal = 0  # the last signal that is to end this program, and not only COMMAND

    @property
    def is_last(self) -> bool:
        """Whether no later tick is to be run after this one."""
        return self._tick is None or self._tick.is_last or self._end_signal != 0

    def run(self) -> int:
        """Wait for the role, run COMMAND, release the role, and return the exit status.

        Raises:
            BadArgument: A setting is invalid. Other errors are printed on stderr.
        """
        leadership = self._leadership()
        if self.job.tick is not None:
            role = self.job.role
            # Imported only here: `coord run` has no tick, and starts a command quickly.
            from coord.cli.run.tick import CommandTick

            self._tick = CommandTick(self.job.tick, role, self.coordinator, leadership)
        standby = Standby(
            self.job,
            self.coordinator,
            leadership,
            self.inbox.wake,
            tick=self._tick,
            take=self._chosen.take,
        )
        self.manager.ready()
        status = self._stand_by(standby)
        if status is not None:
            self._chosen.ended.set()
            self._leave(leadership, RELEASE_TIMEOUT)
            return status
        term = standby.term
        assert term is not None
        status = self._work(term)
        if not self._chosen.ended.is_set():
            # A descendant of COMMAND still runs, so the lease is not released.
            if self._tick is None or status != 0:
                return status
            messages.print(f"tick {self._tick.name} of {self.job.role!r} is not recorded")
            return exit_codes.UNAVAILABLE
        # A leader that was asked to step down releases the role at once.
        linger = 0.0 if term.lost.is_set() else self._linger()
        tick = self._tick if status == 0 else None
        within = max(RELEASE_TIMEOUT, self.job.ttl / 3 if tick is None else self.job.ttl)
        if not self._leave(leadership, within, linger, tick):
            messages.print(f"cannot release {self.job.role!r}: {self._free_later()}")
            self._not_recorded = self._not_recorded or exit_codes.UNAVAILABLE
        if tick is None:
            return status
        if self._end_signal and not tick.is_last:
            # COMMAND has ended well all the same, but the next tick must not be begun.
            return self._not_recorded or exit_codes.SIGNALLED + self._end_signal
        return self._not_recorded

    def _wait(self, seconds: float | None) -> None:
        """Wait for an event, at most `seconds`; None means no limit. The caller waits in a loop."""
        self.inbox.wait(self.manager.watch(seconds))

    def _leadership(self) -> Leadership:
        job = self.job
        if job.slots is not None:
            return self.coordinator.slots(
                job.role, job.slots, ttl=job.ttl, info=job.info, on_lost=self._chosen.until_ended
            )
        return self.coordinator.leadership(
            job.role,
            ttl=job.ttl,
            info=job.info,
            priority=job.priority,
            min_tenure=job.min_tenure,
            on_lost=self._chosen.until_ended,
        )

    def _linger(self) -> float:
        """Return the seconds for which nobody may get the role yet (--at-least)."""
        return max(0.0, self._started_at + self.job.at_least - clock.total_seconds())

    def _free_later(self) -> str:
        return f"it is free when the lease expires, in at most {self.job.ttl:g} s"

    def _stand_by(self, standby: Standby) -> int | None:
        """Wait for the role. Return None when this process leads, otherwise the exit status."""
        announce: float | None = clock.total_seconds() + ANNOUNCE_AFTER if self.job.wait else None
        shown = ""
        while not standby.answered:
            if standby.situation != shown:
                shown = standby.situation
                self.manager.status(shown)
            self._wait(None if announce is None else announce - clock.total_seconds())
            for number in self.inbox.signals():
                if number in THAT_END_WAITING:
                    return exit_codes.SIGNALLED + number
            if self.guarded.gone:
                messages.print(f"the guardian process was killed; start {messages.program} again")
                return exit_codes.GUARDIAN_DIED
            if announce is not None and clock.total_seconds() >= announce and not standby.answered:
                announce = None
                standby.announce()
        return None if standby.term is not None else standby.why_not()

    def _work(self, term: Term) -> int:
        """Run COMMAND while this process leads, and return the exit status.

        COMMAND and its descendants have ended by then, unless `ended` is not set.
        """
        guarded = self.guarded
        deadline = term.deadline
        variables = {"COORD_ROLE": self.job.role, "COORD_TOKEN": str(term.token)}
        if term.slot is not None:
            variables["COORD_SLOT"] = str(term.slot)
        if self._tick is not None:
            variables["COORD_TICK"] = str(self._tick.name)
        if self.job.command_url is not None:
            variables["COORD_URL"] = self.job.command_url
        self._started_at = clock.total_seconds()
        guarded.start(variables, deadline)
        self.manager.status(f"leads {self.job.role!r}, token {term.token}")
        term.lost.add_callback(self.inbox.wake)
        pause = min(self.job.ttl / 20, 0.25)
        while guarded.finished is None and not guarded.gone:
            self._wait(pause)
            if term.deadline > deadline and not term.lost.is_set():
                deadline = term.deadline
                guarded.extend(deadline)
            for number in self.inbox.signals():
                self._pass_on(number)
            while guarded.not_permitted:
                self._not_permitted(guarded.not_permitted.pop())
            if guarded.stopped:
                guarded.stopped = False
                self._stop_too()
            if term.lost.is_set():
                self._end(term)
        return self._finish(term)

    def _note_end(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in THAT_END_WAITING:
                self._end_signal = number

    def _pass_on(self, number: int) -> None:
        self._note_end([number])
        if number == signal.SIGCONT and self.guarded.child is not None:
            process.hand_over(os.getpgrp(), to=self.guarded.child)  # fg
        self.guarded.pass_on(number)

    def _not_permitted(self, number: int) -> None:
        name = signal.Signals(number).name
        messages.print(f"cannot send {name} to COMMAND: it runs as another user; end it yourself")

    def _stop_too(self) -> None:
        """Give the terminal back to the shell and stop, because COMMAND was stopped with Ctrl-Z.

        Nothing renews the lease then. Without `fg` or `bg` before the deadline, the guardian ends
        COMMAND, and another candidate gets the role.
        """
        child = self.guarded.child
        if child is None or not process.hand_over(child, to=os.getpgrp()):
            return
        if process.has_shell():
            os.killpg(0, signal.SIGTSTP)
        else:  # Nobody could continue this process.
            self._pass_on(signal.SIGCONT)

    def _end(self, term: Term) -> None:
        """Make the guardian end COMMAND, because the term is over; if it fails to, kill COMMAND."""
        now = clock.total_seconds()
        if self._backstop is None:
            grace = (
                min(self.job.grace, TAKEN_GRACE)
                if term.reason is LossReason.TAKEN
                else self.job.grace
            )
            kill_at = min(now + grace, max(term.deadline, now))
            self.guarded.end(kill_at)
            self.manager.status(f"lost {self.job.role!r}: {term.reason}; ends COMMAND")
            # The guardian reports survivors at `KILL_WAIT`, where the deadline leaves that time.
            reports_at = min(kill_at + KILL_WAIT, max(term.deadline, kill_at))
            self._backstop = reports_at + min(0.25, self.job.margin / 4)
        elif now >= self._backstop:
            self.inbox.wait(0)  # Its report may just have arrived.
            if self.guarded.finished is None:
                self.guarded.force()

    def _finish(self, term: Term) -> int:
        finished, child = self.guarded.finished, self.guarded.child
        if finished is None:
            survivors = self.guarded.force()
            messages.print(
                "the guardian process was killed; COMMAND "
                + ("may not have ended" if survivors else "was ended")
            )
            status = exit_codes.LOST if term.lost.is_set() else exit_codes.GUARDIAN_DIED
        else:
            survivors = finished.survivors
            status = finished.status
            if finished.cause is not Cause.BY_ITSELF:
                reason = str(term.reason) if term.lost.is_set() else "no renewal in time"
                messages.print(
                    f"lost the leadership of {self.job.role!r} (token {term.token}): {reason}; "
                    + ("COMMAND has not ended" if survivors else "COMMAND was ended")
                )
                status = exit_codes.LOST
        if survivors:
            messages.print(
                f"cannot end process {', '.join(survivors)}, which COMMAND started: end it "
                f"yourself; {self.job.role!r} is not released: {self._free_later()}"
            )
        else:
            self._chosen.ended.set()
        if child is not None:
            process.hand_over(child, to=os.getpgrp())
        return status

    def _leave(
        self,
        leadership: Leadership,
        within: float,
        linger: float = 0.0,
        tick: CommandTick | None = None,
    ) -> bool:
        """Resign and release the role. Return whether that succeeded `within` seconds.

        Args:
            leadership: The leadership of the role.
            within: The maximum wait in seconds.
            linger: Seconds for which nobody gets the role.
            tick: The tick to record with the release; None means none.
        """
        released = threading.Event()
        self.manager.stopping()
        self.manager.status(f"releases {self.job.role!r}")

        def leave() -> None:
            try:
                if tick is not None:
                    self._record(tick)
                if linger > 0:
                    leadership.stop(linger=linger)
                self.coordinator.close()  # This releases the role, if it is not released yet.
            except CoordError as err:
                messages.print(str(err))
            released.set()
            self.inbox.wake()

        start_daemon_thread(leave)
        until = clock.total_seconds() + within
        while not released.is_set() and clock.total_seconds() < until:
            self._wait(until - clock.total_seconds())
            self._note_end(numbers := self.inbox.signals())
            if any(number in THAT_END_WAITING for number in numbers):
                break
        self.guarded.close()
        self.guarded.wait()
        return released.is_set()

    def _record(self, tick: CommandTick) -> None:
        try:
            tick.record()
        except CoordError as err:
            run = f"tick {tick.name} of {self.job.role!r}"
            messages.print(f"COMMAND has ended, and {run} is not recorded: {err}")
            self._not_recorded = exit_codes.of(err)
