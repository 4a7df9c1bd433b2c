"""Mutants of coord.cli."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

GUARDIAN = "cli/run/test_guardian.py"
OUTPUT = "cli/test_output.py"
RUN = "cli/run/test_run.py"
TAKEOVER = "cli/run/test_takeover.py"

MUTANTS = [
    Mutant(
        "the kill time is not capped by the deadline",
        "coord.cli.run.guardian:Guardian._end",
        "min(self.kill_at, kill_at, self.deadline)",
        "min(self.kill_at, kill_at)",
        (f"{GUARDIAN}::test_the_kill_time_is_never_after_the_deadline[extend 0]",),
    ),
    Mutant(
        "a defect of the guardian leaves the command running",
        "coord.cli.run.guardian:Guardian.watch",
        "descendants.end_all(os.getpid(), self.child, KILL_WAIT)",
        "pass",
        (f"{GUARDIAN}::test_a_defect_of_the_guardian_ends_the_command",),
    ),
    Mutant(
        "a command whose role was taken has the full grace",
        "coord.cli.run.runner:Runner._end",
        "min(self.job.grace, TAKEN_GRACE)",
        "self.job.grace",
        (f"{TAKEOVER}::test_a_role_taken_by_force_gives_no_grace",),
    ),
    Mutant(
        "the deadline moves back",
        "coord.cli.run.guardian:Guardian._obey",
        "max(self.deadline, pipe.moment(payload))",
        "pipe.moment(payload)",
        (f"{GUARDIAN}::test_extending_moves_the_deadline_forward_and_never_back",),
    ),
    Mutant(
        "a command is started although it is too late",
        "coord.cli.run.guardian:Guardian._start",
        "total_seconds() >= self.deadline - self.grace",
        "total_seconds() >= self.deadline + self.grace",
        (f"{GUARDIAN}::test_too_late_to_start",),
    ),
    Mutant(
        "the guardian does not notice that the runner is gone",
        "coord.cli.run.guardian:Guardian._obey",
        "self._end(total_seconds() + self.grace, Cause.RUNNER_GONE)",
        "pass",
        (f"{GUARDIAN}::test_a_killed_runner",),
    ),
    Mutant(
        "the guardian leaves descendants of the command",
        "coord.cli.run.guardian:Guardian._enforce",
        "if self.status is not None and self._all_ended():",
        "if self.status is not None:",
        (f"{GUARDIAN}::test_what_is_left_of_the_group_is_ended",),
    ),
    Mutant(
        "the guardian is killed with the group of the runner",
        "coord.cli.run.guardian:live",
        "signal.signal(number, signal.SIG_IGN)",
        "pass",
        (f"{GUARDIAN}::test_signals_for_everybody_do_not_reach_the_guardian",),
    ),
    Mutant(
        "the guardian has the name of the runner",
        "coord.cli.run.guardian:live",
        "process.rename(NAME)",
        "pass",
        (f"{GUARDIAN}::test_killall_does_not_reach_the_guardian",),
    ),
    Mutant(
        "a lost lease is told as a command that failed",
        "coord.cli.run.runner:Runner._finish",
        "status = exit_codes.LOST\n        if survivors:",
        "status = exit_codes.FAILED\n        if survivors:",
        (f"{TAKEOVER}::test_a_role_taken_by_force",),
    ),
    Mutant(
        "SIGHUP under nohup ends a candidate that waits",
        "coord.cli.run.signals:SignalInbox.__init__",
        "number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN",
        "number is not None",
        (f"{RUN}::test_nohup_is_respected_while_it_waits",),
    ),
    Mutant(
        "the command does not get its token",
        "coord.cli.run.runner:Runner._work",
        "str(term.token)",
        "str(term.role)",
        (f"{RUN}::test_the_command_finds_role_token_and_url",),
    ),
    Mutant(
        "a role that another holds has the exit status of an outage",
        "coord.cli.run.runner:Standby.why_not",
        "return exit_codes.TAKEN",
        "return exit_codes.UNAVAILABLE",
        (f"{RUN}::test_no_wait_and_timeout_when_another_leads",),
    ),
    Mutant(
        "control characters of the store reach the terminal",
        "coord.api.display:sanitize",
        "char if char.isprintable() else _escaped(char)",
        "char if char else _escaped(char)",
        (f"{OUTPUT}::test_plain",),
    ),
    Mutant(
        "long texts of the store are shown in full",
        "coord.api.display:sanitize",
        "len(shown) <= most",
        "len(shown) >= 0",
        (f"{OUTPUT}::test_plain_is_bounded",),
    ),
    Mutant(
        "an invalid argument has the exit status of an outage",
        "coord.cli.exit_codes:of",
        "(BadArgument, USAGE)",
        "(BadArgument, UNAVAILABLE)",
        (f"{RUN}::test_mistakes_are_reported_in_a_line[words0-2-coord: invalid role '': ]",),
    ),
]
