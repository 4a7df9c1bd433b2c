"""Redis behind a network that fails, frozen, restarted and without rights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from coord.stores.protocol import Store
from coord.stores.redis import RedisStore
from coord.testing import ContractServer, ServerContract
from tests.support import requirements
from tests.support.redis_server import Server, set_up

PASSWORD = "a-password-of-the-tests"
NAMESPACE = "contract"
TTL = 6.0


class RedisServer(ContractServer):
    """A server with a user for the stores."""

    secret = PASSWORD

    def __init__(self, server: Server) -> None:
        self._server = server
        self.host, self.port = server.host, server.port
        set_up(server.url(NAMESPACE), TTL)
        self._users("app", "on", f">{PASSWORD}", "~*", "&*", "+@all")

    def make_store(self, host: str, port: int) -> Store:
        return RedisStore(f"redis://app:{PASSWORD}@{host}:{port}/0?namespace={NAMESPACE}")

    def freeze(self) -> bool:
        self._server.freeze()
        return True

    def thaw(self) -> None:
        self._server.thaw()

    def restart(self) -> bool:
        self._server.kill()
        self._server.start()
        # Users that are not in a file are gone after a restart.
        self._users("app", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        return True

    def take_rights_away(self) -> bool:
        self._users("app", "-eval", "-evalsha")
        return True

    def give_rights_back(self) -> None:
        self._users("app", "+eval", "+evalsha")

    def _users(self, *rules: str) -> None:
        async def set_user() -> None:
            store = RedisStore(self._server.url(NAMESPACE))
            try:
                await store.client.command(10, "ACL", "SETUSER", *rules)
            finally:
                await store.close()

        asyncio.run(set_user())


@pytest.fixture(scope="module")
def contract_server() -> Iterator[RedisServer]:
    requirements.need("redis")
    with Server() as server:
        yield RedisServer(server)


class TestRedisServer(ServerContract):
    soon = 60.0
    ttl = TTL  # After a restart nobody new is elected for the longest ttl.

    @pytest.fixture(autouse=True)
    def _server(self, contract_server: RedisServer) -> None:
        self.server = contract_server
