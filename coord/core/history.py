"""The terms of a role, as its store remembers them: who led, when, under which token, why it ended,
who asked.

The last `KEPT` terms of a role stand in its own row and are written by the very swaps that change
the lease: a claim closes what it replaces and opens its own, a release closes its own. So a term is
in the history when, and only when, its claim was applied. A holder that loses its lease cannot
write, so the next claim closes the term for it, as `expired`; where it is the same candidate that
claims again, it says why it had lost (`Claim.lost`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coord.core.lease import MAX_TOKEN, Lease, LossReason
from coord.core.operations import Claim, Release
from coord.core.validation import is_number

MAX_TERMS = 16
"""Terms of a role that its row remembers, the one that lasts included."""
MAX_INFO_LENGTH = 256
"""Characters of JSON up to which the info of a holder is kept with its term; a longer one is left
out."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_EXPIRED = LossReason.EXPIRED.value

Entry = dict[str, Any]
"""A term as it is stored: token, holder, info, since, until, reason, by. Where a store would have
to touch the entry before for it, this one may have `ended`, instead: [when the lease of that one
runs out, reason]. It may be kept as a text, lines of JSON of which each says more of it."""


@dataclass(frozen=True, slots=True)
class PastTerm:
    """One term. `since` and `until` are wall time, in seconds since 1970, for people; `until` is
    None while it lasts.

    `reason` is a `LossReason`, as text, or "" while the term lasts. `expired` may mean anything
    that kept the holder
    from renewing: it alone knew, and told it to its log. `by` says who asked for the end, where
    somebody did."""

    role: str
    token: int
    holder: str
    since: float
    until: float | None = None
    reason: str = ""
    by: str = ""
    info: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)


def short_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a holder's info: all of it, or nothing where it is long."""
    return dict(info) if not info or len(_encode(dict(info))) <= MAX_INFO_LENGTH else {}


def end_of_term(row: Lease, asked: Claim | Release, wall: float) -> tuple[float, str, str]:
    """The end of the term that lasts in `row` when `asked` is applied to it at `wall`: when, why,
    and who asked."""
    if isinstance(asked, Release):
        return wall, asked.reason, asked.by
    reason = _EXPIRED
    if asked.lost is not None and (row.holder, row.token) == (asked.holder, asked.lost[0]):
        reason = asked.lost[1]
    return min(wall, row.renewed_at + row.ttl), reason, ""


def new_entry(asked: Claim, token: int, wall: float) -> Entry:
    """The term that begins when `asked` is applied at `wall`, with the new `token`."""
    opened = {"token": token, "holder": asked.holder, "info": short_info(asked.info), "since": wall}
    return {**opened, "until": None, "reason": "", "by": ""}


def close_last(entries: Sequence[Entry], until: float, reason: str, by: str) -> list[Entry]:
    """The entries once the term that lasts, if there is one, has ended."""
    if not entries or entries[-1]["until"] is not None:
        return list(entries)
    return [*entries[:-1], {**entries[-1], "until": until, "reason": reason, "by": by}]


def after_swap(
    entries: Sequence[Entry], row: Lease, asked: Claim | Release, now: Lease, wall: float
) -> list[Entry]:
    """The entries once `asked` has made `now` of `row`, at `wall`."""
    entries = close_last(entries, *end_of_term(row, asked, wall))
    return (
        [*entries, new_entry(asked, now.token, wall)][-MAX_TERMS:]
        if isinstance(asked, Claim)
        else entries
    )


def parse(role: str, entries: object) -> list[PastTerm]:
    """What a stored list says, newest first. Total: what somebody wrote there by hand is passed
    over."""
    listed = entries if isinstance(entries, list) else []
    found = [
        entry
        for one in listed
        if (entry := one if isinstance(one, Mapping) else _told(one)) is not None
    ]
    seen = [
        _term(role, one, after_swap)
        for one, after_swap in zip(found, [*found[1:], None], strict=False)
    ]
    return [one for one in reversed(seen) if one is not None]


def _term(role: str, entry: Mapping[str, Any], after: Mapping[str, Any] | None) -> PastTerm | None:
    token, holder, since, until = (
        entry.get(name) for name in ("token", "holder", "since", "until")
    )
    info, reason = entry.get("info"), entry.get("reason")
    if not is_number(until) and after is not None:
        until, reason = _ended(after)
    if not isinstance(holder, str) or not is_number(token, MAX_TOKEN) or not is_number(since):
        return None
    return PastTerm(
        role=role,
        token=int(token),
        holder=holder,
        since=float(since),
        until=float(until) if is_number(until) else None,
        reason=str(reason or ""),
        by=str(entry.get("by") or ""),
        info=info if isinstance(info, dict) else {},
    )


def _ended(after: Mapping[str, Any]) -> tuple[float | None, str]:
    """When and why a term had ended upon which the entry `after` follows: that may say so in its
    stead."""
    said = after.get("ended")
    at, reason = said if isinstance(said, list) and len(said) == 2 else (None, None)
    moments = [float(moment) for moment in (at, after.get("since")) if is_number(moment)]
    return min(moments, default=None), reason if isinstance(
        reason, str
    ) else LossReason.EXPIRED.value


def _told(text: object) -> dict[str, Any] | None:
    """A term that is kept as lines of JSON, of which each says more of it."""
    entry: dict[str, Any] = {}
    for line in text.split("\n") if isinstance(text, str) else ():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if isinstance(said, dict):
            entry = {**said, **entry}  # what was said first stands: a term ends once
    return entry or None
