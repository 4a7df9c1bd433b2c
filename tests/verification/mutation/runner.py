"""Runs the tests of a mutant in a process of their own, and judges how they ended.

A process that has imported everything except coord and the tests forks for each mutant: to start
Python and to import pytest and its plugins would take longer than most of the tests.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.verification.mutation.mutant import ROOT, Mutant

HOOK = Path(__file__).parent / "hook"
COMPILED = ROOT / ".pytest_cache" / "mutants"
"""Where the compiled files of all runs are, which otherwise each run would compile again."""
TEST_LIMIT, LIMIT = 60, 180
"""Seconds that one test, and all tests of one mutant, may take."""
WITHIN = 5
"""Seconds for which tests wait for what a mutant may keep from coming."""
IMPORTED_BEFORE = (
    "_hypothesis_pytestplugin", "anyio.pytest_plugin", "asyncio", "click", "concurrent.futures", "hypothesis", "hypothesis.stateful", "json",
    "logging.handlers", "multiprocessing", "prometheus_client", "pytest_timeout", "rich.console", "rich.table",
    "sqlite3", "ssl", "structlog", "tenacity", "uuid", "xdist.plugin", "xdist.looponfail",
)  # fmt: skip
"""What pytest, coord and its tests import, without coord itself."""
CRASHES = {"TypeError", "NameError", "UnboundLocalError", "AttributeError", "ImportError",
           "ModuleNotFoundError", "SyntaxError", "RecursionError"}  # fmt: skip
"""A test that fails with one of these inside coord has seen a mutant that crashed, not its
fault."""


class Outcome(enum.Enum):
    CAUGHT = "caught"
    SURVIVED = "survived: the tests passed"
    CRASHED = "the mutant itself crashed"
    NOT_RUN = "its tests did not run"
    SKIPPED = "its tests skipped"
    HUNG = "its tests did not end in time"


@dataclass(frozen=True)
class Verdict:
    """How the tests of a mutant ended. `detail` is for people: which test failed and why."""

    outcome: Outcome
    detail: str

    def __str__(self) -> str:
        return f"{self.outcome.value}\n{self.detail}".rstrip()


class Runner:
    """Runs mutants one after the other. Use it as a context manager."""

    def __enter__(self) -> Runner:
        self._scratch = tempfile.TemporaryDirectory(prefix="coord-mutants-")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "COORD_")) or name == "COORD_TEST_RETHINKDB"
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment |= {"PYTHONPYCACHEPREFIX": str(COMPILED), "COORD_TEST_WITHIN": str(WITHIN)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.verification.mutation.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._number = 0
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
        self._scratch.cleanup()

    def run(self, mutant: Mutant) -> Verdict:
        """Run the tests of a mutant with it.

        Raises:
            BadMutant: It cannot be applied.
        """
        mutant.check()
        self._number += 1
        directory = Path(self._scratch.name) / str(self._number)
        directory.mkdir()
        first, last = mutant.lines
        spec = {
            "module": mutant.module,
            "path": str(mutant.path),
            "source": mutant.source,
            "first": first,
            "last": last,
            "crashes": str(directory / "crashes"),
            "reports": str(directory / "reports"),
            "output": str(directory / "output"),
            "temporary": str(directory / "tests"),
            "limit": TEST_LIMIT,
            "tests": [f"tests/{test}" for test in mutant.tests],
        }
        path = directory / "mutant.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline().strip()
        return judge(status, directory)


def judge(status: str, directory: Path) -> Verdict:
    """The verdict on a run, by what it left in its directory."""

    def read(name: str) -> str:
        path = directory / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    output = read("output")
    if status == "hung":
        return Verdict(Outcome.HUNG, output)
    if crashes := read("crashes"):
        return Verdict(Outcome.CRASHED, crashes + output)
    reports: list[dict[str, Any]] = [json.loads(line) for line in read("reports").splitlines()]
    failed = [report for report in reports if report["outcome"] == "failed"]
    if status not in ("0", "1") or not reports:
        return Verdict(Outcome.NOT_RUN, output)
    if not failed:
        skipped = all(report["outcome"] == "skipped" for report in reports)
        return Verdict(Outcome.SKIPPED if skipped else Outcome.SURVIVED, output)
    if any(report["message"].startswith("Timeout (>") for report in failed):
        return Verdict(Outcome.HUNG, output)
    if all(report["when"] == "collect" for report in failed):
        return Verdict(Outcome.NOT_RUN, output)
    if all(report["error"] in CRASHES and report["in_coord"] for report in failed):
        return Verdict(Outcome.CRASHED, output)
    report = failed[0]
    return Verdict(Outcome.CAUGHT, f"{report['test']}: {report['error']}: {report['message']}")


class Reports:
    """A pytest plugin that writes one line for each test: how it ended, and where it failed."""

    def __init__(self, path: str) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if report.when == "call" or report.outcome != "passed":
            error = call.excinfo.value if call.excinfo is not None else None
            self._write(report, error)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self._write(report, None)

    def _write(self, report: Any, error: BaseException | None) -> None:
        frames = traceback.extract_tb(trace_of(error))
        line = {
            "test": report.nodeid,
            "when": getattr(report, "when", None) or "collect",
            "outcome": report.outcome,
            "error": type(error).__name__,
            "message": (str(error) or (frames[-1].line or "" if frames else ""))[:300],
            "in_coord": bool(frames) and Path(frames[-1].filename).is_relative_to(ROOT / "coord"),
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def trace_of(error: BaseException | None) -> TracebackType | None:
    return error.__traceback__ if error is not None else None


def serve() -> None:
    """Fork for each mutant whose file standard input names, and answer with the exit status."""
    for name in IMPORTED_BEFORE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if loaded := [name for name in sys.modules if name.partition(".")[0] == "coord"]:
        raise RuntimeError(f"coord is imported before the mutant: {loaded[0]}")
    for line in sys.stdin:
        path = line.strip()
        child = os.fork()
        if child == 0:
            run_tests(path)
        print(waited(child), flush=True)


def waited(child: int) -> str:
    """The exit status of a run, after ending what is left of its session."""
    end = time.monotonic() + LIMIT
    status = "hung"
    while time.monotonic() < end:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = str(os.waitstatus_to_exitcode(code))
            break
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status == "hung":
        os.waitpid(child, 0)
    return status


def run_tests(path: str) -> None:
    """In the child: run the tests with the mutant, and end."""
    status = 70
    try:
        os.setsid()
        spec = json.loads(Path(path).read_text(encoding="utf-8"))
        output = os.open(spec["output"], os.O_WRONLY | os.O_CREAT)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HOOK), *([before] if before else [])])
        os.environ["COORD_MUTANT"] = path
        sys.path.insert(0, str(HOOK))
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
        # Now, because pytest puts a finder of its own before all others.
        assert "__mutant_crashed__" in vars(importlib.import_module(spec["module"]))
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", f"--timeout={spec['limit']}"]
        # What a test fails with is not shown in detail, and to rewrite the asserts takes longer than
        # most of the tests.
        options += ["--assert=plain"]
        # Plugins that were imported before the fork contain no asserts that pytest should rewrite.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        status = pytest.main(
            [*options, f"--basetemp={spec['temporary']}", *spec["tests"]],
            plugins=[Reports(spec["reports"])],
        )
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
