"""One benchmark by itself: `python -m tests.benchmarks.<name> [--quick]` prints its sections."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

import click

from tests.benchmarks.figures import Figure
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting, setting

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

    def figures(self, work: Callable[[], list[Figure]], part: str) -> list[Figure]:
        """What `work` returns, at the second try if the first one fails; nothing if both fail."""
        for left in reversed(range(self._tries)):
            try:
                return work()
            except Exception as err:
                if self._strict:
                    raise
                sys.stderr.write(f"{part}: {type(err).__name__}: {err}\n")
                if not left:
                    self._missing.append(f"{part} ({type(err).__name__})")
        return []


def alone(benchmark: Benchmark) -> None:
    """Run it by the options of the command line, and print Markdown."""

    @click.command()
    @click.option(
        "--quick", is_flag=True, help="Fewer rounds: to see that it runs, not to publish."
    )
    def main(quick: bool) -> None:
        logging.getLogger("coord").setLevel(100)
        with setting("quick" if quick else "whole") as where:
            for section in benchmark(where):
                click.echo("\n".join(section.lines()))

    main()
