"""`coord share`: one COMMAND for each shard that this process holds."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

from coord.cli import exit_codes, options, output
from coord.cli.run.command import (
    JobCommand,
    check_command,
    grace_of,
    secret_variables,
    store_url,
)
from coord.core import validation
from coord.core.timing import Timing
from coord.errors import BadArgument
from coord.runtime.clock import total_seconds

if TYPE_CHECKING:
    from coord.cli.run.command_host import CommandHost, Ended
    from coord.election.term import Term

RESTART_FIRST, RESTART_MAX = 1.0, 30.0
"""Seconds until COMMAND is started again after it has ended by itself, at first and at most."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ShareCommand(JobCommand):
    """Accepts options before and after GROUP. What follows COMMAND belongs to COMMAND."""

    role_name = "GROUP"


@click.command(
    cls=ShareCommand,
    epilog=exit_codes.help_of(
        {
            exit_codes.FAILED: "the process that runs the commands was killed, or the group shares "
            "other shards"
        }
    ),
)
@click.argument("group")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--shards",
    type=int,
    required=True,
    metavar="N",
    help="Number of shards (1 to 4,096). All members of GROUP must give the same.",
)
@click.option(
    "--ttl",
    type=float,
    default=30.0,
    show_default=True,
    help="Lease duration of a shard in seconds. If this process is killed, others take its shards "
    "after at most this time.",
)
@click.option(
    "--grace",
    type=float,
    metavar="SECONDS",
    help="Time between SIGTERM and SIGKILL for a COMMAND whose shard goes to another member.  "
    "[default: ttl / 6]",
)
@options.no_url
@options.url
def share(
    group: str,
    command: tuple[str, ...],
    shards: int,
    ttl: float,
    grace: float | None,
    no_url: bool,
    url: str | None,
) -> None:
    """Share shards with the other members of GROUP, and run COMMAND for each shard held here.

    COMMAND gets COORD_SHARD (the
    number of the shard, from 0), COORD_TOKEN (the fencing token), COORD_ROLE and COORD_URL. When a
    shard goes to another member, COMMAND and all its descendants are ended first. A COMMAND that
    ends by itself is started again, after 1 second at first and 30 seconds at most. SIGINT, SIGTERM
    and SIGHUP end all commands and give all shards to the other members.
    """
    from coord.recipes.shards import MAX_SHARDS, ShardNames

    timing = Timing.of(validation.ttl(ttl))
    seconds = grace_of(grace, timing)
    check_command(command[0], "coord share")
    if not 1 <= shards <= MAX_SHARDS:
        raise BadArgument("shards", shards, f"must be a whole number from 1 to {MAX_SHARDS:,}")
    ShardNames(group, shards)
    store = store_url(url, None)

    from coord.cli.run.command_host import CommandHost

    # This forks, so it must come before anything that may start a thread.
    host = CommandHost(command, seconds, secret_variables() if no_url else ())

    from coord.api.sync_coordinator import Coordinator

    stop = threading.Event()
    received: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        received.append(number)
        stop.set()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    coordinator = Coordinator(store)
    try:
        member = coordinator.share(group, shards, ttl=ttl)
        runner = ShardRunner(host, seconds, None if no_url else store)
        member.work(runner.work)
        threading.Thread(target=host.listen, daemon=True).start()
        with member:
            while not (stop.is_set() or host.gone):
                stop.wait(0.2)
                if member.inner.engine is None:  # it has left the group
                    member.start()
    finally:
        coordinator.close()
        host.close()
    sys.stdout.flush()
    os._exit(exit_codes.SIGNALLED + received[0] if received else exit_codes.FAILED)


class ShardRunner:
    """Runs COMMAND for each shard, on the thread of the work of that shard.

    Args:
        host: The process that runs the commands.
        grace: Seconds between SIGTERM and SIGKILL.
        url: The URL for COMMAND; None if COMMAND gets none.
    """

    def __init__(self, host: CommandHost, grace: float, url: str | None) -> None:
        self._host, self._grace, self._url = host, grace, url

    def work(self, shard: int, term: Term) -> None:
        """Run COMMAND until the term is lost, and start it again whenever it ends by itself."""
        failures = 0
        while term.held:
            began = time.monotonic()
            ended = self._run(str(shard), term)
            if ended is None:
                return  # the host was killed, and its guardians have ended the commands
            if ended.survivors:
                _say(
                    f"cannot end process {', '.join(ended.survivors)} of shard {shard}: end it "
                    "yourself; the shard is not released before its lease has expired"
                )
                threading.Event().wait()  # as long as this does not return, nothing is released
            if term.lost.is_set():
                return
            failures = 0 if time.monotonic() - began > RESTART_MAX else failures + 1
            pause = min(RESTART_FIRST * 2 ** max(failures - 1, 0), RESTART_MAX)
            _say(f"shard {shard}: COMMAND ended with status {ended.status}; again in {pause:g} s")
            term.lost.wait(pause)

    def _run(self, shard: str, term: Term) -> Ended | None:
        host, deadline = self._host, term.deadline
        variables = {
            "COORD_SHARD": shard,
            "COORD_ROLE": term.role,
            "COORD_TOKEN": str(term.token),
        }
        if self._url is not None:
            variables["COORD_URL"] = self._url
        removed = term.lost.add_callback(lambda: self._end(shard, term))
        host.start(shard, variables, deadline)
        if term.lost.is_set():
            self._end(shard, term)  # it was lost just before
        try:
            while not host.gone:
                ended = host.ended(shard, 0.1)
                if ended is not None:
                    return ended
                if term.deadline > deadline and term.held:
                    deadline = term.deadline
                    host.extend(shard, deadline)
            return None
        finally:
            removed()

    def _end(self, shard: str, term: Term) -> None:
        now = total_seconds()
        self._host.end(shard, min(now + self._grace, max(term.deadline, now)))


def _say(text: str) -> None:
    print(f"coord share: {output.one_line(text)}", file=sys.stderr, flush=True)
