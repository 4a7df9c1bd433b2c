"""Contract tests of rule 11: how operators revoke leases and pause roles.

A store has this ability if it has the method `override`. A store without it passes.
"""

from __future__ import annotations

from coord.core.lease import MIN_TTL, PAUSED, REVOKED, Lease, Revision
from coord.core.operations import MAX_OVERRIDE_BEAT, Override, Renew, Result
from coord.stores.protocol import HasKept, Overridable
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    applied,
    expect,
    refused,
    same,
)
from coord.testing.contract.watch import heard


class OverrideContract(ContractHarness):
    def test_an_operator_revokes_a_lease_which_runs_out_before_another_takes_it(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            held = applied(await at.claim("a", 5, ttl=1.0, info={"who": "a"}))
            row = applied(
                await self._override(at, held.revision, REVOKED, 77, info={"by": "ann"}, by="ann")
            )
            same(row.revision, Revision(REVOKED, 1, 77), "the row of a revoked lease")
            same((row.ttl, dict(row.info)), (1.0, {"by": "ann"}), "its ttl and its info")
            expect(row.remaining <= 1.0, f"it lasts no longer than before: {row.remaining}")
            expect(row.revoked and not row.led and not row.vacant, "nobody leads")
            same((await at.row()).revision, row.revision, "the row as read")
            same(
                refused(await at.renew("a", 1, 6)).revision,
                row.revision,
                "a renewal of the evicted leader",
            )
            refused(await at.release("a", 1, 7))
            refused(await at.claim("b", 1, skew=0.0 if at.has_clock else None))
            refused(await at.claim("b", 1, expected=row.revision))
            if at.has_clock:
                expect(row.remaining > 0, f"the revoked lease has not expired yet: {row.remaining}")
                await at.run_out(1.0)
                same(applied(await at.claim("b", 2, skew=0.0)).token, 2, "token")
            else:
                taken = await at.claim("b", 2, expected=row.revision, takeover=True)
                same(applied(taken).token, 2, "token")

        self.run(body)

    def test_a_revoked_lease_that_was_watched_for_its_ttl_is_taken(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            held = applied(await at.claim("a", 5))
            row = applied(await self._override(at, held.revision, REVOKED, 9))
            refused(await at.claim("b", 1, expected=held.revision, takeover=True))
            lease = applied(await at.claim("b", 1, expected=row.revision, takeover=True))
            same(lease.revision, Revision("b", 2, 1), "the row of the next leader")

        self.run(body)

    def test_an_override_needs_every_part_of_what_it_expects(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            revision = applied(await at.claim("a", 5)).revision
            for wrong in (
                Revision("x", 1, 5),
                Revision(None, 1, 5),
                Revision("a", 2, 5),
                Revision("a", 1, 4),
                Revision(None, 0, 0),
            ):
                for holder in (REVOKED, PAUSED):
                    row = refused(await self._override(at, wrong, holder, 8))
                    same(row.revision, revision, f"the row after an override of {wrong}")
            same((await at.row()).revision, revision, "the row as read")
            absent = at.fresh_role()
            nothing = refused(await self._override(at, Revision("a", 1, 5), PAUSED, 8, role=absent))
            same(nothing.revision, Revision(None, 0, 0), "the row of an absent role")
            same(await at.read(absent), {}, "rows after a refused override")

        self.run(body)

    def test_nobody_claims_a_paused_role(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            held = applied(await at.claim("a", 5, ttl=0.3))
            paused = applied(await self._override(at, held.revision, PAUSED, 33))
            same((paused.revision, paused.ttl), (Revision(PAUSED, 1, 33), 0.3), "the paused row")
            expect(paused.paused and not paused.led, "nobody leads")
            await at.run_out(0.3)
            skew = 0.0 if at.has_clock else None

            def not_changed(result: Result) -> None:
                same(refused(result).revision, paused.revision, "the row after a claim")

            not_changed(await at.claim("b", 1, skew=skew))
            not_changed(await at.claim("b", 2, expected=paused.revision, skew=skew))
            not_changed(await at.claim("b", 3, expected=paused.revision, takeover=True))
            not_changed(await at.claim("b", 4, takeover=True, skew=skew))
            not_changed(await at.claim(PAUSED, 2**41))
            refused(await at.renew("a", 1, 6))
            refused(await at.release("a", 1, 7))
            same((await at.row()).revision, paused.revision, "the row as read")

        self.run(body)

    def test_a_paused_role_is_resumed_as_a_revoked_lease(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            held = applied(await at.claim("a", 5, ttl=20.0))
            paused = applied(await self._override(at, held.revision, PAUSED, 33))
            again = applied(
                await self._override(at, paused.revision, PAUSED, 34, info={"by": "bob"})
            )
            same((again.ttl, dict(again.info)), (20.0, {"by": "bob"}), "paused by another")
            row = applied(await self._override(at, again.revision, REVOKED, MAX_OVERRIDE_BEAT))
            same(
                (row.revision, row.ttl),
                (Revision(REVOKED, 1, MAX_OVERRIDE_BEAT), 20.0),
                "the row of a resumed role: the lease of its leader may still run",
            )
            if at.has_clock:
                expect(
                    10 < row.remaining <= 20,
                    f"the lease of the former leader may still run: {row.remaining}",
                )
            refused(await at.claim("b", 1, skew=0.0 if at.has_clock else None))
            lease = applied(await at.claim("b", 1, expected=row.revision, takeover=True))
            same(lease.token, 2, "token")

        self.run(body)

    def test_a_vacant_or_absent_role_is_paused(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            row = applied(await self._override(at, Lease(at.role).revision, PAUSED, 3))
            same((row.revision, row.ttl), (Revision(PAUSED, 0, 3), MIN_TTL), "of an absent role")
            refused(await at.claim("a", 1))
            row = applied(await self._override(at, row.revision, REVOKED, 4))
            lease = applied(await at.claim("a", 1, expected=row.revision, takeover=True))
            same(lease.token, 1, "the first token")
            vacant = applied(await at.release("a", 1, 2))
            row = applied(await self._override(at, vacant.revision, PAUSED, 5))
            same((row.revision, row.ttl), (Revision(PAUSED, 1, 5), MIN_TTL), "of a vacant role")
            if at.has_clock:
                expect(row.remaining <= MIN_TTL, f"the lease expires soon: {row.remaining}")
                row = applied(await self._override(at, row.revision, REVOKED, 6))
                await at.run_out(MIN_TTL)
                same(applied(await at.claim("a", 3, skew=0.0)).token, 2, "the next token")

        self.run(body)

    def test_a_leader_releases_its_role_to_nobody(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            applied(await at.claim("a", 5))
            row = applied(
                await at.release("a", 1, 6, linger=MIN_TTL, to=PAUSED, reason="paused", by="ann")
            )
            same((row.revision, row.ttl), (Revision(PAUSED, 1, 0), MIN_TTL), "the released row")
            await at.run_out(MIN_TTL)
            refused(await at.claim("b", 1, skew=0.0 if at.has_clock else None))
            refused(await at.claim("b", 1, expected=row.revision, takeover=True))
            term = (await at.history())[0]
            same((term.reason, term.by), ("paused", "ann"), "the end of its term")

        self.run(body)

    def test_the_history_names_who_ended_a_term(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            held = applied(await at.claim("a", 5))
            row = applied(
                await self._override(at, held.revision, REVOKED, 9, reason="evicted", by="ann")
            )
            (term,) = await at.history()
            same(
                (term.token, term.holder, term.reason, term.by),
                (1, "a", "evicted", "ann"),
                "the evicted term",
            )
            expect(term.until is not None, "it has ended")
            row = applied(await self._override(at, row.revision, PAUSED, 10, reason="paused"))
            applied(await self._override(at, row.revision, REVOKED, 11, reason="resumed"))
            same([past.reason for past in await at.history()], ["evicted"], "one term, as it ended")
            row = await at.row()
            applied(await at.claim("b", 1, expected=row.revision, takeover=True))
            later, earlier = await at.history()
            same((later.holder, later.until), ("b", None), "the next term")
            same((earlier.reason, earlier.by), ("evicted", "ann"), "the term before")

        self.run(body)

    def test_feeds_show_overrides(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable):
                return
            other = await at.another()
            held = applied(await at.claim("a", 5))
            async with other.feed() as queue:
                await heard(queue, lambda lease: lease.holder == "a", "the first row")
                row = applied(await self._override(at, held.revision, REVOKED, 9))
                lease = await heard(queue, lambda lease: lease.revoked, "a revoked lease")
                same((lease.revision, lease.ttl), (row.revision, row.ttl), "the row of the feed")
                row = applied(await self._override(at, row.revision, PAUSED, 10))
                lease = await heard(queue, lambda lease: lease.paused, "a paused role")
                same((lease.revision, lease.ttl), (row.revision, row.ttl), "the row of the feed")
                applied(await self._override(at, row.revision, REVOKED, 11))
                await heard(queue, lambda lease: lease.beat == 11, "a resumed role")

        self.run(body)

    def test_what_a_role_keeps_outlives_an_override(self) -> None:
        async def body(at: StoreDriver) -> None:
            if not isinstance(at.store, Overridable) or not isinstance(at.store, HasKept):
                return
            applied(await at.claim("a", 5))
            (renewed,) = await at.renew_all([Renew(at.role, "a", 1, 6, 30.0, keep="text")])
            row = applied(renewed)
            for holder in (REVOKED, PAUSED, REVOKED):
                row = applied(await self._override(at, row.revision, holder, row.beat + 1))
                same((await at.store.kept(at.role, self.timeout)).text, "text", "the kept text")

        self.run(body)

    async def _override(
        self,
        at: StoreDriver,
        expected: Revision,
        holder: str,
        beat: int,
        *,
        role: str | None = None,
        info: dict[str, str] | None = None,
        reason: str = "evicted",
        by: str = "",
    ) -> Result:
        assert isinstance(at.store, Overridable)
        override = Override(
            role or at.role, expected, holder, beat, info=info or {}, reason=reason, by=by
        )
        return await at.store.override(override, self.timeout)
