"""The history of a role: its last terms, with holder, token, times and the reason of the end.

The row of the role contains its last `MAX_TERMS` terms. The swaps that change the lease also write
them: a claim closes the term that it replaces and begins its own, and a release closes its own. So
a term is in the history exactly if its claim was applied. A holder that loses its lease cannot
write, so the next claim closes its term as `expired`. If the same candidate claims again, it knows
the real reason and writes that (`Claim.lost`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coord.core.lease import MAX_TOKEN, Lease, LossReason, copy_info
from coord.core.operations import Claim, Release
from coord.core.validation import is_number

MAX_TERMS = 16
"""Terms that a row contains, including the current one."""
MAX_INFO_LENGTH = 256
"""Characters of JSON that the info of a term may have; a longer info is left out."""

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
    """Return the info of a holder for its term: all of it, or nothing if it is too long."""
    return dict(info) if not info or len(_encode(dict(info))) <= MAX_INFO_LENGTH else {}


def end_of_term(row: Lease, asked: Claim | Release, wall: float) -> tuple[float, str, str]:
    """Return when and why the term in `row` ends, and who asked, if `asked` is applied now."""
    if isinstance(asked, Release):
        return wall, asked.reason, asked.by
    reason = _EXPIRED
    if asked.lost is not None and (row.holder, row.token) == (asked.holder, asked.lost[0]):
        reason = asked.lost[1]
    return min(wall, row.renewed_at + row.ttl), reason, ""


def new_entry(asked: Claim, token: int, wall: float) -> Entry:
    """Return the term that begins with `token` if `asked` is applied at `wall`."""
    opened = {"token": token, "holder": asked.holder, "info": short_info(asked.info), "since": wall}
    return {**opened, "until": None, "reason": "", "by": ""}


def close_last(entries: Sequence[Entry], until: float, reason: str, by: str) -> list[Entry]:
    """Return the entries after the current term, if there is one, has ended."""
    if not entries or entries[-1]["until"] is not None:
        return list(entries)
    return [*entries[:-1], {**entries[-1], "until": until, "reason": reason, "by": by}]


def after_swap(
    entries: Sequence[Entry], row: Lease, asked: Claim | Release, now: Lease, wall: float
) -> list[Entry]:
    """Return the entries after `asked` has changed `row` into `now`, at `wall`."""
    entries = close_last(entries, *end_of_term(row, asked, wall))
    return (
        [*entries, new_entry(asked, now.token, wall)][-MAX_TERMS:]
        if isinstance(asked, Claim)
        else entries
    )


def parse(role: str, entries: object) -> list[PastTerm]:
    """Return the terms in a stored list, newest first. Malformed entries are ignored."""
    listed = entries if isinstance(entries, list) else []
    found = [
        entry
        for one in listed
        if (entry := one if isinstance(one, Mapping) else _parse_lines(one)) is not None
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
        info=copy_info(info) if isinstance(info, dict) else {},
    )


def _ended(after: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return when and why the term before the entry `after` ended, going by that entry."""
    said = after.get("ended")
    at, reason = said if isinstance(said, list) and len(said) == 2 else (None, None)
    moments = [float(moment) for moment in (at, after.get("since")) if is_number(moment)]
    return min(moments, default=None), reason if isinstance(
        reason, str
    ) else LossReason.EXPIRED.value


def _parse_lines(text: object) -> dict[str, Any] | None:
    """Return the entry in a text of JSON lines, each with more fields; None if it is malformed."""
    entry: dict[str, Any] = {}
    for line in text.split("\n") if isinstance(text, str) else ():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if isinstance(said, dict):
            entry = {**said, **entry}  # A term ends once, so earlier lines win.
    return entry or None
