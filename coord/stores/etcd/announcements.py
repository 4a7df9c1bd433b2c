"""Announcements in etcd: a key each, which an etcd lease deletes when it expires.

An etcd lease may end late, and its loss costs a hint only, so announcements may hang on one; the
role of a leader never does. Keys, with the prefix `/coord/NAMESPACE/`: `a/KEY` is the announcement,
`c/ROLE\\0KEY` counts the candidates of a role.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from coord.core.announcements import (
    CANDIDATE,
    MAX_COUNTED,
    Announcement,
    counted_roles,
    decode_announcement,
    encode_body,
)
from coord.stores import failures
from coord.stores.etcd import rows
from coord.stores.etcd.gateway import Gateway, decode, encode, end_of_prefix
from coord.stores.etcd.rows import Keys
from coord.stores.etcd.url import EtcdURL
from coord.stores.failures import RequestError

TXN, RANGE, WATCH, GRANT = "/v3/kv/txn", "/v3/kv/range", "/v3/watch", "/v3/lease/grant"
MAX_OPERATIONS = 120
"""Operations in one transaction; etcd takes 128."""
CLOCK_TTL = 5.0
"""Seconds. An etcd lease lasts at least two, and may end half a second late, so a shorter
announcement also expires by the clocks of the clients."""
READ_TIMEOUT = 10.0
"""Seconds that the first rows of a feed may take."""


class EtcdAnnouncements:
    """The announcements of one namespace. Implements `coord.stores.protocol.Announcements`.

    A post takes one request for each ttl in it, and one for each sixty announcements.

    Args:
        gateway: The connections to use, those of the store.
        url: Names the namespace.
    """

    def __init__(self, gateway: Gateway, url: EtcdURL) -> None:
        self._gateway, self._keys = gateway, Keys(url)

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        """Write announcements, and count the candidates. See `protocol.Announcements.post`."""
        if not notices:
            return {}
        try:
            leases = {ttl: await self._grant(ttl, timeout) for ttl in {n.ttl for n in notices}}
            writes = [
                write for notice in notices for write in self._writes(notice, leases[notice.ttl])
            ]
            for start in range(0, len(writes), MAX_OPERATIONS):
                part = writes[start : start + MAX_OPERATIONS]
                await self._gateway.call(TXN, {"success": part}, timeout)
            return await self._count(counted_roles(notices), timeout)
        except RequestError as err:
            raise err.error() from None

    async def _grant(self, ttl: float, timeout: float) -> int:
        seconds = max(math.ceil(ttl), 1)
        return int((await self._gateway.call(GRANT, {"TTL": str(seconds)}, timeout))["ID"])

    def _writes(self, notice: Announcement, lease: int) -> list[dict[str, Any]]:
        posted = time.time()
        value = {
            "role": notice.role,
            "kind": notice.kind,
            "body": encode_body(notice.body),
            "ttl": notice.ttl,
            "urgent": notice.urgent,
            "posted": posted,
        }
        writes = [rows.put(self._keys.announcements + notice.key, json.dumps(value), lease)]
        if notice.kind == CANDIDATE:
            writes.append(
                rows.put(f"{self._keys.candidates}{notice.role}\0{notice.key}", "", lease)
            )
        return writes

    async def _count(self, roles: Sequence[str], timeout: float) -> dict[str, int]:
        if not roles:
            return {}
        ranges = []
        for role in roles:
            prefix = f"{self._keys.candidates}{role}\0"
            span = {"key": encode(prefix), "range_end": end_of_prefix(prefix), "count_only": True}
            ranges.append({"request_range": span})
        answer = await self._gateway.call(TXN, {"success": ranges}, timeout)
        counts = [
            int(response["response_range"].get("count", 0)) for response in answer["responses"]
        ]
        return {role: min(count, MAX_COUNTED) for role, count in zip(roles, counts, strict=True)}

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys, if they exist."""
        try:
            notices = {notice.key: notice for notice in await self._all(timeout)}
            deletes = []
            for key in sorted(keys):
                names = [self._keys.announcements + key]
                if key in notices:
                    names.append(f"{self._keys.candidates}{notices[key].role}\0{key}")
                deletes += [{"request_delete_range": {"key": encode(name)}} for name in names]
            for start in range(0, len(deletes), MAX_OPERATIONS):
                part = deletes[start : start + MAX_OPERATIONS]
                await self._gateway.call(TXN, {"success": part}, timeout)
        except RequestError as err:
            raise err.error() from None

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about `roles` (None: about every role)."""
        try:
            notices = await self._all(timeout)
        except RequestError as err:
            raise err.error() from None
        return [notice for notice in notices if roles is None or notice.role in roles]

    async def _all(self, timeout: float) -> list[Announcement]:
        answer = await self._gateway.call(RANGE, rows.all_with(self._keys.announcements), timeout)
        decoded = (self._decode(pair) for pair in rows.pairs(answer))
        return [notice for notice in decoded if notice is not None]

    def _decode(self, pair: Mapping[str, Any]) -> Announcement | None:
        key = decode(pair["key"]).removeprefix(self._keys.announcements)
        try:
            value = json.loads(decode(pair["value"]))
            remaining = float(value["posted"]) + float(value["ttl"]) - time.time()
            role, kind, body, ttl, urgent, posted = (
                value[name] for name in ("role", "kind", "body", "ttl", "urgent", "posted")
            )
        except (ValueError, KeyError, TypeError):
            return None
        if remaining <= 0 and value["ttl"] < CLOCK_TTL:
            return None
        # The clock of the process that posted it may be wrong. While the key exists, it has not
        # expired.
        remaining = max(remaining, 0.001)
        return decode_announcement(
            key,
            role,
            kind,
            body,
            ttl=ttl,
            urgent=urgent,
            posted_at=posted,
            seconds_left=remaining,
        )

    async def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements, and again whenever one is posted."""
        span = rows.all_with(self._keys.announcements)
        try:
            answer = await self._gateway.call(RANGE, span, READ_TIMEOUT)
            for pair in rows.pairs(answer):
                if (notice := self._decode(pair)) is not None and notice.urgent:
                    yield notice
            start = str(int(answer["header"]["revision"]) + 1)
            stream = self._gateway.stream(
                WATCH, {"create_request": {**span, "start_revision": start}}
            )
            async for message in stream:
                if message.get("canceled"):
                    raise failures.lost(self._gateway.server, "the watch was cancelled")
                for event in message.get("events", []):
                    if event.get("type") == "DELETE":
                        continue
                    if (notice := self._decode(event["kv"])) is not None and notice.urgent:
                        yield notice
        except RequestError as err:
            raise err.error() from None

    async def purge(self, timeout: float) -> int:
        """Delete the announcements that expired by the clocks of the clients.

        etcd deletes the others by itself.
        """
        span = rows.all_with(self._keys.announcements)
        try:
            pairs = rows.pairs(await self._gateway.call(RANGE, span, timeout))
        except RequestError as err:
            raise err.error() from None
        expired = [
            decode(pair["key"]).removeprefix(self._keys.announcements)
            for pair in pairs
            if self._decode(pair) is None
        ]
        if expired:
            await self.withdraw(expired, timeout)
        return len(expired)
