"""The results of one part as JSON, so that the page is built from parts that ran at different
times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section, Table
from tests.benchmarks.plots import Bars, Panel, Picture


@dataclass(frozen=True)
class PartResult:
    """What one part measured, or why it failed (`failure` is empty if it did not)."""

    size: str
    sections: Sequence[Section] = ()
    seconds: float = 0.0
    date: str = ""
    failure: str = ""
    facts: Sequence[str] = field(default_factory=tuple)


def save(path: Path, result: PartResult) -> None:
    """Write it, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    unfinished.replace(path)


def load(path: Path) -> PartResult | None:
    """Return what `save` wrote; None if there is no such file."""
    if not path.exists():
        return None
    read = json.loads(path.read_text(encoding="utf-8"))
    read["sections"] = [_section(section) for section in read["sections"]]
    return PartResult(**read)


def _section(read: Mapping[str, Any]) -> Section:
    return Section(
        read["title"],
        [_figure(figure) for figure in read["figures"]],
        read["note"],
        [_picture(picture) for picture in read["pictures"]],
        [Table(**table) for table in read["tables"]],
    )


def _figure(read: dict[str, Any]) -> Figure:
    reference = read["reference"]
    return Figure(
        read["what"],
        read["value"],
        read["unit"],
        tuple(Aim(**aim) for aim in read["aims"]),
        None if reference is None else Reference(**reference),
    )


def _picture(read: Mapping[str, Any]) -> Picture:
    panels = [Bars(**panel) if "bars" in panel else Panel(**panel) for panel in read["panels"]]
    return Picture(read["name"], read["alt"], panels)
