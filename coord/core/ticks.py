"""Ticks of a job: each one is the name of one run, such as "the report of 02:00". A ledger says
which ticks were run, and is kept with the role of the job (`coord/core/kept.py`).

A tick is an int or a point in time. Only its name must agree between callers, so that clocks that
differ do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Union

from coord.core import validation
from coord.core.kept import MAX_KEEP
from coord.core.lease import MAX_TOKEN
from coord.errors import BadArgument, StoreRefused

MAX_RESULT_BYTES = 4_096
"""Bytes of JSON that the result of a run may have."""
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ALLOWED = (
    "must be an int, a datetime with a time zone, or a text in ISO format such as "
    "2026-11-30T02:00 (UTC if it names no offset)"
)

Tick = Union[int, str, datetime]
"""What a caller names a tick by."""
TickName = Union[int, str]
"""A tick as it is kept: an int, or a time in UTC such as "2026-11-30T02:00:00Z"."""


def tick_name(tick: object, argument: str = "tick") -> TickName:
    """Return the name of a tick, the same for each way of writing it.

    Raises:
        BadArgument: It is neither an int, nor a datetime with a time zone, nor an ISO text, or is
            out of range.
    """
    if isinstance(tick, int) and not isinstance(tick, bool):
        if abs(tick) > MAX_TOKEN:
            raise BadArgument(argument, tick, f"must be from {-MAX_TOKEN:,} to {MAX_TOKEN:,}")
        return tick
    if isinstance(tick, datetime) and tick.tzinfo is not None:
        return _time_name(tick)
    if isinstance(tick, str):
        try:
            return _time_name(tick_time(tick))
        except ValueError:
            pass
    raise BadArgument(argument, tick, ALLOWED)


def tick_time(name: str) -> datetime:
    """Return the time that an ISO text names; without an offset it is in UTC.

    Raises:
        ValueError: It is no ISO text.
    """
    text = f"{name[:-1]}+00:00" if name[-1:] in ("Z", "z") else name
    # Python 3.10 reads fractions of three or six digits only.
    text = re.sub(r"\.(\d+)", lambda fraction: f".{fraction[1][:6]:0<6}", text)
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time


def _time_name(time: datetime) -> str:
    try:
        utc = time.astimezone(timezone.utc)
    except OverflowError:
        raise BadArgument("tick", time, "must be between the years 1 and 9999 in UTC") from None
    return f"{utc.replace(tzinfo=None).isoformat()}Z"


def nearest_tick(every: object, offset: object, at: float | datetime) -> datetime:
    """Return the time of the tick that is nearest to `at`, in UTC.

    Nearest and not last: callers whose clocks differ by less than half of `every` agree.

    Args:
        every: Seconds from one tick to the next.
        offset: Seconds from midnight UTC of 1970-01-01 to a tick.
        at: A time, in seconds since 1970 or as a datetime with a time zone.

    Raises:
        BadArgument: An argument is invalid.
    """
    # Imported only here: the import takes a millisecond, and a job may name its ticks itself.
    from fractions import Fraction

    period = Fraction(validation.number(every, "every", low=0, above=True))
    shift = Fraction(validation.number(offset, "offset", low=-validation.MAX_SECONDS))
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise BadArgument("at", at, "must be a datetime with a time zone, or a number")
        seconds = Fraction((at - EPOCH) // timedelta(microseconds=1), 1_000_000)
    else:
        seconds = Fraction(validation.number(at, "at", low=0, high=2e11))
    number = (seconds - shift) / period + Fraction(1, 2)
    time = shift + (number.numerator // number.denominator) * period
    return EPOCH + timedelta(microseconds=round(time * 1_000_000))


def is_later(name: TickName, other: TickName) -> bool:
    """Return whether a tick is later than another one of the same kind."""
    return bool(_order(name) > _order(other))


def _order(name: TickName) -> Any:
    return name if isinstance(name, int) else tick_time(name)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one tick.

    Attributes:
        tick: The name of the tick.
        token: The fencing token of the term that it was run under.
        at: When it ended, or began: wall time of the caller, in seconds since 1970.
        begun: Whether a run that must not be repeated has begun, and has not ended.
        result: What the run returned.
    """

    tick: TickName
    token: int
    at: float
    begun: bool = False
    result: Any = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """Which ticks of a job were run.

    Attributes:
        entries: The latest ticks, in order.
        below: No tick at or below this one is run any more, unless it is among `entries`, where it
            was run; None if no tick was forgotten so far.
    """

    entries: tuple[Entry, ...] = ()
    below: TickName | None = None

    @classmethod
    def decode(cls, job: str, ticks: Mapping[str, Any]) -> Ledger:
        """Return the ledger that a job keeps.

        Raises:
            StoreRefused: Somebody else than coord wrote it.
        """
        try:
            below = ticks.get("below")
            entries = tuple(_entry(part) for part in ticks.get("runs", ()))
            names = [entry.tick for entry in entries] + ([] if below is None else [below])
            # Ticks of two kinds cannot be compared.
            sorted(map(_order, names))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise StoreRefused(
                f"the ticks that the role {job!r} keeps are damaged: correct its kept text in the "
                "store, or no tick of this job can be run"
            ) from None
        return cls(entries, below)

    def encode(self) -> dict[str, Any]:
        """Return what to keep."""
        runs = [
            {
                "tick": entry.tick,
                "token": entry.token,
                "at": entry.at,
                **({"begun": True} if entry.begun else {"result": entry.result}),
            }
            for entry in self.entries
        ]
        return {"runs": runs, **({} if self.below is None else {"below": self.below})}

    def get(self, name: TickName) -> Entry | None:
        """Return what is kept of a tick, if anything is."""
        return next((entry for entry in self.entries if entry.tick == name), None)

    def check_kind(self, name: TickName) -> None:
        """Check that a tick can be compared with those that are kept.

        Raises:
            BadArgument: The ticks of this job are of the other kind.
        """
        kept = self.entries[-1].tick if self.entries else self.below
        if kept is not None and type(kept) is not type(name):
            kind = "an int" if isinstance(kept, int) else "a time"
            raise BadArgument("tick", name, f"must be {kind}, like the other ticks of this job")

    def is_forgotten(self, name: TickName) -> bool:
        """Return whether nobody knows any more whether a tick was run, so that it must not be."""
        return self.below is not None and not is_later(name, self.below) and self.get(name) is None

    def with_entry(self, entry: Entry, keep: int) -> Ledger:
        """Return the ledger with this entry, and the `keep` latest of the others at most."""
        others = [each for each in self.entries if each.tick != entry.tick]
        entries = sorted([*others, entry], key=lambda each: _order(each.tick))
        forgotten, kept = entries[:-keep], entries[-keep:]
        below = self.below
        if forgotten and (below is None or is_later(forgotten[-1].tick, below)):
            below = forgotten[-1].tick
        return replace(self, entries=tuple(kept), below=below)


def missing_ticks(ledger: Ledger, last: datetime, every: float) -> list[datetime]:
    """Return the ticks that were left out since the last one that was recorded, and `last`.

    Args:
        ledger: The ledger of the job. Only times can be left out; a new job has left out nothing.
        last: The tick to run.
        every: Seconds from one tick to the next.
    """
    period = timedelta(seconds=every)
    missing = [last]
    recorded = [entry.tick for entry in ledger.entries if isinstance(entry.tick, str)]
    if recorded:
        newest = tick_time(recorded[-1])
        while len(missing) < MAX_KEEP and missing[-1] - period > newest:
            missing.append(missing[-1] - period)
    return missing[::-1]


def _entry(part: Mapping[str, Any]) -> Entry:
    tick, token, at = part["tick"], part["token"], part["at"]
    if not (isinstance(token, int) and validation.is_number(at)):
        raise TypeError
    return Entry(tick_name(tick), token, at, part.get("begun", False) is True, part.get("result"))
