"""`python -m tests.benchmarks`: all of them, into docs/benchmarks.md and docs/pictures.

`--quick` takes few rounds and writes into build/benchmarks, so that it never passes for the page.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import click

from tests.benchmarks import (
    batches,
    crowded,
    growth,
    handovers,
    lookups,
    machine,
    page,
    plots,
    registry_lookup,
    servers,
    standbys,
    startup,
    succession,
    swaps,
)
from tests.benchmarks.alone import Benchmark
from tests.benchmarks.page import Section
from tests.benchmarks.setting import ROOT, setting

BENCHMARKS: dict[str, Benchmark] = {
    "startup": startup.sections,
    "lookups": lookups.sections,
    "swaps": swaps.sections,
    "batches": batches.sections,
    "servers": servers.sections,
    "handovers": handovers.sections,
    "standbys": standbys.sections,
    "registry_lookup": registry_lookup.sections,
    "crowded": crowded.sections,
    "growth": growth.sections,
    "succession": succession.sections,
}


def run(quick: bool, directory: Path) -> Path:
    """The page, with its pictures beside it."""
    began = time.monotonic()
    sections: list[Section] = []
    with setting("quick" if quick else "whole") as where:
        facts = machine.description(where)
        for name, benchmark in BENCHMARKS.items():
            click.echo(f"{time.monotonic() - began:4.0f} s  {name}", err=True)
            sections += benchmark(where)
    command = "python -m tests.benchmarks" + (" --quick" if quick else "")
    preface = [
        "Each figure stands beside what it is measured against in the same run, where there is such a thing, and "
        "samples of",
        "both are taken in turns. Compare the ratios, not the milliseconds. Whether an aim is met is computed.",
        "",
        *facts,
        f"- run on {time.strftime('%Y-%m-%d')} by `{command}`, in {time.monotonic() - began:,.0f} s; one part alone: "
        "`python -m tests.benchmarks.growth`",
    ]
    (directory / "pictures").mkdir(parents=True, exist_ok=True)
    if plots.available():
        for picture in [picture for section in sections for picture in section.pictures]:
            plots.draw(picture, directory / "pictures")
    else:
        click.echo(
            "no pictures drawn: matplotlib is missing (pip install 'coord[benchmarks]')", err=True
        )
    path = directory / "benchmarks.md"
    path.write_text(page.markdown(sections, preface), encoding="utf-8")
    return path


@click.command()
@click.option(
    "--quick",
    is_flag=True,
    help="Few rounds, into build/benchmarks: to see that it runs, not to publish.",
)
def main(quick: bool) -> None:
    logging.getLogger("coord").setLevel(100)
    path = run(quick, ROOT / "build" / "benchmarks" if quick else ROOT / "docs")
    click.echo(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
