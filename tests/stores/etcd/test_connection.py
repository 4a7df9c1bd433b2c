"""An etcd cluster that is slow, frozen, dead, without quorum, or forbids something."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator

import pytest

from coord import Coordinator
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.errors import AccessDenied, BadArgument, NotSetUp, StoreUnavailable
from coord.stores.etcd import EtcdStore, admin, rows
from coord.stores.etcd.gateway import encode
from tests.support.etcd_server import Cluster, Member, request
from tests.support.refused_calls import check_refusals


def answered(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    return result


def failed(result: Result) -> Failure:
    assert isinstance(result, Failure), result
    return result


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(url)
    try:
        yield store
    finally:
        await store.close()


def test_frozen(own_etcd_member: Member) -> None:
    async def body() -> None:
        async with opened(own_etcd_member.url()) as store:
            assert answered(await store.claim(Claim("r", "a", 1, 30.0), 5)).applied
            own_etcd_member.freeze()
            late = asyncio.ensure_future(store.claim(Claim("late", "a", 1, 30.0), 0.5))
            renewal = asyncio.ensure_future(store.renew([Renew("r", "a", 1, 2, 30.0)], 0.5))
            assert failed(await late).unknown
            assert failed((await renewal)[0]).unknown
            with pytest.raises(StoreUnavailable):
                await store.read(["r"], 0.3)
            own_etcd_member.thaw()
            assert answered(await store.claim(Claim("next", "a", 1, 30.0), 20)).applied
            # Whether the late ones were applied or not, the store tells the truth about the row.
            (kept,) = await store.read(["r"], 10)
            beat = kept.beat + 1
            (renewed,) = await store.renew([Renew("r", "a", 1, beat, 30.0)], 10)
            assert answered(renewed).applied

    asyncio.run(body())


def test_killed_and_back(own_etcd_member: Member) -> None:
    async def body() -> None:
        async with opened(own_etcd_member.url()) as store:
            assert answered(await store.claim(Claim("kept", "a", 1, 30.0), 5)).applied
            feed = store.watch(["kept"])
            assert (await feed.__anext__()).token == 1
            following = asyncio.ensure_future(feed.__anext__())
            await asyncio.sleep(0.2)
            own_etcd_member.freeze()  # so that the claim is on its way when the server dies
            claim = asyncio.ensure_future(store.claim(Claim("lost", "a", 1, 30.0), 20))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(own_etcd_member.kill)
            lost = failed(await claim)
            assert (lost.unknown, lost.permanent) == (True, False)
            with pytest.raises(StoreUnavailable):
                await following
            unsent = failed(await store.claim(Claim("unsent", "a", 1, 30.0), 0.5))
            assert (unsent.unknown, unsent.permanent) == (False, False)
            await asyncio.to_thread(own_etcd_member.start)
            (kept,) = await store.read(["kept"], 20)
            assert (kept.holder, kept.token) == ("a", 1)

    asyncio.run(body())


def test_one_member_of_three_is_enough_to_find_the_others(own_etcd_cluster: Cluster) -> None:
    async def body() -> None:
        async with opened(own_etcd_cluster.url()) as store:
            token = answered(await store.claim(Claim("r", "a", 1, 30.0), 10)).lease.token
            await asyncio.to_thread(own_etcd_cluster.members[0].kill)
            beat = 1
            for _ in range(100):
                beat += 1
                (result,) = await store.renew([Renew("r", "a", token, beat, 30.0)], 5)
                if isinstance(result, Answer) and result.applied:
                    break
                await asyncio.sleep(0.1)
            assert answered(result).applied
            # Without a quorum nothing is applied, and nothing is read from the past.
            await asyncio.to_thread(own_etcd_cluster.members[1].kill)
            await asyncio.sleep(0.5)
            assert not isinstance(await store.claim(Claim("other", "a", 1, 30.0), 1), Answer)
            with pytest.raises(StoreUnavailable):
                await store.read(["r"], 1)
            await asyncio.to_thread(own_etcd_cluster.members[1].start, False)
            await asyncio.to_thread(own_etcd_cluster.members[0].start, False)
            await asyncio.to_thread(own_etcd_cluster.members[2].wait_until_up)
            (kept,) = await store.read(["r"], 20)
            assert (kept.token, kept.holder) == (token, "a")

    asyncio.run(body())


def test_what_others_wrote_is_found_by_one_more_request(own_etcd_member: Member) -> None:
    async def body() -> None:
        url = own_etcd_member.url()
        async with opened(url) as store, opened(url) as other:
            assert answered(await store.claim(Claim("r", "a", 1, 30.0), 5)).applied
            assert answered(await other.release(Release("r", "a", 1, 2), 5)).applied
            # `store` still believes in its own row: it learns better, and is not refused for it.
            again = answered(await store.claim(Claim("r", "b", 1, 30.0), 5))
            assert (again.applied, again.lease.token) == (True, 2)
            late = answered(await other.release(Release("r", "a", 1, 3), 5))
            assert (late.applied, late.lease.holder) == (False, "b")

    asyncio.run(body())


def test_large_batches_of_rows_that_others_changed(own_etcd_member: Member) -> None:
    async def body() -> None:
        url = own_etcd_member.url()
        async with opened(url) as store, opened(url) as other:
            roles = [f"r{number:03}" for number in range(400)]
            claims = [Claim(role, "a", 1, 30.0) for role in roles]
            assert all(answered(result).applied for result in await store.swap_all(claims, 20))
            stolen = [Release(role, "a", 1, 2) for role in roles[::3]]
            assert all(answered(result).applied for result in await other.swap_all(stolen, 20))
            renewals = [Renew(role, "a", 1, 3, 30.0) for role in roles]
            results = [answered(result) for result in await store.renew(renewals, 20)]
            assert [result.lease.role for result in results] == roles
            assert [result.applied for result in results] == [
                number % 3 != 0 for number in range(400)
            ]

    asyncio.run(body())


def test_users_and_rights(own_etcd_member: Member) -> None:
    password = secrets.token_hex(8)
    span = rows.all_with("/coord/mine/")
    grant = {"permType": "READWRITE", **span}
    for path, body in (
        ("auth/user/add", {"name": "root", "password": "root"}),
        ("auth/role/add", {"name": "root"}),
        ("auth/user/grant", {"user": "root", "role": "root"}),
        ("auth/role/add", {"name": "app"}),
        ("auth/role/grant", {"name": "app", "perm": grant}),
        ("auth/user/add", {"name": "app", "password": password}),
        ("auth/user/grant", {"user": "app", "role": "app"}),
        ("auth/enable", {}),
    ):
        request(own_etcd_member, path, **body)

    async def body() -> None:
        async with opened(own_etcd_member.url("mine", f"app:{password}@")) as store:
            assert answered(await store.claim(Claim("r", "a", 1, 30.0), 10)).applied
            assert await store.announcements().read(None, 5) == []
            # Tokens of users are gone after a restart; the next request logs in again.
            await asyncio.to_thread(own_etcd_member.restart)
            (result,) = await store.renew([Renew("r", "a", 1, 2, 30.0)], 20)
            assert answered(result).applied
        async with opened(own_etcd_member.url("other", f"app:{password}@")) as store:
            denied = failed(await store.claim(Claim("r", "a", 1, 30.0), 10))
            assert (denied.unknown, denied.refusal) == (False, AccessDenied)
        await check_refusals(own_etcd_member.url("other", f"app:{password}@"), records=False)
        async with opened(own_etcd_member.url("mine", "app:not-the-password@")) as store:
            with pytest.raises(AccessDenied) as error:
                await store.read(["r"], 10)
            assert "not-the-password" not in str(error.value)
            assert "not-the-password" not in repr(store)

    asyncio.run(body())


def test_a_raised_floor(etcd_member: Member) -> None:
    url = etcd_member.url(f"floor-{secrets.token_hex(4)}")

    async def body() -> None:
        async with opened(url) as store:
            assert answered(await store.claim(Claim("r", "a", 1, 30.0), 5)).applied
            assert await admin(url).raise_token_floor(1_000, ["new"], 10) == 2
            assert await admin(url).raise_token_floor(1_000, ["new"], 10) == 0
            (renewal,) = await store.renew([Renew("r", "a", 1, 2, 30.0)], 5)
            assert not answered(renewal).applied
            claim = answered(await store.claim(Claim("new", "b", 1, 30.0), 5))
            assert (claim.applied, claim.lease.token) == (True, 1_001)

    asyncio.run(body())


def test_a_damaged_row_is_refused_and_stops_no_other(etcd_member: Member) -> None:
    namespace = f"damaged-{secrets.token_hex(4)}"

    async def body() -> None:
        async with opened(etcd_member.url(namespace)) as store:
            key, value = encode(f"/coord/{namespace}/l/bad"), encode('{"holder": 5}')
            request(etcd_member, "kv/put", key=key, value=value)
            bad = failed(await store.claim(Claim("bad", "a", 1, 30.0), 5))
            assert (bad.unknown, bad.permanent) == (False, True)
            assert "'bad' is damaged" in bad.detail
            results = await store.renew(
                [Renew("bad", "a", 1, 2, 30.0), Renew("good", "a", 1, 2, 30.0)], 5
            )
            assert failed(results[0]).permanent
            assert not answered(results[1]).applied

    asyncio.run(body())


def test_service_records_say_why_there_are_none(etcd_member: Member) -> None:
    with (
        Coordinator(etcd_member.url()) as coordinator,
        pytest.raises(BadArgument, match="etcd has none, so nobody can judge heartbeats"),
    ):
        coordinator.services.healthy_services("r")


def test_the_doctor_of_a_healthy_member(etcd_member: Member) -> None:
    findings = asyncio.run(admin(etcd_member.url()).check(10))
    assert {finding.level for finding in findings} == {"ok"}, findings
    assert {finding.what for finding in findings} >= {"member", "alarms", "compaction", "rights"}


@pytest.mark.parametrize("text", ["hello", "{}", '{"header": {"revision": "new"}}'])
def test_a_server_that_is_no_etcd(text: str) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"content-length: (\d+)", head.lower())
        await reader.readexactly(int(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(text))
        writer.write(b"Connection: close\r\n\r\n")
        writer.write(text.encode())
        await writer.drain()
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(page, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, opened(f"etcd://127.0.0.1:{port}") as store:
            result = failed(await store.claim(Claim("r", "a", 1, 30.0), 5))
            assert result.permanent
            assert "JSON gateway" in result.detail
            for roles in (["r"], None):
                with pytest.raises(NotSetUp, match="JSON gateway"):
                    await store.read(roles, 5)
            with pytest.raises(NotSetUp, match="JSON gateway"):
                await store.past(None, 5)

    asyncio.run(body())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("etcd://", "must have a host"),
        ("etcd://host:99999", "ports from 1 to 65535"),
        ("etcd://host/path", "no path"),
        ("etcd://host?namespace=a/b", "namespace of 1 to 100"),
        ("etcd://host?max_clock_skew=-1", "max_clock_skew"),
        ("etcd://host?cert=/etc/passwd", "both cert and key"),
        ("etcd://host?tls=0&ca_certs=/etc/passwd", "need tls=1"),
        ("etcd://host?ca_certs=/no/such/file", "PEM file"),
        ("etcd://:pw@host", "a user where there is a password"),
        ("etcd://host?unknown=1", "the options are"),
    ],
)
def test_invalid_urls(url: str, reason: str) -> None:
    with pytest.raises(BadArgument, match=reason):
        EtcdStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "etcd://u:PASSWORD@host/x",
        "etcd://u:PASS/WORD@host",
        "etcd://u:PASSWORD",
        "etcd://u:a?PASSWORD",
        "etcd://u:PASSWORD@host:0",
        "etcd://u:PASSWORD@host?unknown=1",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(BadArgument) as error:
        EtcdStore(url)
    assert "PASS" not in str(error.value)
    assert "WORD" not in str(error.value)


def test_the_url_is_shown_without_its_password() -> None:
    shown = "etcd://u:***@a:2379,[::1]:5?namespace=n&tls=1&max_clock_skew=2"
    assert EtcdStore(shown.replace("***", "PW")).url == shown
