"""TLS to real servers, with a certificate authority of the test. RethinkDB's test is with its others."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord.core.operations import Answer, Claim, Failure
from coord.stores import urls
from coord.stores.postgresql import PostgreSQLStore
from tests.support import etcd_server, postgresql_server, redis_server, requirements
from tests.support.certificates import Authority
from tests.support.server_process import free_ports

pytestmark = [pytest.mark.server, pytest.mark.needs("openssl")]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that signed nothing."""
    return Authority(tmp_path, "stranger")


def claim_on(url: str) -> Answer | Failure:
    async def claim() -> Answer | Failure:
        store = urls.open_url(url)
        try:
            return await store.claim(Claim(f"role {secrets.token_hex(4)}", "a", 1, 5.0), 10)
        finally:
            await store.close()

    return asyncio.run(claim())


def applies(url: str) -> None:
    result = claim_on(url)
    assert isinstance(result, Answer), result
    assert result.applied


def is_refused(url: str, why: str) -> None:
    result = claim_on(url)
    assert isinstance(result, Failure), result
    assert not result.unknown
    assert why in result.detail


@pytest.fixture
def secured_postgresql(authority: Authority) -> Iterator[postgresql_server.Server]:
    requirements.need("postgresql")
    certificate = authority.server()
    server = postgresql_server.Server(
        "ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key"
    )
    try:
        server.create()
        owner = server.data.stat()
        for source, name in ((certificate.cert, "server.pem"), (certificate.key, "server.key")):
            shutil.copy(source, server.data / name)
            (server.data / name).chmod(0o600)
            os.chown(server.data / name, owner.st_uid, owner.st_gid)
        yield server.start()
    finally:
        server.discard()


def test_postgresql(
    secured_postgresql: postgresql_server.Server, authority: Authority, stranger: Authority
) -> None:
    server = secured_postgresql
    asyncio.run(urls.open_admin(server.url()).setup({}, 30))
    trusted = server.url(options=f"?sslmode=verify-full&sslrootcert={authority.ca_certs}")
    applies(trusted)

    async def is_encrypted() -> bool:
        store = PostgreSQLStore(trusted)
        try:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            return bool((await store.pool.run(query, (), 10))[0]["ssl"])
        finally:
            await store.close()

    assert asyncio.run(is_encrypted())
    applies(server.url(options="?sslmode=require"))
    untrusted = server.url(options=f"?sslmode=verify-full&sslrootcert={stranger.ca_certs}")
    is_refused(untrusted, "certificate")
    # The certificate names the IP address only.
    by_name = trusted.replace("127.0.0.1", "localhost")
    is_refused(by_name, "certificate")
    applies(by_name.replace("verify-full", "verify-ca"))


@pytest.fixture
def secured_redis(authority: Authority) -> Iterator[tuple[redis_server.Server, int]]:
    requirements.need("redis")
    certificate = authority.server()
    with free_ports(1) as ports:
        (port,) = ports
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", certificate.cert, "--tls-key-file", certificate.key]
    with redis_server.Server(*options, "--tls-ca-cert-file", authority.ca_certs) as server:
        yield server, port


def test_redis(
    secured_redis: tuple[redis_server.Server, int], authority: Authority, stranger: Authority
) -> None:
    server, port = secured_redis
    redis_server.set_up(server.url("tls"), 100.0)
    url = f"rediss://127.0.0.1:{port}/0?namespace=tls&ca_certs={authority.ca_certs}"
    applies(url)
    is_refused(url.replace(authority.ca_certs, stranger.ca_certs), "certificate")
    is_refused(url.replace("127.0.0.1", "localhost"), "ertificate")
    # Without TLS the server drops the connection after the request was sent.
    assert isinstance(claim_on(f"redis://127.0.0.1:{port}/0?namespace=tls"), Failure)


def test_etcd(authority: Authority, stranger: Authority) -> None:
    """With a certificate of the client, which has no Common Name, and a password."""
    requirements.need("etcd")
    server, client = authority.server(), authority.client()
    options = ["--cert-file", server.cert, "--key-file", server.key]
    options += ["--client-cert-auth", "--trusted-ca-file", authority.ca_certs]
    operator = ssl.create_default_context(cafile=authority.ca_certs)
    operator.load_cert_chain(client.cert, client.key)
    password = secrets.token_hex(8)
    with etcd_server.Member(options=options, tls=operator) as member:
        for path, body in (
            ("auth/user/add", {"name": "root", "password": password}),
            ("auth/role/add", {"name": "root"}),
            ("auth/user/grant", {"user": "root", "role": "root"}),
            ("auth/enable", {}),
        ):
            etcd_server.request(member, path, **body)
        certificates = f"&cert={client.cert}&key={client.key}"
        trusted = f"{certificates}&ca_certs={authority.ca_certs}"
        applies(member.url("tls", f"root:{password}@", trusted))
        untrusted = f"{certificates}&ca_certs={stranger.ca_certs}"
        is_refused(member.url("tls", f"root:{password}@", untrusted), "ertificate")
        is_refused(member.url("tls", "root:wrong@", trusted), "authentication failed")
        without = f"&ca_certs={authority.ca_certs}"
        assert isinstance(claim_on(member.url("tls", f"root:{password}@", without)), Failure)
