"""Celery beat on the leader only: a scheduler around any other scheduler of beat.

Every machine runs `celery -A app beat --scheduler coord.integrations.celery:LeaderScheduler`. One
of them leads and sends the tasks of the schedule. The others wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

try:
    from celery.beat import PersistentScheduler, Scheduler
    from celery.utils.imports import load_extension_class_names, symbol_by_name
    from celery.utils.time import maybe_make_aware
except ImportError as err:
    raise ImportError(
        "cannot use coord.integrations.celery: Celery is not installed; "
        "run: pip install 'coord[celery]'"
    ) from err

from coord.api.sync_coordinator import Coordinator
from coord.api.sync_leadership import Leadership
from coord.core.kept import note_key, time_of
from coord.election.term import Term, require_term, run_under_term
from coord.errors import BadArgument, LeadershipLost, StoreUnavailable
from coord.runtime import log

WAIT = 1.0
"""Seconds that a tick waits at most: within this time signals are handled and a loss is noticed."""
PREFIX = "beat "
"""The begin of the keys of notes about entries."""
RETRY = 0.2
"""Seconds until another try to write a note that the store did not answer."""
HEADER = "coord_token"
"""The header of a task that has the fencing token of the beat that sent it."""


class Settings:
    """The settings of Celery that begin with `coord_`.

    Args:
        conf: The configuration of the application.

    Attributes:
        url: `coord_url`: the URL of the store; None means `COORD_URL`.
        role: `coord_beat_role`: the role.
        scheduler: `coord_beat_scheduler`: the class of the scheduler that the leader runs.
        ttl: `coord_beat_ttl`: the lease duration, in seconds.
        skip: `coord_beat_missed`: whether runs that passed before the election are dropped.
        before: `coord_beat_note`: whether a run is noted before its task is sent, or after.

    Raises:
        BadArgument: A setting is invalid.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self.url: str | None = conf.get("coord_url")
        self.role: str = conf.get("coord_beat_role", "celery-beat")
        self.ttl: float = conf.get("coord_beat_ttl", 15.0)
        self.skip = self._choice(conf, "coord_beat_missed", "once", "skip")
        self.before = not self._choice(conf, "coord_beat_note", "before", "after")
        self.scheduler = self._scheduler(
            conf.get("coord_beat_scheduler", "celery.beat:PersistentScheduler")
        )

    @staticmethod
    def _choice(conf: Mapping[str, Any], name: str, usual: str, other: str) -> bool:
        value = conf.get(name, usual)
        if value not in (usual, other):
            raise BadArgument(name, value, f'must be "{usual}" or "{other}"')
        return bool(value == other)

    @staticmethod
    def _scheduler(name: object) -> type[Any]:
        allowed = "must be a scheduler class of beat, or its name: package.module:Class"
        try:
            short_names = dict(load_extension_class_names("celery.beat_schedulers"))
            kind = symbol_by_name(name, aliases=short_names)
        except (ImportError, AttributeError, ValueError, TypeError) as err:
            raise BadArgument("coord_beat_scheduler", name, f"{allowed} ({err})") from err
        if not (isinstance(kind, type) and issubclass(kind, Scheduler)):
            raise BadArgument("coord_beat_scheduler", name, allowed)
        if issubclass(kind, LeaderScheduler):
            raise BadArgument(
                "coord_beat_scheduler", name, "must be the scheduler that the leader runs"
            )
        return kind

    def connect(self) -> tuple[Coordinator, Leadership]:
        """Return a coordinator and a candidate for the role, not started.

        Raises:
            BadArgument: The URL, the role or the ttl is invalid.
        """
        try:
            coordinator = Coordinator(self.url)
            return coordinator, coordinator.leadership(self.role, ttl=self.ttl)
        except BadArgument as err:
            setting = "coord_url" if err.argument == "url" else f"coord_beat_{err.argument}"
            raise BadArgument(setting, err.value, err.allowed) from None


class LeaderScheduler(Scheduler):  # type: ignore[misc] # Celery has no types
    """A scheduler of beat that sends tasks while this process leads.

    The elected process makes the scheduler that `coord_beat_scheduler` names, and closes it when
    the role is lost, so that it reads its database or file at each election. The process goes on
    as a candidate after a loss.

    A scheduler that keeps its run times in a file of one machine gets them from notes of the role.
    Other schedulers keep them in a database that all processes share.

    Args:
        app: The Celery application. The page "Celery beat" lists its settings.
        max_interval: Seconds between two looks at the schedule; None means the value of the
            scheduler that the leader runs.
        lazy: Whether it is made only to describe it.
        **options: Other arguments for the scheduler that the leader runs.

    Raises:
        BadArgument: A setting is invalid.
    """

    lock_key = None
    """redbeat takes a lock of its own for a scheduler that has a key here."""

    def __init__(
        self, app: Any, *, max_interval: float | None = None, lazy: bool = False, **options: Any
    ) -> None:
        super().__init__(app, max_interval=max_interval, lazy=True)
        self._settings = Settings(app.conf)
        self._options = {"max_interval": max_interval, **options}
        self._noted = self._settings.scheduler is Scheduler or issubclass(
            self._settings.scheduler, PersistentScheduler
        )
        self._connected = None if lazy else self._settings.connect()
        self._inner: Any = None
        self._inner_term: Term | None = None
        self._closed = False

    @property
    def leadership(self) -> Leadership:
        """The candidate of this process: `is_leader`, `on_elected`, `step_down`."""
        assert self._connected is not None  # a lazy one is made to be described
        return self._connected[1]

    @property
    def schedule(self) -> Any:
        """The entries of the schedule; none while another process leads."""
        return {} if self._inner is None else self._inner.schedule

    @property
    def info(self) -> str:
        """What beat prints when it starts."""
        inner = self._settings.scheduler
        return (
            f"    . role -> {self._settings.role} (ttl {self._settings.ttl:g} s)\n"
            f"    . run by the leader -> {inner.__module__}:{inner.__qualname__}"
        )

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due if this process leads, and else wait for the role for a second.

        Returns:
            Seconds until the next tick, at most one.

        Raises:
            SystemExit: The scheduler was closed.
        """
        if self._closed:
            # A signal handler of beat closes its scheduler and then raises this. If it did so in a
            # finalizer, Python has dropped the exception.
            raise SystemExit
        lead = self.leadership
        if not lead.started:
            lead.start()
        term = lead.held
        if term is None or term is not self._inner_term:
            self._close_inner()
        if term is None:
            lead.wait(timeout=WAIT)
            return 0.0
        try:
            return min(max(run_under_term(term, None, self._tick, term), 0.0), WAIT)
        except LeadershipLost:
            return 0.0

    def _tick(self, term: Term) -> float:
        if self._inner is None:
            self._open_inner(term)
        delay: float | None = self._inner.tick()
        return WAIT if delay is None else delay

    def should_sync(self) -> bool:
        """Return whether the leader's scheduler wants to write what it has changed."""
        return self._inner is not None and bool(self._inner.should_sync())

    def sync(self) -> None:
        """Let the leader's scheduler write what it has changed, if this process still leads."""
        if self._inner is not None and self._inner_term is not None and self._inner_term.held:
            self._inner.sync()

    def close(self) -> None:
        """Close the leader's scheduler, give the role back, and disconnect."""
        self._closed = True
        self._close_inner()
        if self._connected is not None:
            coordinator, leadership = self._connected
            leadership.stop()
            coordinator.close()

    def _open_inner(self, term: Term) -> None:
        inner = self._settings.scheduler(app=self.app, **self._options)
        # redbeat's own lock is taken before the first tick, which an inner scheduler never sees.
        inner.lock_key = None
        self._inner, self._inner_term = inner, term
        if self._noted:
            self._restore(term, inner)
        else:
            inner.sync_every_tasks = 1  # another process reads what it has sent
        _Sender(inner, self._settings, noted=self._noted)

    def _close_inner(self) -> None:
        inner, term, self._inner, self._inner_term = self._inner, self._inner_term, None, None
        if inner is None:
            return
        if term is None or not term.held:
            # The next leader has the run times. Those of this process may be of before its
            # election, and of an entry that was advanced and not sent.
            inner.sync = lambda: None
        inner.close()
        finalizer = getattr(inner, "_finalize", None)
        if finalizer is not None:  # it would keep the scheduler of each term until the end
            finalizer.cancel()

    def _restore(self, term: Term, inner: Any) -> None:
        """Give each entry the time when it was last sent, by whichever process."""
        now = time.time()
        notes = {} if self._settings.skip else term.notes()
        missing = {}
        for name, entry in inner.schedule.items():
            key = note_key(PREFIX, name)
            noted = now if self._settings.skip else notes.get(key)
            last = time_of(noted)
            if last is None and noted is not None:
                log.warning("scheduler.note_ignored", role=term.role, token=term.token, key=key)
            if last is None:
                # From now on a run that is due while nobody leads is known to be due.
                missing[key] = maybe_make_aware(entry.last_run_at).timestamp()
            else:
                entry.last_run_at = datetime.fromtimestamp(last, self.app.timezone)
        if missing and not self._settings.skip:
            _write(term, missing)


class _Sender:
    """Sends the tasks of the leader's scheduler: under the term, with notes, in the right order.

    It replaces two methods of the scheduler. `Scheduler.tick` calls `reserve`, which advances an
    entry, and then `apply_async`. If the run is to be noted after its task was sent, it must also
    be advanced after that: a process that ends in between lets its scheduler write what it has
    advanced.

    Args:
        inner: The scheduler.
        settings: When a run is noted.
        noted: Whether run times are in notes of the role, and not in a store of the scheduler.
    """

    def __init__(self, inner: Any, settings: Settings, *, noted: bool) -> None:
        self._inner, self._settings, self._noted = inner, settings, noted
        self._advance, self._apply = inner.reserve, inner.apply_async
        inner.reserve, inner.apply_async = self.reserve, self.apply_async
        self._sent: _Sent | None = None
        self._sending = False

    def reserve(self, entry: Any) -> Any:
        """Advance an entry whose task is sent next; with `after`, send the task first."""
        if self._sending:
            return self._advance(entry)
        term = require_term()
        term.check()
        if not self._settings.before:
            self._sent = sent = _Sent(entry)
            try:
                sent.result = self._publish(term, entry, self._inner.producer)
            except LeadershipLost:
                raise
            except Exception as err:  # `apply_async` raises it, where beat logs it
                sent.error = err
                return entry  # it is still due
        return self._advance(entry)

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send the task of an entry under the current term, and note it before or after."""
        term = require_term()
        sent, self._sent = self._sent, None
        if sent is None or sent.entry is not entry:
            sent = _Sent(entry)
            term.check()
            if self._settings.before:
                self._note(term, entry)
                sent.result = self._publish(term, entry, producer, advance=advance, **kwargs)
                return sent.result
            sent.result = self._publish(term, entry, producer, **kwargs)
            if advance:
                self._advance(entry)
        if sent.error is not None:
            raise sent.error
        self._note(term, entry)
        return sent.result

    def _publish(
        self, term: Term, entry: Any, producer: Any, *, advance: bool = False, **kwargs: Any
    ) -> Any:
        term.check()
        self._sending = True
        try:
            stamped = _stamped(entry, term.token)
            return self._apply(stamped, producer=producer, advance=advance, **kwargs)
        finally:
            self._sending = False

    def _note(self, term: Term, entry: Any) -> None:
        if not self._noted:
            term.check()
            self._inner.sync()
        elif not self._settings.skip:
            _write(term, {note_key(PREFIX, entry.name): time.time()})


@dataclass
class _Sent:
    """A task that was sent before its entry was advanced."""

    entry: Any
    result: Any = None
    error: Exception | None = None


def _write(term: Term, notes: Mapping[str, float]) -> None:
    """Write notes. While the store does not answer, try again.

    Raises:
        LeadershipLost: The term is over.
    """
    while True:
        try:
            return term.note(notes)
        except StoreUnavailable:
            term.lost.wait(RETRY)
            term.check()


def _stamped(entry: Any, token: int) -> Any:
    """Return a copy of an entry whose task carries the fencing token. Beat keeps the entry itself,
    without that."""
    copy = object.__new__(type(entry))
    copy.__dict__.update(vars(entry))
    headers = {**(entry.options.get("headers") or {}), HEADER: token}
    copy.options = {**entry.options, "headers": headers}
    return copy
