"""Schedulers of APScheduler 3 that run their jobs on the leader only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apscheduler.events import EVENT_JOB_ADDED, EVENT_SCHEDULER_STARTED, JobEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_PAUSED, STATE_STOPPED, BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from coord.api.default import default
from coord.api.sync_coordinator import Coordinator
from coord.api.sync_leadership import Leadership
from coord.core import validation
from coord.core.lease import LossReason
from coord.election.term import Term, run_under_term
from coord.errors import BadArgument, LeadershipLost
from coord.integrations.apscheduler.executors import LeaderExecutor
from coord.integrations.apscheduler.missed import MissedRuns
from coord.integrations.apscheduler.stores import LeaderJobStore
from coord.runtime import log, process


class LeaderScheduler(BaseScheduler):  # type: ignore[misc] # APScheduler has no types
    """What all leader schedulers share: it goes before a scheduler class of APScheduler.

    `start()` starts the scheduler paused and makes the process a candidate for the role. The
    elected process resumes its scheduler, and each job runs under the term:
    `coord.current_term()` returns it. When the role is lost, the scheduler is paused, jobs that
    wait for a thread become `EVENT_JOB_MISSED`, coroutine jobs are cancelled, and plain jobs are
    waited for before another process gets the role. All durations are in seconds.

    Args:
        gconfig: The configuration of APScheduler.
        role: The role.
        coordinator: The coordinator; None means the default one of the process.
        ttl: Lease duration. If the leader crashes, another process takes over after at most this
            time.
        at_most: Time that a run may go without `term.progress()` before the role is lost
            (`LossReason.NO_PROGRESS`); None means no limit.
        missed: What a new leader does about fire times that passed before it was elected. "skip"
            drops them. "once" runs each job once for all of them, no matter how late, if nobody has
            run it. "all" leaves it to `misfire_grace_time` and `coalesce` of each job. For jobs in
            memory, the last two note in the store of the role which runs have begun.
        look_every: Time between two looks at the job stores for jobs that other processes added.
        drain_timeout: Time that a handover waits for running jobs, before it leaves the lease to
            run out; None means the ttl.
        info: What others see of this candidate in `leader(role)`.
        **options: Other settings of APScheduler.

    Raises:
        BadArgument: A setting is invalid, or an executor runs jobs in other processes.
    """

    state: int

    def __init__(
        self,
        gconfig: Mapping[str, Any] | None = None,
        *,
        role: str = "scheduler",
        coordinator: Coordinator | None = None,
        ttl: float = 15.0,
        at_most: float | None = None,
        missed: str = "skip",
        look_every: float = 5.0,
        drain_timeout: float | None = None,
        info: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._lead_with(
            role,
            coordinator,
            ttl=ttl,
            at_most=at_most,
            missed=missed,
            look_every=look_every,
            drain_timeout=drain_timeout,
            info=info,
        )
        super().__init__(gconfig or {}, **options)

    def _lead_with(
        self,
        role: str,
        coordinator: Coordinator | None,
        *,
        ttl: float,
        at_most: float | None,
        missed: str,
        look_every: float,
        drain_timeout: float | None,
        info: Mapping[str, Any] | None,
    ) -> None:
        if coordinator is not None and not isinstance(coordinator, Coordinator):
            raise BadArgument(
                "coordinator", coordinator, "must be a coord.Coordinator, as coord.connect makes"
            )
        if at_most is not None:
            at_most = validation.number(at_most, "at_most", low=0, above=True)
        self._at_most = at_most
        self._look_every = validation.number(look_every, "look_every", low=0, above=True)
        self._missed_runs = MissedRuns(missed)
        self._leadership = (coordinator or default.get()).leadership(
            role,
            ttl=ttl,
            info=info,
            drain_timeout=drain_timeout,
            on_elected=self._on_elected,
            on_lost=self._on_lost,
        )
        self._current: Term | None = None
        self._held_back = False
        self._started_in = process.fork_generation

    @property
    def leadership(self) -> Leadership:
        """The candidate of this process: `is_leader`, `on_elected`, `step_down`."""
        return self._leadership

    @property
    def running(self) -> bool:
        """Whether the scheduler was started in this process, paused or not."""
        return self.state != STATE_STOPPED and self._started_in == process.fork_generation

    def start(self, paused: bool = False) -> None:
        """Start the scheduler paused, and become a candidate for the role.

        In a child of the process that started it, it starts from scratch, with the same jobs.

        Args:
            paused: Whether it stays paused when elected, until `resume()`.
        """
        if self._started_in != process.fork_generation:
            self._after_fork()
        self._held_back = paused
        super().start(paused=True)

    def shutdown(self, wait: bool = True) -> None:
        """Give the role back, then shut down.

        Args:
            wait: Whether to wait for running jobs first. An `AsyncIOScheduler` cannot wait; there,
                run `await asyncio.to_thread(scheduler.leadership.stop)` before.
        """
        if self.running:
            if wait and isinstance(self, BlockingScheduler):
                self._leadership.stop()
            else:
                self._leadership.abandon()
        super().shutdown(wait)

    def pause(self) -> None:
        """Pause until `resume()`, and keep the role."""
        self._held_back = True
        super().pause()

    def resume(self) -> None:
        """Run jobs again if this process leads, and else when it is elected."""
        self._held_back = False
        if self._current is not None or not self.running:
            super().resume()

    def add_executor(
        self, executor: BaseExecutor | str, alias: str = "default", **executor_opts: Any
    ) -> None:
        """Add an executor. Its jobs run under the term.

        Raises:
            BadArgument: It runs jobs in other processes.
        """
        if isinstance(executor, str):
            executor = self._create_plugin_instance("executor", executor, executor_opts)
        super().add_executor(self._under_lead(executor), alias)

    def _under_lead(self, executor: BaseExecutor) -> BaseExecutor:
        if not isinstance(executor, BaseExecutor) or isinstance(executor, LeaderExecutor):
            return executor
        return LeaderExecutor(executor, self._at_most, self._missed_runs)

    def add_jobstore(
        self, jobstore: BaseJobStore | str, alias: str = "default", **jobstore_opts: Any
    ) -> None:
        """Add a job store. A scheduler that has lost the role changes nothing in it."""
        if isinstance(jobstore, str):
            jobstore = self._create_plugin_instance("jobstore", jobstore, jobstore_opts)
        if isinstance(jobstore, BaseJobStore):
            jobstore = LeaderJobStore(jobstore)
        super().add_jobstore(jobstore, alias)

    def _real_add_job(self, job: Job, jobstore_alias: str, replace_existing: bool) -> None:
        store = self._lookup_jobstore(jobstore_alias)
        self._missed_runs.check_id(store, job)
        follows_trigger = not hasattr(job, "next_run_time")
        if replace_existing and follows_trigger:
            settings = {
                name: value for name, value in self._job_defaults.items() if not hasattr(job, name)
            }
            job._modify(**settings)
            if store.keep_schedule(job):
                job._jobstore_alias = jobstore_alias
                self._dispatch_event(JobEvent(EVENT_JOB_ADDED, job.id, jobstore_alias))
                return
        super()._real_add_job(job, jobstore_alias, replace_existing)
        if self._current is None:
            if self._leadership.is_leader:
                self._missed_runs.added_while_leading(jobstore_alias, job.id)
        elif follows_trigger and self._missed_runs.needs_notes(store):
            # The process was elected before it added the job.
            now = datetime.now(self.timezone)
            self._missed_runs.catch_up(jobstore_alias, store, job, now)

    def _dispatch_event(self, event: Any) -> None:
        # A blocking scheduler never returns from `start`, so its candidate starts here.
        if event.code == EVENT_SCHEDULER_STARTED:
            self._leadership.start()
        super()._dispatch_event(event)

    def _process_jobs(self) -> float | None:
        """Submit what is due, under the term, and return the seconds until the next look; None
        means until something wakes it."""
        term = self._current
        # APScheduler looks for due jobs once more after a shutdown, and would lose their runs.
        if term is None or self.state == STATE_STOPPED:
            return None
        try:
            wait: float | None = run_under_term(term, None, super()._process_jobs)
        except LeadershipLost:
            return None  # the next election wakes it
        except Exception as err:  # without this, the thread would end, and the process would lead
            log.error("scheduler.pass_failed", err, role=term.role, token=term.token)
            return float(self.jobstore_retry_interval)
        if self.state == STATE_PAUSED:
            return None
        return self._look_every if wait is None else min(wait, self._look_every)

    def _on_elected(self, term: Term) -> None:
        with self._jobstores_lock:
            now = datetime.now(self.timezone)
            self._missed_runs.bring_up_to_date(term, self._jobstores, now)
            self._current = term
        if not self._held_back:
            super().resume()

    def _on_lost(self, term: Term, reason: LossReason) -> None:
        self._current = None
        self._missed_runs.lost()
        if self.running:
            super().pause()

    def _after_fork(self) -> None:
        """Drop what belongs to the parent: threads, locks, the event loop and connections."""
        self._started_in = process.fork_generation
        if self.state == STATE_STOPPED:
            return
        self.state, self._current = STATE_STOPPED, None
        self._executors_lock = self._create_lock()
        self._jobstores_lock = self._create_lock()
        self._listeners_lock = self._create_lock()
        self._event = self._eventloop = self._timeout = None
        for executor in self._executors.values():
            executor.renew_pool()
        for store in self._jobstores.values():
            store.forget_connections()


class LeaderBackgroundScheduler(LeaderScheduler, BackgroundScheduler):  # type: ignore[misc]
    """A `BackgroundScheduler` whose jobs run on the leader only. `LeaderScheduler` explains the
    settings."""


class LeaderBlockingScheduler(LeaderScheduler, BlockingScheduler):  # type: ignore[misc]
    """A `BlockingScheduler` whose jobs run on the leader only. `LeaderScheduler` explains the
    settings."""


class LeaderAsyncIOScheduler(LeaderScheduler, AsyncIOScheduler):  # type: ignore[misc]
    """An `AsyncIOScheduler` whose jobs run on the leader only. `LeaderScheduler` explains the
    settings.

    The candidate runs on coord's background thread, so that renewals do not depend on how busy the
    event loop is.
    """


def _leader_class(plain: type[Any]) -> type[Any]:
    return type(f"Leader{plain.__name__}", (LeaderScheduler, plain), {"__doc__": plain.__doc__})


def lead_scheduler(
    scheduler: BaseScheduler,
    role: str = "scheduler",
    *,
    coordinator: Coordinator | None = None,
    ttl: float = 15.0,
    at_most: float | None = None,
    missed: str = "skip",
    look_every: float = 5.0,
    drain_timeout: float | None = None,
    info: Mapping[str, Any] | None = None,
) -> Leadership:
    """Make a scheduler that somebody else created run its jobs on the leader only.

    Call it before the scheduler is started. A scheduler that runs already is paused until this
    process is elected.

    Args:
        scheduler: A scheduler of APScheduler 3. It becomes a `LeaderScheduler`.
        role: The role.
        coordinator: The coordinator; None means the default one of the process.
        ttl: Lease duration, in seconds.
        at_most: See `LeaderScheduler`.
        missed: See `LeaderScheduler`.
        look_every: See `LeaderScheduler`.
        drain_timeout: See `LeaderScheduler`.
        info: What others see of this candidate in `leader(role)`.

    Returns:
        The candidate. It starts with the scheduler.

    Raises:
        BadArgument: A setting is invalid, an executor runs jobs in other processes, or `missed`
            needs a job id that is not there.
    """
    if not isinstance(scheduler, BaseScheduler) or isinstance(scheduler, LeaderScheduler):
        allowed = "must be a scheduler of APScheduler 3 that is no LeaderScheduler yet"
        raise BadArgument("scheduler", scheduler, allowed)
    plain = type(scheduler)
    led: Any = scheduler
    led.__class__ = _leader_class(plain)
    try:
        led._lead_with(
            role,
            coordinator,
            ttl=ttl,
            at_most=at_most,
            missed=missed,
            look_every=look_every,
            drain_timeout=drain_timeout,
            info=info,
        )
        executors = {alias: led._under_lead(inner) for alias, inner in led._executors.items()}
        stores = {alias: LeaderJobStore(inner) for alias, inner in led._jobstores.items()}
        for store in stores.values() if led.state != STATE_STOPPED else ():
            for job in store.get_all_jobs():
                led._missed_runs.check_id(store, job)
    except BaseException:
        led.__class__ = plain
        raise
    running = led.state != STATE_STOPPED
    if running:
        led._held_back = led.state == STATE_PAUSED
        BaseScheduler.pause(led)
    led._executors.update(executors)
    led._jobstores.update({alias: LeaderJobStore(inner) for alias, inner in led._jobstores.items()})
    leadership: Leadership = led.leadership
    if running:
        leadership.start()
    return leadership
