"""One worker's part of the history (`coord.testing.history`), one line an event, written at once:
kill -9 loses none.

Times are CLOCK_BOOTTIME, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

from coord import Lease, PastTerm
from coord.core.kept import Kept
from coord.core.operations import (
    Answer,
    Claim,
    Operation,
    Override,
    Read,
    Release,
    Renew,
    Result,
    Retire,
)
from coord.stores.protocol import (
    Announcements,
    Bulk,
    HasKept,
    Immediate,
    Overridable,
    PolledFeed,
    Retirable,
    Store,
)
from coord.stores.requests import announcements_of

Key = tuple[int, str, str]
"""What an invoke and its outcome have in common."""


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Recorder:
    """Appends to a file. `process` must be new for every incarnation."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._last = 0

    def invoke(self, action: str, role: str, **value: Any) -> Key:
        with self._lock:
            self._last += 1
            key = (self._last, action, role)
        self._put("invoke", now(), key, value)
        return key

    def end(self, kind: str, key: Key, **value: Any) -> None:
        self._put(kind, now(), key, value)

    def look(self, role: str, believed: Callable[[], int | None]) -> int | None:
        """Record the token under which it believes to lead `role`, as `held`; a look that shows
        nothing proves nothing, and is not written."""
        before = now()
        token = believed()
        after = now()
        if token is None:
            return None
        with self._lock:
            self._last += 1
            key = (self._last, "held", role)
        self._put("invoke", before, key, {})
        self._put("ok", after, key, {"token": token})
        return token

    def _put(self, kind: str, at: float, key: Key, value: dict[str, Any]) -> None:
        op, action, role = key
        event = {
            "kind": kind, "at": at, "process": self.process, "op": op, "action": action, "role": role, "value": value
        }  # fmt: skip
        os.write(self._file, (json.dumps(event) + "\n").encode())


def _row(lease: Lease) -> list[Any]:
    return list(lease.revision)


class RecordingStore:
    """A store whose swaps and reads are recorded as they are asked and answered."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store, self._recorder = store, recorder

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def max_clock_skew(self) -> float | None:
        return self._store.max_clock_skew

    async def open(self, timeout: float) -> None:
        await self._store.open(timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        key = self._record_request(claim)
        result = await self._store.claim(claim, timeout)
        self._ended(key, result)
        return result

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        keys = [self._record_request(renewal) for renewal in renewals]
        results = await self._store.renew(renewals, timeout)
        for key, result in zip(keys, results, strict=True):
            self._ended(key, result)
        return results

    async def release(self, release: Release, timeout: float) -> Result:
        key = self._record_request(release)
        result = await self._store.release(release, timeout)
        self._ended(key, result)
        return result

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        keys = [(role, self._recorder.invoke("read", role)) for role in roles or ()]
        try:
            rows = await self._store.read(roles, timeout)
        except BaseException as err:
            for _, key in keys:
                self._recorder.end(
                    "fail", key, detail=type(err).__name__
                )  # it changed nothing, and told nothing
            raise
        rows_by_role = {row.role: row for row in rows}
        for role, key in keys:
            row = rows_by_role.get(role, Lease(role))
            self._recorder.end("ok", key, row=_row(row), info=dict(row.info))
        return rows

    def announcements(self) -> Announcements:
        """Not recorded: they never decide who leads."""
        return announcements_of(self._store)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Not recorded, either."""
        return await self._store.past(roles, timeout)

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        return self._store.watch(roles)

    async def close(self) -> None:
        await self._store.close()

    def abandon(self) -> None:
        self._store.abandon()

    def _record_request(self, swap: Claim | Renew | Release) -> Key:
        if isinstance(swap, Claim):
            return self._recorder.invoke(
                "claim",
                swap.role,
                holder=swap.holder,
                beat=swap.beat,
                expected=None if swap.expected is None else list(swap.expected),
                takeover=swap.takeover,
                skew=swap.skew,
                floor=swap.floor,
            )
        words: dict[str, Any] = {"holder": swap.holder, "token": swap.token, "beat": swap.beat}
        if isinstance(swap, Renew):
            return self._recorder.invoke("renew", swap.role, **words)
        return self._recorder.invoke("release", swap.role, **words, linger=swap.linger, to=swap.to)

    def _ended(self, key: Key, result: Result) -> None:
        if isinstance(result, Answer):
            self._recorder.end("ok", key, applied=result.applied, row=_row(result.lease))
        else:
            self._recorder.end(
                "unknown" if result.unknown else "fail", key, detail=result.detail[:200]
            )


class _RecordsBulk(RecordingStore):
    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        assert isinstance(self._store, Bulk)
        keys = [self._record_request(swap) for swap in swaps]
        results = await self._store.swap_all(swaps, timeout)
        for key, result in zip(keys, results, strict=True):
            self._ended(key, result)
        return results


class _RecordsImmediate(RecordingStore):
    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        assert isinstance(self._store, Immediate)
        if isinstance(operation, Read):  # changes nothing
            return self._store.begin(operation, timeout)
        key = self._record_request(operation)
        pending = self._store.begin(operation, timeout)
        if pending is None:
            self._recorder.end("fail", key, detail="not sent")
            return None
        return self._begun(key, pending)

    async def _begun(self, key: Key, pending: Coroutine[Any, Any, Result]) -> Result:
        result = await pending
        self._ended(key, result)
        return result


class _RecordsKept(RecordingStore):
    async def kept(self, role: str, timeout: float) -> Kept:
        """Not recorded: what is run for a tick is (jobs.py)."""
        assert isinstance(self._store, HasKept)
        return await self._store.kept(role, timeout)


class _RecordsOverrides(RecordingStore):
    async def override(self, override: Override, timeout: float) -> Result:
        assert isinstance(self._store, Overridable)
        key = self._recorder.invoke(
            "override",
            override.role,
            expected=list(override.expected),
            holder=override.holder,
            beat=override.beat,
        )
        result = await self._store.override(override, timeout)
        self._ended(key, result)
        return result


class _RecordsRetirement(RecordingStore):
    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        assert isinstance(self._store, Retirable)
        keys = [
            self._recorder.invoke("retire", request.role, expected=list(request.expected))
            for request in requests
        ]
        deleted = await self._store.retire(requests, timeout)
        for key, done in zip(keys, deleted, strict=True):
            self._recorder.end("ok", key, applied=done)
        return deleted


class _Polls(RecordingStore):
    @property
    def feed_interval(self) -> float:
        assert isinstance(self._store, PolledFeed)
        return self._store.feed_interval


_ABILITIES: dict[type, type[RecordingStore]] = {
    Bulk: _RecordsBulk,
    Immediate: _RecordsImmediate,
    HasKept: _RecordsKept,
    Overridable: _RecordsOverrides,
    Retirable: _RecordsRetirement,
    PolledFeed: _Polls,
}


def recording(store: Store, recorder: Recorder) -> RecordingStore:
    """Return a store that records, with the abilities of `store` and no others."""
    bases = tuple(kind for ability, kind in _ABILITIES.items() if isinstance(store, ability))
    kind: type[RecordingStore] = type("Recording", bases or (RecordingStore,), {})
    return kind(store, recorder)


__all__ = ["Recorder", "RecordingStore", "now", "recording"]
