"""The pytest plugin of coord, found by itself once coord is installed (entry point `pytest11`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coord.testing.election_kit import ElectionKit


@pytest.fixture
def coord_election() -> Iterator[ElectionKit]:
    """Elections under the test's control, in this process: `.win(role)`, `.lose(role, reason)`,
    `.occupy(role)`.

    During the test, `@leader_only` uses its coordinator unless it was given another.
    """
    from coord.testing.election_kit import ElectionKit

    with ElectionKit().as_default() as kit:
        yield kit
