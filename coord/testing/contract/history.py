"""Contract tests of the past terms in a row, and of a handover to one candidate."""

from __future__ import annotations

import time

from coord.core.history import MAX_TERMS
from coord.core.lease import Revision
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    applied,
    expect,
    refused,
    same,
)


class HistoryContract(ContractHarness):
    """Tests of past terms (`coord.core.history`) and of `Release.to`."""

    def test_a_term_is_remembered_with_its_end(self) -> None:
        async def body(at: StoreDriver) -> None:
            same(await at.history(), [], "the history of a role that has no row")
            began = time.time()
            since = applied(await at.claim("a", 1, info={"host": "one"})).since
            expect(abs(since - began) < 60, f"since is wall time: {since}")
            same((await at.row()).since, since, "since in the row as read")
            (now,) = await at.history()
            same(
                (now.role, now.token, now.holder, now.info),
                (at.role, 1, "a", {"host": "one"}),
                "the term",
            )
            same(
                (now.since, now.until, now.reason, now.by),
                (since, None, "", ""),
                "since, until, reason and by of the term that lasts",
            )
            applied(await at.renew("a", 1, 2))
            same(await at.history(), [now], "the history after a renewal")
            applied(await at.release("a", 1, 3, reason="stepped_down", by="ann@desk"))
            (past,) = await at.history()
            same(
                (past.token, past.reason, past.by), (1, "stepped_down", "ann@desk"), "how it ended"
            )
            expect(past.until is not None and past.until >= past.since, f"until {past.until}")
            same((await at.row()).since, 0, "since of a role that nobody leads")
            applied(await at.claim("b", 1))
            same(
                [(term.token, term.holder) for term in await at.history()],
                [(2, "b"), (1, "a")],
                "the terms, newest first",
            )
            same((await at.history())[1], past, "a term that had ended before")

        self.run(body)

    def test_who_takes_over_closes_the_term_that_ran_out(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1))
            applied(await at.claim("b", 1, takeover=True))
            same(
                (await at.history())[1].reason, "expired", "the reason if nobody named another one"
            )
            applied(await at.claim("b", 2, lost=(2, "suspended")))
            same(
                (await at.history())[1].reason,
                "suspended",
                "the reason that the former holder named for its own term",
            )
            applied(await at.claim("b", 3, lost=(2, "suspended")))
            same(
                (await at.history())[1].reason,
                "expired",
                "the reason if the holder named one for another term",
            )
            applied(await at.claim("c", 1, takeover=True, lost=(4, "taken")))
            same(
                (await at.history())[1].reason,
                "expired",
                "the reason if another candidate named one",
            )
            same([term.token for term in await at.history()], [5, 4, 3, 2, 1], "each term, once")
            refused(await at.claim("d", 1))
            refused(await at.release("d", 5, 1))
            same(len(await at.history()), 5, "the number of terms after refused requests")

        self.run(body)

    def test_what_is_remembered_is_bounded(self) -> None:
        async def body(at: StoreDriver) -> None:
            long = {"text": "x" * 5000}
            for beat in range(1, MAX_TERMS + 6):
                row = applied(await at.claim("a", beat, info=long))
            same(dict(row.info), long, "the whole info in the lease")
            past = await at.history()
            same([term.token for term in past], list(range(MAX_TERMS + 5, 5, -1)), "the last terms")
            same(
                {len(term.info) for term in past},
                {0},
                "sizes of the infos of past terms: a long info is not kept",
            )

        self.run(body)

    def test_the_history_of_all_roles(self) -> None:
        async def body(at: StoreDriver) -> None:
            other = at.fresh_role()
            applied(await at.claim("a", 1))
            applied(await at.claim("b", 1, role=other))
            terms = {(term.role, term.holder) for term in await at.store.past(None, 10.0)}
            expect(
                {(at.role, "a"), (other, "b")} <= terms,
                f"the history of all roles has both terms: {terms}",
            )
            same(await at.store.past([], 10.0), [], "the history of no roles")

        self.run(body)

    def test_a_role_is_handed_over_to_one_candidate(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 4, info={"host": "one"}))
            row = applied(
                await at.release("a", 1, 5, linger=0.5, to="b", reason="stepped_down", by="ann")
            )
            same(
                (row.revision, row.ttl, dict(row.info)),
                (Revision("b", 1, 0), 0.5, {}),
                "the row of a role that is reserved for b",
            )
            expect(row.reserved and not row.led, "b has the role reserved, and does not lead yet")
            expect(
                0 < row.remaining <= 0.5, f"the reservation lasts at most 0.5 s: {row.remaining}"
            )
            refused(await at.renew("a", 1, 6))
            refused(await at.renew("b", 1, 0))
            refused(await at.claim("c", 1, skew=0.0))
            refused(await at.claim("a", 6, skew=0.0))
            row = applied(await at.claim("b", 1, expected=Revision("b", 1, 0)))
            same(row.revision, Revision("b", 2, 1), "b claims at once, and gets a token of its own")
            same(
                [(term.token, term.holder) for term in await at.history()],
                [(2, "b"), (1, "a")],
                "the terms: a reservation is none",
            )
            same((await at.history())[1].by, "ann", "who requested the release")

        self.run(body)

    def test_who_does_not_come_for_it_loses_it(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a", 1))
            kept = applied(await at.release("a", 1, 2, linger=0.3, to="b")).revision
            await at.run_out(0.3)
            # Without a clock of the store, a candidate has watched the row.
            how = {"skew": 0.0} if at.has_clock else {"expected": kept, "takeover": True}
            same(
                applied(await at.claim("c", 1, **how)).revision,
                Revision("c", 2, 1),
                "the role after the reservation has expired",
            )
            same(
                [term.holder for term in await at.history()],
                ["c", "a"],
                "the history has no candidate that never led",
            )

        self.run(body)
