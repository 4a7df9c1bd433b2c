"""Tables for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout: as wide as the terminal, and into a pipe as wide as it needs to be.

    A column that has nothing in it is left out.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = list(rows)
    used = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    for number in used:
        table.add_column(columns[number], overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[number]) for number in used))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    Console(width=width, highlight=False).print(table)
