"""Contract tests of the optional abilities `Bulk` and `Immediate`.

A store has an ability if it has the method. A store without it passes.
"""

from __future__ import annotations

import asyncio

from coord.core.lease import Revision
from coord.core.operations import Answer, Claim, Operation, Release, Renew, Result
from coord.stores.protocol import Bulk, Immediate
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    answered,
    applied,
    expect,
    refused,
    same,
)

MANY = 300
"""Roles in a large batch."""


class BulkContract(ContractHarness):
    def test_the_results_of_a_batch_are_in_the_order_of_its_requests(self) -> None:
        async def body(at: StoreDriver) -> None:
            store = at.store
            if not isinstance(store, Bulk):
                return
            free, held, released, absent = (at.fresh_role() for _ in range(4))
            applied(await at.claim("other", 4, role=held, info={"who": "other"}))
            applied(await at.claim("a", 1, role=released))
            requests: list[Claim | Release] = [
                Claim(held, "a", 1, 30.0),
                Release(released, "a", 1, 2),
                Claim(free, "a", 7, 20.0, info={"n": 1}),
                Release(absent, "a", 1, 2),
            ]
            results = await store.swap_all(requests, self.timeout)
            same(
                [answered(result).lease.role for result in results],
                [request.role for request in requests],
                "the roles of the results",
            )
            lost, given_back, won, nothing = results
            row = refused(lost)
            same(
                (row.revision, dict(row.info)),
                (Revision("other", 1, 4), {"who": "other"}),
                "the row of another holder",
            )
            same(applied(given_back).revision, Revision(None, 1, 2), "a released row")
            lease = applied(won)
            same(
                (lease.revision, lease.ttl, dict(lease.info)),
                (Revision("a", 1, 7), 20.0, {"n": 1}),
                "a claimed row",
            )
            same(refused(nothing).revision, Revision(None, 0, 0), "the row of an absent role")
            rows = await at.read(free, held, released, absent)
            same(
                {role: lease.revision for role, lease in rows.items()},
                {
                    free: Revision("a", 1, 7),
                    held: Revision("other", 1, 4),
                    released: Revision(None, 1, 2),
                },
                "the rows as read",
            )
            same(list(await store.swap_all([], self.timeout)), [], "an empty batch")

        self.run(body)

    def test_a_large_batch_of_claims_and_one_of_releases(self) -> None:
        async def body(at: StoreDriver) -> None:
            store = at.store
            if not isinstance(store, Bulk):
                return
            roles = [at.fresh_role() for _ in range(MANY)]
            claimed = await store.swap_all(
                [Claim(role, "a", 1, 30.0, info={"role": role}) for role in roles], self.timeout
            )
            same([applied(result).role for result in claimed], roles, "the claimed roles")
            same(
                [dict(applied(result).info) for result in claimed],
                [{"role": r} for r in roles],
                "info",
            )
            released = await store.swap_all(
                [Release(role, "a", 1, 2) for role in roles], self.timeout
            )
            same([applied(result).role for result in released], roles, "the released roles")
            rows = await at.read(*roles)
            expect(all(row.vacant for row in rows.values()), "every role is vacant")

        self.run(body)

    def test_batches_for_the_same_roles_do_not_keep_each_other_from_ending(self) -> None:
        """Batches that lock rows in the order of their requests wait for each other forever."""

        async def body(at: StoreDriver) -> None:
            other = await at.another()
            first, second = at.store, other.store
            if not (isinstance(first, Bulk) and isinstance(second, Bulk)):
                return
            roles = [at.fresh_role() for _ in range(40)]
            for turn in range(1, 11):
                both = await asyncio.gather(
                    first.swap_all([Claim(r, f"x{turn}", 1, 30.0) for r in roles], self.timeout),
                    second.swap_all(
                        [Claim(r, f"y{turn}", 1, 30.0) for r in reversed(roles)], self.timeout
                    ),
                )
                won: dict[str, Answer] = {}
                for result in (*both[0], *both[1]):
                    expect(isinstance(result, Answer), f"an answer, not {result!r}")
                    if isinstance(result, Answer) and result.applied:
                        expect(result.lease.role not in won, "one winner for each role")
                        won[result.lease.role] = result
                same(set(won), set(roles), "the roles that somebody won")
                back = [
                    Release(role, str(win.lease.holder), win.lease.token, 2)
                    for role, win in won.items()
                ]
                for result in await first.swap_all(back, self.timeout):
                    applied(result)

        self.run(body)


class ImmediateContract(ContractHarness):
    def test_what_is_sent_at_once_has_the_same_results(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Immediate):
                return
            applied(await at.claim("warm", role=at.fresh_role()))  # a connection is open now
            lease = applied(await self._begin(at, Claim(at.role, "a", 1, 30.0, info={"n": 1})))
            same(
                (lease.revision, dict(lease.info)),
                (Revision("a", 1, 1), {"n": 1}),
                "the row after a claim",
            )
            same(
                refused(await self._begin(at, Claim(at.role, "b", 1, 30.0))).revision,
                Revision("a", 1, 1),
                "the row that the loser sees",
            )
            row = applied(await self._begin(at, Renew(at.role, "a", 1, 2, 30.0)))
            same(row.revision, Revision("a", 1, 2), "the row after a renewal")
            refused(await self._begin(at, Renew(at.role, "a", 1, 2, 30.0)))
            row = applied(await self._begin(at, Release(at.role, "a", 1, 3)))
            same(row.revision, Revision(None, 1, 3), "the row after a release")
            refused(await self._begin(at, Release(at.role, "a", 1, 4)))

        self.run(body)

    def test_many_requests_that_are_sent_at_once(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Immediate):
                return
            roles = [at.fresh_role() for _ in range(50)]
            results = await asyncio.gather(
                *(self._begin(at, Claim(role, role, 1, 30.0)) for role in roles)
            )
            same([applied(result).holder for result in results], roles, "each its own answer")

        self.run(body)

    async def _begin(self, at: StoreDriver, operation: Operation) -> Result:
        """Send at once; if the store cannot do that now, send by the ordinary method."""
        assert isinstance(at.store, Immediate)
        under_way = at.store.begin(operation, self.timeout)
        if under_way is not None:
            return await under_way
        if isinstance(operation, Claim):
            return await at.store.claim(operation, self.timeout)
        if isinstance(operation, Release):
            return await at.store.release(operation, self.timeout)
        assert isinstance(operation, Renew)
        return (await at.store.renew([operation], self.timeout))[0]
