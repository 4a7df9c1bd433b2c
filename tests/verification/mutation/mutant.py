"""One fault: where it is, what it changes, and which tests must fail because of it."""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[3]
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


class BadMutant(Exception):
    """The mutant cannot be applied as it is written."""


@dataclass(frozen=True)
class Mutant:
    """One change of one place in the source of coord.

    Attributes:
        name: What is wrong with the mutated code.
        place: The module and, after a colon, the function or class that contains the change:
            `coord.services.heartbeat:Heartbeat.stop`. Without a colon, the whole module.
        old: The text to replace. It occurs exactly once in that place.
        new: What replaces it.
        tests: The tests of which at least one must fail, as paths below `tests/`.
        needs: The tools without which those tests skip (tests/support/requirements.py).
    """

    name: str
    place: str
    old: str
    new: str
    tests: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]

    @property
    def path(self) -> Path:
        base = ROOT.joinpath(*self.module.split("."))
        package = base / "__init__.py"
        return package if package.exists() else base.with_suffix(".py")

    @property
    def id(self) -> str:
        return f"{self.module.removeprefix('coord.')}: {self.name}".replace(" ", "-")

    @cached_property
    def original(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BadMutant(f"there is no module {self.module}") from None

    @cached_property
    def _start(self) -> int:
        """Where in the source the replaced text begins."""
        begin, end = self._bounds()
        count = self.original.count(self.old, begin, end)
        if count != 1:
            raise BadMutant(f"{self.old!r} occurs {count} times in {self.place}, not once")
        return self.original.index(self.old, begin, end)

    @cached_property
    def source(self) -> str:
        """The mutated source of the module."""
        return (
            self.original[: self._start] + self.new + self.original[self._start + len(self.old) :]
        )

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last line of the mutated source that the change has written."""
        first = self.source.count("\n", 0, self._start) + 1
        return first, first + self.new.count("\n")

    def check(self) -> None:
        """Check that the change applies and that it alone can be noticed.

        Raises:
            BadMutant: The text occurs not once, the mutated source does not compile, changes
                nothing, has other functions or signatures, or uses a name that the module does not
                have.
        """
        before = parsed(self.original)
        try:
            after = ast.parse(self.source)
        except SyntaxError as err:
            raise BadMutant(f"the mutated source does not compile: {err}") from None
        kept, replaced, new = self._compared(before, after)
        if ast.dump(replaced) == ast.dump(new):
            raise BadMutant("the change has no effect")
        if signatures(replaced) != signatures(new):
            raise BadMutant("the mutated source has other functions or signatures")
        defined_there = set(dir(builtins)).union(bound(new), *map(bound, kept))
        if unknown := names(new) - names(before) - defined_there:
            raise BadMutant(f"the mutated source uses unknown names: {', '.join(sorted(unknown))}")
        if not self.tests:
            raise BadMutant("no tests are named")

    def _compared(
        self, before: ast.Module, after: ast.Module
    ) -> tuple[list[ast.stmt], ast.Module, ast.Module]:
        """Return the statements of the module that the change leaves as they are; and what it
        replaces, and by what."""
        first, last = self.lines
        end = first + self.old.count("\n")
        (head, replaced, tail), (head_after, new, tail_after) = (
            parted(before, first, end),
            parted(after, first, last),
        )
        if (len(head), len(tail)) != (len(head_after), len(tail_after)):
            return [], before, after
        return head + tail, ast.Module(replaced, []), ast.Module(new, [])

    def _bounds(self) -> tuple[int, int]:
        _, _, inside = self.place.partition(":")
        if not inside:
            return 0, len(self.original)
        nodes = [node for name, node in defined(self.original) if name == inside]
        if len(nodes) != 1:
            raise BadMutant(f"{self.module} has {len(nodes)} definitions of {inside}, not one")
        node = nodes[0]
        first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
        ends = [0]
        for line in self.original.splitlines(keepends=True):
            ends.append(ends[-1] + len(line))
        assert node.end_lineno is not None
        return ends[first - 1], ends[node.end_lineno]


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a module that several mutants change."""
    return ast.parse(source)


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """All functions and classes of a module by their qualified names, the outer ones first."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*Function, ast.ClassDef)):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}.")
        elif not isinstance(node, ast.expr):  # which has none inside
            yield from definitions(node, prefix)


@functools.cache
def defined(source: str) -> list[tuple[str, Definition]]:
    """The definitions of a module that several mutants change."""
    return list(definitions(parsed(source)))


def parted(
    tree: ast.Module, first: int, last: int
) -> tuple[list[ast.stmt], list[ast.stmt], list[ast.stmt]]:
    """The statements of a module before, at and after the lines `first` to `last`."""
    head, at, tail = [], [], []
    for node in tree.body:
        decorators = getattr(node, "decorator_list", [])
        begin = min([node.lineno, *(part.lineno for part in decorators)])
        end = node.end_lineno or begin
        (head if end < first else tail if begin > last else at).append(node)
    return head, at, tail


def signatures(tree: ast.AST) -> list[tuple[str, str]]:
    """Each function with its kind, parameters and decorators."""
    return [
        (
            name,
            " ".join(
                [type(node).__name__, ast.dump(node.args), *map(ast.dump, node.decorator_list)]
            ),
        )
        for name, node in definitions(tree)
        if isinstance(node, Function)
    ]


@functools.cache
def names(tree: ast.AST) -> frozenset[str]:
    """The names that a module reads or writes."""
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


@functools.cache
def bound(tree: ast.AST) -> frozenset[str]:
    """The names that a module defines: imports, functions, classes, parameters, variables."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (*Function, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)
