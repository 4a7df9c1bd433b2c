"""Each guarantee names the tests that it rests on, and those tests exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT
from tests.verification.exhaustive.mutants import MUTANTS
from tests.verification.mutation.mutants import MUTANTS as MUTANTS_OUTSIDE

GUARANTEES = ROOT / "docs" / "guarantees.md"
NAMING = ("guarantees.md", "testing.md", "model.md", "once.md")
"""Pages whose sentences name tests."""
QUOTED = re.compile(r"`([^`\n]+)`")
PROMISING = (
    "What coord guarantees", "What PostgreSQL keeps", "What Redis and Valkey keep", "What etcd keeps",
    "What RethinkDB keeps", "Between two stores", "Which clock judges a SQLite lease", "Callers that do not wait",
    "What operators may do",
)  # fmt: skip
"""The sections of the page that make promises."""
FEATURES = {
    "once": ("exhaustive/test_once.py", "simulation/test_once.py", "test_once_processes.py"),
    "share": ("test_sharing.py", "test_share_simulation.py", "test_share_processes.py"),
    "slots": ("test_slots.py", "test_slot_simulation.py", "test_slot_processes.py"),
    "update": ("test_leader_info.py", "test_publishers.py"),
    "operators": ("test_exhaustive.py", "simulation/test_operators.py"),
    "retire": ("contract/retirement.py", "simulation/test_operators.py"),
}
"""What each feature rests on: its model, its state machine, and its processes."""
OUTSIDE_THE_CORE = {
    9: (
        "a forked child believes in its parent's term",
        "a forked child keeps what its parent holds",
    ),
    10: ("a fence lets an older token pass", "a SQL write does not compare tokens"),
}
"""The mutants of the rules that the core has no part in, by rule."""


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def paragraphs(section: str) -> list[str]:
    """The paragraphs and the items of lists, without tables."""
    blocks = re.split(r"\n\s*\n|\n(?=- )", section)
    return [block for block in map(str.strip, blocks) if block and not block.startswith("|")]


def named_files(text: str) -> list[tuple[str, str]]:
    """What a text names: each file of tests with, perhaps, a test in it."""
    files: list[tuple[str, str]] = []
    for name in QUOTED.findall(text):
        path, _, inside = name.partition("::")
        if re.match(r"(tests|coord)/[\w/.-]+$", path):
            files.append((path, inside))
        elif re.match(r"test_\w+(\[.+\])?$", name):
            assert files, f"{name} is named before its file"
            files.append((files[-1][0], name))
    return files


def code(path: str) -> str:
    file = ROOT / path
    assert file.exists(), path
    files = file.rglob("*.py") if file.is_dir() else [file]
    return "\n".join(item.read_text(encoding="utf-8") for item in files)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name in NAMING], ids=lambda page: page.name
)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    for block in paragraphs(page.read_text(encoding="utf-8")):
        for path, inside in named_files(block):
            text = code(path)
            if inside:
                name, _, case = inside.rstrip("]").partition("[")
                assert f"def {name}(" in text, f"{path} has no test {name}"
                assert not case or f'"{case}"' in text, f"{path}::{name} has no case {case}"


@pytest.mark.parametrize("title", PROMISING)
def test_each_promise_names_a_test(title: str) -> None:
    """A paragraph without one is an introduction to the next, or explains the one before."""
    section = sections(GUARANTEES.read_text(encoding="utf-8"))[title]
    blocks = paragraphs(section)
    named = [block for block in blocks if named_files(block) or "StoreContract" in block]
    assert named, f"{title}: no test is named"
    if title in ("What coord guarantees", "What operators may do"):
        promises = [block for block in blocks if block.startswith(("**", "- "))]
        assert [block[:60] for block in promises if block not in named] == []


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_rests_on_a_model_and_a_state_machine(feature: str) -> None:
    named = {path for path, _ in named_files(GUARANTEES.read_text(encoding="utf-8"))}
    for kind in FEATURES[feature]:
        assert any(path.endswith(kind) for path in named), f"{feature}: {kind} is not named"


def test_each_rule_is_broken_by_a_mutant() -> None:
    section = sections(GUARANTEES.read_text(encoding="utf-8"))["The rules"]
    rules = [int(number) for number in re.findall(r"^(\d+)\. ", section, flags=re.MULTILINE)]
    assert rules == [*range(1, len(rules) + 1)]
    core = {mutant.rule for mutant in MUTANTS}
    assert sorted(core | OUTSIDE_THE_CORE.keys()) == rules
    assert core.isdisjoint(OUTSIDE_THE_CORE)
    names = {mutant.name for mutant in MUTANTS_OUTSIDE}
    assert names >= {name for mutants in OUTSIDE_THE_CORE.values() for name in mutants}
    for number, mutants in OUTSIDE_THE_CORE.items():
        for mutant in mutants:
            assert mutant in section, f"rule {number}: the page does not name {mutant}"
