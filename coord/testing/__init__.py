"""The public test kit. Each name is imported when it is first used, because coord itself needs
neither pytest nor hypothesis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.testing.clocks import ManualClock
    from coord.testing.contract import ContractServer, ServerContract, StoreContract
    from coord.testing.election_kit import ElectionKit
    from coord.testing.faulty_store import Fault, FaultyStore
    from coord.testing.history import History, judge
    from coord.testing.history.checkers import BadHistory, Violation
    from coord.testing.history.events import Event, MalformedHistory, Operation
    from coord.testing.history.linearizability import Undecided
    from coord.testing.history.recording import RecordingStore, look
    from coord.testing.proxy import FaultProxy, Link

_WHERE = {
    "BadHistory": "coord.testing.history.checkers",
    "ContractServer": "coord.testing.contract",
    "ElectionKit": "coord.testing.election_kit",
    "Event": "coord.testing.history.events",
    "Fault": "coord.testing.faulty_store",
    "FaultProxy": "coord.testing.proxy",
    "FaultyStore": "coord.testing.faulty_store",
    "History": "coord.testing.history",
    "Link": "coord.testing.proxy",
    "MalformedHistory": "coord.testing.history.events",
    "ManualClock": "coord.testing.clocks",
    "Operation": "coord.testing.history.events",
    "RecordingStore": "coord.testing.history.recording",
    "ServerContract": "coord.testing.contract",
    "StoreContract": "coord.testing.contract",
    "Undecided": "coord.testing.history.linearizability",
    "Violation": "coord.testing.history.checkers",
    "judge": "coord.testing.history",
    "look": "coord.testing.history.recording",
}

__all__ = [
    "BadHistory",
    "ContractServer",
    "ElectionKit",
    "Event",
    "Fault",
    "FaultProxy",
    "FaultyStore",
    "History",
    "Link",
    "MalformedHistory",
    "ManualClock",
    "Operation",
    "RecordingStore",
    "ServerContract",
    "StoreContract",
    "Undecided",
    "Violation",
    "judge",
    "look",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
