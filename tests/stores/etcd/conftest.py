"""One etcd member for all tests of a process; tests that stop a server have their own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.support import etcd_server as servers
from tests.support import requirements


@pytest.fixture(scope="session")
def etcd_member() -> Iterator[servers.Member]:
    requirements.need("etcd")
    with servers.Member() as member:
        yield member


@pytest.fixture
def own_etcd_member() -> Iterator[servers.Member]:
    """A running member of this test's own, to be killed, frozen and restarted at will."""
    requirements.need("etcd")
    with servers.Member() as member:
        yield member


@pytest.fixture
def own_etcd_cluster() -> Iterator[servers.Cluster]:
    """Three members of this test's own."""
    requirements.need("etcd")
    with servers.Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def url(etcd_member: servers.Member) -> str:
    """An empty namespace: tests that are imported from elsewhere run on it."""
    return etcd_member.url(f"test-{secrets.token_hex(6)}")
