"""`coord run`: its options, and the order in which its parts must start."""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import Any

import click

from coord.cli import exit_codes, options
from coord.core import validation
from coord.core.timing import Timing
from coord.errors import BadArgument


def secret_variables() -> tuple[str, ...]:
    """Return the variables of the environment that --no-url keeps from COMMAND."""
    passwords = (
        name for name in os.environ if name.startswith("COORD_") and name.endswith("_PASSWORD")
    )
    return ("COORD_URL", *passwords)


class JobCommand(click.Command):
    """Accepts options before and after ROLE. What follows COMMAND belongs to COMMAND."""

    role_name = "ROLE"
    """How the help names the role."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [self.role_name, "[OPTIONS]", "--", "COMMAND..."]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            name: not (param.is_flag or param.is_eager)
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            for name in param.opts
        }
        options: list[str] = []
        role: list[str] = []
        rest = list(args)
        while rest and rest[0] != "--":
            if rest[0].startswith("-") and rest[0] != "-":
                count = 2 if takes_value.get(rest[0]) else 1
                options += rest[:count]
                del rest[:count]
            elif not role:
                role = [rest.pop(0)]
            else:
                break
        if rest[:1] == ["--"]:
            del rest[0]
        return super().parse_args(ctx, [*options, "--", *role, *rest])


@click.command(cls=JobCommand, epilog=exit_codes.HELP)
@options.role
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    type=float,
    default=30.0,
    show_default=True,
    help="Lease duration in seconds. If the leader crashes, another candidate takes over after at "
    "most this time.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Do not wait. Exit with status 75 if another candidate is the leader.",
)
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Maximum time to wait for leadership. Then exit with status 76.",
)
@click.option(
    "--grace",
    type=float,
    metavar="SECONDS",
    help="If renewals fail, send SIGTERM to COMMAND this long before the deadline, and SIGKILL at "
    "the deadline.  [default: ttl / 6]",
)
@click.option(
    "--info",
    multiple=True,
    callback=options.parse_info,
    metavar="JSON|KEY=VALUE",
    help="What others see about this candidate, in addition to its host and pid. May be repeated.",
)
@click.option(
    "--priority",
    type=int,
    default=0,
    show_default=True,
    help="Priority of this candidate. A candidate with a higher priority replaces a leader with a "
    "lower one after --min-tenure.",
)
@click.option(
    "--min-tenure",
    type=float,
    metavar="SECONDS",
    help="Minimum time that COMMAND runs before a candidate with a higher priority may "
    "replace it.  [default: 3 ttls]",
)
@click.option(
    "--at-least",
    type=float,
    default=0.0,
    metavar="SECONDS",
    help="Nobody else gets the role within this time after COMMAND has started, even if COMMAND "
    "ends sooner. Use it for short jobs with --no-wait.",
)
@click.option(
    "--slots",
    type=int,
    metavar="N",
    help="Number of candidates that may hold ROLE at a time (1 to 64). COMMAND gets the number of "
    "its slot in COORD_SLOT. Fencing tokens are those of the slot.",
)
@options.no_url
@options.password_file
@options.verbose
@options.url
def run(
    role: str,
    command: tuple[str, ...],
    ttl: float,
    no_wait: bool,
    timeout: float | None,
    grace: float | None,
    info: dict[str, Any],
    priority: int,
    min_tenure: float | None,
    at_least: float,
    slots: int | None,
    no_url: bool,
    password_file: str | None,
    verbose: bool,
    url: str | None,
) -> None:
    """Run COMMAND while this process is the leader of ROLE. Until then, wait.

    COMMAND gets the environment of coord run, and in addition COORD_ROLE, COORD_TOKEN (the fencing
    token of the term) and COORD_URL. It also gets the open file descriptors. coord run forwards the
    signals INT, TERM, HUP, QUIT, USR1, USR2, WINCH and CONT to COMMAND, and exits with its status.

    If leadership is lost, coord run ends COMMAND and all its descendants before another candidate
    can become the leader: SIGTERM, then SIGKILL. A second process, the guardian, does this even if
    coord run itself is killed, stopped or hangs. Ctrl-Z also stops coord run; if you continue it
    too late, it has lost the role. After COMMAND has ended, coord run ends the processes that
    COMMAND left behind and releases the role. If one of them cannot be ended, coord run says so and
    does not release the role. Only Linux has the means to find descendants that left the process
    group of COMMAND.
    """
    validation.elected_role(role)
    timing = Timing.of(ttl)
    if timeout is not None:
        validation.number(timeout, "timeout", low=0)
    if no_wait and timeout is not None:
        raise click.UsageError("--no-wait and --timeout cannot be used together")
    if slots is not None:
        validation.slots(slots)
        if priority or min_tenure is not None:
            raise click.UsageError("--slots cannot be used with --priority or --min-tenure")
    grace = grace_of(grace, timing)
    validation.number(at_least, "at_least", low=0, high=validation.MAX_TTL)
    preference = validation.priority(priority), validation.min_tenure(min_tenure, timing.ttl)
    about = validation.info({"host": os.uname().nodename, "pid": os.getpid(), **info})
    check_command(command[0], "coord run")
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

    set_up_log(verbose)
    job = RunOptions(
        role,
        timing.ttl,
        timing.margin,
        grace,
        not no_wait,
        timeout,
        about,
        *preference,
        at_least,
        slots,
        None if no_url else store,
    )
    coordinator = Coordinator(store)
    manager = service_manager.from_environment(
        os.environ, os.getpid(), functools.partial(service_manager.is_healthy, coordinator)
    )
    status = Runner(job, guarded, coordinator, manager).run()
    messages.flush()
    # Everything is done. A thread of the store that still hangs must not delay the exit.
    os._exit(status)


def store_url(url: str | None, password_file: str | None) -> str:
    """Return the URL to use, which means the same in every working directory.

    Raises:
        BadArgument: The store is in memory, so that no other process could be a candidate.
    """
    from coord.stores import urls

    return urls.absolute(options.resolve_url(url), password_file=password_file)


def grace_of(grace: float | None, timing: Timing) -> float:
    """Return the grace in seconds: short enough that a healthy leader renews before it begins.

    Raises:
        BadArgument: The given grace is negative or too long for the ttl.
    """
    if grace is None:
        return timing.ttl / 6
    most = timing.ttl - timing.margin - timing.renew_every - timing.attempt_timeout
    if validation.number(grace, "grace", low=0) > most:
        raise BadArgument(
            "grace",
            grace,
            f"must be between 0 and {most:.3g} seconds for a ttl of {timing.ttl:g} seconds",
        )
    return grace


def check_command(name: str, program: str) -> None:
    """Exit with the status of the shell if COMMAND cannot be executed."""
    from coord.cli.run.process import find_problem

    problem = find_problem(name)
    if problem is not None:
        status, text = problem
        click.echo(f"{program}: {text}", err=True)
        sys.exit(status)


def set_up_log(verbose: bool) -> None:
    """Log to stderr if `verbose`, and otherwise not at all."""
    import logging

    if verbose:
        from coord.cli.run.messages import MessageHandler, messages

        logging.basicConfig(level=logging.INFO, handlers=[MessageHandler(messages)])
    else:
        # coord run prints its own messages about what matters.
        logging.getLogger("coord").addHandler(logging.NullHandler())
