"""`coord once`: runs a command once for each tick of a job."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from typing import NoReturn

import click

from coord.cli import exit_codes, options
from coord.cli.run.command import (
    JobCommand,
    check_command,
    grace_of,
    secret_variables,
    set_up_log,
    store_url,
)
from coord.core import validation
from coord.core.ticks import TickName, nearest_tick, tick_name
from coord.core.timing import Timing
from coord.errors import BadArgument

DIRECTORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
"""The directory that has the package `coord`."""
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""Seconds of each unit of a duration."""

TICK_ALLOWED = (
    "must be a whole number, or a time in ISO format such as 2026-11-30T02:00 (UTC if it names no "
    "offset)"
)

_AGAIN = """\
import sys
sys.path = [path for path in sys.path if path] + [sys.argv.pop(1)]
from coord.cli import main
main()
"""
"""Runs the command line as `python -m coord` does, but imports nothing from the working directory,
which may have a `coord` or a `logging.py` of the user. Its first argument is the directory of the
package, for a copy that is not installed."""


class _OnceCommand(JobCommand):
    role_name = "JOB"


@click.command(cls=_OnceCommand, epilog=exit_codes.ONCE_HELP)
@click.argument("job")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--tick",
    metavar="TICK",
    help="The tick: a number, or a time such as 2026-11-30T02:00 (in UTC if it names no offset).  "
    "[default with --every: the time that is nearest to now]",
)
@click.option(
    "--every",
    metavar="DURATION",
    help="Time from one tick to the next, such as 15m, 1h or 1d. Ticks that were left out since "
    "the last one are run first, at most 64, each with a COMMAND of its own.",
)
@click.option(
    "--offset",
    metavar="DURATION",
    default="0",
    show_default=True,
    help="With --every and without --tick: how much later ticks are. --every 1d --offset 2h is "
    "02:00 UTC.",
)
@click.option(
    "--no-retry",
    is_flag=True,
    help="Never run a tick twice, even if the run crashed: at most once. Without it, a tick whose "
    "COMMAND failed is run again by the next call: at least once.",
)
@click.option("--within", metavar="DURATION", help="Do not run a tick that is later than this.")
@click.option(
    "--ttl",
    type=float,
    default=30.0,
    show_default=True,
    help="Lease duration in seconds. If a machine crashes, another call waits at most this long.",
)
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Maximum time to wait while another tick of JOB runs. Then exit with status 76.",
)
@click.option(
    "--grace",
    type=float,
    metavar="SECONDS",
    help="If renewals fail, send SIGTERM to COMMAND this long before the deadline, and SIGKILL at "
    "the deadline.  [default: ttl / 6]",
)
@options.no_url
@options.password_file
@options.verbose
@options.url
@click.pass_context
def once(
    ctx: click.Context,
    job: str,
    command: tuple[str, ...],
    tick: str | None,
    every: str | None,
    offset: str,
    no_retry: bool,
    within: str | None,
    ttl: float,
    timeout: float | None,
    grace: float | None,
    no_url: bool,
    password_file: str | None,
    verbose: bool,
    url: str | None,
) -> None:
    """Run COMMAND once for each tick of JOB, whichever machine calls first.

    Several machines call this at about the same time, or one of them much later: COMMAND is run for
    a tick until it has ended with status 0 once, and never after that. A call for a tick that was
    run exits with 0. JOB is a role: COMMANDs of one job never run at the same time.

    COMMAND gets the environment of coord once, and in addition COORD_TICK, COORD_ROLE, COORD_TOKEN
    (the fencing token) and COORD_URL. If the lease is lost, coord once ends COMMAND and all its
    descendants, as coord run does.
    """
    validation.elected_role(job, "job")
    period = None if every is None else _seconds(every, "--every")
    if period == 0:
        raise BadArgument("--every", every, "must be greater than 0")
    name = _name(tick, period, _seconds(offset, "--offset"))
    timing = Timing.of(ttl)
    if timeout is not None:
        validation.number(timeout, "timeout", low=0)
    grace = grace_of(grace, timing)
    late = None if within is None else _seconds(within, "--within")
    if late is not None and isinstance(name, int):
        raise BadArgument("--within", within, "must be left out if the tick is a number")
    check_command(command[0], "coord once")
    nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    store = store_url(url, password_file)

    from coord.cli.run import service_manager
    from coord.cli.run.guardian_client import GuardianClient

    hidden = (*service_manager.VARIABLES, *(secret_variables() if no_url else ()))
    # This forks, so it must come before anything that may start a thread.
    guarded = GuardianClient(command, grace, nohup, hidden)

    from coord.api.sync_coordinator import Coordinator
    from coord.cli.run.messages import messages
    from coord.cli.run.runner import Runner, RunOptions
    from coord.cli.run.tick import TickOptions
    from coord.stores.requests import kept_of

    messages.program = "coord once"
    set_up_log(verbose)
    settings = RunOptions(
        job,
        timing.ttl,
        timing.margin,
        grace,
        wait=True,
        timeout=timeout,
        info=validation.info({"host": os.uname().nodename, "pid": os.getpid()}),
        priority=0,
        min_tenure=0.0,
        at_least=0.0,
        slots=None,
        command_url=None if no_url else store,
        tick=TickOptions(name, period, not no_retry, late),
    )
    coordinator = Coordinator(store)
    kept_of(coordinator.store)
    manager = service_manager.from_environment(
        os.environ, os.getpid(), functools.partial(service_manager.is_healthy, coordinator)
    )
    runner = Runner(settings, guarded, coordinator, manager)
    status = runner.run()
    messages.flush()
    if status == 0 and not runner.is_last:
        status = runner.inbox.close()
        if status == 0:
            _go_on(ctx, name, store)
    # Everything is done. A thread of the store that still hangs must not delay the exit.
    os._exit(status)


def _go_on(ctx: click.Context, name: TickName, store: str) -> NoReturn:
    """Run the next tick, in this process: a guardian watches one COMMAND only.

    The URL goes through the environment, because it may have a password.
    """
    words = ["-c", _AGAIN, DIRECTORY, "once", "--tick", str(name)]
    for param in ctx.command.params:
        value = ctx.params[param.name or ""]
        if param.name in ("tick", "url", "password_file") or isinstance(param, click.Argument):
            continue
        if value is True:
            words.append(param.opts[0])
        elif value is not None and value is not False:
            words += [param.opts[0], str(value)]
    words += ["--", ctx.params["job"], *ctx.params["command"]]
    os.environ["COORD_URL"] = store
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 # it is this program


def _seconds(text: str, option: str) -> float:
    """Return the seconds of a duration such as 90, 15m or 1.5h.

    Raises:
        BadArgument: It is no duration.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)", text)
    if match is None:
        allowed = "must be a duration: a number of seconds, or with a unit: 90, 15m, 1h, 1d"
        raise BadArgument(option, text, allowed)
    seconds = float(match[1]) * UNITS[match[2]]
    if seconds > validation.MAX_SECONDS:
        most = f"must be at most {validation.MAX_SECONDS:,.0f} seconds"
        raise BadArgument(option, text, most)
    return seconds


def _name(tick: str | None, every: float | None, offset: float) -> TickName:
    if tick is not None:
        number = re.fullmatch(r"-?[0-9]+", tick)
        if number is not None and every is not None:
            allowed = "must be a time with --every, such as 2026-11-30T02:00"
            raise BadArgument("--tick", tick, allowed)
        if number is not None:
            return tick_name(int(tick), "--tick")
        try:
            return tick_name(tick)
        except BadArgument:
            raise BadArgument("--tick", tick, TICK_ALLOWED) from None
    if every is None:
        raise click.UsageError("name the tick: --tick TICK, or --every DURATION")
    import time

    return tick_name(nearest_tick(every, offset, time.time()))
