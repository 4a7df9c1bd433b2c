"""Contract tests of a store whose server is far away, slow, frozen, restarted or strict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime.timers import within
from coord.stores.protocol import Bulk, Immediate, Store
from coord.testing.contract.harness import ContractHarness, applied, expect, same
from coord.testing.proxy import FaultProxy, Link

T = TypeVar("T")
SHORT = 0.5
"""Seconds that a request may take while nothing gets through."""
TRIES = 8
"""Claims until one must have reached the server although its answer was lost."""


class ContractServer:
    """The server of a store, as `ServerContract` uses it. Each test runs with the server at work.

    Override `make_store`, and each of the other methods that your server can do. A method that is
    not overridden says that the server cannot do it, and its test passes.

    Attributes:
        host: The name or address of the server.
        port: Its TCP port.
        secret: The password of the user; "" if there is none. It must not be shown anywhere.
    """

    host = "127.0.0.1"
    port = 0
    secret = ""

    def make_store(self, host: str, port: int) -> Store:
        """Return a store that reaches the server at this address, which is that of a proxy."""
        raise NotImplementedError("override make_store(host, port)")

    def freeze(self) -> bool:
        """Stop the server (SIGSTOP), and return True; False if it cannot be stopped."""
        return False

    def thaw(self) -> None:
        """Let the server continue."""

    def restart(self) -> bool:
        """Kill the server and start it again, and return True; False if that is not possible."""
        return False

    def take_rights_away(self) -> bool:
        """Forbid the user of the stores to write, and return True; False if there are no rights."""
        return False

    def give_rights_back(self) -> None:
        """Allow the user of the stores to write again."""


class ServerContract(ContractHarness):
    """Tests of a store that talks to a server over TCP. Use it beside `StoreContract`.

        class TestMyServer(ServerContract):
            @pytest.fixture(autouse=True)
            def _server(self, my_server):
                self.server = MyContractServer(my_server)

    Attributes:
        server: The server.
        late: Seconds after its timeout until a request counts as one that ignores it.
        soon: Seconds until a store must work again, or a feed must notice a lost connection.
        ttl: Seconds of the leases. A store that elects nobody for the longest ttl after a restart
            needs less time with a shorter one.
    """

    server: ContractServer
    late = 4.0
    soon = 20.0
    ttl = 30.0

    def make_store(self) -> Store:
        """Return a store that talks to the server without a proxy."""
        return self.server.make_store(self.server.host, self.server.port)

    def test_requests_end_in_time_although_nothing_gets_through(self) -> None:
        async def body(at: Faults) -> None:
            await at.warm()
            at.proxy.set(Link.FREEZE)
            await self._all_fail_in_time(at)
            at.proxy.set(Link.PASS)
            await at.until_it_works()

        self._run(body)

    def test_requests_end_in_time_although_the_server_is_frozen(self) -> None:
        async def body(at: Faults) -> None:
            await at.warm()
            if not self.server.freeze():
                return
            try:
                await self._all_fail_in_time(at)
            finally:
                self.server.thaw()
            await at.until_it_works()

        self._run(body)

    def test_a_claim_whose_answer_is_lost_is_unknown(self) -> None:
        async def body(at: Faults) -> None:
            for mode in (Link.SWALLOW, Link.CUT, Link.RESET):
                reached = False
                for _ in range(TRIES):
                    await at.until_it_works()
                    role = self.fresh_role()
                    at.proxy.set(mode)
                    result = await at.in_time(
                        at.store.claim(Claim(role, "a", 1, self.ttl), SHORT),
                        f"a claim during {mode}",
                    )
                    at.proxy.set(Link.PASS)
                    rows = await at.direct.read([role], self.timeout)
                    if not rows:
                        continue  # it did not get there; perhaps a new connection was necessary
                    reached = True
                    expect(
                        (isinstance(result, Answer) and result.applied)
                        or (isinstance(result, Failure) and result.unknown),
                        f"during {mode} a claim was applied, and its result is {result!r}",
                    )
                    break
                expect(reached, f"during {mode} the claims got to the server")

        self._run(body)

    def test_no_answer_is_taken_for_that_of_another_request(self) -> None:
        async def body(at: Faults) -> None:
            await at.warm()
            at.proxy.set(Link.DELAY, delay=0.2)
            late = [self.fresh_role() for _ in range(5)]
            tasks = [
                asyncio.ensure_future(at.store.claim(Claim(role, role, 1, self.ttl), SHORT))
                for role in late
            ]
            await asyncio.sleep(0.1)
            for task in tasks[:3]:
                task.cancel()
            roles = [self.fresh_role() for _ in range(10)]
            results = await asyncio.gather(
                *(at.store.claim(Claim(role, role, 1, self.ttl), self.timeout) for role in roles)
            )
            same([applied(result).holder for result in results], roles, "each its own answer")
            for role, result in zip(late[3:], await asyncio.gather(*tasks[3:]), strict=True):
                if isinstance(result, Answer):
                    same(result.lease.role, role, "the role of a late answer")
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(body)

    def test_a_refused_connection(self) -> None:
        async def body(at: Faults) -> None:
            at.proxy.set(Link.REFUSE)
            texts = [repr(at.store), at.store.url]
            try:
                await at.in_time(at.store.open(SHORT), "open")
            except StoreUnavailable as err:
                texts.append(str(err))
            else:
                raise AssertionError("open succeeds although the server refuses connections")
            result = await at.in_time(
                at.store.claim(Claim(self.fresh_role(), "a", 1, self.ttl), SHORT), "a claim"
            )
            expect(isinstance(result, Failure), f"a failure, not {result!r}")
            assert isinstance(result, Failure)
            expect(not result.permanent, f"it may work later: {result!r}")
            for text in (*texts, result.detail):
                expect(
                    not self.server.secret or self.server.secret not in text,
                    "no text contains the password",
                )
            at.proxy.set(Link.PASS)
            await at.until_it_works()

        self._run(body)

    def test_a_feed_notices_that_its_connection_is_lost(self) -> None:
        async def body(at: Faults) -> None:
            role = self.fresh_role()
            applied(await at.direct.claim(Claim(role, "a", 1, self.ttl), self.timeout))
            feed = at.store.watch([role])
            try:
                same(
                    (await within(feed.__anext__(), self.soon)).revision.beat,
                    1,
                    "the first",
                )
                at.proxy.break_connections()
                (renewed,) = await at.direct.renew([Renew(role, "a", 1, 2, self.ttl)], self.timeout)
                applied(renewed)

                async def until_news() -> Lease:
                    while (lease := await feed.__anext__()).beat < 2:
                        pass
                    return lease

                try:
                    await within(until_news(), self.soon)
                except StoreUnavailable:
                    pass  # it says that it has ended
                except asyncio.TimeoutError:
                    raise AssertionError(
                        "the feed neither ends nor yields after its connection is lost"
                    ) from None
            finally:
                await feed.aclose()  # type: ignore[attr-defined] # every store's is a generator

        self._run(body)

    def test_after_a_restart_of_the_server(self) -> None:
        async def body(at: Faults) -> None:
            role = self.fresh_role()
            token = applied(await at.store.claim(Claim(role, "a", 1, self.ttl, floor=6), 10)).token
            if not await asyncio.to_thread(self.server.restart):
                return
            await at.until_it_works()
            (row,) = await at.store.read([role], self.timeout)
            expect(row.token >= token, f"the token of an acknowledged claim is kept: {row!r}")

        self._run(body)

    def test_missing_rights(self) -> None:
        async def body(at: Faults) -> None:
            await at.warm()
            if not await asyncio.to_thread(self.server.take_rights_away):
                return
            try:
                result = await at.store.claim(
                    Claim(self.fresh_role(), "a", 1, self.ttl), self.timeout
                )
                expect(isinstance(result, Failure), f"a failure, not {result!r}")
                assert isinstance(result, Failure)
                expect(result.permanent, f"nothing changes until somebody helps: {result!r}")
                expect(not result.unknown, f"it was certainly not applied: {result!r}")
            finally:
                await asyncio.to_thread(self.server.give_rights_back)
            await at.until_it_works()

        self._run(body)

    async def _all_fail_in_time(self, at: Faults) -> None:
        role = self.fresh_role()
        claim, renewal = Claim(role, "a", 1, self.ttl), Renew(role, "a", 1, 2, self.ttl)
        release = Release(role, "a", 1, 2)
        store = at.store
        requests: dict[str, Callable[[], Awaitable[Result]]] = {
            "a claim": lambda: store.claim(claim, SHORT),
            "a release": lambda: store.release(release, SHORT),
            "a renewal": lambda: _first(store.renew([renewal], SHORT)),
        }
        if isinstance(store, Bulk):
            batch = store.swap_all
            requests["a batch"] = lambda: _first(batch([claim], SHORT))
        for name, send in requests.items():
            result = await at.in_time(send(), name)
            expect(isinstance(result, Failure), f"{name} fails: {result!r}")
        if isinstance(store, Immediate) and (answer := store.begin(claim, SHORT)) is not None:
            expect(isinstance(await at.in_time(answer, "begin"), Failure), "begin fails")
        reads: dict[str, Callable[[], Awaitable[object]]] = {
            "open": lambda: store.open(SHORT),
            "read": lambda: store.read([role], SHORT),
            "past": lambda: store.past([role], SHORT),
        }
        for name, read in reads.items():
            try:
                await at.in_time(read(), name)
            except (StoreUnavailable, StoreRefused):
                continue
            raise AssertionError(f"{name} succeeds although nothing gets through")

    def _run(self, body: Callable[[Faults], Awaitable[None]]) -> None:
        async def main() -> None:
            async with AsyncExitStack() as stack:
                proxy = FaultProxy(self.server.host, self.server.port)
                await stack.enter_async_context(proxy)
                direct = self.make_store()
                stack.push_async_callback(direct.close)
                store = self.server.make_store(proxy.host, proxy.port)
                stack.push_async_callback(store.close)
                await body(Faults(self, proxy, store, direct))

        asyncio.run(within(main(), 120))


class Faults:
    """A store behind a proxy, and another one without it.

    Attributes:
        proxy: The proxy.
        store: The store behind it.
        direct: A store on the same data that talks to the server directly.
    """

    def __init__(
        self, harness: ServerContract, proxy: FaultProxy, store: Store, direct: Store
    ) -> None:
        self._harness, self.proxy, self.store, self.direct = harness, proxy, store, direct

    async def warm(self) -> None:
        """Open the store, and send a request that is answered."""
        await self.store.open(self._harness.timeout)
        claim = Claim(self._harness.fresh_role(), "a", 1, self._harness.ttl)
        applied(await self.store.claim(claim, self._harness.timeout))

    async def until_it_works(self) -> None:
        """Claim new roles until a claim is applied: the store must recover by itself."""
        loop = asyncio.get_running_loop()
        deadline, result = loop.time() + self._harness.soon, None
        while loop.time() < deadline:
            claim = Claim(self._harness.fresh_role(), "a", 1, self._harness.ttl)
            result = await self.in_time(self.store.claim(claim, 2.0), "a claim", 2.0)
            if isinstance(result, Answer) and result.applied:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(
            f"the store does not work again within {self._harness.soon:g} s: {result!r}"
        )

    async def in_time(self, request: Awaitable[T], name: str, timeout: float = SHORT) -> T:
        """Return what the request returns. It fails if the request ignores its timeout."""
        try:
            return await within(request, timeout + self._harness.late)
        except asyncio.TimeoutError:
            raise AssertionError(f"{name} ignores its timeout of {timeout:g} s") from None
        except (StoreUnavailable, StoreRefused) as err:
            if name.startswith(("a ", "begin")):
                raise AssertionError(f"{name} raises {err!r} instead of answering") from None
            raise


async def _first(results: Awaitable[object]) -> Result:
    answers = await results
    assert isinstance(answers, (list, tuple))
    (result,) = answers
    return result  # type: ignore[no-any-return] # of a store that is tested
