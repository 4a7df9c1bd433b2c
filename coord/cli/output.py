"""Text that others wrote, made fit for a terminal: nothing in it is obeyed, and none of it floods
the screen.

Roles, ids, what candidates say of themselves, service records, error texts: anybody who may write
to the store may put anything there. `--json` shows it whole; JSON escapes what a terminal would
obey."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.core.history import PastTerm
from coord.core.lease import Lease

if TYPE_CHECKING:
    from rich.table import Table


MOST = 200
"""Characters of one thing that are shown, unless told otherwise."""
LONGEST = 2_000
"""Characters of a whole message."""
CUT = "…"


def sanitize(value: object, most: int = MOST) -> str:
    """`value` as at most `most` characters on one line. What is not printable is escaped as Python
    would.

    That holds control characters, line ends, lone surrogates, and what reorders or hides the text
    around it (bidirectional overrides, zero-width characters): Python counts none of them as
    printable."""
    text = "" if value is None else value if isinstance(value, str) else str(value)
    shown = "".join(char if char.isprintable() else _escaped(char) for char in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - len(CUT)] + CUT


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def quote(value: object, most: int = MOST) -> str:
    """The same in quotes, for a sentence."""
    return f"'{sanitize(value, most)}'"


def one_line(text: str) -> str:
    """A message that may hold foreign text, on one line."""
    return sanitize(" ".join(text.split()), LONGEST)


def format_info(info: object, most: int = MOST, *, but: tuple[str, ...] = ()) -> str:
    """What a candidate says about itself, as `key=value` pairs; what is not such a thing, as it
    is."""
    if not isinstance(info, Mapping):
        return sanitize(info, most)
    shown, length = [], 0
    for key, value in info.items():
        if key in but:
            continue
        shown.append(f"{sanitize(key, most)}={_value(value, most)}")
        length += len(shown[-1]) + 1
        if length > most:
            break
    return sanitize(" ".join(shown), most)


def describe_candidate(candidate: str | None, info: object) -> str:
    """A candidate for people: where it says that it runs, or else its id."""
    about = info if isinstance(info, Mapping) else {}
    host, pid = sanitize(about.get("host"), 80), sanitize(about.get("pid"), 20)
    if not host:
        return f"candidate {sanitize(candidate, 80)}"
    return f"pid {pid} on {host}" if pid else host


def _value(value: object, most: int) -> str:
    if isinstance(value, str):
        return (
            sanitize(value, most) if value and not set(value) & set(" ='\"") else quote(value, most)
        )
    return sanitize(to_json(value), most)


def to_json(value: Any) -> str:
    """All of it, as JSON in ASCII: what JSON cannot hold (a time, bytes) as text."""
    return json.dumps(value, default=str).replace(
        "\x7f", "\\u007f"
    )  # the one control character that JSON lets through


# -- Moments and durations for people.

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def format_time(at: float | None) -> str:
    """A moment (seconds since 1970) in local time: with the date when it was not today. "" for
    none, and for 0."""
    if not at:
        return ""
    try:
        local = time.localtime(at)
    except (OverflowError, ValueError, OSError):  # somebody wrote it by hand
        return ""
    today = time.strftime("%Y-%m-%d", local) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", local)


def format_duration(seconds: float) -> str:
    """A duration, in its largest unit; below two of it in the next smaller one."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{max(seconds, 0.0):.0f} s"


# -- Tables for people.

GAP = "  "


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = MOST) -> None:
    """Print a table on stdout: as wide as the terminal, and into a pipe as wide as it needs to
    be."""
    if not sys.stdout.isatty():
        _pipe(columns, rows, most)
        return
    from rich.console import Console

    Console(width=shutil.get_terminal_size().columns, highlight=False).print(
        build_table(columns, rows, most)
    )


def build_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = MOST
) -> Table:
    """The table: foreign text, `most` characters of each cell. A column that has nothing in it is
    left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    names, cells = _used(columns, rows, most)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _used(
    columns: Sequence[str], rows: Iterable[Sequence[object]], most: int
) -> tuple[list[str], list[list[str]]]:
    shown = [[sanitize(cell, most) for cell in row] for row in rows]
    used = [number for number in range(len(columns)) if any(row[number] for row in shown)]
    return [columns[number] for number in used], [[row[number] for number in used] for row in shown]


def _pipe(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int) -> None:
    """One line a row, for grep. Without rich: ten thousand rows take it five seconds."""
    from rich.cells import cell_len

    names, cells = _used(columns, rows, most)
    lines = [names, *cells]
    widths = [max(cell_len(line[number]) for line in lines) for number in range(len(names))]
    for line in lines:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        )
        print(GAP.join(padded).rstrip())


def term_as_dict(term: PastTerm) -> dict[str, Any]:
    """A term for JSON. `since` and `until` in seconds since 1970; `until` is null while nobody has
    ended it."""
    return {
        "role": term.role,
        "token": term.token,
        "holder": term.holder,
        "since": term.since,
        "until": term.until,
        "reason": term.reason,
        "by": term.by,
        "info": term.info,
    }


def lease_as_dict(lease: Lease) -> dict[str, Any]:
    """A lease for JSON: seconds; `renewed_at`, and `since` when the term began (0: unknown), in
    seconds since 1970."""
    return {
        "role": lease.role,
        "holder": lease.holder,
        "token": lease.token,
        "ttl": lease.ttl,
        "remaining": round(max(0.0, lease.remaining), 3),
        "renewed_at": lease.renewed_at,
        "since": lease.since,
        "info": lease.info,
    }
