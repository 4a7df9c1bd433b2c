"""PostgreSQL behind a network that fails, frozen, restarted and without rights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from coord.stores.postgresql import PostgreSQLStore, admin
from coord.stores.protocol import Store
from coord.testing import ContractServer, ServerContract
from tests.stores.postgresql.kit import execute
from tests.support import requirements
from tests.support.postgresql_server import Server

PASSWORD = "a-password-of-the-tests"


class PostgreSQLServer(ContractServer):
    """A server with a user for the stores."""

    secret = PASSWORD

    def __init__(self, server: Server) -> None:
        self._server = server
        self.host, self.port = server.host, server.port
        asyncio.run(admin(server.url()).setup({}, 30))
        execute(
            server.url(),
            f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA coord TO app",
        )
        self.give_rights_back()

    def make_store(self, host: str, port: int) -> Store:
        return PostgreSQLStore(f"postgresql://app:{PASSWORD}@{host}:{port}/postgres")

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
        execute(self._server.url(), "REVOKE USAGE ON SCHEMA coord FROM app")
        return True

    def give_rights_back(self) -> None:
        execute(self._server.url(), "GRANT USAGE ON SCHEMA coord TO app")


@pytest.fixture(scope="module")
def contract_server() -> Iterator[PostgreSQLServer]:
    requirements.need("postgresql")
    with Server() as server:
        yield PostgreSQLServer(server)


class TestPostgreSQLServer(ServerContract):
    @pytest.fixture(autouse=True)
    def _server(self, contract_server: PostgreSQLServer) -> None:
        self.server = contract_server
