"""Claims and releases of many roles: one query for all swaps of one kind.

The query is an insert. Each inserted row carries the parameters of its swap, and conflicts with the
stored row (`conflict=`), which the swap then changes, as in `Queries._batch`. A second query
inserts the rows that do not exist yet. The queries expect rows as coord writes them. If a person
may have edited a row, `results` ignores its answer, and the swap is sent again by itself.
"""

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
"""The kind of a swap: for a claim its shape, otherwise `RELEASE` or `UNBATCHABLE`."""
RELEASE, UNBATCHABLE = "release", "alone"
MAX_SWAPS = 500
"""Swaps in one query."""


def parts(batch: Sequence[Claim | Release]) -> list[tuple[Kind, list[Claim | Release]]]:
    """Return the swaps by kind, in parts that are one query each, except those of `UNBATCHABLE`."""
    kinds: dict[Kind, list[Claim | Release]] = {}
    for swap in batch:
        kinds.setdefault(_kind(swap), []).append(swap)
    return [
        (kind, members[at : at + MAX_SWAPS])
        for kind, members in kinds.items()
        for at in range(0, len(members), MAX_SWAPS)
    ]


def _kind(swap: Claim | Release) -> Kind:
    if isinstance(swap, Claim):
        return ClaimShape.of(swap, strict=False)
    # Others reserve the role, or replace the text that it keeps.
    return RELEASE if swap.linger <= 0 and swap.keep is None else UNBATCHABLE


class BulkQueries:
    """The queries on one table, ready to be sent.

    Each answers with an object: `written` is the server's report, and `now` its clock.
    """

    def __init__(self, table: Any) -> None:
        self._r, self._table = driver.reql(), table
        self._swaps: dict[Kind, JsonTemplate] = {}
        self._first: dict[Kind, JsonTemplate] = {}

    def swaps(self, of: Kind, batch: Sequence[Claim | Release]) -> bytes:
        """Return the query for swaps of existing rows, of one kind and for different roles."""
        if of not in self._swaps:
            self._swaps[of] = JsonTemplate(lambda rows: self._existing_rows(rows, of))
        return self._swaps[of].fill([_parameters(swap) for swap in batch])

    def first(self, of: ClaimShape, batch: Sequence[Claim | Release]) -> bytes:
        """Return the query for claims of rows that do not exist."""
        if of not in self._first:
            self._first[of] = JsonTemplate(lambda rows: self._new_rows(rows, of))
        return self._first[of].fill([_parameters(swap) for swap in batch])

    def _existing_rows(self, batch: Any, of: Kind) -> Any:
        def on_conflict(_id: Any, old: Any, new: Any) -> Any:
            return new["params"].do(lambda params: self._row_after(params, old, of))

        # A row with `minval` cannot be written, so none is created where none exists.
        rows = batch.map(
            lambda params: {"id": params["role"], "params": params, "never": self._r.minval}
        )
        return self._report(rows, on_conflict)

    def _new_rows(self, batch: Any, of: ClaimShape) -> Any:
        return self._report(
            batch.map(
                lambda params: swap_queries.claimed_row(
                    params, self._r.expr(swap_queries.blank_row()), of
                )
            ),
            lambda _id, old, _new: old,
        )

    def _report(self, rows: Any, conflict: Callable[[Any, Any, Any], Any]) -> Any:
        written = self._table.insert(
            rows, conflict=conflict, return_changes="always", durability="hard"
        )
        # These are the largest parts of a row, and the answer does not need them.
        large = {"history": True, "kept": True}
        omitted = {"changes": {"old_val": large, "new_val": large}}
        now = self._r.now().to_epoch_time()
        return written.do(lambda report: {"written": report.without(omitted), "now": now})

    def _row_after(self, params: Any, old: Any, of: Kind) -> Any:
        r = self._r
        if isinstance(of, ClaimShape):
            return r.branch(
                swap_queries.may_claim(params, old, of),
                swap_queries.claimed_row(params, old, of),
                old,
            )
        return r.branch(
            swap_queries.is_held(params, old),
            old.merge(swap_queries.release_changes(params, old, swap_queries.PLAIN_RELEASE)),
            old,
        )


def creates_row(of: Kind, swap: Claim | Release) -> bool:
    """Return whether a swap may be applied to a row that does not exist."""
    nothing = Revision(None, 0, 0)
    return (
        isinstance(of, ClaimShape) and isinstance(swap, Claim) and swap.expected in (None, nothing)
    )


def results(batch: Sequence[Claim | Release], outcome: Mapping[str, Any]) -> dict[str, Result]:
    """Return the results that an answer contains, by role.

    A result is left out if a person may have edited its row.
    """
    by_role: dict[str, Result] = {}
    swaps = {swap.role: swap for swap in batch}
    for change in outcome["written"].get("changes", []):
        row = change.get("new_val") or change.get("old_val")
        if change.get("error"):  # The server does not say whose error it is.
            if (error := errors.from_row(change["error"])).unknown:
                return {swap.role: error.failure() for swap in batch}
        elif row and _is_read(swaps[row["id"]], change):
            by_role[row["id"]] = query_results.one(row["id"], change, outcome["now"])
    return by_role


def _is_read(swap: Claim | Release, change: Mapping[str, Any]) -> bool:
    """Return whether the query has read the row correctly: it is as coord writes it."""
    row = change.get("new_val")
    return (
        change.get("old_val") != row
        or not isinstance(swap, Claim)
        or not query_results.misread_row(swap, row)
    )


def _parameters(swap: Claim | Release) -> dict[str, Any]:
    if isinstance(swap, Claim):
        return swap_queries.parameters(swap)
    fields = {name: getattr(swap, name) for name in ("role", "holder", "token", "beat")}
    return {**fields, **swap_queries.closing(swap)}
