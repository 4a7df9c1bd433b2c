"""Writes docs/pictures/*.svg from real runs of the command line: `python -m tests.docs.pictures
[NAME…]`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.docs.forks import write_coord
from tests.support.docs_terminal import ID, TOOLS, Terminal, words
from tests.support.forkserver import ForkServer

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
HELLO = "coord run hello --ttl 3 -- sh -c 'echo \"I lead, token $COORD_TOKEN\"; exec sleep 60'"


def takeover(home: Path) -> list[Terminal]:
    """The leader is killed with SIGKILL; the waiting candidate takes over when the lease has run
    out."""
    first, second = Terminal(home, "first terminal"), Terminal(home, "second terminal")
    try:
        first.type(HELLO).until("token 1")
        second.type(HELLO)
        second.until("waiting for")
        first.signal(signal.SIGKILL).note("(kill -9 from elsewhere)")
        second.until("token 2")
        return [first, second]
    finally:
        second.close()


def status(home: Path) -> list[Terminal]:
    """Two roles are led."""
    leaders = [Terminal(home, name) for name in ("nightly", "reports")]
    try:
        for leader in leaders:
            leader.type(
                f"coord run {leader.title} --info zone=b -- sh -c 'echo on; exec sleep 60'"
            ).until("on\n")
        return [
            Terminal(home, "who leads")
            .run("coord status")
            .run("coord leader nightly")
            .run("coord leader other")
        ]
    finally:
        for leader in leaders:
            leader.close()


def handover(home: Path) -> list[Terminal]:
    """An operator moves a role to a candidate that waits, and sees it in the history."""
    machines = [Terminal(home, name) for name in "ab"]
    try:
        for first, sign in zip(machines, ("on\n", "waiting for"), strict=True):
            first.type(
                f"coord run press --info name={first.title} -- sh -c 'echo on; exec sleep 60'"
            ).until(sign)
        waits = Terminal(home, "looks until somebody is listed")
        while "press  b  " not in waits.text:
            waits.run("coord candidates press")
        operator = Terminal(home, "an operator").run("coord candidates press")
        return [operator.run("coord transfer press --to b --yes").run("coord history press")]
    finally:
        for machine in machines:
            machine.close()


def doctor(home: Path) -> list[Terminal]:
    """A new store is made, and is well."""
    # On every machine, so without the finding that coord has in a container only.
    site = home / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from coord.stores.sqlite import containers\ncontainers.find_engine = lambda: ''\n"
    )
    terminal = Terminal(home, "coord init, coord doctor", PYTHONPATH=str(site))
    return [terminal.run("coord init").run("coord doctor")]


SCENES: dict[str, Callable[[Path], list[Terminal]]] = {
    "takeover": takeover,
    "status": status,
    "handover": handover,
    "doctor": doctor,
}


def taken(name: str, forks: ForkServer | None = None) -> str:
    """A picture of that scene, as it is now.

    Args:
        name: The name of the scene.
        forks: Where commands other than `coord run` run; None: each starts a Python of its own.
    """
    home = Path(tempfile.mkdtemp(prefix="coord-picture-"))
    try:
        if forks is not None:
            (home / TOOLS).mkdir()
            write_coord(forks, home / TOOLS, "run")
        return below_each_other([item.picture() for item in SCENES[name](home)])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def below_each_other(pictures: list[str]) -> str:
    """One picture of several terminals."""
    if len(pictures) == 1:
        return pictures[0]
    placed, width, height = [], 0.0, 0.0
    for number, first in enumerate(pictures):
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', first)
        assert box is not None
        own = first.replace(f"{ID}-", f"{ID}{number}-").replace(
            "<svg ", f'<svg y="{height}" width="{box[1]}" height="{box[2]}" ', 1
        )
        placed.append(own)
        width, height = max(width, float(box[1])), height + float(box[2]) + 12
    return f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">\n{"".join(placed)}</svg>\n'


def lasting(svg: str) -> list[str]:
    """What a picture shows, without what differs from run to run: ids, times, numbers, names of
    machines."""
    shown = "\n".join(words(svg))
    for pattern, name in (
        (rf"\b{re.escape(os.uname().nodename)}\b", "HOST"),
        (r"\w+@(HOST|\S+)", "WHO"),
        (r"\(mode \d+, \w+\)", "FILE"),
        (r"host=\S+|\"host\": ?\"[^\"]*\"", "HOST"),
        (r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b[0-9a-f]{32}\b", "ID"),
        (r"\d+:\d\d:\d\d", "TIME"),
        (r"\d+\.\d+( [a-zµ]+)?", "NUMBER"),
        (r"(pid\"?[=: ] ?)\d+", r"\1PID"),
        (r"\s+", " "),
    ):
        shown = re.sub(pattern, name, shown)
    return shown.split(" ")


def main(names: list[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    for name in names or SCENES:
        (PICTURES / f"{name}.svg").write_text(taken(name), encoding="utf-8")
        print(f"{PICTURES / name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
