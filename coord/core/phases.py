"""The phases of a candidate, and what makes it go from one phase to another."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Phase(enum.Enum):
    """What a candidate does at present."""

    UNSEEN = "unseen"  # is a candidate, and has not seen the row yet
    FOLLOWING = "following"  # has seen the row, and waits until it may claim the role
    LEADING = "leading"  # holds the lease, and believes so until the deadline
    DRAINING = "draining"  # gives the role up: does not lead, and renews while the work ends
    RELEASING = "releasing"  # the work has ended, and the lease is released
    STOPPED = "stopped"  # is no candidate any longer


class Cue(enum.Enum):
    """What makes a candidate go to another phase."""

    SEEN = "an answer showed the row"
    FAILED = "no answer"
    WON = "a claim was applied"
    WON_UNWANTED = "a claim was applied that is no longer wanted"
    RENEWED = "a renewal was applied"
    TAKEN = "according to the store, the lease is not ours"
    DEADLINE = "the deadline passed"
    RESIGN = "a request to hand the role over"
    DRAINED = "the work has ended"
    ABANDONED = "the work did not end in time"
    RELEASED = "the release was answered"
    STOP = "nothing is held, and it is no candidate"


TRANSITIONS: Mapping[Phase, Mapping[Cue, Phase]] = {
    Phase.UNSEEN: {
        Cue.SEEN: Phase.FOLLOWING,
        Cue.FAILED: Phase.UNSEEN,
        Cue.WON: Phase.LEADING,
        Cue.WON_UNWANTED: Phase.RELEASING,
        Cue.STOP: Phase.STOPPED,
    },
    Phase.FOLLOWING: {
        Cue.SEEN: Phase.FOLLOWING,
        Cue.FAILED: Phase.FOLLOWING,
        Cue.WON: Phase.LEADING,
        Cue.WON_UNWANTED: Phase.RELEASING,
        Cue.STOP: Phase.STOPPED,
    },
    Phase.LEADING: {
        Cue.RENEWED: Phase.LEADING,
        Cue.FAILED: Phase.LEADING,
        Cue.TAKEN: Phase.FOLLOWING,
        Cue.DEADLINE: Phase.FOLLOWING,
        Cue.RESIGN: Phase.DRAINING,
    },
    Phase.DRAINING: {
        Cue.RENEWED: Phase.DRAINING,
        Cue.FAILED: Phase.DRAINING,
        Cue.TAKEN: Phase.FOLLOWING,
        Cue.DEADLINE: Phase.FOLLOWING,
        Cue.DRAINED: Phase.RELEASING,
        Cue.ABANDONED: Phase.FOLLOWING,
    },
    Phase.RELEASING: {
        Cue.FAILED: Phase.RELEASING,
        Cue.RELEASED: Phase.FOLLOWING,
        Cue.DEADLINE: Phase.FOLLOWING,
    },
    Phase.STOPPED: {},
}
"""The next phase for each cue. Any other pair is impossible, and raises `ImpossibleCue`."""

HOLDING = (Phase.LEADING, Phase.DRAINING, Phase.RELEASING)
"""The phases in which the candidate holds the lease."""


class ImpossibleCue(AssertionError):
    """A cue came that is impossible in the present phase: a defect of coord."""
