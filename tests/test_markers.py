"""What conftest.py does with the tests: the list of slow ones is true to the files,
and each test has a variation that runs by default."""

from __future__ import annotations

import pytest

from tests.conftest import HERE, WITHOUT_REPRESENTATIVE, slow_tests
from tests.support import levels

WAITS_FOR_MINUTES = {
    "tests/integrations/test_celery.py::test_a_crontab_entry_that_was_due_in_the_gap_is_sent_once"
}


def test_the_slow_tests_are_there() -> None:
    missing_nodes = []
    for name in slow_tests():
        file, *inside = name.split("::")
        path = HERE / file
        # The first part inside: what a class inherits is not in its file.
        if not path.exists() or f" {inside[0]}" not in path.read_text(encoding="utf-8"):
            missing_nodes.append(name)
    assert missing_nodes == []


@pytest.mark.skipif(levels.LONG, reason="with COORD_LONG more tests have the mark")
def test_each_test_runs_by_default_in_one_variation(request: pytest.FixtureRequest) -> None:
    without_one = set(request.config.stash[WITHOUT_REPRESENTATIVE])
    assert without_one - WAITS_FOR_MINUTES == set()


def test_one_process_runs_all_tests_of_a_group(request: pytest.FixtureRequest) -> None:
    """pytest-xdist distributes by the end of the id."""
    if not getattr(request.config.option, "loadgroup", False):
        return  # this process runs all tests
    for item in request.session.items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        assert not groups or item.nodeid.endswith(f"@{'_'.join(groups)}"), item.nodeid
