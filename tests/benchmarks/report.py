"""Rows of the table, and the page that holds them."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One figure beside what it is measured against, in the same run. `bound`: what we mean it to be at most."""

    what: str
    ours: float
    unit: str
    against: str = ""
    other: float | None = None
    bound: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        return None if not self.other else self.ours / self.other

    def cells(self) -> list[str]:
        other = "" if self.other is None else f"{self.other:,.4g} {self.unit}".strip()
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        met = "" if self.met is None else "yes" if self.met else "**no**"
        return [self.what, f"{self.ours:,.4g} {self.unit}".strip(), self.against, other, ratio, self.bound, met]


HEAD = ["what", "coord", "against", "that", "ratio", "aim", "met"]


def write(sections: dict[str, list[Row]], seconds: float) -> None:
    """The page. Figures of one machine: compare the ratios, not the milliseconds."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m tests.benchmarks`. Medians of one run, each beside what it is measured against in",
        "the same run. Compare the ratios, not the milliseconds.",
        "",
        f"Run on {time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, in {seconds:,.0f} s.",
    ]
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
