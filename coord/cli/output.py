"""Formats output of the commands: tables, and the texts of `coord.api.display`, which commands take
from here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from coord.api.display import (
    IDENTITY,
    MAX_LENGTH,
    MAX_MESSAGE_LENGTH,
    candidate_as_dict,
    candidate_name,
    candidate_place,
    describe_candidate,
    describe_vacancy,
    format_duration,
    format_info,
    format_time,
    lease_as_dict,
    one_line,
    quote,
    sanitize,
    term_as_dict,
    to_json,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "IDENTITY",
    "MAX_LENGTH",
    "MAX_MESSAGE_LENGTH",
    "build_table",
    "candidate_as_dict",
    "candidate_name",
    "candidate_place",
    "describe_candidate",
    "describe_vacancy",
    "fitting_columns",
    "format_duration",
    "format_info",
    "format_time",
    "lease_as_dict",
    "one_line",
    "print_table",
    "quote",
    "sanitize",
    "term_as_dict",
    "to_json",
]

COLUMN_GAP = "  "


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = MAX_LENGTH
) -> None:
    """Print a table on stdout, as wide as the terminal; into a pipe as wide as necessary.

    Args:
        columns: The names of the columns.
        rows: The cells of each row. They may contain untrusted text.
        most: Characters to show of each cell.
    """
    if not sys.stdout.isatty():
        _pipe(columns, rows, most)
        return
    import shutil  # with every library for archives, of which `coord run` needs none

    from rich.console import Console

    Console(width=shutil.get_terminal_size().columns, highlight=False).print(
        build_table(columns, rows, most)
    )


def build_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    most: int = MAX_LENGTH,
    *,
    widths: Sequence[int] | None = None,
) -> Table:
    """Return a table that shows `most` characters of each cell, without empty columns.

    Args:
        columns: The names of the columns.
        rows: The cells of each row. They may contain untrusted text.
        most: Characters to show of each cell.
        widths: The width of each column, where longer cells are cut. None means that long cells
            continue on the next line. With widths, no column may be empty.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    names, cells = _used(columns, rows, most)
    for number, name in enumerate(names):
        if widths is None:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=widths[number])
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def fitting_columns(
    columns: Sequence[str], rows: Sequence[Sequence[object]], width: int, important: Sequence[str]
) -> dict[int, int]:
    """Return the columns for which a table of `width` characters has space, and their widths.

    Args:
        columns: The names of the columns.
        rows: The cells of each row.
        width: The width of the table.
        important: The names of the columns, the most important first. The first two are always
            part of the result, and cells in them are cut if necessary.
    """
    from rich.cells import cell_len

    widths = {}
    for name in important:
        number = columns.index(name)
        cells = [sanitize(row[number]) for row in rows]
        if any(cells):
            widths[number] = max(cell_len(text) for text in (name, *cells))
    space = width + len(COLUMN_GAP)
    most = max(1, space // 3 - len(COLUMN_GAP))
    chosen: dict[int, int] = {}
    for number, needed in widths.items():
        taken = min(needed, most) if len(chosen) < 2 else needed
        if taken + len(COLUMN_GAP) <= space:
            chosen[number] = taken
            space -= taken + len(COLUMN_GAP)
    for number, taken in [*chosen.items()]:  # What is left goes to the cells that are cut.
        more = min(space, widths[number] - taken)
        chosen[number] = taken + more
        space -= more
    return dict(sorted(chosen.items()))


def _used(
    columns: Sequence[str], rows: Iterable[Sequence[object]], most: int
) -> tuple[list[str], list[list[str]]]:
    shown = [[sanitize(cell, most) for cell in row] for row in rows]
    used = [number for number in range(len(columns)) if any(row[number] for row in shown)]
    return [columns[number] for number in used], [[row[number] for number in used] for row in shown]


def _pipe(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int) -> None:
    """Print one line for each row. rich would need five seconds for ten thousand rows."""
    from rich.cells import cell_len

    names, cells = _used(columns, rows, most)
    lines = [names, *cells]
    widths = [max(cell_len(line[number]) for line in lines) for number in range(len(names))]
    for line in lines:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        )
        print(COLUMN_GAP.join(padded).rstrip())
