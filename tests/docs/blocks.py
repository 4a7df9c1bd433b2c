"""The code blocks of README.md and docs/."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    where: str
    """The page and the line of the fence, for people."""


def blocks(languages: Collection[str] | None = None) -> list[Block]:
    """Those in these languages (None: all), in order."""
    results = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for fence in FENCE.finditer(text):
            line = text[: fence.start()].count("\n") + 1
            results.append(
                Block(fence["language"], fence["code"], f"{page.relative_to(ROOT)}:{line}")
            )
    return [row for row in results if languages is None or row.language in languages]
