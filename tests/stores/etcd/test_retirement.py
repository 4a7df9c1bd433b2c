"""Rows of etcd are deleted, and tokens never fall: races of claims and deletions."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from coord.core.lease import Revision
from coord.core.operations import Claim, Override, Release, Renew, Retire
from coord.errors import StoreRefused
from coord.stores.etcd import EtcdStore, admin, parse_url, retirement
from coord.stores.etcd.gateway import encode
from coord.stores.etcd.rows import Keys
from tests.stores.etcd.test_connection import answered, failed, opened


async def led(store: EtcdStore, role: str, floor: int = 0) -> Revision:
    """Return the revision of the row after a term."""
    claimed = answered(await store.claim(Claim(role, "a", 1, 30.0, floor=floor), 20))
    assert claimed.applied
    released = answered(await store.release(Release(role, "a", claimed.lease.token, 2), 20))
    assert released.applied
    return released.lease.revision


async def retired(store: EtcdStore, role: str, revision: Revision, prefix: str = "") -> bool:
    (done,) = await store.retire([Retire(role, prefix, revision, math.inf)], 20)
    return done


@pytest.mark.parametrize("in_bulk", [False, True])
def test_a_claim_that_is_under_way_while_its_role_is_retired_gets_a_higher_token(
    url: str, in_bulk: bool
) -> None:
    """It expects no row, and its transaction arrives after a whole life of the role."""

    async def body() -> None:
        async with opened(url) as store, opened(url) as other:
            call, requests = store.gateway.call, list[Any]()

            async def delayed(path: str, body: Any, timeout: float) -> Any:
                requests.append(body)
                if len(requests) == 1:
                    assert await retired(other, "x", await led(other, "x", floor=70))
                return await call(path, body, timeout)

            store.gateway.call = delayed  # type: ignore[method-assign]
            claims = [Claim(role, "b", 1, 30.0) for role in (("x", "y") if in_bulk else ("x",))]
            if in_bulk:
                results = await store.swap_all(claims, 20)
            else:
                results = [await store.claim(claims[0], 20)]
            assert [answered(result).applied for result in results] == [True] * len(claims)
            assert {answered(result).lease.token for result in results} == {72}
            assert {lease.token for lease in await other.read(None, 20)} == {72}
            count = len(requests)
            assert (await led(store, "z")).token == 72  # the floors are known by now
            assert len(requests) == count + 2

    asyncio.run(body())


def test_an_override_of_a_retired_role_keeps_its_token(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store, opened(url) as other:
            assert await retired(other, "x", await led(other, "x", floor=70))
            override = Override("x", Revision(None, 0, 0), "paused", 5)
            answer = answered(await store.override(override, 20))
            assert (answer.applied, answer.lease.token) == (True, 71)

    asyncio.run(body())


def test_two_who_retire_roles_of_a_prefix_at_once(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store, opened(url) as other:
            roles = [f"r{number}" for number in range(2 * retirement.MAX_ROLES + 10)]
            revisions = [await led(store, role, floor=n) for n, role in enumerate(roles)]
            requests = [
                Retire(role, "r", revision, math.inf)
                for role, revision in zip(roles, revisions, strict=True)
            ]
            results = await asyncio.gather(*(s.retire(requests, 20) for s in (store, other)))
            for first, two in zip(*results, strict=True):
                assert first != two, "each row is deleted once"
            assert await store.read(None, 20) == []
            assert await store.past(None, 20) == []
            assert (await led(store, "r0")).token == len(roles) + 1

    asyncio.run(body())


def test_a_raised_floor_is_never_below_the_tokens_of_retired_roles(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            revision = await led(store, "tenant-1", floor=900)
            assert await retired(store, "tenant-1", revision, "tenant-")
            await admin(url).raise_token_floor(50, ["tenant-1", "other"], 20)
            assert (await led(store, "tenant-1")).token == 902
            assert (await led(store, "other")).token == 51
            await admin(url).raise_token_floor(5_000, [], 20)
            assert (await led(store, "tenant-2")).token == 5_001

    asyncio.run(body())


def test_a_floor_that_a_person_edited_is_refused(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            revision = await led(store, "x")
            key = Keys(parse_url(url)).floors
            put = {"key": encode(key), "value": encode("many")}
            await store.gateway.call("/v3/kv/put", put, 20)
            failure = failed(await store.claim(Claim("y", "b", 1, 30.0), 20))
            assert (failure.permanent, failure.unknown) == (True, False)
            assert "the floor of the prefix '' is damaged" in failure.detail
            with pytest.raises(StoreRefused, match="damaged"):
                await retired(store, "x", revision)
            claim = Claim("x", "b", 1, 30.0)
            assert answered(await store.claim(claim, 20)).applied  # its row has a token

    asyncio.run(body())


def shifted(message: Any, by: int) -> Any:
    """Return a request or an answer with other revisions; 0 means that there is no key."""
    if isinstance(message, list):
        return [shifted(each, by) for each in message]
    if not isinstance(message, dict):
        return message
    return {
        key: str(int(value) + by)
        if key in ("revision", "mod_revision") and int(value) > 0
        else shifted(value, by)
        for key, value in message.items()
    }


def test_after_a_backup_was_restored_the_revisions_of_before_count_for_nothing(url: str) -> None:
    """A process that runs on would wait for revisions that come much later."""

    async def body() -> None:
        async with opened(url) as store, opened(url) as other:
            call, ahead = store.gateway.call, 1_000_000

            async def before(path: str, body: Any, timeout: float) -> Any:
                return shifted(await call(path, shifted(body, -ahead), timeout), ahead)

            store.gateway.call = before  # type: ignore[method-assign]
            for role in ("led", "batch"):
                assert answered(await store.claim(Claim(role, "a", 1, 30.0), 20)).applied
            followed = await led(other, "followed")
            assert await retired(other, "old", await led(other, "old", floor=70), "o")
            assert (await led(store, "old")).token == 72  # and it knows the floors

            store.gateway.call = call  # type: ignore[method-assign]
            claim = Claim("followed", "a", 9, 30.0, expected=followed)
            assert answered(await store.claim(claim, 1)).lease.token == followed.token + 1
            for role in ("led", "batch"):
                (renewed,) = await store.renew([Renew(role, "a", 1, 2, 30.0)], 1)
                assert answered(renewed).applied
            assert await retired(other, "x", await led(other, "x", floor=90))
            assert (await led(store, "x")).token == 92

    asyncio.run(body())
