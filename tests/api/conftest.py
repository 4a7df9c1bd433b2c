"""Two coordinators on one store, as in the tests of elections."""

from __future__ import annotations

from tests.election.conftest import one, two

__all__ = ["one", "two"]
