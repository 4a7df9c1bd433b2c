"""Puts a mutated source in the place of one module of coord, in each process of a mutant's run.

Python imports this file at its start, because the runner puts its directory into PYTHONPATH; so a
process that a test starts has the mutant, too. It is alone in its directory for that reason.

COORD_MUTANT names a JSON file: `module`, `path` and `source` of the mutated module, `first` and
`last` line of the change, and `crashes`, the file for the crashes of the change itself.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

VARIABLE = "COORD_MUTANT"
CRASHES = (TypeError, NameError, AttributeError, ImportError, SyntaxError, RecursionError)
"""What a change raises that is a mistake itself, and not the fault that it is meant to be."""


class Finder(importlib.abc.MetaPathFinder):
    """Finds the one module."""

    def __init__(self, mutant: dict[str, Any]) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.mutant["module"]:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.mutant["path"], loader=Loader(fullname, self.mutant)
        )


class Loader(importlib.machinery.SourceFileLoader):
    """Loads the mutated source, never a compiled file."""

    def __init__(self, fullname: str, mutant: dict[str, Any]) -> None:
        super().__init__(fullname, mutant["path"])
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.mutant["source"], self.path)
        watch(tree, self.mutant["first"], self.mutant["last"])
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__mutant_crashed__"] = self.crashed
        super().exec_module(module)

    def crashed(self, error: BaseException) -> None:
        """Write down an error that the changed lines raised themselves."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if (
            trace is not None
            and trace.tb_frame.f_code.co_filename == self.path
            and self.mutant["first"] <= trace.tb_lineno <= self.mutant["last"]
        ):
            with open(self.mutant["crashes"], "a", encoding="utf-8") as file:
                file.write(f"{type(error).__name__}: {error}\n")


def watch(tree: ast.AST, first: int, last: int) -> None:
    """Wrap the smallest statements that contain the change, so that a crash of it is written down
    even if the code around it catches the error."""
    for field in ("body", "orelse", "finalbody"):
        statements = getattr(tree, field, None)
        if isinstance(statements, list):
            setattr(tree, field, [watched(statement, first, last) for statement in statements])
    for part in (*getattr(tree, "handlers", ()), *getattr(tree, "cases", ())):
        watch(part, first, last)


def watched(statement: ast.stmt, first: int, last: int) -> ast.stmt:
    """The statement, wrapped if the change is in it and in no statement inside it."""
    if statement.end_lineno is None or statement.end_lineno < first or statement.lineno > last:
        return statement
    inside = [node for node in ast.walk(statement) if isinstance(node, ast.stmt)]
    definition = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    if definition or any(
        node is not statement and node.lineno <= first and last <= (node.end_lineno or 0)
        for node in inside
    ):
        watch(statement, first, last)
        return statement
    if isinstance(statement, (ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom)):
        return statement
    guard = ast.parse(
        "try:\n    pass\n"
        f"except ({', '.join(kind.__name__ for kind in CRASHES)}) as __crash__:\n"
        "    __mutant_crashed__(__crash__)\n    raise"
    ).body[0]
    assert isinstance(guard, ast.Try)
    for part in ast.walk(guard):
        ast.copy_location(part, statement)
    guard.body = [statement]
    return guard


def install(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        sys.meta_path.insert(0, Finder(json.load(file)))


if os.environ.get(VARIABLE):
    install(os.environ[VARIABLE])
