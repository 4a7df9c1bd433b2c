"""The pictures in docs/pictures/ show what the commands print now."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from coord.cli import COMMANDS
from tests.docs.blocks import PAGES
from tests.docs.pictures import PICTURES, SCENES, lasting, taken
from tests.support.docs_terminal import words


def test_each_scene_has_its_picture_and_each_picture_a_place() -> None:
    assert {item.stem for item in PICTURES.glob("*.svg")} >= set(SCENES)
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in SCENES:
        assert f"pictures/{name}.svg" in pages, name


@pytest.mark.parametrize("name", SCENES)
def test_it_shows_what_is_printed_now(name: str, tmp_path: Path) -> None:
    shown = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(shown)  # well formed
    used = re.findall(r"^\$ coord (\w+)", "\n".join(words(shown)), re.MULTILINE)
    assert used
    assert set(used) <= set(COMMANDS)
    assert "http" not in re.sub(
        r"https?://www\.(w3\.org/\S*|textualize\.io)", "", shown
    )  # nothing is fetched for it
    assert lasting(shown) == lasting(taken(name)), (
        f"write it again: python -m tests.docs.pictures {name}"
    )
