"""What `coord doctor` checks of an etcd cluster."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from coord.errors import CoordError
from coord.stores.etcd import rows
from coord.stores.etcd.gateway import Gateway, encode
from coord.stores.etcd.store import RANGE, TXN, EtcdStore
from coord.stores.etcd.url import EtcdURL
from coord.stores.failures import RequestError
from coord.stores.protocol import Finding

MIN_VERSION = (3, 4)
STATUS, ALARM = "/v3/maintenance/status", "/v3/maintenance/alarm"
HISTORY = 1_000_000
"""Revisions. If a read that far back works, nobody compacts the history."""
SMALL_QUOTA = 2 * 2**30
"""Bytes: the default quota of etcd, at which it stops accepting writes."""


async def check(url: EtcdURL, timeout: float) -> list[Finding]:
    """Return what is wrong with the cluster, the most important first.

    Args:
        url: The members, the user and the namespace.
        timeout: Seconds that each request may take.
    """
    findings = [finding async for finding in _members(url, timeout)]
    if all(finding.level == "error" for finding in findings):
        return findings
    store = EtcdStore(url)
    try:
        findings += [
            await _alarms(store.gateway, timeout),
            await _compaction(store.gateway, timeout),
            await _rights(store, url, timeout),
            await _namespace(store, url, timeout),
        ]
    finally:
        await store.close()
    return findings


async def _members(url: EtcdURL, timeout: float) -> AsyncIterator[Finding]:
    clusters: set[str] = set()
    for address in url.hosts:
        gateway = Gateway(replace(url, hosts=(address,)))
        try:
            status = await gateway.call(STATUS, {}, timeout)
        except RequestError as err:
            advice = "check the address in --url, TLS, the user and the password"
            yield Finding("error", "member", err.detail, advice)
            continue
        finally:
            await gateway.close()
        clusters.add(str(status["header"].get("cluster_id")))
        yield _member(str(address), status)
    if len(clusters) > 1:
        advice = "name the members of one cluster only: two clusters elect two leaders"
        yield Finding("error", "cluster", f"{len(clusters)} different clusters", advice)


def _member(address: str, status: dict[str, Any]) -> Finding:
    version = str(status.get("version", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    size = int(status.get("dbSize", 0))
    shown = f"{address}: etcd {version}, {size / 2**20:.0f} MiB"
    if numbers < MIN_VERSION:
        return Finding("error", "member", shown, "use etcd 3.4 or later")
    if not int(status.get("leader", 0)):
        return Finding("error", "member", f"{shown}, without a raft leader", "restore the quorum")
    if size > SMALL_QUOTA // 2:
        advice = "compact and defragment, and set --auto-compaction-retention"
        return Finding("warn", "member", f"{shown}: half of the default quota is used", advice)
    return Finding("ok", "member", shown)


async def _alarms(gateway: Gateway, timeout: float) -> Finding:
    try:
        answer = await gateway.call(ALARM, {"action": "GET"}, timeout)
    except RequestError as err:
        return Finding("warn", "alarms", err.detail, "ask the administrator of etcd")
    alarms = answer.get("alarms", [])
    if not alarms:
        return Finding("ok", "alarms", "none")
    kinds = ", ".join(sorted({str(alarm.get("alarm")) for alarm in alarms}))
    advice = "compact, defragment, then disarm the alarm: etcd refuses writes until then"
    return Finding("error", "alarms", kinds, advice)


async def _compaction(gateway: Gateway, timeout: float) -> Finding:
    try:
        answer = await gateway.call(RANGE, {"key": encode("/coord/")}, timeout)
        revision = int(answer["header"]["revision"])
        if revision <= HISTORY:
            return Finding("ok", "compaction", f"revision {revision}: too early to tell")
        old = {"key": encode("/coord/"), "revision": str(revision - HISTORY)}
        await gateway.call(RANGE, old, timeout)
    except RequestError as err:
        if "compacted" in err.detail:
            return Finding("ok", "compaction", "the history is compacted")
        return Finding("warn", "compaction", err.detail, "ask the administrator of etcd")
    advice = (
        "set --auto-compaction-mode=periodic --auto-compaction-retention=5m: each renewal leaves "
        "200 bytes until a compaction, and etcd compacts nothing by default"
    )
    return Finding("warn", "compaction", f"revision {revision - HISTORY} is still there", advice)


async def _rights(store: EtcdStore, url: EtcdURL, timeout: float) -> Finding:
    """Write a key under the prefix, and delete it in the same transaction chain."""
    key = f"{url.prefix}doctor/{secrets.token_hex(8)}"
    try:
        await store.gateway.call(TXN, {"success": [rows.put(key, "")]}, timeout)
        delete = {"success": [{"request_delete_range": {"key": encode(key)}}]}
        await store.gateway.call(TXN, delete, timeout)
    except RequestError as err:
        advice = f"etcdctl role grant-permission ROLE readwrite --prefix=true {url.prefix}"
        return Finding("error", "rights", err.detail, advice)
    return Finding("ok", "rights", f"this user may write below {url.prefix}")


async def _namespace(store: EtcdStore, url: EtcdURL, timeout: float) -> Finding:
    try:
        leases = await store.read(None, timeout)
    except CoordError as err:
        return Finding("error", "namespace", str(err), "restore the row, or raise the token floor")
    return Finding("ok", "namespace", f"{url.namespace} has {len(leases)} roles")
