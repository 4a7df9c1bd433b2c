"""Locks and elections of others on PostgreSQL, Redis and etcd, for handovers in the same run: no
fencing token, and mostly no lease.

Run by `candidates`, for a URL `lock+KIND+URL of the server`."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn
from urllib.parse import urlsplit

from coord.runtime import clock
from tests.chaos.lifeline import die_with_parent

SCHEME = "lock+"
NAME = "bench"
NOTIFIED = "two durable writes with NOTIFY between, raw driver"
Tell = Callable[[str, int, float], None]


class AdvisoryLock:
    """`pg_advisory_lock` of PostgreSQL: it ends with the connection."""

    def __init__(self, url: str, ttl: float) -> None:
        import asyncpg

        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url.partition("?")[0]))

    def acquire(self) -> None:
        self._loop.run_until_complete(self._connection.execute("SELECT pg_advisory_lock(7)"))

    def renew(self) -> None:
        """It has no lease."""

    def release(self) -> None:
        self._loop.run_until_complete(self._connection.execute("SELECT pg_advisory_unlock(7)"))


class NotifiedRow:
    """A row of PostgreSQL that each candidate reads and takes when NOTIFY says that it changed. What
    a handover takes of the store alone: two durable writes, with the notification and a read
    between."""

    def __init__(self, url: str, ttl: float) -> None:
        import asyncpg

        self._loop, self._notified = asyncio.new_event_loop(), asyncio.Event()
        self._connection = self._run(asyncpg.connect(url.partition("?")[0]))
        self._run(self._prepare())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _prepare(self) -> None:
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock(8)")
            await self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {NAME} (id int PRIMARY KEY, holder int, token bigint);"
                f"INSERT INTO {NAME} VALUES (1, NULL, 0) ON CONFLICT DO NOTHING;"
                f"UPDATE {NAME} SET holder = NULL"  # a crowd before this one was killed
                " WHERE holder NOT IN (SELECT pid FROM pg_stat_activity)"
            )
        await self._connection.add_listener(NAME, lambda *_: self._notified.set())

    def acquire(self) -> None:
        self._run(self._acquire())

    async def _acquire(self) -> None:
        read = f"SELECT holder IS NULL FROM {NAME}"
        taken = "holder = pg_backend_pid(), token = token + 1"
        take = f"UPDATE {NAME} SET {taken} WHERE holder IS NULL RETURNING 1"
        while True:
            self._notified.clear()
            vacant = await self._connection.fetchval(read)
            if vacant and await self._connection.fetchval(take):
                return
            await self._notified.wait()

    def renew(self) -> None:
        """It has no lease."""

    def release(self) -> None:
        free = f"UPDATE {NAME} SET holder = NULL RETURNING 1"
        self._run(
            self._connection.fetchval(
                f"WITH freed AS ({free}) SELECT pg_notify('{NAME}', '') FROM freed"
            )
        )


class RedisPyLock:
    """`Lock` of redis-py: one that waits asks ten times a second."""

    def __init__(self, url: str, ttl: float) -> None:
        import redis

        client: Any = redis.Redis.from_url(url.partition("?")[0], socket_timeout=None)
        self._lock = client.lock(f"{NAME}-{ttl:g}", timeout=ttl)

    def acquire(self) -> None:
        assert self._lock.acquire()

    def renew(self) -> None:
        self._lock.reacquire()

    def release(self) -> None:
        self._lock.release()


class PythonRedisLock:
    """`Lock` of python-redis-lock: the one that releases it wakes one that waits."""

    def __init__(self, url: str, ttl: float) -> None:
        import redis
        import redis_lock

        client = redis.Redis.from_url(url.partition("?")[0], socket_timeout=None)
        self._lock = redis_lock.Lock(client, f"{NAME}-{ttl:g}", expire=math.ceil(ttl))

    def acquire(self) -> None:
        assert self._lock.acquire()

    def renew(self) -> None:
        self._lock.extend()

    def release(self) -> None:
        self._lock.release()


class EtcdctlElect:
    """`etcdctl elect`, a process that is the leader until it gets SIGINT. Its lease has 60 seconds,
    and it renews it itself."""

    def __init__(self, url: str, ttl: float) -> None:
        self._endpoint, self._name = urlsplit(url).netloc, f"{NAME}-{ttl:g}"

    def acquire(self) -> None:
        command = ["etcdctl", "--endpoints", self._endpoint, "elect", self._name, "candidate"]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            preexec_fn=die_with_parent,  # a candidate is killed at the end
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "etcdctl ended"

    def renew(self) -> None:
        """It renews its lease itself."""

    def release(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


KINDS: dict[str, tuple[str, str, Callable[[str, float], Any], Callable[[], bool]]] = {
    "advisory": ("PostgreSQL", "pg_advisory_lock", AdvisoryLock, lambda: True),
    "notified": ("PostgreSQL", NOTIFIED, NotifiedRow, lambda: True),
    "redispy": ("Redis", "redis-py's Lock", RedisPyLock, lambda: True),
    "pythonredislock": (
        "Redis",
        "python-redis-lock",
        PythonRedisLock,
        lambda: importlib.util.find_spec("redis_lock") is not None,
    ),
    "etcdctl": (
        "etcd",
        "etcdctl elect",
        EtcdctlElect,
        lambda: shutil.which("etcdctl") is not None,
    ),
}
"""By the name in the URL: the server, what people call it, how to make one, whether it is here."""


def urls(store: str, url: str) -> dict[str, str]:
    """The URLs for `Crowd` of what is here for a server at a URL of coord's, by the names of the
    locks."""
    address = url.replace("etcd://", "http://")
    return {
        name: f"{SCHEME}{kind}+{address}"
        for kind, (server, name, _, available) in KINDS.items()
        if server == store and available()
    }


def run(number: int, url: str, rest: float, tell: Tell, ttl: float) -> NoReturn:
    """Take the lock whenever it is free, renew it, release it at SIGUSR1, and rest so many
    seconds. `ttl` is in seconds, for those that have one."""
    kind, _, address = url.removeprefix(SCHEME).partition("+")
    lock = KINDS[kind][2](address, ttl)
    while True:
        tell("follows", number, clock.total_seconds())
        lock.acquire()
        tell("elected", number, clock.total_seconds())
        while signal.sigtimedwait({signal.SIGUSR1}, ttl / 3) is None:
            lock.renew()
        tell("stopping", number, clock.total_seconds())
        lock.release()
        time.sleep(rest)
