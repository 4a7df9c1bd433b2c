"""`coord run`: its options, and the order in which things must be begun."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from coord.cli import exit_codes, options, output
from coord.core import validation
from coord.core.timing import Timing
from coord.errors import BadArgument


class _RunCommand(click.Command):
    """Options stand before or after ROLE; what follows COMMAND is COMMAND's own, with and without a
    `--` before it."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["ROLE", "[OPTIONS]", "--", "COMMAND..."]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            name: not (param.is_flag or param.is_eager)
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            for name in param.opts
        }
        ours: list[str] = []
        role: list[str] = []
        rest = list(args)
        while rest and rest[0] != "--":
            if rest[0].startswith("-") and rest[0] != "-":
                count = 2 if takes_value.get(rest[0]) else 1
                ours += rest[:count]
                del rest[:count]
            elif not role:
                role = [rest.pop(0)]
            else:
                break
        if rest[:1] == ["--"]:
            del rest[0]
        return super().parse_args(ctx, [*ours, "--", *role, *rest])


@click.command(cls=_RunCommand, epilog=exit_codes.HELP)
@options.role
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds that a lease runs after a renewal.",
)
@click.option(
    "--no-wait", is_flag=True, help="Do not stand by: exit with 75 when somebody else leads."
)
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Stand by no longer than this; then exit with 76.",
)
@click.option(
    "--grace",
    type=float,
    metavar="SECONDS",
    help="When renewals fail, send SIGTERM this long before the deadline, where SIGKILL follows.  [default: ttl / 6]",
)
@click.option(
    "--info",
    multiple=True,
    callback=options.parse_info,
    metavar="JSON|KEY=VALUE",
    help="What others see of this candidate, besides its host and pid. May be repeated.",
)
@click.option(
    "--priority",
    type=int,
    default=0,
    show_default=True,
    help="One above 0 gets the role from a leader with a lower one: the machine that should have it, when it is there.",
)
@click.option(
    "--min-tenure",
    type=float,
    metavar="SECONDS",
    help="How long COMMAND runs, at least, before it is ended for one with a higher priority.  [default: 3 ttls]",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what the candidate does to stderr.")
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
    verbose: bool,
    url: str | None,
) -> None:
    """Run COMMAND for as long as this process leads ROLE; until then, stand by.

    COMMAND finds COORD_ROLE, COORD_TOKEN (the fencing token of the term) and COORD_URL in its
    environment. Signals (INT, TERM, HUP, QUIT, USR1, USR2, WINCH, CONT) are passed on to it, and
    its exit status is that of coord run.

    When leadership is lost, COMMAND and all of its process group are ended before anybody else can
    lead: SIGTERM, then SIGKILL. A second process, the guardian, sees to that even when coord run
    itself is killed, stopped or hangs. What leaves the group (a daemon) is not followed. Ctrl-Z
    stops coord run as well: continued too late, it has lost the role. When COMMAND ends, what is
    left of its group is ended too, and the role is given back."""
    validation.role(role)
    timing = Timing.of(ttl)
    if timeout is not None:
        validation.number(timeout, "timeout", low=0)
    if no_wait and timeout is not None:
        raise click.UsageError("--no-wait and --timeout exclude each other")
    grace = _grace(grace, timing)
    wishes = validation.priority(priority), validation.min_tenure(min_tenure, timing.ttl)
    about = validation.info({"host": os.uname().nodename, "pid": os.getpid(), **info})
    _check_command(command[0])
    nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()

    from coord.cli.run.guardian_client import GuardianClient

    guarded = GuardianClient(
        command, grace, nohup
    )  # forks: so before anything that may start a thread

    from coord.api.coordinator import Coordinator
    from coord.cli.run.runner import Runner, RunOptions
    from coord.stores import urls

    _log(verbose)
    job = RunOptions(
        role,
        timing.ttl,
        timing.margin,
        grace,
        not no_wait,
        timeout,
        about,
        *wishes,
        urls.resolve(url),
    )
    status = Runner(job, guarded, Coordinator(url)).run()
    sys.stdout.flush()
    os._exit(status)  # all is done: what a store's thread may still be stuck in must not hold us up


def _grace(given: float | None, timing: Timing) -> float:
    """No longer than leaves a healthy leader's renewals, each up to one attempt late, in time."""
    if given is None:
        return timing.ttl / 6
    most = timing.ttl - timing.margin - timing.renew_every - timing.attempt_timeout
    if validation.number(given, "grace", low=0) > most:
        raise BadArgument(
            "grace",
            given,
            f"at a ttl of {timing.ttl:g} s, from 0 to {most:.3g} s leave time for renewals",
        )
    return given


def _check_command(name: str) -> None:
    from coord.cli.run.process import trouble

    found = trouble(name)
    if found is not None:
        status, text = found
        click.echo(f"coord run: {text}", err=True)
        sys.exit(status)


def _log(verbose: bool) -> None:
    import logging

    if verbose:

        class OneLine(logging.Formatter):
            def format(self, record: logging.LogRecord) -> str:
                return f"coord run: {output.one_line(super().format(record))}"

        handler = logging.StreamHandler()
        handler.setFormatter(OneLine())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    else:
        logging.getLogger("coord").addHandler(
            logging.NullHandler()
        )  # we say what matters ourselves
