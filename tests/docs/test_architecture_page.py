"""`docs/architecture.md` says what the code is: its packages, what they import, and its files."""

from __future__ import annotations

import re

import pytest

from tests.test_architecture import MAY_IMPORT, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NOT_IN_THE_PICTURE = {"errors", "fencing", "metrics", "__main__"}
"""Every package may import `errors`; `fencing` and `metrics` are one module each."""


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    text = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def imports() -> dict[str, set[str]]:
    """Return what the table of packages says that each may import."""
    packages: dict[str, set[str]] = {}
    for names, _, cell in rows("Packages"):
        text = cell.split(";")[0].split(", one module for each")[0]
        if text.startswith("all packages above"):
            allowed = packages.keys() - {*re.findall(r"`(\w+)`", text), "integrations", "errors"}
            if names != "`cli`":
                allowed -= {"web"}
        else:
            allowed = set()
            for package, modules in re.findall(r"of `(\w+)` only ((?:`\w+`(?:, )?)+)", text):
                allowed |= {f"{package}.{module}" for module in re.findall(r"`(\w+)`", modules)}
            rest = re.sub(r"of `\w+` only (?:`\w+`(?:, )?)+", "", text)
            allowed |= set(re.findall(r"`(\w+)`", rest)) - {"errors"}
        for name in re.findall(r"`(\w+)`", names):
            packages[name] = allowed
    return packages


def test_the_table_of_packages() -> None:
    expected = {name: set(allowed) for name, allowed in MAY_IMPORT.items() if name != "__main__"}
    assert imports() == expected


def test_the_arrows_lead_to_every_package_that_is_imported() -> None:
    arrows: dict[str, set[str]] = {}
    for source, target in re.findall(r"^    (\w+)(?:\[[^]]*\])? --> (\w+)", PAGE, re.MULTILINE):
        arrows.setdefault(source, set()).add(target)
    nodes = arrows.keys() | {target for targets in arrows.values() for target in targets}
    assert nodes == MAY_IMPORT.keys() - NOT_IN_THE_PICTURE

    def reached(node: str) -> set[str]:
        targets = arrows.get(node, set())
        return targets.union(*(reached(target) for target in targets))

    for name in nodes:
        imported = {module.partition(".")[0] for module in MAY_IMPORT[name]}
        assert imported - NOT_IN_THE_PICTURE <= reached(name), name
        assert name not in reached(name), "the arrows are a cycle"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./]+/[\w.]*)`", PAGE))))
def test_the_files_exist(path: str) -> None:
    assert (ROOT / "coord" / path).exists() or (ROOT / path).exists()


@pytest.mark.parametrize(
    ("name", "path"), sorted(set(re.findall(r"`([\w.]+)` \(`([\w/]+\.py)`\)", PAGE)))
)
def test_the_names_are_in_their_files(name: str, path: str) -> None:
    text = (ROOT / "coord" / path).read_text(encoding="utf-8")
    for part in name.split("."):
        assert re.search(rf"\b(?:class|def) {part}\b", text), f"{part} is not in {path}"
