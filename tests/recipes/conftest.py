"""Two coordinators on one store, as in the tests of elections."""

from __future__ import annotations

from tests.election.conftest import two

__all__ = ["two"]
