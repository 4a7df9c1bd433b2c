"""The page: sections of figures, tables and pictures, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.figures import HEAD, Figure
from tests.benchmarks.plots import Picture


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """`note` says how it was measured; each point of a picture stands in a table, too."""

    title: str
    figures: Sequence[Figure] = ()
    note: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        lines = [f"## {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        if self.figures:
            lines += [*table(HEAD, [figure.cells() for figure in self.figures]), ""]
        for picture in self.pictures:
            lines += [f"![{picture.alt}](pictures/{picture.name}.svg)", ""]
        for item in self.tables:
            lines += [*table(item.head, item.rows), ""]
        return lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def verdict(sections: Iterable[Section]) -> str:
    """How many aims are met, and which are not."""
    aimed = [figure for section in sections for figure in section.figures if figure.met is not None]
    missed = [figure.what for figure in aimed if not figure.met]
    text = f"{len(aimed) - len(missed)} of {len(aimed)} aims are met."
    return f"{text} Not met: {'; '.join(missed)}." if missed else text


def markdown(sections: Sequence[Section], preface: Sequence[str]) -> str:
    lines = ["# Benchmarks", "", *preface, "", verdict(sections), ""]
    for section in sections:
        lines += section.lines()
    return "\n".join(lines).rstrip("\n") + "\n"
