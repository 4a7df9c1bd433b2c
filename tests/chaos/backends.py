"""Stages with PostgreSQL (one server, or a primary with a synchronous standby), Redis (one server,
or a primary, a replica and a sentinel) and etcd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coord.stores import urls
from coord.stores.redis import RedisStore
from tests.chaos.namespaces import Namespaces
from tests.chaos.proxy import Proxy
from tests.chaos.recorder import now
from tests.chaos.servers import NETWORK_KINDS, ServersStage
from tests.chaos.stage import WORKER_KINDS
from tests.support import etcd_server, postgresql_server, redis_server

KINDS = (*WORKER_KINDS, *NETWORK_KINDS, "server killed", "server stopped")
SETUP_TIMEOUT = 60.0
PROMOTED_WITHIN = 60.0
"""Seconds in which a sentinel surely promotes a replica, or a replica follows its primary."""
SKEW = 5.0
"""Seconds of `max_clock_skew`: all servers of a run have the clock of this machine."""


class PostgreSQLStage(ServersStage):
    """One server, which keeps what it acknowledged, but for releases of the last moment."""

    kinds = KINDS
    loses_releases = True

    def make_nodes(self) -> Sequence[postgresql_server.Server]:
        return [postgresql_server.Server()]

    def url(self, addresses: Sequence[str]) -> str:
        return f"postgresql://postgres@{','.join(addresses)}/postgres?max_clock_skew={SKEW:g}"

    async def start_nodes(self) -> None:
        for node in self.nodes:
            await asyncio.to_thread(node.create)
        await super().start_nodes()

    async def set_up(self) -> None:
        await urls.open_admin(self.direct).setup({}, SETUP_TIMEOUT)


class StandbyStage(PostgreSQLStage):
    """A primary, and a standby that has confirmed each commit before it is acknowledged.

    A promotion kills the primary for good. Its place is taken by the standby, and a copy of that
    becomes the next standby.
    """

    kinds = (*WORKER_KINDS, *NETWORK_KINDS, "promotion", "primary killed", "standby stopped")
    floors = True

    def __init__(self, directory: Path, workers: int, chance: random.Random) -> None:
        self._primary = 0
        super().__init__(directory, workers, chance)
        self.facts["promotions"] = 0

    def make_nodes(self) -> Sequence[postgresql_server.Server]:
        settings = ("synchronous_standby_names=*", "hot_standby=on", "wal_keep_size=256MB")
        return [postgresql_server.Server(*settings) for _ in range(2)]

    @property
    def direct(self) -> str:
        """The primary alone: the standby takes no `coord init`."""
        node = self.nodes[self._primary]
        return self.url([f"{node.host}:{node.port}"])

    @property
    def operators_urls(self) -> list[str]:
        return [self.url([f"{node.host}:{node.port}" for node in self.nodes])]

    async def start_nodes(self) -> None:
        await asyncio.to_thread(self.nodes[0].create)
        await self.restart(0)
        await self._follow(1)

    async def primary(self) -> int | None:
        return self._primary

    async def promote(self) -> str:
        old, new = self._primary, 1 - self._primary
        await self.kill(old)
        await asyncio.sleep(self.chance.uniform(0.0, 1.0))
        node = self.nodes[new]
        pg_ctl = postgresql_server.binary("pg_ctl")
        assert pg_ctl is not None
        await asyncio.to_thread(node.run, pg_ctl, "promote", "-w", "-D", str(node.data))
        self._primary = new
        await self._follow(old)
        self.facts["promotions"] += 1
        return f"node {new} took the place of node {old}"

    async def _follow(self, number: int) -> None:
        """Make a node the standby of the other, from a fresh copy."""
        node, primary = self.nodes[number], self.nodes[1 - number]
        copy = postgresql_server.binary("pg_basebackup")
        assert copy is not None
        node.remove_data()
        address = ("-h", primary.host, "-p", str(primary.port), "-U", "postgres")
        words = ("-D", str(node.data), *address, "--checkpoint=fast", "--no-sync", "-R")
        await asyncio.to_thread(node.run, copy, *words)
        await self.restart(number)


class RedisStage(ServersStage):
    """One server that writes each command to its file before it answers."""

    kinds = KINDS
    floors = True

    def make_nodes(self) -> Sequence[redis_server.Server]:
        return [redis_server.Server()]

    def url(self, addresses: Sequence[str]) -> str:
        (address,) = addresses
        return f"redis://{address}/0?namespace=chaos&max_clock_skew={SKEW:g}"

    async def set_up(self) -> None:
        await asyncio.to_thread(redis_server.set_up, self.direct, 5.0)


class SentinelStage(ServersStage):
    """A primary, a replica that follows it a little later, and a sentinel that promotes the replica
    when the primary is gone. Workers ask the sentinel, so no proxy is in the way."""

    kinds = (*WORKER_KINDS, "promotion", "standby killed")
    floors = True
    loses = True

    def __init__(self, directory: Path, workers: int, chance: random.Random) -> None:
        super().__init__(directory, workers, chance)
        self._primary = 0
        # A primary that is only slow on a busy machine must not be replaced while it lives.
        self._sentinel = redis_server.Sentinel(self.nodes[0], directory, down_after=3.0)
        self.facts["promotions"] = 0

    def make_nodes(self) -> Sequence[redis_server.Server]:
        return [redis_server.Server() for _ in range(2)]

    @property
    def direct(self) -> str:
        node = self.nodes[self._primary]
        return f"redis://{node.host}:{node.port}/0?namespace=chaos"

    def url_of(self, worker: int) -> str:
        host = f"{self._sentinel.host}:{self._sentinel.port}"
        return f"redis+sentinel://{host}/billing?namespace=chaos&max_clock_skew={SKEW:g}"

    def proxies_of(self, worker: int) -> list[Proxy]:
        return []

    @property
    def operators_urls(self) -> list[str]:
        return [self.url_of(0)]

    async def start_nodes(self) -> None:
        await asyncio.to_thread(self.nodes[0].start)
        await self.restart(1)
        await asyncio.to_thread(self._sentinel.start)

    async def set_up(self) -> None:
        # A replica that connects begins an epoch, so the namespace is created afterwards.
        await self._until_followed()
        await asyncio.to_thread(redis_server.set_up, self.direct, 5.0)

    async def restart(self, number: int) -> None:
        """Start a node as the replica of the other one."""
        node, primary = self.nodes[number], self.nodes[1 - number]
        await asyncio.to_thread(node.start, "--replicaof", f"{primary.host} {primary.port}")

    async def primary(self) -> int | None:
        return self._primary

    async def promote(self) -> str:
        old = self._primary
        await self.kill(old)
        until = now() + PROMOTED_WITHIN
        while await self._named() != self.nodes[1 - old].port:
            if now() > until:
                raise RuntimeError(f"the sentinel promoted nobody:\n{self._sentinel.log[-2000:]}")
            await asyncio.sleep(0.05)
        self._primary = 1 - old
        await self.restart(old)
        await self._until_followed()
        self.facts["promotions"] += 1
        return f"node {1 - old} took the place of node {old}"

    async def _named(self) -> int:
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "billing")
        _, port = await self._ask(f"redis://{self._sentinel.host}:{self._sentinel.port}", *words)
        return int(port)

    async def _until_followed(self) -> None:
        """Wait until the sentinel knows the replica, and the replica has what the primary has."""
        sentinel = f"redis://{self._sentinel.host}:{self._sentinel.port}"
        until = now() + PROMOTED_WITHIN
        while now() < until:
            with contextlib.suppress(Exception):  # it may just be starting
                info = (await self._ask(self.direct, "INFO", "replication")).decode()
                reply = (await self._ask(sentinel, "INFO", "sentinel")).decode()
                if "state=online" in info and "slaves=1" in reply:
                    return
            await asyncio.sleep(0.1)
        raise RuntimeError("the replica does not follow its primary")

    async def _ask(self, url: str, *words: str) -> Any:
        store = RedisStore(url)
        try:
            return await store.client.command(2.0, *words)
        finally:
            await store.close()

    async def close(self) -> None:
        await super().close()
        self._sentinel.kill()


class EtcdStage(ServersStage):
    """Three members, each in a network namespace of its own where that is allowed."""

    in_namespaces = True

    def make_nodes(self) -> Sequence[etcd_server.Member]:
        self._spaces = Namespaces(3) if Namespaces.entered else None
        self.kinds = (
            *WORKER_KINDS,
            *NETWORK_KINDS,
            "primary killed",
            "primary stopped",
            "node killed",
            "node stopped",
            *(["node partitioned"] if self._spaces else []),
        )
        nodes = etcd_server.Cluster(3).members
        if self._spaces:
            for node, space in zip(nodes, self._spaces.all, strict=True):
                node.place(space.client_host, space.peer_host, space.command)
            together = ",".join(f"{node.name}={node.peer_url}" for node in nodes)
            for node in nodes:
                node.initial_cluster = together
        self.facts["members in network namespaces of their own"] = self._spaces is not None
        return nodes

    def url(self, addresses: Sequence[str]) -> str:
        return f"etcd://{','.join(addresses)}?namespace=chaos"

    async def start_nodes(self) -> None:
        await asyncio.gather(*(self.restart(number) for number in range(len(self.nodes))))

    async def restart(self, number: int) -> None:
        self.nodes[number].start(wait=False)
        # Without a quorum, it answers nothing until another one is back.
        with contextlib.suppress(RuntimeError):
            await asyncio.to_thread(self.nodes[number].wait_until_up)

    async def close(self) -> None:
        await super().close()
        if self._spaces:
            self._spaces.close()

    async def primary(self) -> int | None:
        """Return which member leads the cluster, if any member knows."""
        statuses = await asyncio.gather(*(asyncio.to_thread(_status, node) for node in self.nodes))
        for number, status in enumerate(statuses):
            if status and status.get("leader") == status["header"]["member_id"]:
                return number
        return None

    def cut_off(self, number: int, silently: bool) -> None:
        assert self._spaces is not None
        self._spaces.all[number].cut_off(silently)

    def join_again(self) -> None:
        assert self._spaces is not None
        for space in self._spaces.all:
            space.join()


def _status(node: etcd_server.Member) -> dict[str, Any] | None:
    request = urllib.request.Request(f"{node.client_url}/v3/maintenance/status", data=b"{}")
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            status: dict[str, Any] = json.loads(answer.read())
            return status
    except (OSError, ValueError):
        return None
