"""`kill -9` of a server in the middle of many claims: nothing that it acknowledged is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from coord.core.operations import Answer, Claim, Renew
from coord.stores import urls
from coord.stores.protocol import HasKept, Store
from tests.support import etcd_server, postgresql_server, redis_server, requirements
from tests.support.store_urls import new_schema

TTL = 1.0
"""Seconds. After a restart, Redis elects nobody for so long."""
ROLES = [f"role {number}" for number in range(8)]
CLAIMS, ROUNDS = 5, 3
beats = itertools.count(1)


@pytest.fixture(params=["postgresql", "redis", "etcd"])
def killable(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """A server of this test's own, and the URL of a store on it."""
    requirements.need(request.param)
    if request.param == "postgresql":
        with postgresql_server.Server() as server:
            yield server, new_schema(server)
    elif request.param == "redis":
        with redis_server.Server() as server:
            yield server, redis_server.set_up(server.url("killed"), TTL)
    else:
        with etcd_server.Member() as server:
            yield server, server.url("killed")


class Acknowledged:
    """What a store acknowledged, for each role: the last token, and the last kept text."""

    def __init__(self) -> None:
        self.tokens = dict.fromkeys(ROLES, 0)
        self.texts = dict.fromkeys(ROLES, 0)

    async def lead(self, store: Store, role: str, led: Counter[str], enough: asyncio.Event) -> None:
        """Claim the role again and again, and keep the token, until the server is gone.

        `enough` is set once each role has done so a few times. Then the server is killed.
        """
        while True:
            claim = Claim(role, "somebody", next(beats), TTL, takeover=True)
            result = await store.claim(claim, 20)
            if isinstance(result, Answer):
                assert result.applied
                token = result.lease.token
                assert token > self.tokens[role], "a token is given twice"
                self.tokens[role] = token
                renewal = Renew(role, "somebody", token, next(beats), TTL, keep=str(token))
                (result,) = await store.renew([renewal], 20)
                if isinstance(result, Answer):
                    assert result.applied
                    self.texts[role] = token
                    led[role] += 1
                    if min(led[name] for name in ROLES) >= CLAIMS:
                        enough.set()
            if not isinstance(result, Answer):
                if enough.is_set():
                    return
                await asyncio.sleep(0.02)  # the quiet time of Redis


@pytest.mark.server
def test_nothing_that_was_acknowledged_is_lost(killable: tuple[Any, str]) -> None:
    server, url = killable
    acknowledged = Acknowledged()

    async def until_killed() -> None:
        store, led, enough = urls.open_url(url), Counter[str](), asyncio.Event()
        try:
            leading = asyncio.gather(
                *(acknowledged.lead(store, role, led, enough) for role in ROLES)
            )
            await enough.wait()
            await asyncio.to_thread(server.kill)
            await leading
        finally:
            await store.close()

    async def look() -> None:
        store = urls.open_url(url)
        assert isinstance(store, HasKept)
        try:
            rows = {lease.role: lease.token for lease in await store.read(ROLES, 20)}
            for role in ROLES:
                assert rows[role] >= acknowledged.tokens[role]
                kept = await store.kept(role, 20)
                assert int(kept.text) >= acknowledged.texts[role]
        finally:
            await store.close()

    for _ in range(ROUNDS):
        asyncio.run(asyncio.wait_for(until_killed(), 100))
        server.start()
        asyncio.run(asyncio.wait_for(look(), 100))
