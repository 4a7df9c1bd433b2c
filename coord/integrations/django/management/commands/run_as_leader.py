"""`manage.py run_as_leader`: runs another management command while this process leads a role."""

from __future__ import annotations

import argparse
import contextlib
import difflib
from typing import Any

from django.core.management import BaseCommand, CommandError, call_command, get_commands

from coord.api import display
from coord.api.leader_only import leader_only
from coord.api.sync_coordinator import Coordinator
from coord.errors import (
    BadArgument,
    CoordError,
    LeadershipLost,
    NotLeader,
    StoreRefused,
    StoreUnavailable,
)
from coord.integrations.django.apps import store_url

USAGE, UNAVAILABLE, TAKEN, LOST, REFUSED = 2, 69, 75, 77, 78
"""The exit statuses, which are those of `coord run`."""
_STATUSES = (
    (BadArgument, USAGE),
    (StoreUnavailable, UNAVAILABLE),
    (NotLeader, TAKEN),
    (LeadershipLost, LOST),
    (StoreRefused, REFUSED),
)


class Command(BaseCommand):  # type: ignore[misc] # Django ships no types
    """Waits for the role, runs the command under the term, and releases the role."""

    help = (
        "Run COMMAND while this process is the leader of a role, and release the role afterwards. "
        "Inside, coord.current_term() is the term. SIGTERM ends COMMAND with SystemExit, and the "
        "exit status is then 143. Other exit statuses: 2 invalid argument, 69 the store cannot be "
        "reached, 75 another candidate leads (with --no-wait), 77 leadership was lost, 78 the "
        "store refuses."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this command."""
        parser.add_argument("--role", required=True, help="The role to lead.")
        parser.add_argument(
            "--no-wait",
            action="store_true",
            help="Do not wait. Exit with status 75 if another candidate is the leader.",
        )
        parser.add_argument(
            "--ttl",
            type=float,
            default=30.0,
            help="Lease duration in seconds. If the leader crashes, another candidate takes over "
            "after at most this time. Default: 30.",
        )
        parser.add_argument(
            "--at-least",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="Nobody else gets the role within this time after COMMAND has started, even if "
            "COMMAND ends sooner. Use it for short jobs with --no-wait.",
        )
        parser.add_argument(
            "command",
            nargs=argparse.REMAINDER,
            metavar="-- COMMAND",
            help="A management command and its arguments.",
        )

    def handle(
        self,
        *,
        role: str,
        no_wait: bool,
        ttl: float,
        at_least: float,
        command: list[str],
        **_: Any,
    ) -> None:
        """Run the command.

        Raises:
            CommandError: It did not run, or leadership was lost. `returncode` is the exit status.
        """
        name, arguments = _checked(command)
        try:
            with contextlib.closing(Coordinator(store_url())) as coordinator:
                run = leader_only(
                    role,
                    coordinator=coordinator,
                    ttl=ttl,
                    scope="call",
                    otherwise="raise" if no_wait else "wait",
                    at_least=at_least,
                )(call_command)
                try:
                    run(name, *arguments, stdout=self.stdout, stderr=self.stderr)
                except NotLeader as err:
                    raise _not_started(coordinator, role, err) from None
        except CoordError as err:
            status = next((number for kind, number in _STATUSES if isinstance(err, kind)), 1)
            raise CommandError(str(err), returncode=status) from None


def _not_started(coordinator: Coordinator, role: str, error: NotLeader) -> CommandError:
    """Return the error for a command that did not run, because this process does not lead."""
    if coordinator.session.last_error:
        return CommandError(str(error), returncode=UNAVAILABLE)
    lease = coordinator.leader(role)
    leader = "nobody" if lease is None else display.describe_candidate(lease.holder, lease.info)
    return CommandError(f"not started, the leader of {role!r} is {leader}", returncode=TAKEN)


def _checked(words: list[str]) -> tuple[str, list[str]]:
    """Return the name and the arguments of the command to run.

    Raises:
        CommandError: There is no such command.
    """
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise CommandError(
            "missing COMMAND: write the management command to run after --", returncode=USAGE
        )
    name, *arguments = words
    commands = get_commands()
    if name not in commands:
        similar = difflib.get_close_matches(name, commands, n=1)
        advice = f"did you mean {similar[0]}?" if similar else "see manage.py help"
        raise CommandError(
            f"invalid COMMAND {name!r}: must be a management command; {advice}", returncode=USAGE
        )
    return name, arguments
