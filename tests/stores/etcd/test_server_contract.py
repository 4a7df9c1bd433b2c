"""etcd behind a network that fails, frozen, restarted and without rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coord.stores.etcd import EtcdStore, rows
from coord.stores.protocol import Store
from coord.testing import ContractServer, ServerContract
from tests.support import requirements
from tests.support.etcd_server import Member, request

PASSWORD = "a-password-of-the-tests"
ROOT = {"name": "root", "password": "root"}


class EtcdServer(ContractServer):
    """A member with a user for the stores."""

    secret = PASSWORD

    def __init__(self, member: Member) -> None:
        self._member = member
        self.host, self.port = member.host, member.port
        for path, body in (
            ("auth/user/add", ROOT),
            ("auth/role/add", {"name": "root"}),
            ("auth/user/grant", {"user": "root", "role": "root"}),
            ("auth/role/add", {"name": "app"}),
            ("auth/role/grant", {"name": "app", "perm": self._right("READWRITE")}),
            ("auth/user/add", {"name": "app", "password": PASSWORD}),
            ("auth/user/grant", {"user": "app", "role": "app"}),
            ("auth/enable", {}),
        ):
            request(member, path, **body)

    def make_store(self, host: str, port: int) -> Store:
        return EtcdStore(f"etcd://app:{PASSWORD}@{host}:{port}?namespace=contract")

    def freeze(self) -> bool:
        self._member.freeze()
        return True

    def thaw(self) -> None:
        self._member.thaw()

    def restart(self) -> bool:
        self._member.kill()
        self._member.start()
        return True

    def take_rights_away(self) -> bool:
        self._grant("READ")
        return True

    def give_rights_back(self) -> None:
        self._grant("READWRITE")

    def _right(self, kind: str) -> dict[str, Any]:
        return {"permType": kind, **rows.all_with("/coord/contract/")}

    def _grant(self, kind: str) -> None:
        token = request(self._member, "auth/authenticate", **ROOT)["token"]
        body = {"name": "app", "perm": self._right(kind)}
        request(self._member, "auth/role/grant", token, **body)


@pytest.fixture(scope="module")
def contract_server() -> Iterator[EtcdServer]:
    requirements.need("etcd")
    with Member() as member:
        yield EtcdServer(member)


class TestEtcdServer(ServerContract):
    @pytest.fixture(autouse=True)
    def _server(self, contract_server: EtcdServer) -> None:
        self.server = contract_server
