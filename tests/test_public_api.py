"""The house rules that a machine can check: which way imports go, what importing costs, how long
files are."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "coord").rglob("*.py"))

LAYERS = [
    {
        "errors",
        "lease",
        "checks",
        "timing",
        "operations",
        "notice",
        "past",
        "clock",
        "flag",
        "forking",
    },  # values and the machine
    {
        "election",
        "stores",
        "records",
        "board",
        "candidate",
        "takeover_delay",
        "orders",
        "events",
        "backoff",
        "bounded",
        "term",
        "spare",
        "callbacks",
        "fencing",
        "work",
        "renewals",
        "turns",
        "putting",
        "together",
        "alarm",
        "progress",
        "retrying",
        "story",
    },
    {
        "announcer",
        "waiting",
        "known",
        "watcher",
        "observing",
        "watchdog",
        "tenure",
        "surroundings",
        "asking",
        "standing",
        "wishes",
        "yielding",
        "follow",
        "follow_all",
        "choosing",
        "publishing",
        "rhythm",
        "service_changes",
    },
    {"async_leadership", "suspend", "unique", "portal", "leaving", "leadership", "heartbeat"},
    {
        "urls",
        "async_lookups",
        "async_orders",
        "sync_orders",
        "lookups",
        "async_coordinator",
        "coordinator",
        "connecting",
        "guard",
        "decorators",
        "async_registry",
        "registry",
    },
    {"health_check", "metrics", "cli", "testing"},
]
PURE = {
    "asyncio",
    "threading",
    "time",
    "random",
    "logging",
    "os",
    "socket",
    "sqlite3",
    "structlog",
    "tenacity",
}


def imports(path: Path, *, at_run_time: bool = True) -> set[str]:
    """What a file imports (not under TYPE_CHECKING), as dotted names."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and at_run_time:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                f"{node.module}.{alias.name}" if node.module == "coord" else node.module
                for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found


def part_of(name: str) -> str | None:
    return name.split(".")[1] if name.startswith("coord.") else None


def test_imports_go_one_way() -> None:
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for path in FILES:
        part = path.relative_to(ROOT / "coord").parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        assert part in height, f"coord/{part} has no layer yet: give it one here"
        for name in imports(path):
            other = part_of(name)
            if other in height and height[other] > height[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_the_core_is_pure() -> None:
    for name in ("election", "lease", "operations", "timing", "stores/rules"):
        used = {one.split(".")[0] for one in imports(ROOT / "coord" / f"{name}.py")}
        assert not used & PURE, name


def test_shells_know_no_concrete_store() -> None:
    for name in (
        "standing",
        "async_leadership",
        "leadership",
        "guard",
        "unique",
        "watcher",
        "async_coordinator",
    ):
        used = imports(ROOT / "coord" / f"{name}.py")
        assert not any(
            one.startswith("coord.stores") and one != "coord.stores.protocol" for one in used
        ), name


@pytest.mark.parametrize(
    "code",
    [
        "import coord",
        "import coord; coord.leader_only('r')(print); coord.Coordinator('memory://')",
        "import coord, tempfile, os; c = coord.connect('sqlite://' + os.path.join(tempfile.mkdtemp(), 'x.db')); "
        "assert c.leadership('r', ttl=5).acquire(timeout=5); c.close()",
    ],
)
def test_the_driver_is_imported_only_for_its_own_urls(code: str) -> None:
    # structlog: nothing is written here, so the first election must not wait for 50 ms of imports.
    check = "; import sys; assert not {'rethinkdb', 'click', 'structlog'} & set(sys.modules), 'too much'"
    subprocess.run([sys.executable, "-W", "error", "-c", code + check], check=True, timeout=30)


def test_what_a_program_names_at_its_top_costs_it_no_asyncio() -> None:
    names = "import coord; job = coord.leader_only('r')(print); coord.connect; coord.Timing.of(9); coord.LossReason"
    late = "import sys; assert not {'asyncio', 'sqlite3', 'urllib', 'logging'} & set(sys.modules), sorted(sys.modules)"
    # A coroutine function is called on a loop, which must not wait for imports: they are done by
    # then.
    soon = "@coord.leader_only('r')\nasync def job(): pass\nassert 'coord.api.guarded_call' in sys.modules"
    subprocess.run([sys.executable, "-c", f"{names}; {late}\n{soon}"], check=True, timeout=30)


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): n
        for path in FILES
        if (n := len(path.read_text().splitlines())) > 250
    }
    # The state machine stands in one file, rules and table included: that is how it can be read
    # against them.
    long.pop("coord/core/election.py", None)
    assert long == {}


def test_public_names_are_there() -> None:
    import coord

    for name in coord.__all__:
        assert getattr(coord, name).__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = coord.nonsense
