"""Two coordinators on one store, as in the tests of elections."""

from __future__ import annotations

from tests.election.conftest import coordinator, store_time, two

__all__ = ["coordinator", "store_time", "two"]
