"""Contract tests of rule 12: rows that nobody needs are deleted, and tokens never fall for that.

A store has this ability if it has the method `retire`. A store without it passes.
"""

from __future__ import annotations

import asyncio
import math

from coord.core.kept import Kept
from coord.core.lease import PAUSED, REVOKED, Lease, Revision
from coord.core.operations import Answer, Override, Renew, Retire
from coord.stores.protocol import HasKept, Overridable, Retirable
from coord.testing.contract.harness import ContractHarness, StoreDriver, applied, refused, same


class RetirementContract(ContractHarness):
    def test_a_retired_role_has_no_row_and_its_next_token_is_higher(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            row = applied(await at.claim("a", 1, floor=70))
            row = applied(await at.release("a", row.token, 2))
            same(await self._retire(at, row.revision), [True], "it is deleted")
            same(await at.read(), {}, "the rows of the role")
            same(await at.history(), [], "its history")
            if isinstance(at.store, HasKept):
                same(await at.store.kept(at.role, self.timeout), Kept(0, ""), "what it keeps")
            same(await self._retire(at, row.revision), [False], "it is not deleted again")
            refused(await at.claim("b", 1, expected=row.revision, takeover=True))
            refused(await at.renew("a", row.token, 3))
            lease = applied(await (await at.another()).claim("b", 1))
            same(lease.token > row.token, True, "its next token is above its last")

        self.run(body)

    def test_a_floor_is_raised_by_each_role_of_its_prefix(self) -> None:
        """Whichever role of a prefix is retired first, none of them gets a token again."""

        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            prefix, rows, last = at.role, dict[str, Lease](), dict[str, int]()
            for floor, name in ((900, "x"), (400, "y"), (600, "z")):
                at.role = f"{prefix}-{name}"
                row = applied(await at.claim("a", 1, floor=floor))
                rows[at.role] = applied(await at.release("a", row.token, 2))
            for at.role, row in rows.items():
                last[at.role] = row.token
                same(await self._retire(at, row.revision, prefix=prefix), [True], "it is deleted")
            for at.role, token in last.items():
                lease = applied(await at.claim("b", 1))
                same(lease.token > token, True, f"the next token is above {token}: {lease.token}")
                again = applied(await at.release("b", lease.token, 2))
                same(applied(await at.claim("b", 3)).token, again.token + 1, "the second token")
            at.role = f"{prefix}-zz"
            lease = applied(await at.claim("a", 1, floor=500_000_000_000))
            same(lease.token, 500_000_000_001, "a claim that knows of a higher token")

        self.run(body)

    def test_a_role_is_retired_again_and_again(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            last = 0
            for candidate in "abc":
                row = applied(await at.claim(candidate, 1))
                same(row.token > last, True, "the token is above all earlier ones")
                last = row.token
                row = applied(await at.release(candidate, last, 2))
                same(await self._retire(at, row.revision), [True], "it is deleted")

        self.run(body)

    def test_a_first_claim_that_arrives_after_a_whole_life_gets_a_higher_token(self) -> None:
        """A candidate that has seen the role without a row expects none, as it does later on."""

        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            other = await at.another()
            absent = Lease(at.role).revision
            same(await other.read(), {}, "the other store has seen no row")
            row = applied(await at.claim("a", 1, floor=40))
            row = applied(await at.release("a", row.token, 2))
            same(await self._retire(at, row.revision), [True], "it is deleted")
            lease = applied(await other.claim("b", 1, expected=absent))
            same(lease.token > row.token, True, "its token is above the last")

        self.run(body)

    def test_only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            absent = Lease(at.role).revision
            same(await self._retire(at, absent), [False], "an absent role")
            held = applied(await at.claim("a", 1, ttl=0.2))
            same(await self._retire(at, held.revision), [False], "a held role")
            await at.run_out(0.2)
            same(await self._retire(at, held.revision), [False], "a lease that has run out")
            vacant = applied(await at.release("a", 1, 2)).revision
            for wrong in (Revision(None, 1, 1), Revision(None, 0, 2), held.revision, absent):
                same(await self._retire(at, wrong), [False], f"another revision: {wrong}")
            same(await self._retire(at, vacant, before=1.0), [False], "a role that was just used")
            if isinstance(at.store, Overridable):
                paused = Override(at.role, vacant, PAUSED, 5)
                row = applied(await at.store.override(paused, self.timeout))
                same(await self._retire(at, row.revision), [False], "a paused role")
            same(len(await at.history()), 1, "the history is still there")

        self.run(body)

    def test_a_role_that_keeps_a_text_is_not_deleted(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable) or not isinstance(at.store, HasKept):
                return
            applied(await at.claim("a", 1))
            applied((await at.renew_all([Renew(at.role, "a", 1, 2, 30.0, keep="notes")]))[0])
            row = applied(await at.release("a", 1, 3))
            same(await self._retire(at, row.revision), [False], "it keeps a text")
            same((await at.store.kept(at.role, self.timeout)).text, "notes", "the text")

        self.run(body)

    def test_a_retired_role_that_is_paused_keeps_its_tokens_rising(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable) or not isinstance(at.store, Overridable):
                return
            row = applied(await at.claim("a", 1, floor=300))
            vacant = applied(await at.release("a", row.token, 2))
            same(await self._retire(at, vacant.revision), [True], "it is deleted")
            absent = Lease(at.role).revision
            row = applied(
                await at.store.override(Override(at.role, absent, PAUSED, 5), self.timeout)
            )
            same(row.token >= vacant.token, True, "its row begins with its last token")
            row = applied(
                await at.store.override(Override(at.role, row.revision, REVOKED, 6), self.timeout)
            )
            lease = applied(await at.claim("b", 1, expected=row.revision, takeover=True))
            same(lease.token > vacant.token, True, "its next token is above its last")

        self.run(body)

    def test_many_rows_are_deleted_together(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            requests = []
            for number in range(5):
                at.role = at.fresh_role()
                row = applied(await at.claim("a", 1))
                if number != 2:
                    row = applied(await at.release("a", row.token, 2))
                requests.append(Retire(at.role, at.role, row.revision, math.inf))
            same(
                list(await at.store.retire(requests, self.timeout)),
                [True, True, False, True, True],
                "which were deleted",
            )
            same(list(await at.store.retire([], self.timeout)), [], "no requests")

        self.run(body)

    def test_claims_while_the_role_is_retired(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Retirable):
                return
            others = [at, await at.another(), await at.another()]
            row = applied(await at.claim("a", 1))
            row = applied(await at.release("a", row.token, 2))
            for beat in range(1, 11, 2):
                retired = asyncio.ensure_future(self._retire(at, row.revision))
                claims = (other.claim(f"{n}", beat) for n, other in enumerate(others))
                results = await asyncio.gather(*claims)
                await retired
                answers = [result for result in results if isinstance(result, Answer)]
                won = [answer.lease for answer in answers if answer.applied]
                same(len(won), 1, "how many of the claims are applied")
                same(won[0].token > row.token, True, f"the token is above {row.token}: {won[0]}")
                row = applied(await at.release(str(won[0].holder), won[0].token, beat + 1))

        self.run(body)

    async def _retire(
        self,
        at: StoreDriver,
        expected: Revision,
        before: float = 4e9,
        prefix: str | None = None,
    ) -> list[bool]:
        assert isinstance(at.store, Retirable)
        request = Retire(at.role, at.role if prefix is None else prefix, expected, before)
        return list(await at.store.retire([request], self.timeout))
