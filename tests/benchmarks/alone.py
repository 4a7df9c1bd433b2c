"""One benchmark by itself: `python -m tests.benchmarks.<name> [--quick]` prints its sections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import click

from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting, setting

Benchmark = Callable[[Setting], Sequence[Section]]


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
