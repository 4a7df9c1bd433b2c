"""The exit statuses of `coord`, and which error gets which.

Those in the seventies follow sysexits.h where it has a fitting one; 126, 127 and 128 + n are the
shell's."""

from __future__ import annotations

from coord.errors import (
    AcquireTimeout,
    BadArgument,
    CoordError,
    LeadershipLost,
    StoreRefused,
    StoreUnavailable,
)

FAILED = 1
USAGE = 2
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
  that of COMMAND, or 128+n when signal n ended it
    2  usage
   69  the store cannot be reached (--no-wait, or at the end of --timeout)
   70  the guardian process was killed; COMMAND was ended
   75  --no-wait, and somebody else leads
   76  --timeout passed, and somebody else leads
   77  leadership was lost, and COMMAND was ended for it
   78  the store refuses: not set up, or access denied
  126  COMMAND cannot be executed
  127  COMMAND is not to be found
128+n  signal n came while standing by
"""
_ALL_HAVE = {
    0: "done",
    USAGE: "usage: an option, a role or a URL that will not do",
    UNAVAILABLE: "the store cannot be reached",
    REFUSED: "the store refuses: not set up, or access denied",
    INTERRUPTED: "interrupted (Ctrl-C)",
}


def help_of(more: dict[int, str] | None = None) -> str:
    """The statuses of a command, for the end of its help: those that all have, with `more` or with
    other words."""
    statuses = {**_ALL_HAVE, **(more or {})}
    return "\n".join(
        [
            "\b",
            "Exit status:",
            *(f"  {number:>3}  {statuses[number]}" for number in sorted(statuses)),
        ]
    )


def of(error: CoordError) -> int:
    """The status that an error which ends the program is reported with."""
    for kind, status in (
        (BadArgument, USAGE),
        (StoreUnavailable, UNAVAILABLE),
        (StoreRefused, REFUSED),
        (AcquireTimeout, TIMED_OUT),
        (LeadershipLost, LOST),
    ):
        if isinstance(error, kind):
            return status
    return FAILED
