"""Variables of coord and of its tests are named after what they hold: with nouns."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BANNED = {
    "asked",
    "found",
    "given",
    "gone",
    "got",
    "heard",
    "known",
    "left",
    "mine",
    "one",
    "ours",
    "said",
    "seen",
    "theirs",
    "told",
    "wanted",
}
"""Pronouns, participles and verbs, which say nothing about the value."""


def banned_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each banned variable, parameter or attribute of a class."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            name = node.name or ""
        else:
            continue
        if name.strip("_") in BANNED:
            yield node.lineno, name


@pytest.mark.parametrize("directory", ["coord", "tests", "examples"])
def test_variables_are_named_after_what_they_hold(directory: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / directory).rglob("*.py"))
        for line, name in banned_names(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_each_kind_of_variable_is_checked() -> None:
    source = """
def f(one, *, asked=None, **mine):
    left, _found = 1, [known for known in asked]
    for seen in left: pass
    with open("x") as theirs: pass
    try: pass
    except OSError as told: pass
    match one:
        case [given, *wanted]: pass
    return (lambda said: said), (heard := 1)
"""
    assert {name.strip("_") for _, name in banned_names(source)} == BANNED - {"gone", "got", "ours"}
