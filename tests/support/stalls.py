"""A store of any kind that answers nobody for a while."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future

from coord.testing import FaultProxy, Link
from tests.support.processes import blocked

ADDRESS = re.compile(r"(?<=[/@])(?P<host>127\.0\.0\.1|localhost):(?P<port>\d+)")


class StallingStore:
    """A way to the store of `url` that can be blocked: the lock of a SQLite file, or a proxy in
    front of a server.

    Attributes:
        url: The URL for the processes whose requests are to be blocked.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        if url.startswith("sqlite:"):
            return
        address = ADDRESS.search(url)
        assert address is not None, url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._proxy = FaultProxy(address["host"], int(address["port"]))
        self._wait(asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop))
        self.url = f"{url[: address.start()]}127.0.0.1:{self._proxy.port}{url[address.end() :]}"

    def block(self) -> Callable[[], None]:
        """Let no request be answered, until the function that this returns is called."""
        if self._loop is None:
            return blocked(self.url).close
        self._set(Link.FREEZE)
        return lambda: self._set(Link.PASS)

    def close(self) -> None:
        """End the proxy."""
        if self._loop is None or self._thread is None:
            return
        self._wait(asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _set(self, mode: Link) -> None:
        assert self._loop is not None

        async def change() -> None:
            self._proxy.set(mode)

        self._wait(asyncio.run_coroutine_threadsafe(change(), self._loop))

    @staticmethod
    def _wait(done: Future[object]) -> None:
        done.result(20)
