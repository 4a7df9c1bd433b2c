"""How a sync coordinator is closed: once, by whichever thread, callback, signal handler or garbage
collection comes first."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import Protocol

from coord.election.elector import Elector
from coord.election.session import Session
from coord.errors import CoordinatorClosed
from coord.runtime import process
from coord.runtime.facade import HasPortal, end_threads
from coord.runtime.portal import Portal

EXIT_DRAIN_TIMEOUT = 5.0
"""Seconds that the end of a process waits for work to end; what does not end keeps its lease until
it runs out."""
CHECK_EVERY = 0.1
"""Seconds between two checks whether another thread goes on closing a coordinator."""


class Closable(HasPortal, Protocol):
    """A sync coordinator, as far as closing it needs to know it."""

    @property
    def session(self) -> Session:
        """What all elections of the coordinator share."""


class Closing:
    """Closes one coordinator, and closes it also when nobody refers to it any more.

    Args:
        coordinator: The coordinator. It is referred to weakly.
    """

    def __init__(self, coordinator: Closable) -> None:
        self._coordinator = weakref.ref(coordinator)
        self._session, self._portal = coordinator.session, coordinator.portal
        # At most one entry, whose claim to close is checked and made by one atomic operation.
        self._closers: dict[str, tuple[int, object]] = {}
        # What nobody refers to, and leads nothing, needs no thread and no file any more.
        weakref.finalize(coordinator, _dispose, self._session, self._portal).atexit = False

    def close(self) -> None:
        """Close the coordinator, or wait until another thread has closed it.

        A callback or a job of a leadership does not wait, because it would wait for itself.
        """
        session, claim = self._session, (threading.get_ident(), object())
        while not session.closed:
            closer = self._closers.setdefault("closer", claim)
            if closer is claim:
                break
            # A signal handler may interrupt the close of its own thread.
            if closer[0] == claim[0] or self._is_calling():
                return
            session.closed.wait(CHECK_EVERY)
        else:
            self._closed()  # the call that has closed it may have been interrupted before this
            return
        coordinator = self._coordinator()
        assert coordinator is not None  # its method calls this one
        try:
            end_threads(coordinator)
            if self._portal.running:
                self._portal.call(session.close)
            else:
                session.mark_closed()
        except CoordinatorClosed:
            session.closed.wait()
        finally:
            self._closers.clear()
        session.closed.add_callback(self._closed)

    def close_quickly(self) -> None:
        """Do what `close` does within a few seconds, because the process ends. Raises nothing."""
        for member in tuple(self._session.members):
            if isinstance(member, Elector):
                lifecycle = member.lifecycle
                lifecycle.drain_timeout = min(lifecycle.drain_timeout, EXIT_DRAIN_TIMEOUT)
        with contextlib.suppress(Exception):
            self.close()

    def after_fork(self) -> None:
        """In a forked child: the thread that was closing is not here."""
        self._closers = {}

    def _closed(self) -> None:
        url = self._session.store.url
        self._portal.close(f"cannot use the coordinator of {url}: it is closed; create a new one")
        coordinator = self._coordinator()
        if coordinator is not None:
            process.cancel_close_at_exit(coordinator)

    def _is_calling(self) -> bool:
        return any(member.is_calling() for member in tuple(self._session.members))


def _dispose(session: Session, portal: Portal) -> None:
    """Close what was dropped without `close`. It is called anywhere, and waits for nothing."""

    async def close() -> None:
        # A caller of `unique_service` may still rely on the last answer: let that lease expire.
        for member in tuple(session.members):
            if not isinstance(member, Elector):
                session.leave(member)
        with contextlib.suppress(Exception):
            await session.close()
        portal.close("cannot use this coordinator: it was dropped")

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(close(), name="coord dispose")
        _disposing.add(task)
        task.add_done_callback(_disposing.discard)

    portal.post(begin)


_disposing: set[asyncio.Task[None]] = set()
"""Tasks that nothing else refers to."""
