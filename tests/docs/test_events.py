"""docs/events.md and the code name the same events, levels, fields, reasons and metrics."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

from prometheus_client import CollectorRegistry

import coord
from coord import LossReason
from coord.election import lifecycle

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")


@functools.cache
def in_the_code() -> dict[str, tuple[set[str], set[str]]]:
    """Event -> its levels and its fields, from every call of coord.runtime.log."""
    events: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for path in sorted((ROOT / "coord").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "log.py" or not re.search(r"\blog\b", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            levels = {
                item.attr
                for item in ast.walk(node.func)
                if isinstance(item, ast.Attribute)
                and isinstance(item.value, ast.Name)
                and item.value.id == "log"
            } & {"debug", "info", "warning", "error", "emit"}
            if not levels:
                continue
            name = node.args[0]
            assert "emit" not in levels, f"{path}: use a level's own function"
            assert isinstance(name, ast.Constant), (
                f"{path}:{node.lineno}: an event has a constant name"
            )
            events[name.value][0].update(levels)
            events[name.value][1].update(keyword.arg for keyword in node.keywords if keyword.arg)
    return dict(events)


def on_the_page(header: str) -> dict[str, list[str]]:
    """The rows of the table with that header, by the name in their first cell."""
    table = PAGE[PAGE.index(header) :].split("\n\n")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]
    ]
    return {re.sub("[`| ]", "", row[0]): row[1:] for row in rows}


def words(cell: str) -> set[str]:
    return set(re.findall(r"[a-z_]+", re.sub(r"\(.*?\)", "", cell)))


def test_each_event_is_on_the_page_and_each_on_the_page_is_in_the_code() -> None:
    code, page = in_the_code(), on_the_page("| event | level |")
    assert set(code) == set(page)
    assert len(code) > 10


def test_levels_and_fields_are_those_of_the_code() -> None:
    page = on_the_page("| event | level |")
    for event, (levels, fields) in in_the_code().items():
        assert levels == words(page[event][0]) & {"debug", "info", "warning", "error"}, event
        assert fields == words(page[event][1]), event


def test_each_reason_is_named() -> None:
    output = PAGE[PAGE.index("Reasons:") :].split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", output)) == {str(reason) for reason in LossReason}


def test_each_metric_is_named() -> None:
    registry = CollectorRegistry()
    coord.metrics.enable(registry)
    try:
        assert lifecycle.observer is not None
        named = {
            metric.name + "_total" * (metric.type == "counter") for metric in registry.collect()
        }
    finally:
        coord.metrics.disable()
    assert set(on_the_page("| metric | type |")) == named
