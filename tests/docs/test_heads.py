"""Each page says at its head what its reader can do after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

HEAD = "After reading"
LISTS = {"benchmarks.md", "changelog.md"}
"""Figures and changes: they say what they are."""


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES[1:] if page.name not in LISTS],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_it_says_what_the_reader_can_do_after_it(page: Path) -> None:
    title, first, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert HEAD in first, f"begin with: {HEAD} this page you can …"


@pytest.mark.parametrize("name", ["quickstart", "glossary", "index", "how-to/index"])
def test_the_front_pages_know_unique_service(name: str) -> None:
    assert "unique_service" in (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_the_readme_begins_with_one_sentence_the_stores_and_unique_service() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = "\n".join(text.splitlines()[:40])
    assert text.split("\n\n")[1].startswith("coord is a Python library and a command that run ")
    assert "postgresql://app@db1/app" in first_screen
    order = [
        "coord.unique_service(", "@coord.leader_only", "on_elected=", "c.leader(", "coord run hello",
        "What coord is not", "How it compares",
    ]  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)
