"""Links between README.md, docs/ and the files beside them resolve, and the site leaves nothing
out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import coord
import coord.testing
from tests.docs.blocks import FENCE, PAGES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
SITE = (ROOT / ".ci" / "mkdocs.yml").read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The ids that its headings get, on GitHub and in the site alike."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[ -]+", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip())
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_pages_that_are_named_are_there() -> None:
    """`docs/…` in code, comments, messages and pages."""
    sources = [
        *PAGES,
        *(ROOT / "coord").rglob("*.py"),
        *(ROOT / "examples").iterdir(),
        ROOT / "CHANGELOG.md",
    ]
    for source in sources:
        if source.is_file():
            for name in re.findall(r"\bdocs/[\w/-]+\.md\b", source.read_text(encoding="utf-8")):
                assert (ROOT / name).exists(), f"{source.relative_to(ROOT)}: {name}"


def test_each_page_is_in_the_sites_navigation() -> None:
    named = set(re.findall(r"([\w/-]+\.md)$", SITE, re.MULTILINE))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}, (
        "give it a place in .ci/mkdocs.yml"
    )


def test_each_public_name_is_in_the_reference() -> None:
    pages = "\n".join(
        page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")
    )
    shown = set(re.findall(r"^::: (\S+)", pages, re.MULTILINE))
    missing = {name for name in coord.__all__ if f"coord.{name}" not in shown}
    errors = {name for name in missing if getattr(coord, name).__module__ == "coord.errors"}
    assert "coord.errors" in shown
    assert missing - errors == set()
    assert "coord.testing" in shown  # all of its __all__
