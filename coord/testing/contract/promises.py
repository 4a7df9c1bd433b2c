"""Contract tests of what a store promises beside its rows: attributes, ends, forks and races."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import threading
import time
import warnings
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from coord.core.lease import Revision
from coord.core.operations import Answer, Claim, Renew
from coord.testing.contract.harness import ContractHarness, StoreDriver, applied, expect, same

CLOSE_WITHIN = 2.5
"""Seconds after which a store that closes has failed. It has one second; a busy machine more."""
CHILD_WITHIN = 30
"""Seconds that a forked child may take."""
FILES = Path("/proc/self/fd")


class PromiseContract(ContractHarness):
    def hold_row(self, role: str) -> AbstractAsyncContextManager[object] | None:
        """Return a block during which another transaction has the row of `role` locked.

        None means that requests never wait for a lock in this store. Override it if they can.
        """
        return None

    def test_the_attributes(self) -> None:
        async def body(at: StoreDriver) -> None:
            url, skew = at.store.url, at.store.max_clock_skew
            expect(isinstance(url, str) and ":" in url, f"url is a URL: {url!r}")
            expect(
                not re.search(r"//[^/@:]*:[^/@]+@", url), "url contains no password before the host"
            )
            expect(
                skew is None
                or (
                    isinstance(skew, (int, float))
                    and not isinstance(skew, bool)
                    and math.isfinite(skew)
                    and skew >= 0
                ),
                f"max_clock_skew is None or a number of seconds: {skew!r}",
            )
            expect(callable(at.store.abandon), "abandon is a method")

        self.run(body)

    def test_close_takes_no_longer_than_a_second_and_frees_everything(self) -> None:
        async def once() -> None:
            store = self.make_store()
            await store.open(self.timeout)
            await store.claim(Claim(self.fresh_role(), "a", 1, 30.0), self.timeout)
            began = time.monotonic()
            await store.close()
            took = time.monotonic() - began
            expect(took < CLOSE_WITHIN, f"close takes a second at most: {took:.1f} s")

        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a"))  # what the first request of a process loads stays
            await once()
            before = _resources()
            stores = 5
            for _ in range(stores):
                await once()
            after = before
            for _ in range(100):  # threads end a little later
                after = _resources()
                if not _grown(before, after):
                    break
                await asyncio.sleep(0.02)
            expect(
                not _grown(before, after),
                f"files, threads, tasks before {stores} stores and after: {before}, {after}",
            )

        self.run(body)

    def test_a_forked_child_abandons_the_store_and_uses_it(self) -> None:
        if not hasattr(os, "fork"):
            return
        loop = asyncio.new_event_loop()
        store, role, other = self.make_store(), self.fresh_role(), self.fresh_role()
        try:
            loop.run_until_complete(store.open(self.timeout))
            applied(
                loop.run_until_complete(store.claim(Claim(role, "parent", 1, 30.0), self.timeout))
            )
            with warnings.catch_warnings():
                # From Python 3.12 on, a fork with threads warns.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(CHILD_WITHIN)
                    store.abandon()
                    result = asyncio.run(store.claim(Claim(other, "child", 1, 30.0), self.timeout))
                    status = 0 if isinstance(result, Answer) and result.applied else 2
                finally:
                    os._exit(status)
            same(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "status of the child")
            (result,) = loop.run_until_complete(
                store.renew([Renew(role, "parent", 1, 2, 30.0)], self.timeout)
            )
            applied(result)
        finally:
            loop.run_until_complete(store.close())
            loop.close()

    def test_every_loser_of_a_race_sees_the_row_of_the_winner(self) -> None:
        async def body(at: StoreDriver) -> None:
            drivers = [at, await at.another(), await at.another()]
            revision: Revision | None = None
            for turn in range(10):
                results = await asyncio.gather(
                    *(
                        drivers[number % 3].claim(
                            f"{turn}-{number}", 1, expected=revision, takeover=revision is not None
                        )
                        for number in range(12)
                    )
                )
                final = (await at.row()).revision
                for result in results:
                    expect(isinstance(result, Answer), f"an answer, not {result!r}")
                    assert isinstance(result, Answer)
                    same(result.lease.revision, final, "the row in the answer")
                revision = final

        self.run(body)

    def test_a_request_that_waited_for_a_lock_reads_the_clock_after_it(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1, ttl=5.0))
            held = self.hold_row(at.role)
            if held is None:
                return
            async with held:
                renewal = asyncio.ensure_future(at.renew("a", 1, 2, ttl=5.0))
                await asyncio.sleep(1.0)
                expect(not renewal.done(), "hold_row makes a renewal wait")
            applied(await renewal)
            remaining = (await at.row()).remaining
            expect(remaining > 4.2, f"the whole ttl counts from the write: {remaining:.2f} s of 5")

        self.run(body)


def _resources() -> tuple[int, int, int]:
    """Return how many files, threads and tasks this process has."""
    files = len(list(FILES.iterdir())) if FILES.exists() else 0
    return files, threading.active_count(), len(asyncio.all_tasks())


def _grown(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Return whether each of five stores has left something."""
    return any(late >= early + 5 for early, late in zip(before, after, strict=True))
