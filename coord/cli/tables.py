"""Tables for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from coord.cli import foreign

if TYPE_CHECKING:
    from rich.table import Table

GAP = "  "


def show(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = foreign.MOST) -> None:
    """Print a table on stdout: as wide as the terminal, and into a pipe as wide as it needs to be."""
    if not sys.stdout.isatty():
        _pipe(columns, rows, most)
        return
    from rich.console import Console

    Console(width=shutil.get_terminal_size().columns, highlight=False).print(made(columns, rows, most))


def made(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = foreign.MOST) -> Table:
    """The table: foreign text, `most` characters of each cell. A column that has nothing in it is left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    names, cells = _used(columns, rows, most)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _used(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int) -> tuple[list[str], list[list[str]]]:
    shown = [[foreign.plain(cell, most) for cell in row] for row in rows]
    used = [number for number in range(len(columns)) if any(row[number] for row in shown)]
    return [columns[number] for number in used], [[row[number] for number in used] for row in shown]


def _pipe(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int) -> None:
    """One line a row, for grep. Without rich: ten thousand rows take it five seconds."""
    from rich.cells import cell_len

    names, cells = _used(columns, rows, most)
    lines = [names, *cells]
    widths = [max(cell_len(line[number]) for line in lines) for number in range(len(names))]
    for line in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        print(GAP.join(padded).rstrip())
