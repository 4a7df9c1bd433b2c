"""What only the store in memory does: names, and forks."""

from __future__ import annotations

import asyncio
import os

import pytest

from coord import Coordinator
from coord.core.operations import Claim
from coord.stores.memory.store import MemoryStore
from coord.stores.urls import open_url


def test_a_name_is_one_store_and_no_name_is_a_new_one() -> None:
    assert open_url("memory://test-memory") is open_url("memory://test-memory")
    assert open_url("memory://test-memory") is not open_url("memory://test-memory-2")
    assert open_url("memory://") is not open_url("memory://")


def test_an_abandoned_store_is_empty() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.claim(Claim("r", "h", 1, 30.0), 5)
        await store.records("services").register({"id": "a", "ttl": 60.0, "role": "w"}, "n", 5)
        store.abandon()
        assert await store.read(None, 5) == []
        assert await store.past(None, 5) == []
        assert await store.records("services").healthy(None, 5) == []

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_with_an_empty_store() -> None:
    with Coordinator("memory://test-memory-fork") as coordinator:
        coordinator.leadership("r").acquire(timeout=30)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with Coordinator("memory://test-memory-fork") as child:
                    status = 0 if child.leader("r") is None else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert coordinator.leader("r") is not None
