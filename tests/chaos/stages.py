"""The stores that the workers share: made anew for a run, and what a run can do to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coord.stores.rethinkdb import parse_url
from coord.stores.rethinkdb.connection import Pool
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.errors import Trouble
from coord.stores.rethinkdb.setup import set_up
from tests.chaos.proxy import Proxy
from tests.servers.rethinkdb_server import Cluster, Server

WORKER_KINDS = ("kill", "stop", "pause", "step down")
NETWORK_KINDS = ("blackhole", "stall", "delay", "reset", "refuse")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
APART = 30.0


def faked(seconds: float) -> dict[str, str]:
    """What makes a process believe in another wall time. The clocks that durations are measured by stay true."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": f"{seconds:+g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@contextlib.contextmanager
def environment(more: dict[str, str]) -> Iterator[None]:
    """Processes that are started in here get these variables, too."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def ask(url: str, term: Any, timeout: float) -> Any:
    """One query, once. Raises `Trouble`."""
    pool = Pool(parse_url(url))
    try:
        return await pool.run(term, timeout)
    finally:
        await pool.close()


class Stage:
    """A store; without a network or servers of its own, unless a subclass has some."""

    kinds: tuple[str, ...] = ()
    """Of `faults.KINDS`, those that make sense here."""

    def __init__(self, directory: Path, workers: int, chance: random.Random) -> None:
        self.directory, self.workers, self.chance = directory, workers, chance
        self.nodes: Sequence[Any] = ()
        self.facts: dict[str, Any] = {}
        """What the report should say about it."""

    async def start(self) -> None:
        """Everything up and set up."""

    async def close(self) -> None:
        """Everything gone."""

    def url_of(self, worker: int) -> str:
        raise NotImplementedError

    def proxies_of(self, worker: int) -> list[Proxy]:
        return []

    async def lock(self) -> Callable[[], None]:
        raise NotImplementedError

    async def primary(self) -> int | None:
        raise NotImplementedError

    async def kill(self, number: int) -> None:
        raise NotImplementedError

    async def restart(self, number: int) -> None:
        raise NotImplementedError

    def freeze(self, number: int) -> None:
        raise NotImplementedError

    def thaw(self, number: int) -> None:
        raise NotImplementedError


class SQLiteStage(Stage):
    kinds = (*WORKER_KINDS, "file locked")

    @property
    def file(self) -> Path:
        return self.directory / "coord.db"

    def url_of(self, worker: int) -> str:
        return f"sqlite://{self.file}"

    async def lock(self) -> Callable[[], None]:
        """Hold the file's write lock until what is returned is called."""

        def locked() -> sqlite3.Connection:
            connection = sqlite3.connect(self.file, timeout=30, isolation_level=None, check_same_thread=False)
            connection.execute("BEGIN IMMEDIATE")
            return connection

        return (await asyncio.to_thread(locked)).close


class RethinkDBStage(Stage):
    """Servers of its own, and between each worker and each of them a proxy of its own."""

    options = ""

    def __init__(self, directory: Path, workers: int, chance: random.Random) -> None:
        super().__init__(directory, workers, chance)
        self.nodes: list[Server] = self.make_nodes()
        self.environments: list[dict[str, str]] = [{} for _ in self.nodes]
        self._proxies: list[list[Proxy]] = []

    def make_nodes(self) -> list[Server]:
        raise NotImplementedError

    @property
    def direct(self) -> str:
        return f"rethinkdb://{','.join(node.address for node in self.nodes)}/coord"

    async def start(self) -> None:
        for number in range(len(self.nodes)):
            await self.restart(number)
        await self._joined()
        await set_up(self.direct, 60.0, replicas=len(self.nodes))
        self._proxies = [[Proxy(node.host, node.port, self.chance) for node in self.nodes] for _ in range(self.workers)]
        for mine in self._proxies:
            for proxy in mine:
                await proxy.start()

    async def close(self) -> None:
        every = [proxy for mine in self._proxies for proxy in mine]
        self.facts["connections reset after the server had answered"] = sum(proxy.broken for proxy in every)
        self.facts["pieces held back by blackholes and stalls"] = sum(proxy.held for proxy in every)
        for proxy in every:
            await proxy.close()
        for node in self.nodes:
            node.discard()

    def url_of(self, worker: int) -> str:
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._proxies[worker])
        return f"rethinkdb://{hosts}/coord{self.options}"

    def proxies_of(self, worker: int) -> list[Proxy]:
        return self._proxies[worker]

    async def kill(self, number: int) -> None:
        self.nodes[number].kill()

    async def restart(self, number: int) -> None:
        with environment(self.environments[number]):  # no await in here: nothing else is started meanwhile
            self.nodes[number].start(wait=False)
        await asyncio.to_thread(self.nodes[number].wait_until_up)

    def freeze(self, number: int) -> None:
        self.nodes[number].freeze()

    def thaw(self, number: int) -> None:
        self.nodes[number].thaw()

    async def _ask(self, term: Any, timeout: float) -> Any:
        return await ask(self.direct, term, timeout)

    async def _joined(self) -> None:
        """Wait until the nodes know each other."""
        for _ in range(100):
            with contextlib.suppress(Trouble):
                if await self._ask(reql().db("rethinkdb").table("server_status").count(), 5.0) == len(self.nodes):
                    return
            await asyncio.sleep(0.1)
        raise RuntimeError("the nodes did not find each other")

    async def primary(self) -> int | None:
        """Which node has the leases' primary replica, if anybody knows."""
        status = reql().db("coord").table("coord_leases").status()
        try:
            found = (await self._ask(status, 3.0))["shards"][0]["primary_replicas"]
        except Trouble:
            return None
        names = [node.name for node in self.nodes]
        return names.index(found[0]) if found else None


class OneNode(RethinkDBStage):
    kinds = (*WORKER_KINDS, *NETWORK_KINDS, "server killed", "server stopped")

    def make_nodes(self) -> list[Server]:
        return [Server(name="one")]


class ThreeNodes(RethinkDBStage):
    """The wall clocks of the nodes are `APART` seconds apart, where libfaketime is there; coord is told that bound."""

    kinds = (*WORKER_KINDS, *NETWORK_KINDS, "primary killed", "primary stopped", "node killed", "node stopped")
    options = f"?max_clock_skew={APART + 2:g}"

    def make_nodes(self) -> list[Server]:
        return Cluster(3).nodes

    async def start(self) -> None:
        if FAKETIME.exists():
            self.environments[1] = faked(APART / 2)
            self.environments[2] = faked(-APART / 2)
        await super().start()
        clocks = []
        for node in self.nodes:
            clocks.append(await ask(node.url(), reql().now().to_epoch_time(), 5.0) - time.time())
        self.facts["wall clocks of the nodes are off by, s"] = [round(clock, 1) for clock in clocks]


STAGES: dict[str, Callable[[Path, int, random.Random], Stage]] = {
    "sqlite": SQLiteStage,
    "rethinkdb": OneNode,
    "cluster": ThreeNodes,
}
