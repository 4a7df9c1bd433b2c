"""What the pages show, as values: templates and the script build the same tables from them.

A cell is a dict with `text`, and with `href` if it is a link or `at` if it is a time in seconds
since 1970. Text from the store is made printable here. The template escapes it, and the script
inserts it as text.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

from coord.api import display
from coord.api.overview import Overview
from coord.core.announcements import Candidate
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.web.security import encode

MAX_ROWS = 1000
"""Rows of a table. The JSON interface has no limit."""
ROLE_COLUMNS = ("role", "leader", "token", "since", "time left", "waiting", "last loss")
CANDIDATE_COLUMNS = ("candidate", "runs on", "priority", "waits since", "info")
TERM_COLUMNS = ("token", "leader", "runs on", "from", "until", "lasted", "ended", "requested by")
SERVICE_COLUMNS = ("service", "role", "load", "host", "ttl", "last heartbeat", "info")
SERVICE_FIELDS = ("id", "role", "load", "host", "ttl", "last_heartbeat", "first_heartbeat")

Cell = dict[str, Any]
View = dict[str, Any]


def roles_view(overview: Overview, base: str) -> View:
    """Return the page of all roles.

    Args:
        overview: The roles.
        base: The relative URL of the start page from the page that shows this.
    """
    leases = overview.leases
    led = sum(lease.led for lease in leases)
    rows = [_row(lease.role, _role_cells(overview, lease, base)) for lease in leases[:MAX_ROWS]]
    summary = f"{_count(len(leases), 'role')}, {led} with a leader"
    return {
        "tables": {"roles": rows},
        "texts": {"summary": summary + _hidden(len(leases)), "note": overview.note},
    }


def role_view(overview: Overview, role: str) -> View:
    """Return the page of one role, which need not be in the overview."""
    lease = next((row for row in overview.leases if row.role == role), Lease(role))
    candidates = [row for row in overview.candidates or () if row.role == role]
    terms = [term for term in overview.terms if term.role == role]
    return {
        "facts": _facts(overview, lease),
        "tables": {
            "candidates": [
                _row(candidate.id, _candidate_cells(candidate))
                for candidate in candidates[:MAX_ROWS]
            ],
            "terms": [_row(str(term.token), _term_cells(term, lease)) for term in terms],
        },
        "bars": _bars(terms, lease),
        "texts": {"note": overview.note},
    }


def services_view(records: Sequence[Mapping[str, Any]]) -> View:
    """Return the page of the healthy services."""
    rows = [
        _row(f"{record.get('role')} {record.get('id')}", _service_cells(record))
        for record in records[:MAX_ROWS]
    ]
    summary = _count(len(records), "healthy service") + _hidden(len(records))
    return {"tables": {"services": rows}, "texts": {"summary": summary}}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _hidden(number: int) -> str:
    return f"; the first {MAX_ROWS} are shown" if number > MAX_ROWS else ""


def _row(key: str, cells: list[Cell]) -> View:
    return {"key": display.sanitize(key), "cells": cells}


def _text(value: object) -> Cell:
    return {"text": display.sanitize(value)}


def time_cell(at: float | None) -> Cell:
    """Return a time in seconds since 1970; an empty cell if it is None, 0 or no time."""
    if not at:
        return {"text": ""}
    try:
        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):  # The store may contain any number.
        return {"text": ""}
    return {"text": f"{moment:%Y-%m-%d %H:%M:%S} UTC", "at": round(at, 3)}


def _role_cells(overview: Overview, lease: Lease, base: str) -> list[Cell]:
    name: Cell = {"text": display.sanitize(lease.role), "href": f"{base}roles/{encode(lease.role)}"}
    waiting = "" if overview.waiting is None else overview.waiting[lease.role]
    return [
        name,
        {"text": _leader(lease)},
        _text(lease.token),
        _since(lease),
        {"text": _left(lease)},
        _text(waiting),
        {"text": _last_loss(overview, lease.role)},
    ]


def _leader(lease: Lease) -> str:
    if lease.led:
        return display.describe_candidate(lease.holder, lease.info)
    return display.describe_vacancy(lease)


def _since(lease: Lease) -> Cell:
    return time_cell(lease.since if lease.led or lease.withheld else None)


def _left(lease: Lease) -> str:
    return "" if not lease.led else f"{max(0.0, lease.remaining):.1f} s of {lease.ttl:g} s"


def _last_loss(overview: Overview, role: str) -> str:
    lost = overview.lost.get(role)
    if lost is None or lost.until is None:
        return ""
    ago = display.format_duration(time.time() - lost.until)
    by = f" by {display.sanitize(lost.by)}" if lost.by else ""
    return f"{display.sanitize(lost.reason)} {ago} ago{by}"


def _facts(overview: Overview, lease: Lease) -> list[View]:
    led = lease.led
    waiting = "unknown" if overview.waiting is None else overview.waiting[lease.role]
    info = display.format_info(lease.info, but=display.IDENTITY) if led else ""
    facts: list[tuple[str, Cell]] = [
        ("Leader", {"text": _leader(lease)}),
        ("Token", _text(lease.token)),
        ("Since", _since(lease)),
        ("Time left", {"text": _left(lease)}),
        ("Waiting", _text(waiting)),
        ("Last loss", {"text": _last_loss(overview, lease.role)}),
        ("Info", {"text": info}),
        ("Candidate id", _text(lease.holder if led else "")),
    ]
    return [{"name": name, "cell": cell} for name, cell in facts]


def _candidate_cells(candidate: Candidate) -> list[Cell]:
    return [
        {"text": display.candidate_name(candidate.id, candidate.info)},
        {"text": display.candidate_place(candidate.info)},
        _text(candidate.priority),
        time_cell(candidate.since),
        {"text": display.format_info(candidate.info, but=display.IDENTITY)},
    ]


def _end(term: PastTerm, lease: Lease) -> float | None:
    """Return when a term ended; None if that is not known. The current term ends now."""
    if term.until is None and lease.led and lease.token == term.token:
        return time.time()
    return term.until


def _term_cells(term: PastTerm, lease: Lease) -> list[Cell]:
    leads = lease.led and lease.token == term.token and term.until is None
    end = _end(term, lease)
    return [
        _text(term.token),
        {"text": display.candidate_name(term.holder, term.info)},
        {"text": display.candidate_place(term.info)},
        time_cell(term.since),
        time_cell(term.until),
        {"text": "" if end is None else display.format_duration(end - term.since)},
        _text(term.reason or ("leads" if leads else "ran out")),
        _text(term.by),
    ]


TIMELINE_WIDTH = 1000
MIN_BAR = 3


def _bars(terms: Sequence[PastTerm], lease: Lease) -> View:
    """Return the time line: one bar for each term whose end is known, from the oldest to now."""
    now = time.time()
    spans = [(term, end) for term in terms if (end := _end(term, lease)) is not None]
    usable = [(term, end) for term, end in spans if 0 < term.since <= end <= now + 60]
    if not usable:
        return {"bars": [], "start": time_cell(None)}
    start = min(term.since for term, _ in usable)
    scale = TIMELINE_WIDTH / max(now - start, 1.0)
    holders = list(dict.fromkeys(term.holder for term, _ in reversed(usable)))
    bars = []
    for term, end in reversed(usable):
        who = display.candidate_name(term.holder, term.info)
        lasted = display.format_duration(end - term.since)
        width = max((min(end, now) - term.since) * scale, MIN_BAR)
        offset = min((term.since - start) * scale, TIMELINE_WIDTH - width)
        bars.append(
            {
                "x": round(offset, 1),
                "width": round(width, 1),
                "kind": holders.index(term.holder) % 4,
                "title": f"token {term.token}: {who}, {lasted}",
            }
        )
    return {"bars": bars, "start": time_cell(start)}


def _service_cells(record: Mapping[str, Any]) -> list[Cell]:
    others = {name: value for name, value in record.items() if name not in SERVICE_FIELDS}
    heartbeat = record.get("last_heartbeat")
    last_seen = (
        time_cell(heartbeat.timestamp())
        if isinstance(heartbeat, datetime.datetime)
        else _text(heartbeat)
    )
    return [
        _text(record.get("id")),
        _text(record.get("role")),
        _text(record.get("load")),
        _text(record.get("host")),
        _text(record.get("ttl")),
        last_seen,
        {"text": display.format_info(others)},
    ]
