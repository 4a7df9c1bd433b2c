"""The pictures in docs/pictures/ show what the commands print now."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from coord import cli
from tests.docs.blocks import PAGES
from tests.docs.forks import start_forks
from tests.docs.pictures import PICTURES, SCENES, lasting, taken
from tests.support.docs_terminal import words
from tests.support.forkserver import ForkServer


def test_each_scene_has_its_picture_and_each_picture_a_place() -> None:
    assert {item.stem for item in PICTURES.glob("*.svg")} >= set(SCENES)
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in SCENES:
        assert f"pictures/{name}.svg" in pages, name


@pytest.fixture(scope="module")
def picture_forks() -> Iterator[ForkServer]:
    """Processes that have imported the commands in the pictures; warnings are errors in them."""
    modules = [cli.COMMANDS[name][0] for name in ("status", "transfer")]
    with start_forks(*modules, warnings="error") as forks:
        yield forks


@pytest.mark.parametrize("name", SCENES)
def test_it_shows_what_is_printed_now(name: str, picture_forks: ForkServer) -> None:
    shown = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(shown)  # well formed
    used = re.findall(r"^\$ coord (\w+)", "\n".join(words(shown)), re.MULTILINE)
    assert used
    assert set(used) <= set(cli.COMMANDS)
    assert "http" not in re.sub(
        r"https?://www\.(w3\.org/\S*|textualize\.io)", "", shown
    )  # nothing is fetched for it
    # What the scene of the doctor replaces must be replaced before coord is imported.
    forks = None if name == "doctor" else picture_forks
    assert lasting(shown) == lasting(taken(name, forks)), (
        f"write it again: python -m tests.docs.pictures {name}"
    )
