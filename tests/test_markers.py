"""What conftest.py does with the tests: the list of slow ones is true to the files."""

from __future__ import annotations

from tests.conftest import HERE, slow_tests


def test_the_slow_tests_are_there() -> None:
    missing_nodes = []
    for name in slow_tests():
        file, *inside = name.split("::")
        path = HERE / file
        # The first part inside: what a class inherits is not in its file.
        if not path.exists() or f" {inside[0]}" not in path.read_text(encoding="utf-8"):
            missing_nodes.append(name)
    assert missing_nodes == []
