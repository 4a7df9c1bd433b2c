"""The history of a role: its last terms, with holder, token, times and the reason of the end.

The row of the role contains its last `MAX_TERMS` terms. The swaps that change the lease also write
them: a claim closes the term that it replaces and begins its own, a release closes its own, and an
operator's override closes the term that it ends. So a term is in the history exactly if its claim
was applied. A holder that loses its lease cannot write, so the next claim closes its term as
`expired`. If the same candidate claims again, it knows the real reason and writes that
(`Claim.lost`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coord.core.lease import MAX_TOKEN, Lease, LossReason, copy_info
from coord.core.operations import Claim, Override, Release
from coord.core.validation import is_number

MAX_TERMS = 16
"""Terms that a row contains, including the current one."""
MAX_INFO_LENGTH = 256
"""Characters of JSON that the info of a term may have; a longer info is left out."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_EXPIRED = LossReason.EXPIRED.value

Entry = dict[str, Any]
"""A term as it is stored: token, holder, info, since, until, reason, by.

If a store does not change the entry before, an entry may have a field `ended` instead: when the
lease of the term before expired, and the reason. An entry may also be a text of several lines of
JSON, each with more fields.
"""


@dataclass(frozen=True, slots=True)
class PastTerm:
    """One term of a role, for people.

    Attributes:
        role: The role.
        token: The fencing token of the term.
        holder: The id of the candidate that led.
        since: When the term began: wall time, in seconds since 1970.
        until: When the term ended, likewise; None while it lasts.
        reason: A `LossReason` as text; "" while the term lasts. `expired` may mean anything that
            kept the holder from renewing; the reason is then in the log of the holder.
        by: Who requested the end; "" if nobody did.
        info: What the holder said about itself, if it is short.
    """

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


def end_of_term(
    row: Lease, operation: Claim | Override | Release, wall: float
) -> tuple[float, str, str]:
    """Return when and why `operation` ends the term in `row`, and who requested that."""
    if isinstance(operation, (Override, Release)):
        return wall, operation.reason, operation.by
    reason = _EXPIRED
    if operation.lost is not None and (row.holder, row.token) == (
        operation.holder,
        operation.lost[0],
    ):
        reason = operation.lost[1]
    return min(wall, row.renewed_at + row.ttl), reason, ""


def new_entry(operation: Claim, token: int, wall: float) -> Entry:
    """Return the term that begins with `token` if `operation` is applied at `wall`."""
    begin = {
        "token": token,
        "holder": operation.holder,
        "info": short_info(operation.info),
        "since": wall,
    }
    return {**begin, "until": None, "reason": "", "by": ""}


def close_last(entries: Sequence[Entry], until: float, reason: str, by: str) -> list[Entry]:
    """Return the entries after the current term, if there is one, has ended."""
    if not entries or entries[-1]["until"] is not None:
        return list(entries)
    return [*entries[:-1], {**entries[-1], "until": until, "reason": reason, "by": by}]


def after_swap(
    entries: Sequence[Entry],
    row: Lease,
    operation: Claim | Override | Release,
    now: Lease,
    wall: float,
) -> list[Entry]:
    """Return the entries after `operation` has changed `row` into `now`, at `wall`."""
    entries = close_last(entries, *end_of_term(row, operation, wall))
    return (
        [*entries, new_entry(operation, now.token, wall)][-MAX_TERMS:]
        if isinstance(operation, Claim)
        else entries
    )


def parse(role: str, entries: object) -> list[PastTerm]:
    """Return the terms in a stored list, newest first. Malformed entries are ignored."""
    listed = entries if isinstance(entries, list) else []
    parsed = [item if isinstance(item, Mapping) else _parse_lines(item) for item in listed]
    valid = [entry for entry in parsed if entry is not None]
    terms = [
        _term(role, entry, later) for entry, later in zip(valid, [*valid[1:], None], strict=False)
    ]
    return [term for term in reversed(terms) if term is not None]


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
    ended = after.get("ended")
    at, reason = ended if isinstance(ended, list) and len(ended) == 2 else (None, None)
    times = [float(time) for time in (at, after.get("since")) if is_number(time)]
    return min(times, default=None), reason if isinstance(reason, str) else LossReason.EXPIRED.value


def _parse_lines(text: object) -> dict[str, Any] | None:
    """Return the entry in a text of JSON lines, each with more fields; None if it is malformed."""
    entry: dict[str, Any] = {}
    for line in text.split("\n") if isinstance(text, str) else ():
        try:
            decoded = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if isinstance(decoded, dict):
            entry = {**decoded, **entry}  # A term ends once, so earlier lines win.
    return entry or None
