"""How a thread tells a loop that something is done: by an eventfd where there is one, in two thirds of the time.

`call_soon_threadsafe` sends a byte through a pair of sockets, and the loop reads them twice, to see that there is no
more. The thread of a store does it for every claim.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

from coord.alarm import Alarm

Wake = Callable[[], None]


class Bell:
    """Of one loop, on which it is made and closed; only `ring` may be called from elsewhere.

    file: whether it may open one. Without, and on other systems than Linux, it does it by `call_soon_threadsafe`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, file: bool = True) -> None:
        self.loop = loop
        self.alarm = Alarm(loop)
        self._lock = threading.Lock()
        self._rung: deque[Wake] = deque()  # emptied without the lock: no swap, but one by one
        self._fd = -1
        if not file or not hasattr(os, "eventfd"):
            return
        with contextlib.suppress(OSError):  # no more files may be opened
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                loop.add_reader(self._fd, self._hear)
            except BaseException as err:
                self._let_go()
                if not isinstance(err, NotImplementedError):  # there are loops that wait for no files
                    raise

    def ring(self, wake: Wake) -> None:
        """Have `wake` called on the loop. Once that is closed nobody waits, and nothing happens."""
        with self._lock:  # a number that was closed may be another file's by now
            if self._fd >= 0:
                self._rung.append(wake)
                os.eventfd_write(self._fd, 1)
                return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(wake)

    def _hear(self) -> None:
        with contextlib.suppress(OSError):  # whoever forked has read it, or it was closed just now
            os.eventfd_read(self._fd)
        self._wake()

    def _wake(self) -> None:
        while self._rung:
            self._rung.popleft()()

    def close(self) -> None:
        """Let go of the file. What is rung from here on goes the longer way."""
        with self._lock:
            if self._fd >= 0 and not self.loop.is_closed():
                self.loop.remove_reader(self._fd)
            self._let_go()
        if not self.loop.is_closed():
            self._wake()

    def forget(self) -> None:
        """In a forked child, where the lock may be held for ever: close its copy of the file, and no more."""
        fd = self._let_go()
        if fd >= 0 and not self.loop.is_closed():
            # Who goes on with this loop, which the parent left, gets a file of the same number next: the loop must not
            # take it for this one. Only now that it is closed here: the kernel's list may still be the parent's, too.
            self.loop.remove_reader(fd)

    def __del__(self) -> None:
        self._let_go()  # its loop was closed, and nobody closed it before

    def _let_go(self) -> int:
        """The number that the file had, if there was one."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # daemons close all files that they find
                os.close(fd)
        return fd
