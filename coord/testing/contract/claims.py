"""Contract tests of rules 1 and 4: who may take a role, and what the row contains then."""

from __future__ import annotations

import time

from coord.core.lease import MAX_TOKEN, Lease, Revision
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    applied,
    expect,
    refused,
    same,
)


class ClaimContract(ContractHarness):
    def test_a_claim_may_expect_that_there_is_no_row(self) -> None:
        async def body(at: StoreDriver) -> None:
            nothing = Revision(None, 0, 0)
            applied(await at.claim("a", 1, expected=nothing, info={"n": 1}))
            applied(await at.release("a", 1, 2))
            row = refused(await at.claim("b", 1, expected=nothing, info={"n": 2}))
            same(dict(row.info), {"n": 1}, "the info of a row that was released")
            same(dict((await at.row()).info), {"n": 1}, "its info as read")

        self.run(body)

    def test_first_claim_of_an_absent_role(self) -> None:
        async def body(at: StoreDriver) -> None:
            same(await at.read(), {}, "rows of a role that nobody claimed")
            before = time.time()
            lease = applied(await at.claim("a", 7, ttl=20.0))
            same(
                (lease.role, lease.revision, lease.ttl),
                (at.role, Revision("a", 1, 7), 20.0),
                "the row of the first term",
            )
            expect(19 < lease.remaining <= 20, f"remaining is about the ttl: {lease.remaining}")
            expect(
                abs(lease.renewed_at - before) < 3600,
                f"renewed_at is wall time: {lease.renewed_at}",
            )
            same((await at.row()).revision, lease.revision, "the row as read")

        self.run(body)

    def test_claim_of_an_absent_role_that_was_seen_absent(self) -> None:
        async def body(at: StoreDriver) -> None:
            same(applied(await at.claim("a", expected=Lease(at.role).revision)).token, 1, "token")

        self.run(body)

    def test_claim_of_an_absent_role_that_was_seen_held(self) -> None:
        async def body(at: StoreDriver) -> None:
            row = refused(await at.claim("a", expected=Revision("b", 3, 4), takeover=True))
            same(row.revision, Revision(None, 0, 0), "the answer's row")
            same(await at.read(), {}, "rows after a refused claim")

        self.run(body)

    def test_first_claim_of_a_held_role_is_refused_and_shows_the_row(self) -> None:
        async def body(at: StoreDriver) -> None:
            held = applied(await at.claim("a", 5, ttl=20.0, info={"who": "a"}))
            for skew in (None, 0.0, 3.0):
                row = refused(await at.claim("b", 1, ttl=9.0, skew=skew, info={"who": "b"}))
                same(
                    (row.revision, row.ttl, dict(row.info)),
                    (held.revision, 20.0, {"who": "a"}),
                    "the loser's view",
                )
                expect(0 < row.remaining <= 20, f"the loser sees how long it runs: {row.remaining}")
            same((await at.row()).revision, held.revision, "the row")

        self.run(body)

    def test_a_claim_needs_every_part_of_what_it_expects(self) -> None:
        async def body(at: StoreDriver) -> None:
            revision = applied(await at.claim("a", 5)).revision
            for wrong in (
                Revision("x", 1, 5),
                Revision(None, 1, 5),
                Revision("a", 2, 5),
                Revision("a", 0, 5),
                Revision("a", 1, 4),
            ):
                same(
                    refused(await at.claim("b", 9, expected=wrong, takeover=True)).revision,
                    revision,
                    f"after {wrong}",
                )
            same(
                applied(await at.claim("b", 9, expected=revision, takeover=True)).revision,
                Revision("b", 2, 9),
                "the right one",
            )

        self.run(body)

    def test_vacant_needs_what_it_expects_too(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1))
            vacant = applied(await at.release("a", 1, 2)).revision
            for wrong in (Revision("a", 1, 1), Revision(None, 1, 1), Revision(None, 0, 2)):
                same(
                    refused(await at.claim("b", 1, expected=wrong)).revision,
                    vacant,
                    f"after {wrong}",
                )
            same(applied(await at.claim("b", 1, expected=vacant)).token, 2, "token")

        self.run(body)

    def test_what_was_expected_is_not_enough_while_the_lease_runs(self) -> None:
        async def body(at: StoreDriver) -> None:
            revision = applied(await at.claim("a")).revision
            refused(await at.claim("b", expected=revision))
            refused(await at.claim("b", expected=revision, skew=0.0))
            same((await at.row()).revision, revision, "the row")

        self.run(body)

    def test_a_late_claim_does_nothing_after_another(self) -> None:
        async def body(at: StoreDriver) -> None:
            revision = applied(await at.claim("a")).revision
            won = applied(await at.claim("b", expected=revision, takeover=True)).revision
            same(
                refused(await at.claim("c", expected=revision, takeover=True)).revision,
                won,
                "the late one sees the winner",
            )
            same(
                refused(await at.claim("b", expected=revision, takeover=True)).revision,
                won,
                "nor does it land twice",
            )

        self.run(body)

    def test_a_late_claim_does_nothing_after_a_renewal(self) -> None:
        async def body(at: StoreDriver) -> None:
            revision = applied(await at.claim("a", 1)).revision
            applied(await at.renew("a", 1, 2))
            same(
                refused(await at.claim("b", expected=revision, takeover=True)).revision,
                Revision("a", 1, 2),
                "the row",
            )

        self.run(body)

    def test_takeover_by_the_stores_clock(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not at.has_clock:
                return  # coord sends such a store no claim with a skew
            old = applied(await at.claim("a", ttl=0.3))
            refused(await at.claim("b", skew=0.0))
            await at.run_out(0.3)
            row = refused(await at.claim("b", skew=None))
            expect(row.remaining <= 0, f"it has run out: {row.remaining}")
            refused(await at.claim("b", skew=30.0))
            refused(await at.claim("b", skew=30.0, expected=old.revision))
            refused(await at.claim("b", skew=0.0, expected=old.revision._replace(beat=99)))
            same(
                applied(await at.claim("b", 4, skew=0.0)).revision,
                Revision("b", 2, 4),
                "the new term",
            )

        self.run(body)

    def test_takeover_waits_for_the_skew(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not at.has_clock:
                return
            applied(await at.claim("a", ttl=0.2))
            await at.run_out(0.2)
            refused(await at.claim("b", skew=5.0))
            await at.run_out(0.3)
            applied(await at.claim("b", skew=0.25))

        self.run(body)

    def test_mine_is_claimed_anew_with_a_new_token(self) -> None:
        async def body(at: StoreDriver) -> None:
            lease = applied(await at.claim("a", 3, ttl=20.0, info={"old": True, "n": 1}))
            again = applied(
                await at.claim("a", 4, ttl=5.0, expected=lease.revision, info={"new": True})
            )
            same(
                (again.revision, again.ttl, dict(again.info)),
                (Revision("a", 2, 4), 5.0, {"new": True}),
                "the new term",
            )
            expect(again.remaining <= 5, "the new term's own ttl holds")
            refused(await at.renew("a", 1, 5))
            same((await at.row()).revision, Revision("a", 2, 4), "the row")

        self.run(body)

    def test_mine_needs_a_new_beat(self) -> None:
        """A claim that arrives late or twice does not change the lease that its candidate holds."""

        async def body(at: StoreDriver) -> None:
            revision = applied(await at.claim("a", 3)).revision
            for beat in (1, 2, 3):
                same(refused(await at.claim("a", beat, skew=0.0)).revision, revision, "the row")
                same(
                    refused(await at.claim("a", beat, expected=revision)).revision,
                    revision,
                    "the row",
                )
            same(
                applied(await at.claim("a", 4)).revision,
                Revision("a", 2, 4),
                "with a new beat, even unseen",
            )

        self.run(body)

    def test_floor(self) -> None:
        async def body(at: StoreDriver) -> None:
            same(
                applied(await at.claim("a", 1, floor=41)).token, 42, "a floor above the row's token"
            )
            same(
                applied(await at.claim("a", 2, takeover=True, floor=7)).token,
                43,
                "a floor below it",
            )
            last = applied(await at.claim("a", 3, takeover=True, floor=MAX_TOKEN - 1)).token
            same(last, MAX_TOKEN, "the greatest token, exactly")
            same((await at.row()).token, MAX_TOKEN, "as read")

        self.run(body)
