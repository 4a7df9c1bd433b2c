"""The exit statuses of `coord`, and which error causes which.

Those in the seventies follow sysexits.h where it has a status that fits. 126, 127 and 128 + n are
those of the shell.
"""

from __future__ import annotations

from coord.errors import (
    AcquireTimeout,
    BadArgument,
    CoordError,
    LeadershipLost,
    StoreRefused,
    StoreUnavailable,
    TickTooOld,
    TickUnfinished,
)

FAILED = 1
USAGE = 2
NOT_RUN = 65
UNAVAILABLE = 69
GUARDIAN_DIED = 70
TAKEN = 75
TIMED_OUT = 76
LOST = 77
REFUSED = 78
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128
INTERRUPTED = 130
"""128 + SIGINT."""
NOBODY_READS = 141
"""128 + SIGPIPE."""

HELP = """\b
Exit status:
  that of COMMAND, or 128+n if signal n ended COMMAND
    2  invalid option, role or URL
   69  the store cannot be reached (with --no-wait, or after --timeout)
   70  the guardian process was killed; coord run ended COMMAND
   75  another candidate is the leader (with --no-wait)
   76  another candidate is the leader (after --timeout)
   77  leadership was lost; coord run ended COMMAND
   78  the store refuses: not set up, or access denied
  126  COMMAND cannot be executed
  127  COMMAND was not found
128+n  signal n arrived while coord run waited
"""
ONCE_HELP = """\b
Exit status:
    0  COMMAND has ended with 0 and this is recorded, or the tick was run before
  that of COMMAND, or 128+n if signal n ended COMMAND
    2  invalid option, job or URL
   65  the tick is not run: too late, no longer kept, or begun before (with --no-retry)
   69  the store cannot be reached, or the run that ended with 0 is not recorded
   70  the guardian process was killed; coord once ended COMMAND
   76  another tick runs (after --timeout)
   77  the lease was lost; coord once ended COMMAND
   78  the store refuses: not set up, or access denied
  126  COMMAND cannot be executed
  127  COMMAND was not found
128+n  signal n arrived while coord once waited, or while ticks were left to run
"""
_COMMON = {
    0: "done",
    USAGE: "invalid option, role or URL",
    UNAVAILABLE: "the store cannot be reached",
    REFUSED: "the store refuses: not set up, or access denied",
    INTERRUPTED: "interrupted (Ctrl-C)",
}


def help_of(more: dict[int, str] | None = None) -> str:
    """Return the list of exit statuses for the end of a command's help.

    Args:
        more: The meanings of other statuses, or other words for the common ones; None means none.
    """
    statuses = {**_COMMON, **(more or {})}
    return "\n".join(
        [
            "\b",
            "Exit status:",
            *(f"  {number:>3}  {statuses[number]}" for number in sorted(statuses)),
        ]
    )


def of(error: CoordError) -> int:
    """Return the exit status for an error that ends the program."""
    for kind, status in (
        (BadArgument, USAGE),
        (StoreUnavailable, UNAVAILABLE),
        (StoreRefused, REFUSED),
        (AcquireTimeout, TIMED_OUT),
        (LeadershipLost, LOST),
        ((TickTooOld, TickUnfinished), NOT_RUN),
    ):
        if isinstance(error, kind):
            return status
    return FAILED
