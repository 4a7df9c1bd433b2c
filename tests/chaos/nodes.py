"""Stages with RethinkDB servers: one, or a cluster of three."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coord.stores.failures import RequestError
from coord.stores.rethinkdb import parse_url
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.setup import set_up
from tests.chaos import document
from tests.chaos.clocks import ShiftedClock, environment, shifted_clocks
from tests.chaos.links import ClusterProxy
from tests.chaos.namespaces import Namespaces
from tests.chaos.servers import NETWORK_KINDS, ServersStage
from tests.chaos.stage import APART, WORKER_KINDS
from tests.support.rethinkdb_server import Server
from tests.support.server_process import free_ports, stands_still

UP_WITHIN = 40.0
"""Seconds in which a node listens. A RethinkDB node that is started and does not find its peers
hangs; an operator starts it again then."""
START_ATTEMPTS = 4


def is_running(node: Server) -> bool:
    return node.started and not node.ended_by_itself


async def ask(url: str, term: Any, timeout: float) -> Any:
    """One query, once. Raises `RequestError`."""
    pool = Pool(parse_url(url))
    try:
        return await pool.run(term, timeout)
    finally:
        await pool.close()


class RethinkDBStage(ServersStage):
    """Servers of its own, and between each worker and each of them a proxy of its own.

    The wall clocks of the servers are up to `APART` seconds apart, and coord is told at most
    that bound."""

    handshake_answers = 3
    """The V1_0 handshake: three texts that end with a NUL; what follows answers queries."""

    def __init__(self, directory: Path, workers: int, chance: random.Random) -> None:
        super().__init__(directory, workers, chance)
        self.clocks: list[ShiftedClock] = []

    @property
    def operators_urls(self) -> list[str]:
        return [node.url() for node in self.nodes]

    def url(self, addresses: Sequence[str]) -> str:
        return f"rethinkdb://{','.join(addresses)}/coord?max_clock_skew={APART + 2:g}"

    async def start(self) -> None:
        self.clocks = shifted_clocks(self.directory, len(self.nodes))
        for clock, seconds in zip(self.clocks, (0.0, APART / 2, -APART / 2), strict=False):
            clock.set(seconds)
        await super().start()
        await self._read_clocks("wall clocks of the servers off by, at the start, s")

    async def set_up(self) -> None:
        await self._joined()
        await set_up(self.direct, 60.0, replicas=len(self.nodes))
        for term in document.set_up(reql(), len(self.nodes)):
            await ask(
                self.nodes[0].url(), term, 30.0
            )  # of one node: the others hear a little later of what it made
        for node in self.nodes:
            await self._knows(node, document.DATABASE)

    async def kill(self, number: int) -> None:
        """Kill a node while its peers stand still.

        A process that dies closes its connections before its listening socket. A peer that runs
        connects again in between, is accepted and refused, and RethinkDB 2.4.4 ends over that with
        `Guarantee failed: [peer.ips().size() > 0]`.
        """
        peers = [node for n, node in enumerate(self.nodes) if n != number and is_running(node)]
        still = [node for node in peers if not stands_still(node.pid)]
        for node in still:
            node.freeze()
        try:
            await super().kill(number)
        finally:
            for node in still:
                node.thaw()

    async def restart(self, number: int) -> None:
        for other, node in enumerate(self.nodes):
            if other != number and node.ended_by_itself:
                name = "nodes that ended by themselves and were started again"
                self.facts[name] = self.facts.get(name, 0) + 1
                await super().kill(other)
                await self._start(other)
        await self._start(number)

    async def _start(self, number: int) -> None:
        shifted = self.clocks[number].environment if self.clocks else {}
        for attempt in range(START_ATTEMPTS):
            with environment(shifted):  # no await in here: nothing else is started meanwhile
                self.nodes[number].start(wait=False)
            try:
                await asyncio.to_thread(self.nodes[number].wait_until_up, UP_WITHIN)
            except RuntimeError:
                if attempt + 1 == START_ATTEMPTS:
                    raise
                name = f"nodes that did not listen within {UP_WITHIN:g} s and were started again"
                self.facts[name] = self.facts.get(name, 0) + 1
                await self.kill(number)
            else:
                return

    async def _knows(self, node: Server, database: str) -> None:
        until = time.monotonic() + 30.0
        while database not in await ask(node.url(), reql().db_list(), 5.0):
            assert time.monotonic() < until, (
                f"{node.address} has not heard of the database {database}"
            )
            await asyncio.sleep(0.05)

    async def _ask(self, term: Any, timeout: float) -> Any:
        return await ask(self.direct, term, timeout)

    async def _read_clocks(self, name: str) -> None:
        requests = [
            await ask(node.url(), reql().now().to_epoch_time(), 5.0) - time.time()
            for node in self.nodes
        ]
        self.facts[name] = [round(request, 1) for request in requests]

    def step_clock(self, number: int, seconds: float) -> None:
        """Only ever to somewhere within `APART` of any other, now or before."""
        if self.clocks:
            self.clocks[number].set(seconds)

    async def _joined(self) -> None:
        """Wait until the nodes know each other."""
        for _ in range(100):
            with contextlib.suppress(RequestError):
                if await self._ask(
                    reql().db("rethinkdb").table("server_status").count(), 5.0
                ) == len(self.nodes):
                    return
            await asyncio.sleep(0.1)
        raise RuntimeError("the nodes did not find each other")

    async def primary(self) -> int | None:
        """Which node has the leases' primary replica, if anybody knows."""
        status = reql().db("coord").table("coord_leases").status()
        try:
            replicas = (await self._ask(status, 3.0))["shards"][0]["primary_replicas"]
        except RequestError:
            return None
        names = [node.name for node in self.nodes]
        return names.index(replicas[0]) if replicas else None


class OneNode(RethinkDBStage):
    kinds = (*WORKER_KINDS, *NETWORK_KINDS, "server killed", "server stopped", "clock stepped")

    def make_nodes(self) -> list[Server]:
        return [Server(name="one")]


class ThreeNodes(RethinkDBStage):
    """Their own network, too, goes through proxies."""

    kinds = (
        *WORKER_KINDS,
        *NETWORK_KINDS,
        "primary killed",
        "primary stopped",
        "node killed",
        "node stopped",
        "node cut off",
        "clock stepped",
    )

    def make_nodes(self) -> list[Server]:
        with free_ports(3) as ports:
            self._ports = ports
        nodes = [
            Server(
                "--canonical-address",
                f"127.0.0.1:{port}",
                name=f"node{number}",
                join=ports[:number],
            )
            for number, port in enumerate(ports)
        ]
        self._between = [
            ClusterProxy(
                number,
                node.cluster_port,
                ports[number],
                lambda: [node.pid if node.started else 0 for node in nodes],
            )
            for number, node in enumerate(nodes)
        ]
        return nodes

    async def start(self) -> None:
        for proxy in self._between:
            await proxy.start()
        await super().start()

    async def close(self) -> None:
        self.facts["connections among the nodes, all through proxies"] = sum(
            item.passed for item in self._between
        )
        self.facts["pieces held back by cuts among the nodes"] = sum(
            item.held for item in self._between
        )
        await super().close()
        for proxy in self._between:
            await proxy.close()

    def cut_off(self, number: int, silently: bool) -> None:
        for proxy in self._between:
            proxy.separate(number, silently)

    def join_again(self) -> None:
        for proxy in self._between:
            proxy.separate(None, True)


class PartitionedNodes(RethinkDBStage):
    """Three nodes, each in a network namespace of its own: the network itself is cut."""

    in_namespaces = True
    kinds = tuple(
        "node partitioned" if kind == "node cut off" else kind for kind in ThreeNodes.kinds
    )

    def make_nodes(self) -> list[Server]:
        if not Namespaces.entered:
            raise RuntimeError("cannot create network namespaces: run as root, with iproute2")
        self._spaces = Namespaces(3)
        nodes = [Server(name=f"node{number}") for number in range(3)]
        peers = [
            f"{space.peer_host}:{node.cluster_port}"
            for space, node in zip(self._spaces.all, nodes, strict=True)
        ]
        for number, (space, node) in enumerate(zip(self._spaces.all, nodes, strict=True)):
            joins = [word for peer in peers[:number] for word in ("--join", peer)]
            node.place(
                space.client_host, space.command, "--canonical-address", peers[number], *joins
            )
        return nodes

    async def close(self) -> None:
        await super().close()
        self._spaces.close()

    def cut_off(self, number: int, silently: bool) -> None:
        self._spaces.all[number].cut_off(silently)

    def join_again(self) -> None:
        for space in self._spaces.all:
            space.join()
