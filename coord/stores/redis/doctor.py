"""What `coord doctor` checks of a Redis server and a namespace."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

from coord.errors import CoordError, command
from coord.stores.failures import RequestError
from coord.stores.protocol import Finding
from coord.stores.redis import rows
from coord.stores.redis.store import RedisStore
from coord.stores.redis.url import RedisURL

MIN_VERSION = (5, 0)
"""Earlier servers replicate scripts instead of what scripts do, so a script may not read the
clock."""


async def check(url: RedisURL, timeout: float) -> list[Finding]:
    """Return what is wrong with the server and the namespace, the most important first.

    Args:
        url: The server or the sentinels, the user and the namespace.
        timeout: Seconds that each request may take.
    """
    store = RedisStore(url)
    try:
        return [finding async for finding in _check(store, url, timeout)]
    finally:
        await store.close()


async def _check(store: RedisStore, url: RedisURL, timeout: float) -> AsyncIterator[Finding]:
    try:
        info = _parse(await store.client.command(timeout, "INFO"))
    except RequestError as err:
        advice = "check the address in --url, the password and the ACL (coord needs +info)"
        yield Finding("error", "server", err.detail, advice)
        return
    for finding in (*_server(info), *_persistence(info), *_memory(info), *_replication(info)):
        yield finding
    yield await _fsync(store, timeout)
    yield await _namespace(store, url, timeout)
    yield await _publishing(store, url, timeout)


def _parse(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, separator, value in lines if separator}


def _server(info: dict[str, str]) -> Iterator[Finding]:
    version = info.get("valkey_version") or info.get("redis_version", "")
    name = "Valkey" if "valkey_version" in info else "Redis"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers >= MIN_VERSION:
        yield Finding("ok", "version", f"{name} {version}")
    else:
        yield Finding("error", "version", f"{name} {version or 'unknown'}", "use Redis 5 or later")
    if info.get("role") == "master":
        yield Finding("ok", "role", "this server is the primary")
    else:
        advice = "name the primary in --url, or use redis+sentinel://"
        yield Finding("error", "role", "this server is a replica and accepts no writes", advice)


def _persistence(info: dict[str, str]) -> Iterator[Finding]:
    if info.get("aof_enabled") != "1":
        detail = "appendonly is off: a restart loses every lease since the last snapshot"
        yield Finding("error", "persistence", detail, "set appendonly yes and appendfsync always")
    elif info.get("aof_last_write_status") != "ok":
        detail = f"the last write of the append-only file: {info.get('aof_last_write_status')}"
        yield Finding("error", "persistence", detail, "look at the disk and the log of the server")
    else:
        yield Finding("ok", "persistence", "the append-only file is on")


def _memory(info: dict[str, str]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys-"):
        detail = f"maxmemory-policy is {policy}: the server may delete leases with their tokens"
        yield Finding("error", "memory", detail, "set maxmemory-policy noeviction")
    elif info.get("maxmemory", "0") != "0":
        detail = f"maxmemory is {info['maxmemory']} bytes: when others fill it, every leader falls"
        yield Finding("warn", "memory", detail, "give coord a server of its own, or no limit")
    else:
        yield Finding(
            "ok", "memory", f"no limit, and the policy {policy or 'unknown'} keeps leases"
        )


def _replication(info: dict[str, str]) -> Iterator[Finding]:
    replicas = info.get("connected_slaves", "0")
    clustered = info.get("cluster_enabled") == "1"
    if replicas == "0" and not clustered:
        yield Finding("ok", "replication", "one server, no replicas")
        return
    detail = (
        f"{replicas} replicas{', cluster mode' if clustered else ''}: replication is asynchronous, "
        "so a failover may lose acknowledged claims"
    )
    advice = (
        "tokens do not fall, and after a failover nobody is elected for the longest ttl; set "
        "min-replicas-to-write to bound how long a primary that was cut off goes on"
    )
    yield Finding("warn", "replication", detail, advice)


async def _fsync(store: RedisStore, timeout: float) -> Finding:
    try:
        reply = await store.client.command(timeout, "CONFIG", "GET", "appendfsync")
    except RequestError:
        detail = "this user may not read the configuration"
        advice = "ask the administrator whether appendfsync is always"
        return Finding("warn", "fsync", detail, advice)
    policy = reply[1].decode() if len(reply) > 1 else "unknown"
    if policy == "always":
        return Finding("ok", "fsync", "always")
    detail = f"appendfsync is {policy}: a power cut may take the last second of claims"
    return Finding("warn", "fsync", detail, "set appendfsync always")


async def _namespace(store: RedisStore, url: RedisURL, timeout: float) -> Finding:
    try:
        leases = await store.read(None, timeout)
    except CoordError as err:
        return Finding("error", "namespace", str(err), f"run {command('init --url', url.redacted)}")
    return Finding("ok", "namespace", f"{url.namespace} has {len(leases)} roles")


async def _publishing(store: RedisStore, url: RedisURL, timeout: float) -> Finding:
    """Try a channel: an ACL that forbids it makes followers wait for a ttl."""
    keys = rows.Keys(url)
    script = "return redis.call('PUBLISH', ARGV[1], '')"
    try:
        await store.scripts.run(script, [keys.meta], [keys.channel("coord doctor")], timeout)
    except RequestError as err:
        advice = f"give the user the channels {url.prefix}f:* and the commands publish, subscribe"
        return Finding("error", "channels", err.detail, advice)
    return Finding("ok", "channels", "this user may publish")
