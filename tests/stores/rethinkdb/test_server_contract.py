"""RethinkDB behind a network that fails, frozen, restarted and without rights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from coord.stores.protocol import Store
from coord.stores.rethinkdb import RethinkDBStore, parse_url
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.setup import set_up
from coord.testing import ContractServer, ServerContract
from tests.support.rethinkdb_server import Server

PASSWORD = "a-password-of-the-tests"


class RethinkDBServer(ContractServer):
    """A server with a user for the stores."""

    secret = PASSWORD

    def __init__(self, server: Server) -> None:
        self._server = server
        self.host, self.port = server.host, server.port
        asyncio.run(set_up(server.url()))
        users = reql().db("rethinkdb").table("users")
        self._ask(users.insert({"id": "app", "password": PASSWORD}))
        self.give_rights_back()

    def make_store(self, host: str, port: int) -> Store:
        return RethinkDBStore(parse_url(f"rethinkdb://app:{PASSWORD}@{host}:{port}/coord"))

    def freeze(self) -> bool:
        self._server.freeze()
        return True

    def thaw(self) -> None:
        self._server.thaw()

    def restart(self) -> bool:
        self._server.kill()
        self._server.start()
        return True

    def take_rights_away(self) -> bool:
        self._grant(write=False)
        return True

    def give_rights_back(self) -> None:
        self._grant(write=True)

    def _grant(self, *, write: bool) -> None:
        self._ask(reql().db("coord").grant("app", {"read": True, "write": write, "config": False}))

    def _ask(self, term: Any) -> None:
        async def ask() -> None:
            pool = Pool(parse_url(self._server.url()))
            try:
                await pool.run(term, 20)
            finally:
                await pool.close()

        asyncio.run(ask())


@pytest.fixture(scope="module")
def contract_server() -> Iterator[RethinkDBServer]:
    with Server() as server:
        yield RethinkDBServer(server)


@pytest.mark.rethinkdb
class TestRethinkDBServer(ServerContract):
    @pytest.fixture(autouse=True)
    def _server(self, contract_server: RethinkDBServer) -> None:
        self.server = contract_server
