"""What the state machine of a candidate returns: the next action, and the events of its terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Union

from coord.core.lease import Lease, LossReason
from coord.core.operations import Operation


class Send(NamedTuple):
    """Send a request to the store now.

    Attributes:
        operation: The request.
        timeout: Seconds after which the caller gives the request up; the result is then an unknown
            `Failure`.
    """

    operation: Operation
    timeout: float


class Wait(NamedTuple):
    """Do nothing for `seconds`, which may be infinite, unless something happens."""

    seconds: float


class Done:
    """The candidate is stopped: nothing is left to do."""

    __slots__ = ()


Action = Union[Send, Wait, Done]


class Elected(NamedTuple):
    """A term begins.

    Attributes:
        lease: The lease, with the token of the term.
        deadline: When the term ends on the total clock; each renewal moves it.
    """

    lease: Lease
    deadline: float


class Lost(NamedTuple):
    """A term has ended.

    Attributes:
        token: The token of the term.
        reason: Why it ended.
    """

    token: int
    reason: LossReason


@dataclass(frozen=True, slots=True)
class LeaseObserved:
    """What a candidate saw of the lease."""

    lease: Lease


class LeaderObserved(LeaseObserved):
    """The lease has another holder or token than before; the holder may be this candidate."""

    __slots__ = ()


class InfoObserved(LeaseObserved):
    """The leader, which is another candidate, changed its info during its term."""

    __slots__ = ()


class PauseObserved(LeaseObserved):
    """An operator has paused the role, or has resumed it.

    Attributes:
        lease: The lease; `lease.paused` says which.
    """

    __slots__ = ()


Event = Union[Elected, Lost, LeaderObserved, InfoObserved, PauseObserved]
