"""Contract tests of rules 2 and 3: renewals and releases need the right holder, token and beat."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from coord.core.lease import Lease, Revision
from coord.core.operations import Answer, Claim, Renew
from coord.stores.protocol import Bulk
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    answered,
    applied,
    expect,
    refused,
    same,
)


class TermContract(ContractHarness):
    def test_renew(self) -> None:
        async def body(at: StoreDriver) -> None:
            first = applied(await at.claim("a", 1, ttl=10.0, info={"kept": [1]}))
            await asyncio.sleep(0.3)
            if at.has_clock:
                expect((await at.row()).remaining < 9.9, "remaining falls")
            row = applied(await at.renew("a", 1, 2, ttl=10.0))
            same((row.revision, row.ttl), (Revision("a", 1, 2), 10.0), "the renewed row")
            expect(
                9.9 < row.remaining <= 10,
                f"a renewal prolongs the lease by its whole ttl: {row.remaining}",
            )
            expect(row.renewed_at >= first.renewed_at, "renewed_at does not fall")
            read = await at.row()
            same((read.revision, dict(read.info)), (row.revision, {"kept": [1]}), "the row as read")

        self.run(body)

    def test_renew_may_replace_the_info(self) -> None:
        async def body(at: StoreDriver) -> None:
            roles = [at.fresh_role() for _ in range(3)]
            for role in roles:
                applied(await at.claim("a", 1, role=role, info={"old": 1}))
            news: list[dict[str, Any] | None] = [{"new": "ü"}, None, {}]
            renewals = [
                Renew(role, "a", 1, 2, 30.0, info) for role, info in zip(roles, news, strict=True)
            ]
            results = await at.renew_all(
                [*renewals, Renew(at.role, "a", 1, 2, 30.0, {"of": "an absent role"})]
            )
            rows = await at.read(*roles)
            for role, expected, result in zip(
                roles, ({"new": "ü"}, {"old": 1}, {}), results[:3], strict=True
            ):
                same(dict(applied(result).info), expected, "info in the answer")
                same(
                    (rows[role].revision, dict(rows[role].info)),
                    (Revision("a", 1, 2), expected),
                    "the row as read",
                )
            refused(results[3])
            (result,) = await at.renew_all([Renew(roles[0], "b", 1, 3, 30.0, {"not": "mine"})])
            same(dict(refused(result).info), {"new": "ü"}, "a refused renewal leaves the info")

        self.run(body)

    def test_renew_is_guarded(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 5, floor=2))
            for holder, token, beat in (
                ("b", 3, 9),
                ("a", 2, 9),
                ("a", 4, 9),
                ("a", 3, 5),
                ("a", 3, 4),
            ):
                row = refused(await at.renew(holder, token, beat))
                same(
                    row.revision,
                    Revision("a", 3, 5),
                    f"after a renewal by {holder}, token {token}, beat {beat}",
                )
            same((await at.row()).revision, Revision("a", 3, 5), "the row")

        self.run(body)

    def test_a_duplicate_renewal_changes_nothing(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1, ttl=5.0))
            applied(await at.renew("a", 1, 2, ttl=5.0))
            await asyncio.sleep(0.2)
            refused(await at.renew("a", 1, 2, ttl=5.0))
            row = refused(await at.renew("a", 1, 2, ttl=60.0))
            expect(
                row.ttl == 5.0 and (row.remaining < 4.9 or not at.has_clock),
                f"neither ttl nor remaining grew: {row}",
            )

        self.run(body)

    def test_a_renewal_never_shortens(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1, ttl=40.0))
            row = applied(await at.renew("a", 1, 2, ttl=1.0))
            same(
                (row.revision, row.ttl),
                (Revision("a", 1, 2), 40.0),
                "the ttl that challengers wait for",
            )
            expect(
                row.remaining > 35,
                f"a renewal for a shorter time does not shorten the lease: {row.remaining}",
            )
            row = applied(await at.renew("a", 1, 3, ttl=60.0))
            expect(
                row.ttl == 60.0 and row.remaining > 55,
                "a renewal for a longer time prolongs the lease",
            )

        self.run(body)

    def test_a_lease_that_ran_out_and_was_not_taken_may_be_renewed(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1, ttl=0.2))
            await at.run_out(0.2)
            expect(
                applied(await at.renew("a", 1, 2, ttl=10.0)).remaining > 9,
                "a renewal of an expired lease prolongs it",
            )
            refused(await at.claim("b", skew=0.0))

        self.run(body)

    def test_a_renewal_revives_nothing(self) -> None:
        async def body(at: StoreDriver) -> None:
            revision = applied(await at.claim("a", 1)).revision
            taken = applied(await at.claim("b", 1, expected=revision, takeover=True)).revision
            same(refused(await at.renew("a", 1, 2)).revision, taken, "after a takeover")
            same(
                refused(await at.renew("a", 2, 2)).revision,
                taken,
                "after a renewal with the token of another holder",
            )
            released = applied(await at.release("b", 2, 2)).revision
            same(refused(await at.renew("b", 2, 3)).revision, released, "after a release")

        self.run(body)

    def test_a_batch_of_mixed_outcomes_keeps_its_order(self) -> None:
        async def body(at: StoreDriver) -> None:
            roles = [at.fresh_role() for _ in range(7)]
            for number in (0, 1, 3, 4, 6):
                applied(await at.claim("a", 1, role=roles[number], info={"n": number}))
            renewals = [Renew(role, "a", 1, 2, 30.0) for role in roles]
            renewals[1] = Renew(roles[1], "b", 1, 2, 30.0)
            renewals[4] = Renew(roles[4], "a", 2, 2, 30.0)
            renewals[6] = Renew(roles[6], "a", 1, 1, 30.0)
            random.Random(7).shuffle(renewals)  # noqa: S311 # no secret
            results = await at.renew_all(renewals)
            same(
                [answered(result).lease.role for result in results],
                [renewal.role for renewal in renewals],
                "the order",
            )
            done = {
                renewal.role
                for renewal, result in zip(renewals, results, strict=True)
                if answered(result).applied
            }
            same(done, {roles[0], roles[3]}, "the renewals that were applied")
            for renewal, result in zip(renewals, results, strict=True):
                lease = answered(result).lease
                if renewal.role in (roles[2], roles[5]):
                    same(lease.revision, Revision(None, 0, 0), "the row of an absent role")
                else:
                    same(
                        lease.revision,
                        Revision("a", 1, 2 if renewal.role in done else 1),
                        f"the row for {renewal}",
                    )
            rows = await at.read(*roles)
            same(len(rows), 5, "the number of rows: a renewal creates none")
            same(
                {role for role, row in rows.items() if row.beat == 2},
                done,
                "the renewed rows",
            )
            same(list(await at.renew_all([])), [], "an empty batch")

        self.run(body)

    def test_a_large_batch(self) -> None:
        async def body(at: StoreDriver) -> None:
            roles = [at.fresh_role() for _ in range(1200)]
            # Single claims take longer than all else here, so a store with batches gets one.
            single = 100 if isinstance(at.store, Bulk) else len(roles)
            for start in range(0, single, 100):
                chunk = roles[start : start + 100]
                for result in await asyncio.gather(
                    *(at.claim("a", 1, role=role) for role in chunk)
                ):
                    applied(result)
            if isinstance(at.store, Bulk):
                claims = [Claim(role, "a", 1, 30.0) for role in roles[single:]]
                for result in await at.store.swap_all(claims, self.timeout):
                    applied(result)
            results = await at.renew_all([Renew(role, "a", 1, 2, 30.0) for role in roles])
            same(
                [applied(result).role for result in results],
                roles,
                "the results in the order of the requests",
            )

        self.run(body)

    def test_release_keeps_the_token(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1, floor=9))
            row = applied(await at.release("a", 10, 2))
            same((row.revision, row.remaining), (Revision(None, 10, 2), 0), "the released row")
            expect(row.vacant and (await at.row()).vacant, "the released role is vacant")
            same((await at.row()).remaining, 0, "remaining of a vacant lease")
            same(
                applied(await at.claim("b", 1, skew=None)).revision,
                Revision("b", 11, 1),
                "a claim of a vacant role",
            )

        self.run(body)

    def test_release_is_guarded(self) -> None:
        async def body(at: StoreDriver) -> None:
            same(
                refused(await at.release("a", 0, 1)).revision,
                Revision(None, 0, 0),
                "an absent role",
            )
            same(await at.read(), {}, "the rows after a release of an absent role")
            applied(await at.claim("a", 5, floor=2))
            for holder, token, beat in (("b", 3, 9), ("a", 2, 9), ("a", 4, 9), ("a", 3, 5)):
                refused(await at.release(holder, token, beat))
            same((await at.row()).revision, Revision("a", 3, 5), "the row")
            applied(await at.release("a", 3, 6))
            same(
                refused(await at.release("a", 3, 7)).revision,
                Revision(None, 3, 6),
                "a second release",
            )

        self.run(body)

    def test_linger(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1, ttl=30.0))
            began = time.monotonic()
            row = applied(await at.release("a", 1, 2, linger=0.3))
            same(
                (row.revision, row.ttl),
                (Revision("a", 1, 2), 0.3),
                "the row of a lease that lingers",
            )
            expect(0 < row.remaining <= 0.3, f"remaining: {row.remaining}")
            answer = await at.claim("b", 1, skew=0.0)
            # On a busy machine the answer may come too late to say anything.
            if time.monotonic() - began < 0.3 or not at.has_clock:
                refused(answer)
            if not at.has_clock:
                return
            if not (isinstance(answer, Answer) and answer.applied):
                await at.run_out(0.3)
                answer = await at.claim("b", 1, skew=0.0)
            same(
                applied(answer).revision,
                Revision("b", 2, 1),
                "a claim after the lingering lease has expired",
            )

        self.run(body)

    def test_tokens_never_fall(self) -> None:
        async def body(at: StoreDriver) -> None:
            chance, token, beat = random.Random(1), 0, 0  # noqa: S311 # no secret
            for _ in range(250):
                beat, holder = beat + 1, chance.choice("abc")
                floor = chance.choice((0, token, token + chance.randrange(50), max(0, token - 3)))
                claimed_token = chance.choice((token, token, token - 1, token + 1))
                what = chance.randrange(4)
                if what == 0:
                    result = await at.claim(
                        holder, beat, takeover=chance.random() < 0.7, floor=floor
                    )
                elif what == 1:
                    result = await at.renew(holder, claimed_token, beat)
                elif what == 2:
                    result = await at.release(holder, claimed_token, beat)
                else:
                    result = await at.claim(
                        holder, beat, skew=0.0, expected=(await self._seen(at)).revision
                    )
                row = answered(result).lease
                expect(row.token >= token, f"a token fell from {token} to {row.token}")
                claimed = answered(result).applied and what in (0, 3)
                same(
                    row.token > token,
                    claimed,
                    "a new token at every claim that is applied, and at nothing else",
                )
                token = row.token

        self.run(body)

    @staticmethod
    async def _seen(at: StoreDriver) -> Lease:
        rows = await at.read()
        return rows.get(at.role) or Lease(at.role)
