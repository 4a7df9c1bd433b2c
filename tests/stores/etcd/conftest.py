"""One etcd member for all tests of a process; tests that stop a server have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import etcd_server as servers
from tests.support import requirements
from tests.support.store_urls import new_etcd_namespace


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
    return new_etcd_namespace(etcd_member)
