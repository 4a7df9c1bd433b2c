"""What a store that workers share can suffer in a run; SQLite's file."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.proxy import Proxy

WORKER_KINDS = (
    "kill",
    "stop",
    "stop in act",
    "pause",
    "step down",
    "order to step down",
    "transfer",
)
APART = 30.0
"""Seconds that the wall clocks of servers may be apart."""


class Stage:
    """A store; without a network or servers of its own, unless a subclass has some."""

    kinds: tuple[str, ...] = ()
    """Of `faults.KINDS`, those that make sense here."""
    floors = False
    """Whether the store may raise tokens by itself after a fault."""
    loses_releases = False
    """Whether a server that is killed may lose a release that it has just acknowledged."""
    loses = False
    """Whether the store may lose what it acknowledged last, when a fault hits it."""
    in_namespaces = False
    """Whether each server has a network namespace of its own, if that is allowed here."""

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

    @property
    def example_url(self) -> str:
        """A URL of such a store, before it is started."""
        return self.url_of(0)

    @property
    def operators_urls(self) -> list[str]:
        """One for each node, with nothing in the way."""
        return [self.url_of(0)]

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

    def step_clock(self, number: int, seconds: float) -> None:
        raise NotImplementedError

    def freeze(self, number: int) -> None:
        raise NotImplementedError

    def thaw(self, number: int) -> None:
        raise NotImplementedError

    async def promote(self) -> str:
        """Make the standby the primary, and the former primary its standby; return what was done,
        for people."""
        raise NotImplementedError

    def cut_off(self, number: int, silently: bool) -> None:
        raise NotImplementedError

    def join_again(self) -> None:
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
            connection = sqlite3.connect(
                self.file, timeout=30, isolation_level=None, check_same_thread=False
            )
            connection.execute("BEGIN IMMEDIATE")
            return connection

        return (await asyncio.to_thread(locked)).close
