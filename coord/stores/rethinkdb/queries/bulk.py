"""Claims and releases of many roles, a query for all of one kind: `rules.py`, said of rows that a
query brings along.

An insert, in which each row meets the one that is there (`conflict=`) and brings what is asked of
it, as in `queries._batch`; what met none is inserted by a second query. Rows are taken as coord
writes them: an answer that a row written by hand may have led to is no answer (`results`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coord.core.lease import Revision
from coord.core.operations import Claim, Release, Result
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.driver import JsonTemplate
from coord.stores.rethinkdb.queries import results as query_results
from coord.stores.rethinkdb.queries import swaps as swap_queries
from coord.stores.rethinkdb.queries.swaps import ClaimShape

Kind = ClaimShape | str
"""Of a claim, which parts it has."""
RELEASE, UNBATCHABLE = "release", "alone"
MOST = 500
"""Swaps to one query."""


def parts(asked: Sequence[Claim | Release]) -> list[tuple[Kind, list[Claim | Release]]]:
    """What goes as one query each, but for those of `UNBATCHABLE`."""
    kinds: dict[Kind, list[Claim | Release]] = {}
    for one in asked:
        kinds.setdefault(_kind(one), []).append(one)
    return [
        (kind, some[at : at + MOST])
        for kind, some in kinds.items()
        for at in range(0, len(some), MOST)
    ]


def _kind(swap: Claim | Release) -> Kind:
    if isinstance(swap, Claim):
        return ClaimShape.of(swap, strict=False)
    return RELEASE if swap.linger <= 0 else UNBATCHABLE  # which hands over, or lets the lease rest


class BulkQueries:
    """Queries, ready to be sent, on one table. The answer to each is {written: the server's report,
    now: its clock}."""

    def __init__(self, table: Any) -> None:
        self._r, self._table = driver.reql(), table
        self._swaps: dict[Kind, JsonTemplate] = {}
        self._first: dict[Kind, JsonTemplate] = {}

    def swaps(self, of: Kind, asked: Sequence[Claim | Release]) -> bytes:
        """Those rows that are there. All requests are of that kind, and for different roles."""
        if of not in self._swaps:
            self._swaps[of] = JsonTemplate(lambda given: self._met(given, of))
        return self._swaps[of].fill([_parameters(one) for one in asked])

    def first(self, of: ClaimShape, asked: Sequence[Claim | Release]) -> bytes:
        """Those rows that are not."""
        if of not in self._first:
            self._first[of] = JsonTemplate(lambda given: self._made(given, of))
        return self._first[of].fill([_parameters(one) for one in asked])

    def _met(self, given: Any, of: Kind) -> Any:
        def met(_id: Any, old: Any, new: Any) -> Any:
            return new["asked"].do(lambda asked: self._swapped(asked, old, of))

        # What cannot be written is not made where there is no row to meet.
        rows = given.map(lambda one: {"id": one["role"], "asked": one, "never": self._r.minval})
        return self._report(rows, met)

    def _made(self, given: Any, of: ClaimShape) -> Any:
        return self._report(
            given.map(
                lambda asked: swap_queries.taken(asked, self._r.expr(swap_queries.blank()), of)
            ),
            lambda _id, old, _new: old,
        )

    def _report(self, rows: Any, conflict: Callable[[Any, Any, Any], Any]) -> Any:
        written = self._table.insert(
            rows, conflict=conflict, return_changes="always", durability="hard"
        )
        # The terms of a row are most of it, and no part of the answer.
        unasked = {"changes": {"old_val": {"history": True}, "new_val": {"history": True}}}
        now = self._r.now().to_epoch_time()
        return written.do(lambda report: {"written": report.without(unasked), "now": now})

    def _swapped(self, asked: Any, old: Any, of: Kind) -> Any:
        r = self._r
        if isinstance(of, ClaimShape):
            return r.branch(
                swap_queries.may_claim(asked, old, of), swap_queries.taken(asked, old, of), old
            )
        return r.branch(
            swap_queries.mine(asked, old), old.merge(swap_queries.given_back(asked, old)), old
        )


def creates_row(of: Kind, asked: Claim | Release) -> bool:
    """Whether it may be applied where there is no row."""
    nothing = Revision(None, 0, 0)
    return (
        isinstance(of, ClaimShape)
        and isinstance(asked, Claim)
        and asked.expected in (None, nothing)
    )


def results(asked: Sequence[Claim | Release], outcome: Mapping[str, Any]) -> dict[str, Result]:
    """What came of those, by role, of which the answer says it. Nothing of one that a row written
    by hand may have led to."""
    found: dict[str, Result] = {}
    swaps = {one.role: one for one in asked}
    for change in outcome["written"].get("changes", []):
        row = change.get("new_val") or change.get("old_val")
        if change.get("error"):  # whose it is is not said
            if (error := errors.from_row(change["error"])).unknown:
                return {one.role: error.failure() for one in asked}
        elif row and _is_read(swaps[row["id"]], change):
            found[row["id"]] = query_results.one(row["id"], change, outcome["now"])
    return found


def _is_read(asked: Claim | Release, change: Mapping[str, Any]) -> bool:
    """Whether the row was taken for what it is."""
    row = change.get("new_val")
    return (
        change.get("old_val") != row
        or not isinstance(asked, Claim)
        or not query_results.misread_row(asked, row)
    )


def _parameters(asked: Claim | Release) -> dict[str, Any]:
    if isinstance(asked, Claim):
        return swap_queries.parameters(asked)
    fields = {name: getattr(asked, name) for name in ("role", "holder", "token", "beat")}
    return {**fields, **swap_queries.closing(asked)}
