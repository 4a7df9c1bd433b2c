"""A history: the events of a run, real or simulated, which can be kept in a file and checked later.

Each operation has an event `invoke` and later one outcome: `ok` (with the answer), `fail` (it was
not done and never will be) or `unknown` (it may take effect at any later time, or never). An
operation without an outcome is unknown, too. The format follows Jepsen's histories. Times are in
seconds on one clock that all recorders share.

The checkers (`coord.testing.history.checkers`) understand these actions. The fields before the
arrow belong to the invoke, those after it to the outcome:

claim    holder, beat, expected ([holder, token, beat] or null), takeover, skew, floor
         -> applied, row
renew    holder, token, beat -> applied, row
release  holder, token, beat, linger, to (the candidate that the role is handed to, or null)
         -> applied, row
read     -> row
override expected, holder ("coord:revoked" or "coord:paused"), beat -> applied, row: an operator
         evicts a leader, or pauses or resumes a role
retire   expected -> applied: an operator deletes the row of a role that nobody needs
lose     released, row: the store may lose a release that it has acknowledged, which left the row
         `released`; the row is then as it was before. Without an outcome: perhaps
put      row: somebody wrote the row by hand; null means that they deleted it
believe  token: from the invoke to the outcome, `process` believes that it leads. Without an
         outcome, to the end of the history. With the outcome `unknown`, it died, and only the
         moment of the invoke is certain.
held     -> token (null for none): whether `process` believes that it leads, at one moment. Between
         two moments with the same token it believed so all the time, because a term that is over
         never comes back.
write    token -> accepted: a write to a fenced resource, whose name is in `role`

A `row` is [holder, token, beat]; a role without a row is [null, 0, 0].
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from coord.testing.history.checkers import BadHistory, Violation, check
from coord.testing.history.events import KINDS, Event, Kind, MalformedHistory, Operation


class History:
    """Events in the order in which they happened. Several threads may record at the same time.

    Args:
        events: The events so far.
        now: Returns the time of a new event, in seconds. It must never go back. All processes of a
            machine share the default, `time.monotonic`, and `History.read` joins their files.
    """

    def __init__(
        self, events: Iterable[Event] = (), now: Callable[[], float] = time.monotonic
    ) -> None:
        self.events = list(events)
        self.now = now
        self._lock = threading.Lock()
        self._next = 0
        self._open: dict[tuple[str, int], Event] = {}

    def invoke(self, process: str, action: str, role: str, **value: Any) -> tuple[str, int]:
        """Record that an operation begins.

        Args:
            process: Who performs it.
            action: What it is; see the docstring of the module.
            role: The role, or the name of the fenced resource.
            value: The fields of the invoke.

        Returns:
            The key of the operation, for `ok`, `fail` or `unknown`.
        """
        with self._lock:
            self._next += 1
            event = Event("invoke", self.now(), process, self._next, action, role, value)
            self._open[process, event.op] = event
            self.events.append(event)
        return process, event.op

    def ok(self, key: tuple[str, int], **value: Any) -> None:
        """Record the answer of an operation."""
        self._end("ok", key, value)

    def fail(self, key: tuple[str, int], **value: Any) -> None:
        """Record that an operation was not done and never will be."""
        self._end("fail", key, value)

    def unknown(self, key: tuple[str, int], **value: Any) -> None:
        """Record that an operation may take effect at any later time, or never."""
        self._end("unknown", key, value)

    def _end(self, kind: Kind, key: tuple[str, int], value: Mapping[str, Any]) -> None:
        with self._lock:
            begun = self._open.pop(key)
            self.events.append(
                Event(kind, self.now(), begun.process, begun.op, begun.action, begun.role, value)
            )

    def write(self, path: str | Path) -> None:
        """Write the events to a file, one JSON object a line."""
        lines = (json.dumps(asdict(event), ensure_ascii=False) + "\n" for event in self.events)
        Path(path).write_text("".join(lines), encoding="utf-8")

    @classmethod
    def read(cls, *paths: str | Path) -> History:
        """Read the events of one file, or of several files, one a process, in order of time.

        Where events in different files have the same time, an invoke counts as the earlier one, so
        that operations which may have overlapped do overlap.

        Raises:
            MalformedHistory: A line is not an event.
        """
        events: list[Event] = []
        for path in paths:
            for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
                if line.strip():
                    events.append(_parsed(line, f"{path}:{number}"))
        if any(first.at > second.at for first, second in itertools.pairwise(events)):
            events.sort(key=lambda event: (event.at, event.kind != "invoke"))
        return cls(events)

    def operations(self) -> list[Operation]:
        """Return the operations, in the order of their invokes.

        Raises:
            MalformedHistory: No run can have produced these events.
        """
        begun: dict[tuple[str, int], int] = {}
        ends: dict[tuple[str, int], int] = {}
        last = float("-inf")
        for place, event in enumerate(self.events):
            key, name = (event.process, event.op), f"operation {event.op} of {event.process!r}"
            if event.at < last:
                raise MalformedHistory(f"event {place} is earlier than the one before it")
            last = event.at
            if event.kind == "invoke":
                if key in begun:
                    raise MalformedHistory(f"{name} is invoked twice")
                begun[key] = place
            elif key not in begun:
                raise MalformedHistory(f"{name} ends without having begun")
            elif key in ends:
                raise MalformedHistory(f"{name} ends twice")
            else:
                ends[key] = place
        return [self._operation(place, ends.get(key)) for key, place in begun.items()]

    def _operation(self, called: int, returned: int | None) -> Operation:
        start, end = self.events[called], None if returned is None else self.events[returned]
        outcome = cast("Literal['ok', 'fail', 'unknown']", "unknown" if end is None else end.kind)
        return Operation(
            start.process,
            start.op,
            start.action,
            start.role,
            start.value,
            outcome,
            {} if end is None else end.value,
            called,
            None if outcome == "unknown" else returned,
            start.at,
            None if end is None else end.at,
        )

    def violations(self) -> list[Violation]:
        """Return every promise that this history breaks, as a list of
        `coord.testing.history.checkers.Violation`; it is empty for a good history."""
        return judge(self)

    def verify(self) -> None:
        """Check that this history breaks no promise.

        Raises:
            BadHistory: It does; this AssertionError lists the violations.
        """
        if violations := self.violations():
            raise BadHistory(violations)


def judge(history: History, *, floors: bool = False) -> list[Violation]:
    """Return everything in a history that must not be; an empty list for a good history.

    Args:
        history: The history.
        floors: Whether the store may raise tokens by itself, as Redis does after a restart and
            PostgreSQL after a promotion. A claim may then get any higher token; otherwise it gets
            the next one.

    Raises:
        MalformedHistory: The history is no history.
        Undecided: Too much is unknown to tell.
    """
    last = history.events[-1].at if history.events else 0.0
    return check(list(history.operations()), last, floors)


def _parsed(line: str, where: str) -> Event:
    try:
        event = Event(**json.loads(line))
    except (ValueError, TypeError) as err:
        raise MalformedHistory(f"{where}: not an event ({err})") from None
    plain = (
        event.kind in KINDS
        and isinstance(event.at, (int, float))
        and not isinstance(event.op, bool)
        and isinstance(event.op, int)
        and all(isinstance(text, str) for text in (event.process, event.action, event.role))
        and isinstance(event.value, Mapping)
    )
    if not plain:
        raise MalformedHistory(f"{where}: an event with fields of the wrong kind")
    return event
