"""What stages with servers have in common: a proxy between each worker and each server, and servers
that are killed, frozen and started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage

NETWORK_KINDS = ("blackhole", "stall", "delay", "reset", "refuse")


class ServersStage(Stage):
    """Servers of its own, and between each worker and each of them a proxy of its own."""

    handshake_answers = 0
    """Answers of a server before those to queries, for the proxies."""

    def __init__(self, directory: Path, workers: int, chance: random.Random) -> None:
        super().__init__(directory, workers, chance)
        self.nodes: Sequence[Any] = self.make_nodes()
        self._proxies: list[list[Proxy]] = []

    def make_nodes(self) -> Sequence[Any]:
        """Return the servers, which do not run yet."""
        raise NotImplementedError

    async def set_up(self) -> None:
        """Do what `coord init` does, on the servers, which run."""

    def url(self, addresses: Sequence[str]) -> str:
        """Return the URL of the store at these addresses."""
        raise NotImplementedError

    @property
    def direct(self) -> str:
        """The URL with nothing in the way."""
        return self.url([f"{node.host}:{node.port}" for node in self.nodes])

    @property
    def example_url(self) -> str:
        return self.direct

    @property
    def operators_urls(self) -> list[str]:
        return [self.direct]

    async def start_nodes(self) -> None:
        """Start the servers for the first time, one after another."""
        for number in range(len(self.nodes)):
            await self.restart(number)

    async def start(self) -> None:
        await self.start_nodes()
        await self.set_up()
        self._proxies = [
            [
                Proxy(node.host, node.port, self.chance, self.handshake_answers)
                for node in self.nodes
            ]
            for _ in range(self.workers)
        ]
        for group in self._proxies:
            for proxy in group:
                await proxy.start()

    async def close(self) -> None:
        every = [proxy for group in self._proxies for proxy in group]
        self.facts["connections reset after the server had answered"] = sum(
            proxy.broken for proxy in every
        )
        self.facts["pieces held back by blackholes and stalls"] = sum(proxy.held for proxy in every)
        for proxy in every:
            await proxy.close()
        await asyncio.gather(*(asyncio.to_thread(node.discard) for node in self.nodes))

    def url_of(self, worker: int) -> str:
        return self.url([f"127.0.0.1:{proxy.port}" for proxy in self._proxies[worker]])

    def proxies_of(self, worker: int) -> list[Proxy]:
        return self._proxies[worker]

    async def kill(self, number: int) -> None:
        await asyncio.to_thread(self.nodes[number].kill)

    async def restart(self, number: int) -> None:
        await asyncio.to_thread(self.nodes[number].start)

    def freeze(self, number: int) -> None:
        self.nodes[number].freeze()

    def thaw(self, number: int) -> None:
        self.nodes[number].thaw()
