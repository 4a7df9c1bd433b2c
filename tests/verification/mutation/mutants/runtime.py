"""Mutants of coord.runtime."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

MUTANTS = [
    Mutant(
        "the backoff of feeds is never reset",
        "coord.runtime.retry:reconnecting",
        "backoff.reset()",
        "pass",
        (
            "stores/test_feeds.py::test_a_feed_that_has_yielded_a_row_starts_with_the_shortest_wait_again",
        ),
    ),
]
