"""What importing coord costs, and that every public name is there."""

from __future__ import annotations

import pydoc
import re
import rlcompleter
import subprocess
import sys
from abc import ABC
from pathlib import Path
from typing import Protocol

import pytest

import coord

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "coord").rglob("*.py"))
MOST_MODULES = 80
"""Modules of coord that the first candidate on SQLite may import."""
MOST_DATACLASSES = 11
"""Dataclasses that those modules may define."""


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
    check = "; import sys; assert not {'rethinkdb', 'click', 'structlog', 'tenacity', 'rich', 'urllib.parse'} & set(sys.modules), 'too much'"
    subprocess.run([sys.executable, "-W", "error", "-c", code + check], check=True, timeout=30)


def test_what_a_program_names_at_its_top_costs_it_no_asyncio() -> None:
    names = "import coord; job = coord.leader_only('r')(print); coord.connect; coord.unique_service; coord.Timing.of(9); coord.LossReason"
    late = "import sys; assert not {'asyncio', 'sqlite3', 'urllib', 'logging'} & set(sys.modules), sorted(sys.modules)"
    # A coroutine function is called on a loop, which must not wait for imports: they are done by
    # then.
    soon = "@coord.leader_only('r')\nasync def job(): pass\nassert 'coord.api.guarded_call' in sys.modules"
    subprocess.run([sys.executable, "-c", f"{names}; {late}\n{soon}"], check=True, timeout=30)


def test_the_first_candidate_needs_few_modules_and_dataclasses() -> None:
    # To build a dataclass, Python generates and compiles its methods, which takes several times as
    # long as a NamedTuple.
    code = """
import sys, tempfile, coord
with coord.connect(f"sqlite://{tempfile.mkdtemp()}/x.db") as c:
    assert c.leadership("r", ttl=5).acquire(timeout=5)
modules = [module for name, module in sys.modules.items() if name.startswith("coord.")]
classes = {
    f"{part.__module__}.{part.__qualname__}"
    for module in modules
    for part in vars(module).values()
    if isinstance(part, type) and "__dataclass_fields__" in vars(part)
}
print(len(modules), *sorted(classes))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    modules, *classes = done.stdout.split()
    assert int(modules) <= MOST_MODULES, modules
    assert len(classes) <= MOST_DATACLASSES, classes


@pytest.mark.parametrize("own", [True, False], ids=["a process of its own", "a call of main"])
def test_a_command_searches_for_garbage_less_often(own: bool) -> None:
    code = """
import atexit, gc, sys
from coord.cli import main
before, frozen = gc.get_threshold(), gc.get_freeze_count()
atexit.register(lambda: print(gc.get_threshold() == before, gc.get_freeze_count() > frozen))
sys.argv = ["coord", "--version"]
main(None if OWN else sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", code.replace("OWN", str(own))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == f"{not own} {own}"


def test_public_names_are_there() -> None:
    import coord

    for name in coord.__all__:
        assert getattr(coord, name).__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = coord.nonsense


MODULES = ("errors", "fencing", "metrics", "testing", "web")


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_needs_no_import_of_its_own(name: str) -> None:
    code = f"import coord, types; assert isinstance(coord.{name}, types.ModuleType); print(coord.{name}.__name__)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"coord.{name}\n", "")


def test_dir_and_help_show_public_things() -> None:
    code = """
import coord, pydoc, re
names = {name for name in dir(coord) if not name.startswith("__")}
assert names == set(coord.__all__), names ^ set(coord.__all__)
coord.Coordinator("memory://").leader("r")  # imports much of the package
assert {name for name in dir(coord) if not name.startswith("__")} == names
text = pydoc.render_doc(coord, renderer=pydoc.plaintext)
assert all(re.search(name + r"\\(\\s*role:", text) for name in ("leader_only", "unique_service"))
assert not [line for line in text.splitlines() if line.startswith("    _") and "__main__" not in line]
from coord import *
assert leader_only and fencing.sql_write and errors.NotLeader
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_completion_and_help_of_objects_show_public_things() -> None:
    """What is documented by the reference, and nothing that only coord itself calls."""
    coordinator = coord.Coordinator("memory://")
    registry = coord.ServiceRegistry("memory://")
    objects = [
        coordinator,
        coordinator.leadership("r"),
        coordinator.slots("r", 2),
        coordinator.share("g", 2),
        coordinator.inner.leadership("r"),
        coordinator.inner,
        registry,
        registry.inner,
        coord.Heartbeat(registry, {"role": "r", "ttl": 3, "load": 1}),
    ]
    internal = {
        *("abandon", "after_fork", "begin", "begin_shared_call", "close_quickly", "elector"),
        *("end_shared_call", "forget_shared", "halt", "host", "inner", "join", "options"),
        *("portal", "records", "session", "shared_leadership", "stop_soon"),
    }
    for item in objects:
        completer = rlcompleter.Completer({"item": item})
        attributes = [completer.complete("item.", number) for number in range(99)]
        offers = {text.removeprefix("item.").rstrip("()") for text in attributes if text}
        assert offers & {"start", "leader", "healthy_service", "is_leader"}
        assert offers & internal == set(), type(item)
        names = {name for name in dir(type(item)) if not name.startswith("__")}
        assert names <= offers
        text = pydoc.render_doc(type(item), renderer=pydoc.plaintext)
        shown = set(re.findall(r"^ \|  (?:async )?(\w+)(?:\(| =|$)", text, re.MULTILINE))
        assert names <= shown
        assert shown & internal == set(), type(item)
    coordinator.close()
    registry.close()


@pytest.mark.parametrize(
    "public",
    [coord.Coordinator, coord.Leadership, coord.AsyncLeadership, coord.Shares, coord.Heartbeat],
)
def test_a_subclass_may_implement_a_protocol_and_be_abstract(public: type) -> None:
    """Python refuses a class whose bases have metaclasses that do not fit together."""

    class Role(Protocol):
        def start(self) -> object: ...

    for base in (Role, ABC):
        subclass = type(base)("Subclass", (base,), {})
        both = type(public)("Both", (public, subclass), {})
        assert issubclass(both, public)
        assert issubclass(both, subclass)
        assert isinstance(both.__new__(both), public)
    assert not isinstance(5, public)
    assert not issubclass(int, public)
