"""The coordinator of a program that names none: for `@leader_only` and `coord.unique_service`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coord.api.sync_coordinator import Coordinator
from coord.runtime import log


class DefaultCoordinator:
    """The coordinator for the URL in `COORD_URL`, or without that for the SQLite file of the user.

    It is made when it is first used.
    """

    def __init__(self) -> None:
        # At most one entry. A dict needs no lock, which a signal handler could wait for.
        self._coordinators: dict[str, Coordinator] = {}

    def get(self) -> Coordinator:
        """Return it; the first call makes it."""
        coordinator = self._coordinators.get("default")
        if coordinator is None:
            # If another thread makes one just now, the second is dropped, and was never used.
            coordinator = self._coordinators.setdefault("default", Coordinator())
            log.debug("coordinator.default", url=coordinator.url)
        return coordinator

    @contextlib.contextmanager
    def replaced_by(self, coordinator: Coordinator) -> Iterator[None]:
        """Use another coordinator for the duration of the block; for tests."""
        before = self._coordinators.get("default")
        self._coordinators["default"] = coordinator
        try:
            yield
        finally:
            self._coordinators.pop("default", None)
            if before is not None:
                self._coordinators["default"] = before


default = DefaultCoordinator()
