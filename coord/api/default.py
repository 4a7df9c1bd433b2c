"""The coordinator of a program that names none: for `@leader_only` and `coord.unique_service`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from coord.api.coordinator import Coordinator
from coord.runtime import log, process


class DefaultCoordinator:
    """The coordinator for the URL in `COORD_URL`, or without that for the SQLite file of the user.

    It is made when it is first used.
    """

    def __init__(self) -> None:
        self._coordinator: Coordinator | None = None
        self._lock = threading.Lock()
        process.reset_after_fork(self)

    def get(self) -> Coordinator:
        """Return it; the first call makes it."""
        with self._lock:
            if self._coordinator is None:
                self._coordinator = Coordinator()
                log.debug("coordinator.default", url=self._coordinator.url)
            return self._coordinator

    @contextlib.contextmanager
    def replaced_by(self, coordinator: Coordinator) -> Iterator[None]:
        """Use another coordinator for the duration of the block; for tests."""
        with self._lock:
            before, self._coordinator = self._coordinator, coordinator
        try:
            yield
        finally:
            with self._lock:
                self._coordinator = before

    def after_fork(self) -> None:
        """In a forked child: the parent may hold the lock."""
        self._lock = threading.Lock()


default = DefaultCoordinator()
