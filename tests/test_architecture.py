"""What a machine can check of the architecture: which way imports go, that there are no cycles, who
touches whose private names, how large files are, and how functions are called. docs/architecture.md explains the rules.

There is no list of exceptions. Each rule is a function from a tree of source files to what is wrong
there, so that it can be shown on a small tree that breaks it. Imports inside functions and under
TYPE_CHECKING count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

STORE_INTERFACE = {
    "stores.protocol",
    "stores.requests",
    "stores.batching",
    "stores.feeds",
}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "core": set(),
    "runtime": {"core.timing", "core.validation"},
    "stores": {"core", "runtime"},
    "election": {"core", "runtime", *STORE_INTERFACE},
    "fencing": {"core", "election"},
    "metrics": {"core", "election"},
    "services": {"core", "runtime", "election", "stores.urls", *STORE_INTERFACE},
    "recipes": {"core", "runtime", "election", "services", "stores.urls", *STORE_INTERFACE},
    "api": {
        "core",
        "runtime",
        "stores",
        "election",
        "fencing",
        "metrics",
        "services",
        "recipes",
    },
    "integrations": {"core", "runtime", "election.term", "api", "fencing", "metrics"},
    "web": {"core", "runtime", "api", "fencing", "metrics"},
    "testing": {
        "core",
        "runtime",
        "stores",
        "election",
        "fencing",
        "metrics",
        "services",
        "recipes",
        "api",
    },
    "cli": {
        "core",
        "runtime",
        "stores",
        "election",
        "fencing",
        "metrics",
        "services",
        "recipes",
        "api",
        "web",
    },
    "__main__": {"cli"},
}
"""What each package may import, in addition to itself, `errors`, the standard library and dependencies: a
package, or one module of it. `coord/__init__.py` hands on names from anywhere."""

PURE = {
    "__future__",
    "base64",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "inspect",
    "json",
    "math",
    "re",
    "string",
    "sys",
    "types",
    "typing",
}
"""All that the core may import outside of coord."""
IMPURE_CALLS = {"input", "now", "open", "print", "today", "utcnow"}
"""What needs no import, or is in a module of PURE."""
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
"""Public for all their underscores."""

MAX_LINES, MIN_LINES = 600, 40
MAY_BE_SHORT = {"__init__.py", "__main__.py", "jitter.py", "pytest_plugin.py"}
SEPARATORS = ("# --", "#--", "# ==", "####")
"""How a comment begins that separates the parts of a file."""
MAX_ENTRIES = 18
MAX_POSITIONAL = 5


@dataclass(frozen=True)
class Import:
    """One imported module; `names` are what is taken from it."""

    line: int
    module: str
    names: tuple[str, ...] = ()
    relative: bool = False


class Module:
    """One source file."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.text = path.read_text(encoding="utf-8")
        parts = name.split(".")
        self.package = parts[1] if len(parts) > 1 else "__init__"

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text, str(self.path))))

    def __str__(self) -> str:
        return self.name


class Tree:
    """All source files of the package `coord` in a directory."""

    def __init__(self, root: Path) -> None:
        self.package = root / "coord"
        self.modules: dict[str, Module] = {}
        for path in sorted(self.package.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path)

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        return {
            name: [imported for node in module.nodes for imported in self._imports(node)]
            for name, module in self.modules.items()
        }

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Which module imports which, without `coord` itself."""
        names = self.modules.keys() - {"coord"}
        return {
            name: {item.module for item in self.imports[name]} & names - {name} for name in names
        }

    @cached_property
    def backends(self) -> set[str]:
        return {path.parent.name for path in self.package.glob("stores/*/__init__.py")}

    def _imports(self, node: ast.AST) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            module, relative = node.module or "", node.level > 0
            names = []
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                if submodule in self.modules and not relative:
                    yield Import(node.lineno, submodule, (alias.name,))
                else:
                    names.append(alias.name)
            if names:
                yield Import(node.lineno, module, tuple(names), relative)
        elif (
            isinstance(node, ast.Call)
            and called(node) in ("import_module", "__import__")
            and node.args
            and isinstance(name := getattr(node.args[0], "value", None), str)
        ):
            yield Import(node.lineno, name, relative=name.startswith("."))


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


def decorated_with(name: str, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        isinstance(decorator, ast.Call) and called(decorator) == name
        for decorator in node.decorator_list
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_ours(imported: Import) -> bool:
    return imported.module.split(".")[0] == "coord"


Rule = Callable[[Tree], Iterator[str]]
RULES: list[Rule] = []


def rule(check: Rule) -> Rule:
    RULES.append(check)
    return check


@rule
def imports_go_down(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        if module.package == "__init__":
            continue
        if module.package not in MAY_IMPORT:
            yield f"{module}: coord/{module.package} has no place in MAY_IMPORT yet"
            continue
        allowed = MAY_IMPORT[module.package] | {module.package, "errors"}
        for item in tree.imports[module.name]:
            name = item.module.removeprefix("coord.")
            if is_ours(item) and name != "coord":
                prefixes = {name, name.split(".")[0], ".".join(name.split(".")[:2])}
                if not prefixes & allowed:
                    yield f"{module}:{item.line} imports {item.module}"


@rule
def imported_modules_exist(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        for item in tree.imports[module.name]:
            if is_ours(item) and item.module not in tree.modules:
                yield f"{module}:{item.line} imports {item.module}, which is not there"


@rule
def imports_are_absolute(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        for item in tree.imports[module.name]:
            if item.relative:
                yield f"{module}:{item.line} imports relatively"


@rule
def nothing_inside_imports_the_public_face(tree: Tree) -> Iterator[str]:
    """`import coord` and `from coord import Name`: names come from where they are defined.

    The version is defined there.
    """
    for module in tree.modules.values():
        for item in tree.imports[module.name]:
            if item.module == "coord" and [*item.names] != ["__version__"]:
                yield f"{module}:{item.line} imports {', '.join(item.names) or 'coord'} from coord"


@rule
def there_are_no_cycles(tree: Tree) -> Iterator[str]:
    graph = tree.graph
    while True:  # take away what imports nothing that is left, and what nothing left imports
        imported = set().union(*graph.values()) if graph else set()
        kept = {
            name: needed & graph.keys()
            for name, needed in graph.items()
            if needed & graph.keys() and name in imported
        }
        if kept.keys() == graph.keys():
            break
        graph = kept
    for name, needed in sorted(graph.items()):
        yield f"{name} is in a cycle, with {', '.join(sorted(needed))}"


@rule
def only_urls_knows_the_backends(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        parts = module.name.split(".")
        inside = parts[2] if parts[:2] == ["coord", "stores"] and len(parts) > 2 else None
        if inside == "urls" or module.package == "testing":
            continue
        for item in tree.imports[module.name]:
            other = item.module.split(".")
            if (
                other[:2] == ["coord", "stores"]
                and len(other) > 2
                and other[2] in tree.backends - {inside}
            ):
                yield f"{module}:{item.line} imports {item.module}"


@rule
def the_core_is_pure(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        if module.package != "core":
            continue
        for item in tree.imports[module.name]:
            if not is_ours(item) and not item.relative and item.module.split(".")[0] not in PURE:
                yield f"{module}:{item.line} imports {item.module}"
        for node in module.nodes:
            if isinstance(node, ast.Call) and called(node) in IMPURE_CALLS:
                yield f"{module}:{node.lineno} calls {called(node)}"


@rule
def private_names_are_not_imported(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        for item in tree.imports[module.name]:
            owner = item.module.split(".")[1] if "." in item.module else "__init__"
            private = [part for part in (*item.module.split("."), *item.names) if is_private(part)]
            if is_ours(item) and private and owner != module.package:
                yield f"{module}:{item.line} takes {private[0]} from {item.module}"


@rule
def private_attributes_stay_in_their_package(tree: Tree) -> Iterator[str]:
    """An attribute belongs to each package that defines or sets one of its name."""
    owners: dict[str, set[str]] = {}
    for module in tree.modules.values():
        for node in module.nodes:
            name = ""
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = node.name
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                # Only what is set on `self` or `cls` is one's own.
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                name = node.attr if own else ""
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            if is_private(name):
                owners.setdefault(name, set()).add(module.package)
    for module in tree.modules.values():
        for node in module.nodes:
            name = ""
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and called(node) in ("getattr", "setattr", "hasattr"):
                name = getattr(node.args[1], "value", "") if len(node.args) > 1 else ""
            if name in NAMED_TUPLE or not isinstance(name, str):
                continue
            if module.package not in owners.get(name, {module.package}):
                yield f"{module}:{getattr(node, 'lineno', 0)} reads {name}"


@rule
def files_are_neither_long_nor_short(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        lines = len(module.text.splitlines())
        if lines > MAX_LINES:
            yield f"{module} has {lines} lines, more than {MAX_LINES}"
        if lines < MIN_LINES and module.path.name not in MAY_BE_SHORT:
            yield f"{module} has {lines} lines, fewer than {MIN_LINES}"


@rule
def comments_are_sentences(tree: Tree) -> Iterator[str]:
    """No lines that separate the parts of a file: a file is one concept."""
    for module in tree.modules.values():
        for number, line in enumerate(module.text.splitlines(), 1):
            if line.lstrip().startswith(SEPARATORS):
                yield f"{module}:{number} is a separator"


@rule
def timeouts_are_those_of_within(tree: Tree) -> Iterator[str]:
    """`asyncio.wait_for` may swallow a cancellation up to Python 3.11: a close then never ends."""
    for module in tree.modules.values():
        for node in module.nodes:
            name = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(name, ast.Name) and (name.id, node.attr) == ("asyncio", "wait_for"):
                yield f"{module}:{node.lineno} uses asyncio.wait_for; use coord.runtime.timers.within"


@rule
def calls_name_their_arguments(tree: Tree) -> Iterator[str]:
    """Values take their fields in order, and click calls a command by keywords."""
    for module in tree.modules.values():
        values = {
            id(method)
            for node in module.nodes
            if isinstance(node, ast.ClassDef) and decorated_with("dataclass", node)
            for method in node.body
        }
        for node in module.nodes:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            names = [item.arg for item in (*node.args.posonlyargs, *node.args.args)]
            positional = [name for name in names if name not in ("self", "cls")]
            if (
                len(positional) > MAX_POSITIONAL
                and id(node) not in values
                and not decorated_with("command", node)
            ):
                yield f"{module}:{node.lineno} {node.name} takes {len(positional)} by position"


@rule
def the_top_is_small(tree: Tree) -> Iterator[str]:
    entries = sorted(path.name for path in tree.package.iterdir() if path.name != "__pycache__")
    if len(entries) > MAX_ENTRIES:
        yield f"coord/ has {len(entries)} entries, more than {MAX_ENTRIES}: {', '.join(entries)}"


@pytest.fixture(scope="module")
def coord_tree() -> Tree:
    return Tree(ROOT)


def test_tests_and_examples_have_no_separators_either() -> None:
    separators = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("tests", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.lstrip().startswith(SEPARATORS)
    ]
    assert separators == []


@pytest.mark.xdist_group("architecture")  # one process parses coord, and not each of them
@pytest.mark.parametrize("check", RULES, ids=lambda check: check.__name__)
def test_coord_keeps(check: Rule, coord_tree: Tree) -> None:
    wrong = list(check(coord_tree))
    assert not wrong, "\n".join(wrong)


OTHER_TESTS = {"benchmarks", "chaos", "docs", "support", "verification"}
"""Directories of tests/ that test no single package of coord."""


def test_the_tests_mirror_the_packages() -> None:
    def directories(path: Path) -> set[str]:
        return {entry.parent.name for entry in path.glob("*/__init__.py")}

    assert directories(ROOT / "tests") == directories(ROOT / "coord") | OTHER_TESTS
    for package in directories(ROOT / "coord"):
        inside = directories(ROOT / "tests" / package)
        assert inside <= directories(ROOT / "coord" / package), f"tests/{package}"


# Each rule, broken once. A file here is its first lines; the rest is filled up.

SOUND = {
    "__init__.py": "from coord.api.coordinator import Coordinator",
    "__main__.py": "from coord.cli import main",
    "errors.py": "class CoordError(Exception): ...",
    "core/__init__.py": "",
    "core/lease.py": "from coord.errors import CoordError\n_MAX = 1",
    "core/timing.py": "import math\n@dataclass(init=False)\nclass C:\n    def __init__(self, a, b, c, d, e, f): ...",
    "runtime/__init__.py": "",
    "runtime/clock.py": "import time\nfrom coord.core.timing import Instant",
    "stores/__init__.py": "",
    "stores/protocol.py": "from coord.core import lease",
    "stores/urls.py": "def f():\n    from coord.stores.memory import store, _private",
    "stores/memory/__init__.py": "",
    "stores/memory/store.py": "class Store:\n    def __init__(self): self._rows = 1",
    "stores/sqlite/__init__.py": "",
    "stores/sqlite/store.py": "from coord.stores.sqlite import schema",
    "stores/sqlite/schema.py": "from coord.stores.protocol import Store",
    "election/__init__.py": "",
    "election/jitter.py": "",
    "election/elector.py": "from coord.stores import protocol\nfrom coord.election import jitter",
    "fencing.py": "from coord.election.elector import Elector",
    "metrics.py": "from coord.core.lease import Lease",
    "services/__init__.py": "",
    "services/registry.py": "import coord.stores.urls",
    "recipes/__init__.py": "from coord.services.registry import Registry",
    "api/__init__.py": "",
    "api/coordinator.py": "from coord import fencing, metrics, recipes, services",
    "integrations/__init__.py": "from coord.api.coordinator import Coordinator",
    "web/__init__.py": "import coord.metrics",
    "testing/__init__.py": "from coord.stores.memory.store import Store",
    "testing/pytest_plugin.py": "from coord import fencing",
    "cli/__init__.py": "from coord.web import serve\nfrom coord.metrics import count\n@click.command()\ndef f(a, b, c, d, e, f): ...",
    "py.typed": "",
}

BROKEN = [
    ("imports_go_down", "core/lease.py", "from coord.runtime import clock"),
    ("imports_go_down", "core/lease.py", "def f():\n    import coord.runtime.clock"),
    ("imports_go_down", "core/lease.py", "if TYPE_CHECKING:\n    from coord.runtime import clock"),
    ("imports_go_down", "runtime/clock.py", "from coord.core.lease import Lease"),
    ("imports_go_down", "runtime/clock.py", "import_module('coord.core.lease')"),
    ("imports_go_down", "stores/protocol.py", "from coord.services import watch_services"),
    ("imports_go_down", "election/elector.py", "from coord.stores.urls import open_url"),
    ("imports_go_down", "election/elector.py", "from coord.stores import urls"),
    ("imports_go_down", "metrics.py", "from coord.runtime import clock"),
    ("imports_go_down", "fencing.py", "from coord.stores.protocol import Store"),
    ("imports_go_down", "services/registry.py", "from coord.metrics import count"),
    ("imports_go_down", "services/registry.py", "from coord.recipes import once"),
    ("imports_go_down", "recipes/__init__.py", "from coord.api import health"),
    ("imports_go_down", "api/coordinator.py", "from coord.testing import ManualClock"),
    ("imports_go_down", "api/coordinator.py", "from coord import web"),
    ("imports_go_down", "integrations/__init__.py", "from coord.election import elector"),
    ("imports_go_down", "web/__init__.py", "from coord.cli import main"),
    ("imports_go_down", "testing/__init__.py", "from coord.cli import main"),
    ("imports_go_down", "cli/__init__.py", "from coord.testing import ManualClock"),
    ("imports_go_down", "cli/__init__.py", "from coord.integrations import celery"),
    ("imports_go_down", "__main__.py", "from coord.api import coordinator"),
    ("imports_go_down", "stray.py", "import math"),
    ("imported_modules_exist", "api/coordinator.py", "from coord.core.gone import Name"),
    ("imports_are_absolute", "core/lease.py", "from . import timing"),
    ("imports_are_absolute", "core/lease.py", "def f():\n    from .timing import Instant"),
    ("nothing_inside_imports_the_public_face", "cli/__init__.py", "from coord import Coordinator"),
    ("nothing_inside_imports_the_public_face", "cli/__init__.py", "def f():\n    import coord"),
    ("there_are_no_cycles", "election/jitter.py", "from coord.election import elector"),
    ("there_are_no_cycles", "core/timing.py", "def f():\n    import coord.core.clocks"),
    ("only_urls_knows_the_backends", "stores/protocol.py", "from coord.stores import memory"),
    ("only_urls_knows_the_backends", "stores/sqlite/schema.py", "import coord.stores.memory.store"),
    ("only_urls_knows_the_backends", "api/coordinator.py", "from coord.stores.sqlite import store"),
    ("the_core_is_pure", "core/lease.py", "from asyncio import sleep"),
    ("the_core_is_pure", "core/lease.py", "def f():\n    import os.path"),
    ("the_core_is_pure", "core/lease.py", "import http.client"),
    ("the_core_is_pure", "core/lease.py", "datetime.now(timezone.utc)"),
    ("the_core_is_pure", "core/lease.py", "open('a file')"),
    ("private_names_are_not_imported", "cli/__init__.py", "from coord.core.lease import _MAX"),
    ("private_names_are_not_imported", "cli/__init__.py", "import coord.core._inner"),
    ("private_attributes_stay_in_their_package", "cli/__init__.py", "print(lease._MAX)"),
    ("private_attributes_stay_in_their_package", "api/coordinator.py", "store._rows = 2"),
    ("private_attributes_stay_in_their_package", "api/coordinator.py", "getattr(store, '_rows')"),
    ("files_are_neither_long_nor_short", "core/lease.py", "x = 1\n" * 601),
    ("comments_are_sentences", "core/lease.py", "x = 1\n# -- values -----"),
    ("timeouts_are_those_of_within", "stores/protocol.py", "await asyncio.wait_for(work, 1)"),
    ("calls_name_their_arguments", "core/lease.py", "def f(a, b, c, d, e, f): ..."),
    (
        "calls_name_their_arguments",
        "core/lease.py",
        "class C:\n    def f(self, a, b, c, d, e, f=1): ...",
    ),
    ("files_are_neither_long_nor_short", "cli/__init__.py", "x = 1\n" * 601),
    ("files_are_neither_long_nor_short", "core/small.py", "x = 1\n# short"),
]
NEEDED_BY = {
    "import coord.core.clocks": ("core/clocks.py", "from coord.core.timing import Instant"),
    "import coord.core._inner": ("core/_inner.py", "x = 1"),
    "from coord.services import watch_services": ("services/__init__.py", "x = 1"),
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "coord" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        filler = "" if "# short" in text else "\n#" * MIN_LINES
        path.write_text(f"{text}{filler}\n" if name.endswith(".py") else text)


def broken_rules(root: Path) -> dict[str, list[str]]:
    tree = Tree(root)
    return {check.__name__: wrong for check in RULES if (wrong := list(check(tree)))}


def test_a_sound_tree_breaks_no_rule(tmp_path: Path) -> None:
    write(tmp_path, SOUND)
    assert broken_rules(tmp_path) == {}


@pytest.mark.parametrize(("name", "file", "text"), BROKEN)
def test_a_broken_rule_is_reported(name: str, file: str, text: str, tmp_path: Path) -> None:
    write(tmp_path, SOUND)
    needed = next((needed for part, needed in NEEDED_BY.items() if part in text), None)
    if needed is not None:
        write(tmp_path, {needed[0]: needed[1]})
    write(tmp_path, {file: f"{SOUND.get(file, '')}\n{text}"})
    broken = broken_rules(tmp_path)
    assert list(broken) == [name] or set(broken) == {name, "there_are_no_cycles"}
    assert any(file.removesuffix(".py").split("/")[0] in line for line in broken[name])


def test_too_many_entries_at_the_top_are_reported(tmp_path: Path) -> None:
    write(tmp_path, SOUND)
    (tmp_path / "coord/__pycache__").mkdir()
    assert broken_rules(tmp_path) == {}
    write(tmp_path, {f"{name}.txt": "" for name in "abcde"})
    assert list(broken_rules(tmp_path)) == ["the_top_is_small"]


def test_every_rule_is_broken_once() -> None:
    tested = {name for name, _, _ in BROKEN} | {"the_top_is_small"}
    assert tested == {check.__name__ for check in RULES}
