"""One benchmark by itself: `python -m tests.benchmarks.<name> [--quick] [--json FILE]` prints its
sections, or writes them as JSON for the page."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from tests.benchmarks import machine, results
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting, setting

T = TypeVar("T")
Benchmark = Callable[[Setting], Sequence[Section]]


class Tries:
    """Measures the parts of a benchmark; a hiccup of the machine in one part does not cost the others.
    In a test (the smallest size) every failure counts.

    `note` names the parts that have no figures, for the page.
    """

    def __init__(self, where: Setting) -> None:
        self._tries = where.pick(2, 2, 1)
        self._strict = where.size == "smallest"
        self._missing: list[str] = []

    @property
    def note(self) -> str:
        return f" Not measured: {'; '.join(self._missing)}." if self._missing else ""

    def figures(self, work: Callable[[], list[T]], part: str) -> list[T]:
        """What `work` returns, at the second try if the first one fails; nothing if both fail."""
        for remaining in reversed(range(self._tries)):
            try:
                return work()
            except Exception as err:
                if self._strict:
                    raise
                sys.stderr.write(f"{part}: {type(err).__name__}: {err}\n")
                if not remaining:
                    self._missing.append(f"{part} ({type(err).__name__})")
        return []


def alone(benchmark: Benchmark) -> None:
    """Run it by the options of the command line."""

    @click.command()
    @click.option(
        "--quick", is_flag=True, help="Fewer rounds: to see that it runs, not to publish."
    )
    @click.option("--json", "path", type=Path, help="Write the sections to this file.")
    def main(quick: bool, path: Path | None) -> None:
        logging.getLogger("coord").setLevel(100)
        began, size = time.monotonic(), "quick" if quick else "whole"
        with setting("quick" if quick else "whole") as where:
            facts = machine.description(where) if path is not None else []
            sections = benchmark(where)
        if path is None:
            for section in sections:
                click.echo("\n".join(section.lines()))
            return
        seconds, date = time.monotonic() - began, time.strftime("%Y-%m-%d")
        results.save(path, results.PartResult(size, sections, seconds, date, facts=facts))

    main()
