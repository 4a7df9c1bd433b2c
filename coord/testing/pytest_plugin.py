"""The pytest plugin of coord. pytest loads it once coord is installed (entry point `pytest11`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coord.testing.election_kit import ElectionKit


@pytest.fixture
def coord_election() -> Iterator[ElectionKit]:
    """Elections that the test controls, with `.win(role)`, `.lose(role, reason)`, `.occupy(role)`.

    During the test, `@leader_only` uses the coordinator of the kit, unless you give it another one.
    """
    from coord.testing.election_kit import ElectionKit

    with ElectionKit().as_default() as kit:
        yield kit
