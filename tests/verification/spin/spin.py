"""Runs Spin on `lease.pml`, as it is and with one rule broken. `python -m
tests.verification.spin.spin` prints the figures."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("lease.pml")

SMALL, LARGE = ("BEATS=2", "TOKENS=2", "TTL=3", "NO_HANDS"), ("BEATS=3", "TOKENS=3", "NO_HANDS")
HANDED = ("BEATS=3", "TOKENS=3", "TTL=3", "HANDS")

SMALLEST = (
    ("BEATS=2", "TOKENS=1", "TTL=3", "NO_HANDS"),
    ("BEATS=2", "BEATS_1=1", "TOKENS=2", "TTL=3", "HANDS"),
)
SEARCHED = (
    *SMALLEST,
    ("BEATS=2", "TOKENS=2", "TTL=3", "NO_HANDS"),
    ("BEATS=2", "TOKENS=2", "NO_HANDS"),
    ("BEATS=2", "TOKENS=1", "TTL=3"),
    ("BEATS=2", "TOKENS=2", "TTL=3"),
    ("BEATS=2", "TOKENS=2"),
    ("BEATS=3", "BEATS_1=1", "TOKENS=2", "TTL=3", "HANDS"),
    ("BEATS=1", "BEATS_1=3", "TOKENS=2", "TTL=3", "HANDS"),
)
"""The bounds of docs/model.md. The tests use the smallest."""

MUTANTS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "M_ADOPT": (400, 1, LARGE),
    "M_BELIEVES_WHILE_RELEASING": (120, 1, HANDED),
    "M_BLIND_RETRY": (200, 3, ("BEATS=3", "TOKENS=2", "TTL=3", "NO_HANDS")),
    "M_DEADLINE_FROM_THE_REPLY": (400, 1, LARGE),
    "M_FLAG": (400, 1, LARGE),
    "M_HANDED_OVER_IS_VACANT": (120, 1, HANDED),
    "M_HANDED_OVER_LEADS": (120, 1, HANDED),
    "M_NAMED_CLAIMS_BLINDLY": (150, 1, (*HANDED, "BEATS_1=1")),
    "M_NO_CAS": (400, 1, SMALL),
    "M_NO_FENCE": (400, 1, (*SMALL, "FENCE")),
    "M_NO_MARGIN": (400, 1, LARGE),
    "M_OBSERVED_FROM_THE_REQUEST": (400, 1, LARGE),
    "M_RELEASE_DELETES": (150, 1, SMALL),
    "M_RENEWAL_WITHOUT_BEAT": (400, 1, LARGE),
    "M_SAME_TOKEN": (400, 1, LARGE),
    "M_SKEW_WITHOUT_MARGIN": (400, 1, LARGE),
    "M_SLEEPING_LEADER": (400, 1, (*SMALL, "SLEEP")),
    "M_UNGUARDED_HANDOVER": (150, 3, (*HANDED, "BEATS_1=1")),
    "M_UNGUARDED_RELEASE": (160, 1, (*LARGE, "TTL=3")),
    "M_UNGUARDED_RENEWAL": (150, 1, SMALL),
}
"""How deep to look, with which seed first, and within which bounds."""


@dataclass(frozen=True)
class Verdict:
    """`violation` is None when the whole state space was searched and nothing found; `complete`
    says whether it was."""

    violation: str | None
    complete: bool
    states: int
    seconds: float


def check(flags: tuple[str, ...], where: Path, *, seconds: float = 90.0) -> Verdict:
    """The whole state space, depth first."""
    _make(flags, where, "-Og")  # with -O1 and -O2 the compiler takes longer than they save
    return _read(_run(where, seconds, "-m200000", "-w22"))


def hunt(name: str, where: Path, *, tries: int = 3, seconds: float = 90.0) -> Verdict:
    """Look for what a mutant breaks, in a random order and not too deep: short searches find more
    than one long one."""
    depth, first, flags = MUTANTS[name]
    _make((name, *flags), where, "-O0", "-DT_RAND")
    verdict = Verdict(None, False, 0, 0.0)
    for seed in range(first, first + tries):
        verdict = _read(_run(where, seconds, f"-m{depth}", "-w21", f"-RS{seed}"))
        if verdict.violation:
            break
    return verdict


def _make(flags: tuple[str, ...], where: Path, *options: str) -> None:
    defines = [f"-D{flag}" for flag in flags]
    subprocess.run(
        ["spin", "-a", *defines, str(MODEL)], cwd=where, check=True, capture_output=True, timeout=30
    )
    compile_it = [
        "cc",
        "-w",
        "-DSAFETY",
        "-DVECTORSZ=512",
        "-DMEMLIM=2500",
        *options,
        "-o",
        "pan",
        "pan.c",
    ]
    subprocess.run(compile_it, cwd=where, check=True, capture_output=True, timeout=250)


def _run(where: Path, seconds: float, *options: str) -> str:
    command = ["timeout", str(seconds), "./pan", *options]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False).stdout


def _read(output: str) -> Verdict:
    wrong = re.search(r"pan:1: (.*) \(at depth", output)
    states = re.search(r"(\d+) states, stored", output)
    took = re.search(r"elapsed time ([\d.]+)", output)
    complete = "errors: 0" in output and "max search depth too small" not in output
    return Verdict(
        wrong.group(1) if wrong else None,
        complete,
        int(states.group(1)) if states else 0,
        float(took.group(1)) if took else 0.0,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        for flags in SEARCHED:
            print(flags, check(flags, Path(place), seconds=900), flush=True)
        for name, (_, _, flags) in MUTANTS.items():
            print(name, flags, hunt(name, Path(place)), flush=True)


if __name__ == "__main__":
    main()
