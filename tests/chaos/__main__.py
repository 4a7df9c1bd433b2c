"""`python -m tests.chaos --store STAGE --seconds N [--seed S] [--out FILE.json]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import figures, report
from tests.chaos.jobs import FEATURES
from tests.chaos.namespaces import Namespaces
from tests.chaos.run import Plan, Run
from tests.chaos.stages import STAGES, stage_class


async def _watched(run: Run, store: str, seconds: float) -> None:
    running, me = asyncio.create_task(run.run()), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    try:
        await _shown(run, running, store, seconds)
        await running
    finally:  # interrupted: let it end what it started, before anything else is cancelled
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _shown(run: Run, running: asyncio.Task[None], store: str, seconds: float) -> None:
    if not sys.stderr.isatty():
        while not (await asyncio.wait({running}, timeout=10))[0]:
            print(report.line(run.state(), seconds), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        while not (await asyncio.wait({running}, timeout=0.25))[0]:
            live.update(report.display(run.state(), store, seconds))


def main() -> int:
    """Exit status 0 when every promise was kept, 1 when not, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos", description="Chaos with real processes."
    )
    parser.add_argument("--store", choices=sorted(STAGES), default="sqlite")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--ttl", type=float, default=2.0, help="seconds")
    parser.add_argument(
        "--kinds",
        default=None,
        help="kinds of fault, with commas between; all that the store knows",
    )
    parser.add_argument(
        "--calm", type=float, default=2.0, help="the longest between two faults, in ttls"
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=0.08,
        help="the chance of a long quiet time between two faults",
    )
    parser.add_argument(
        "--longest", type=float, default=math.inf, help="the longest that a fault lasts, in ttls"
    )
    parser.add_argument(
        "--break",
        dest="broken",
        choices=["", "deadline", "fence"],
        default="",
        help="try the judge",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="figures as JSON; beside it the same as Markdown"
    )
    parser.add_argument(
        "--keep", type=Path, default=None, help="a directory for histories and logs"
    )
    parser.add_argument(
        "--features",
        default="",
        help=f"what workers do beside the election, with commas between: {', '.join(FEATURES)}; "
        "or all",
    )
    arguments = parser.parse_args()
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    kinds = None if arguments.kinds is None else tuple(arguments.kinds.split(","))
    every = ",".join(FEATURES) if arguments.features == "all" else arguments.features
    features = tuple(filter(None, every.split(",")))
    if unknown := set(features) - set(FEATURES):
        parser.error(f"unknown features: {', '.join(sorted(unknown))}")
    calm = (min(0.5, arguments.calm), arguments.calm)
    plan = Plan(
        arguments.seconds,
        seed,
        arguments.workers,
        arguments.ttl,
        kinds,
        calm,
        arguments.quiet,
        arguments.longest,
        arguments.broken,
        features,
    )
    stage = stage_class(arguments.store)
    if stage.in_namespaces:
        Namespaces.enter()  # before there is a second thread
    with tempfile.TemporaryDirectory(prefix="coord-chaos-") as temporary:
        directory = Path(temporary)
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            directory = Path(
                tempfile.mkdtemp(prefix=f"{arguments.store}-{seed}-", dir=arguments.keep)
            )
        run = Run(plan, directory, stage)
        try:
            asyncio.run(_watched(run, arguments.store, arguments.seconds))
        except asyncio.CancelledError:
            print("interrupted", file=sys.stderr)
            return 130
        result = figures.figures(run, arguments.store)
        (directory / "faults.json").write_text(
            json.dumps([fault.as_dict() for fault in run.faults], indent=1)
        )
        (directory / "notes.json").write_text(json.dumps(run.crew.notes, indent=0))
    result["good"] = figures.good(result)
    page = report.markdown(result)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
        arguments.out.with_suffix(".md").write_text(page)
    print(page)
    return 0 if result["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
