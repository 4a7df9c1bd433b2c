"""The tools that some tests need and not every machine has.

A test names them: `@pytest.mark.needs("spin", "cc")`, or `requirements.need("openssl")` in a
fixture or in the test itself. Without one of them the test is skipped, and the end of the run
reports each missing tool in one line. COORD_REQUIRE names the tools whose absence is a failure:
`COORD_REQUIRE=rethinkdb,spin`, or `COORD_REQUIRE=all`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from tests.support import chromium, etcd_server, pgbouncer, postgresql_server, redis_server
from tests.support import rethinkdb_server as servers

EXTERNAL, REQUIRE, ALL = "COORD_TEST_RETHINKDB", "COORD_REQUIRE", "all"
PREFIX = "not tested: "


@dataclass(frozen=True)
class Tool:
    """Something that tests need. `missing` says why it is not there, for people."""

    available: Callable[[], bool]
    missing: str


def program(name: str, hint: str = "") -> Tool:
    """A program on PATH."""
    return Tool(lambda: shutil.which(name) is not None, f"no `{name}` is on PATH{hint}")


def package(name: str, missing: str) -> Tool:
    """A Python package, which is not imported to find out."""
    return Tool(lambda: importlib.util.find_spec(name) is not None, missing)


NO_DOUBLETHINK = (
    f"there is no doublethink for Python {sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info >= (3, 12)
    else "doublethink is not installed"
)
TOOLS = {
    "rethinkdb": Tool(
        lambda: servers.available() or bool(os.environ.get(EXTERNAL)),
        f"no `{servers.BINARY}` is on PATH, and {EXTERNAL} names no server that is sufficient",
    ),
    "redis": Tool(
        lambda: redis_server.binary() is not None and importlib.util.find_spec("redis") is not None,
        "no redis-server or valkey-server is on PATH, or the package redis is not installed",
    ),
    "postgresql": Tool(
        postgresql_server.available,
        "no PostgreSQL server is installed, or the package asyncpg is missing",
    ),
    "redis-sentinel": program("redis-sentinel", " (apt install redis-sentinel)"),
    "pgbouncer": Tool(pgbouncer.available, "pgbouncer is not installed (apt install pgbouncer)"),
    "etcd": Tool(
        lambda: etcd_server.available() and importlib.util.find_spec("aiohttp") is not None,
        "no `etcd` is on PATH, or the package aiohttp is not installed",
    ),
    "doublethink": package("doublethink", NO_DOUBLETHINK),
    "chromium": Tool(
        lambda: (
            chromium.binary() is not None
            and shutil.which("bash") is not None
            and importlib.util.find_spec("axe_core_python") is not None
        ),
        "no `chromium` is on PATH (apt install chromium), or axe-core-python is not installed",
    ),
    "spin": program("spin", " (apt install spin)"),
    "cc": program("cc", " (apt install gcc)"),
    "timeout": program("timeout", " (it is part of coreutils)"),
    "openssl": program("openssl"),
    "namespaces": Tool(
        lambda: shutil.which("ip") is not None and os.geteuid() == 0,
        "network namespaces need root and `ip` (apt install iproute2)",
    ),
    "bash": program("bash"),
    "systemd-analyze": program("systemd-analyze", " (apt install systemd)"),
    "docker-compose": program("docker-compose", " (apt install docker-compose)"),
    "supervisord": program("supervisord", " (apt install supervisor)"),
    "haproxy": program("haproxy", " (apt install haproxy)"),
    "prometheus": program("prometheus", " (apt install prometheus)"),
    "promtool": program("promtool", " (apt install prometheus)"),
    "nginx": program("nginx", " (apt install nginx-light)"),
    "kubernetes-validate": package("kubernetes_validate", "kubernetes-validate is not installed"),
    "django": package("django", "Django is not installed"),
    "build": package("build", "the package build is not installed"),
    "twine": package("twine", "twine is not installed"),
    "hatchling": package("hatchling", "hatchling is not installed"),
    "package-index": Tool(lambda: True, "pip reaches no index of packages"),
    "mkdocs": package("mkdocstrings", "the extra coord[docs] is not installed"),
    "matplotlib": package("matplotlib", "the extra coord[benchmarks] is not installed"),
    "cloudpickle": package("cloudpickle", "cloudpickle is not installed"),
    "gevent": package("gevent", "gevent is not installed"),
    "eventlet": package("eventlet", "eventlet is not installed"),
}

skipped: dict[str, set[str]] = {}
"""The skipped tests, by the tool that is missing."""


def need(*names: str) -> None:
    """Skip the running test if one of these tools is missing."""
    for name in names:
        if not TOOLS[name].available():
            skip(name)


def skip(name: str) -> NoReturn:
    """Skip the running test, because this tool is missing."""
    pytest.skip(f"{PREFIX}{name}")


def doublethink() -> Any:
    """The package doublethink."""
    need("doublethink")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("doublethink")


def note(report: pytest.TestReport) -> None:
    """Keep what a report says of a missing tool. Under xdist the controller gets all reports."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _, is_ours, name = report.longrepr[2].partition(PREFIX)
        if is_ours:
            skipped.setdefault(name, set()).add(report.nodeid)


def required() -> set[str]:
    """The tools that COORD_REQUIRE names."""
    names = {name.strip() for name in os.environ.get(REQUIRE, "").split(",")} - {""}
    if unknown := names - TOOLS.keys() - {ALL}:
        raise pytest.UsageError(
            f"invalid {REQUIRE} {', '.join(sorted(unknown))!r}: "
            f"must be {ALL} or some of {', '.join(sorted(TOOLS))}"
        )
    return set(TOOLS) if ALL in names else names


def summary() -> list[tuple[str, bool]]:
    """The lines to print at the end, and whether each is a failure."""
    lines = []
    for name, tests in sorted(skipped.items()):
        fails = name in required()
        consequence = f"; {REQUIRE}={os.environ.get(REQUIRE)} makes this a failure" if fails else ""
        number = f"{len(tests)} test{'s' * (len(tests) != 1)} skipped"
        lines.append(
            (
                f"{name.upper()} NOT TESTED: {number}, because {TOOLS[name].missing}{consequence}",
                fails,
            )
        )
    return lines


def available() -> list[str]:
    """The tools that are there, for COORD_REQUIRE."""
    return sorted(name for name, tool in TOOLS.items() if tool.available())
