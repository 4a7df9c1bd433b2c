"""The era begins while requests are under way, or its key is not as coord wrote it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from coord.core.operations import Claim, Renew
from coord.stores.etcd import EtcdStore, admin, era, parse_url
from coord.stores.etcd.gateway import encode
from coord.stores.etcd.rows import Keys
from coord.stores.etcd.store import PUT
from tests.stores.etcd.test_connection import answered, opened
from tests.stores.etcd.test_retirement import led, retired

Call = Callable[[str, Any, float], Any]


def intercept(store: EtcdStore, make: Callable[[Call], Call]) -> None:
    """Send the requests of a store through another function."""
    store.gateway.call = make(store.gateway.call)  # type: ignore[method-assign]


@pytest.mark.parametrize("value", ["", "\0", "not from coord"])
def test_any_value_of_the_key_is_an_era(url: str, value: str) -> None:
    key = Keys(parse_url(url)).era

    async def body() -> None:
        async with opened(url) as store:
            await store.gateway.call(PUT, {"key": encode(key), "value": encode(value)}, 20)
            answers = [
                await store.claim(Claim("one", "a", 1, 30.0), 20),
                *await store.swap_all([Claim("two", "a", 1, 30.0)], 20),
            ]
            assert [answered(result).applied for result in answers] == [True, True]
            await store.gateway.call("/v3/kv/deleterange", {"key": encode(key)}, 20)
            (result,) = await store.renew([Renew("one", "a", 1, 2, 30.0)], 20)
            assert answered(result).applied

    asyncio.run(body())


def test_swaps_that_were_prepared_in_one_era_are_not_sent_in_the_next(url: str) -> None:
    """Another request of the process learns the era after the swaps of a batch were prepared."""

    async def body() -> None:
        async with opened(url) as store:
            assert answered(await store.claim(Claim("job", "a", 1, 30.0), 20)).applied
            compared: list[Any] = []

            def noting(call: Call) -> Call:
                async def note(path: str, request: Any, timeout: float) -> Any:
                    if "request_txn" in str(request):
                        compared.extend(request["compare"])
                    return await call(path, request, timeout)

                return note

            intercept(store, noting)
            renewal = asyncio.ensure_future(store.renew([Renew("job", "a", 1, 2, 30.0)], 20))
            while not renewal.done() and store._known != {}:
                await asyncio.sleep(0)  # the swaps are prepared, and no request is sent
                store._learn_era(None, encode("another"))
            (result,) = await renewal
            assert answered(result).applied
            assert compared[0] == era.same(Keys(parse_url(url)).era, None)

    asyncio.run(body())


def test_a_leader_whose_row_is_forgotten_meanwhile_is_not_refused(url: str) -> None:
    """A batch has read the row, and another request meets another era before it is tried again."""

    async def body() -> None:
        async with opened(url) as store, opened(url) as other:
            assert answered(await store.claim(Claim("job", "a", 1, 30.0), 20)).applied
            (result,) = await other.renew([Renew("job", "a", 1, 2, 30.0)], 20)
            assert answered(result).applied
            batch = store._swap_batch

            async def forgetful(*args: Any) -> Any:
                done = await batch(*args)
                store._learn_era(store._era, encode("another"))
                return done

            store._swap_batch = forgetful  # type: ignore[method-assign]
            (result,) = await store.renew([Renew("job", "a", 1, 3, 30.0)], 20)
            assert answered(result).applied

    asyncio.run(body())


def test_an_answer_from_before_an_era_says_nothing_about_its_rows(url: str) -> None:
    """A claim of the last era is answered after a request that has learned the present one."""

    async def body() -> None:
        async with opened(url) as store:
            arrived, go_on = asyncio.Event(), asyncio.Event()

            def slow(call: Call) -> Call:
                async def answer_late(path: str, request: Any, timeout: float) -> Any:
                    answer = await call(path, request, timeout)
                    if not arrived.is_set():
                        arrived.set()
                        await go_on.wait()
                    return answer

                return answer_late

            intercept(store, slow)
            claim = asyncio.ensure_future(store.claim(Claim("job", "a", 1, 30.0), 20))
            await arrived.wait()
            assert await admin(url).raise_token_floor(1_000, [], 20) == 1
            assert answered(await store.claim(Claim("more", "a", 1, 30.0), 20)).applied
            go_on.set()
            assert answered(await claim).applied  # it was, before the era
            assert "job" not in store._known

    asyncio.run(body())


def test_no_row_is_deleted_in_another_era_than_it_was_read_in(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store, opened(url) as other:
            revision = await led(store, "old")
            keys, looks = Keys(parse_url(url)), 0

            def restored(call: Call) -> Call:
                async def begin_era(path: str, request: Any, timeout: float) -> Any:
                    nonlocal looks
                    looks += "compare" not in request
                    answer = await call(path, request, timeout)
                    if looks == 1 and "compare" not in request:
                        await other.gateway.call(PUT, era.new(keys.era), 20)
                    return answer

                return begin_era

            intercept(store, restored)
            assert await retired(store, "old", revision)
            assert looks == 2

    asyncio.run(body())
