"""`python -m tests.benchmarks --results DIRECTORY`: all parts, into docs/benchmarks.md and
docs/pictures.

Each part is a process of its own, which leaves its results as JSON in the directory. A part that
has a result there is not run again, so the same command goes on where it was interrupted, and
repeats parts that failed. The page names a part that failed. `--quick` takes few rounds and writes
into build/benchmarks, so that it never passes for the page.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click

from tests.benchmarks import (
    batches,
    crowded,
    growth,
    lookups,
    page,
    plots,
    registry_lookup,
    results,
    servers,
    standbys,
    startup,
    succession,
    swaps,
)
from tests.benchmarks.alone import Benchmark
from tests.benchmarks.page import Section
from tests.benchmarks.results import PartResult
from tests.benchmarks.setting import ROOT

BENCHMARKS: dict[str, Benchmark] = {
    "succession": succession.sections,
    "swaps": swaps.sections,
    "servers": servers.sections,
    "batches": batches.sections,
    "crowded": crowded.sections,
    "startup": startup.sections,
    "lookups": lookups.sections,
    "standbys": standbys.sections,
    "registry_lookup": registry_lookup.sections,
    "growth": growth.sections,
}
LIMIT = 1_500.0
"""Seconds after which a part is ended, and named on the page as failed."""


def run_part(name: str, path: Path, size: str) -> PartResult:
    """Run one part in a process of its own; what it prints goes to a file beside its results."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--json", str(path)]
    if size == "quick":
        command.append("--quick")
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(LIMIT)
            failure = "" if status == 0 else _last_line(log) or f"exit status {status}"
        except subprocess.TimeoutExpired:
            failure = f"not done after {LIMIT:g} s"
        finally:
            _end(process)
    result = results.load(path)
    if failure or result is None:
        result = PartResult(size, failure=failure or "no results")
        results.save(path, result)
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and its group. A part that still runs may end its servers first."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def run(directory: Path, size: str) -> dict[str, PartResult]:
    """The result of each part, from the directory if it is there."""
    parts: dict[str, PartResult] = {}
    for name in BENCHMARKS:
        path = directory / f"{name}.json"
        result = results.load(path)
        if result is None or result.failure or result.size != size:
            began = time.monotonic()
            click.echo(f"{time.strftime('%H:%M:%S')}  {name} …", err=True)
            result = run_part(name, path, size)
            outcome = f"failed: {result.failure}" if result.failure else "done"
            took = time.monotonic() - began
            click.echo(f"{time.strftime('%H:%M:%S')}  {name} {outcome}, {took:.0f} s", err=True)
        parts[name] = result
    return parts


def write(results: Mapping[str, PartResult], directory: Path) -> Path:
    """Write the page, with its pictures beside it."""
    done = [result for result in results.values() if not result.failure]
    sections: list[Section] = [section for result in done for section in result.sections]
    dates = sorted({result.date for result in done})
    preface = [
        "Each figure is beside what it is compared with, measured in the same run and in turns. Compare the "
        "ratios, not the",
        "milliseconds. Whether an aim is met is computed.",
        "",
        *(done[0].facts if done else ()),
        f"- run on {' and '.join(dates)} by `python -m tests.benchmarks --results DIRECTORY`, in "
        f"{sum(result.seconds for result in done):,.0f} s; one part alone: `python -m tests.benchmarks.growth`",
        *(
            f"- **the part `{name}` failed**, and its figures are missing: {result.failure}"
            for name, result in results.items()
            if result.failure
        ),
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
    "--results",
    "directory",
    type=Path,
    required=True,
    help="A directory outside of the repository for the results of the parts.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Few rounds, into build/benchmarks: to see that it runs, not to publish.",
)
def main(directory: Path, quick: bool) -> None:
    """Run the parts that have no result in the directory, and write the page from all of them."""
    results = run(directory.absolute(), "quick" if quick else "whole")
    click.echo(write(results, ROOT / "build" / "benchmarks" if quick else ROOT / "docs"))


if __name__ == "__main__":
    main()
