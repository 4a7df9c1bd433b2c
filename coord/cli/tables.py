"""Tables for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from coord.cli import foreign

if TYPE_CHECKING:
    from rich.table import Table

IN_A_PIPE = 1000
"""Columns of a table that goes into a pipe."""


def show(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = foreign.MOST) -> None:
    """Print a table on stdout: as wide as the terminal, and into a pipe as wide as it needs to be."""
    from rich.console import Console

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else IN_A_PIPE
    Console(width=width, highlight=False).print(made(columns, rows, most))


def made(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = foreign.MOST) -> Table:
    """The table: foreign text, `most` characters of each cell. A column that has nothing in it is left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[foreign.plain(cell, most) for cell in row] for row in rows]
    used = [number for number in range(len(columns)) if any(row[number] for row in cells)]
    for number in used:
        table.add_column(columns[number], overflow="fold")
    for row in cells:
        table.add_row(*(Text(row[number]) for number in used))
    return table
