"""One worker's part of the history (`coord.testing.history`), one line an event, written at once:
kill -9 loses none.

Times are CLOCK_BOOTTIME, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

from coord import Leadership, Lease, PastTerm
from coord.core.operations import Answer, Claim, Release, Renew, Result
from coord.stores.protocol import Announcements, Store
from coord.stores.requests import announcements_of


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Recorder:
    """Appends to a file. `process` must be new for every incarnation."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._last = 0

    def invoke(self, action: str, role: str, **value: Any) -> tuple[int, str, str]:
        with self._lock:
            self._last += 1
            key = (self._last, action, role)
        self._put("invoke", now(), key, value)
        return key

    def end(self, kind: str, key: tuple[int, str, str], **value: Any) -> None:
        self._put(kind, now(), key, value)

    def look(self, lead: Leadership) -> int | None:
        """Whether it leads, as `held`; a look that shows nothing proves nothing, and is not
        written."""
        before = now()
        term = lead.held
        after = now()
        if term is None:
            return None
        with self._lock:
            self._last += 1
            key = (self._last, "held", lead.role)
        self._put("invoke", before, key, {})
        self._put("ok", after, key, {"token": term.token})
        return term.token

    def _put(self, kind: str, at: float, key: tuple[int, str, str], value: dict[str, Any]) -> None:
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
        key = self._recorder.invoke(
            "claim",
            claim.role,
            holder=claim.holder,
            beat=claim.beat,
            expected=None if claim.expected is None else list(claim.expected),
            takeover=claim.takeover,
            skew=claim.skew,
            floor=claim.floor,
        )
        result = await self._store.claim(claim, timeout)
        self._ended(key, result)
        return result

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        keys = [
            self._recorder.invoke(
                "renew", renewal.role, holder=renewal.holder, token=renewal.token, beat=renewal.beat
            )
            for renewal in renewals
        ]
        results = await self._store.renew(renewals, timeout)
        for key, result in zip(keys, results, strict=True):
            self._ended(key, result)
        return results

    async def release(self, release: Release, timeout: float) -> Result:
        key = self._recorder.invoke(
            "release",
            release.role,
            holder=release.holder,
            token=release.token,
            beat=release.beat,
            linger=release.linger,
            to=release.to,
        )
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
        found = {row.role: row for row in rows}
        for role, key in keys:
            self._recorder.end("ok", key, row=_row(found.get(role, Lease(role))))
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

    def _ended(self, key: tuple[int, str, str], result: Result) -> None:
        if isinstance(result, Answer):
            self._recorder.end("ok", key, applied=result.applied, row=_row(result.lease))
        else:
            self._recorder.end(
                "unknown" if result.unknown else "fail", key, detail=result.detail[:200]
            )


__all__ = ["Recorder", "RecordingStore", "now"]
