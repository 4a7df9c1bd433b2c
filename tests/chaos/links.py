"""The network among the nodes of a cluster: a proxy in front of each one's cluster port, that knows
who connected.

Nodes call each other at the proxies (`--canonical-address`, `--join`). Which node is at the other
end of a connection the kernel tells (/proc): a node that is cut off loses the connections that it
made as well as those made to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterator, Sequence

from tests.chaos.proxy import Link, Proxy, break_off

LISTENS = "0A"
NODE_ASKED_EVERY = 0.1


def _sockets(port: int) -> Iterator[list[str]]:
    """The kernel's lines on TCP sockets with this local port, as columns."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as lines:
            rows = [line.split() for line in lines][1:]
            yield from (row for row in rows if int(row[1].rpartition(":")[2], 16) == port)


def listens(port: int) -> bool:
    """Whether some process does."""
    return any(row[3] == LISTENS for row in _sockets(port))


def owner(port: int, pids: Sequence[int]) -> int | None:
    """Which of these processes has the TCP socket with this local port on loopback: its place among
    them."""
    inodes = {f"socket:[{row[9]}]" for row in _sockets(port)}
    for place, pid in enumerate(pids):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    if os.readlink(f"/proc/{pid}/fd/{name}") in inodes:
                        return place
    return None


class ClusterProxy(Proxy):
    """In front of node `number`, on a port that is given."""

    def __init__(
        self, number: int, upstream: int, port: int, pids: Callable[[], list[int]]
    ) -> None:
        super().__init__("127.0.0.1", upstream, random.Random(0))
        self.number, self.port = number, port
        self.cut: int | None = None
        """The node that is cut off."""
        self.passed = 0
        """Connections between nodes that were let in."""
        self._pids = pids
        self._ends: dict[Link, int | None] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = owner(writer.get_extra_info("peername")[1], self._pids())
        if end is None:
            break_off(writer)
            return
        while not listens(self.upstream[1]):  # noqa: ASYNC110  # the node is down; nobody is refused, see `separate`
            await asyncio.sleep(NODE_ASKED_EVERY)
        self.passed += 1
        link = Link(self, reader, writer)
        self._links.add(link)
        self._ends[link] = end
        link.task.add_done_callback(lambda _: (self._links.discard(link), self._ends.pop(link)))

    async def gate(self, link: Link) -> None:
        if self._apart(self._ends.get(link)):
            self.held += 1
        while self._apart(self._ends.get(link)):
            await self._changed.wait()

    def separate(self, number: int | None, silently: bool) -> None:
        """From now on node `number` is cut off from the others; None: nobody is.

        New connections wait until it is over. To break one that was accepted ends a RethinkDB
        2.4.4, when it tries
        again: "Guarantee failed: [peer.ips().size() > 0]".
        """
        self.cut = number
        for link, end in tuple(self._ends.items()):
            if self._apart(end) and not silently:
                link.abort()
        self._changed.set()
        self._changed = asyncio.Event()

    def _apart(self, end: int | None) -> bool:
        return self.cut is not None and self.cut in (self.number, end)
