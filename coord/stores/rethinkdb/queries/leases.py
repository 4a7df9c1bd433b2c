"""The queries on the table of leases: `core/swaps.py` in ReQL, so that one query reads, decides and
writes.

A lease expires at `renewed_at + ttl` by `r.now()`, which is constant within a query: the wall clock
of the server that received it. A claim has two forms. The quick form expects a row as coord writes
it. If a person edited the row, the quick form fails or is refused, and has changed nothing. Then
the strict form is sent, which checks the type of every field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

from coord.core.lease import Revision
from coord.core.operations import Claim, Override, Release, Renew, Retire
from coord.stores.rethinkdb import driver
from coord.stores.rethinkdb.driver import InlineTemplate, JsonTemplate
from coord.stores.rethinkdb.queries import rows as row_views
from coord.stores.rethinkdb.queries import swaps
from coord.stores.rethinkdb.queries.bulk import BulkQueries
from coord.stores.rethinkdb.queries.rows import FIELDS
from coord.stores.rethinkdb.queries.swaps import ClaimShape, ReleaseShape

_KEY = "role "
"""The prefix of roles that are keys of an object, where `$reql_type$` has a meaning."""

_LARGE = {"history": True, "kept": True}
"""The largest fields of a row, which no answer needs."""

MIN_BATCH_SIZE = 8
"""Renewals from which on rows are not sent back. That saves more than a second query costs, which
is rarely necessary."""


class Queries:
    """The queries, ready to be sent. Nothing here sends them.

    A swap answers with an object: `written` is the server's report with the rows, and `now` its
    clock.

    Args:
        database: The name of the database.
        table: The name of the table of leases.
    """

    def __init__(self, database: str, table: str) -> None:
        self.r = driver.reql()
        self.table = self.r.db(database).table(table)
        self._claims: dict[ClaimShape, InlineTemplate] = {}
        self._releases: dict[ReleaseShape, InlineTemplate] = {}
        self.bulk = BulkQueries(self.table)
        self.majority = self.r.db(database).table(table, read_mode="majority")

    def claim(self, claim: Claim, *, strict: bool = False) -> bytes:
        """Return the query for a claim."""
        shape = ClaimShape.of(claim, strict)
        if shape not in self._claims:
            self._claims[shape] = InlineTemplate(lambda params: self._claim(params, shape))
        return self._claims[shape].fill(swaps.parameters(claim))

    def warm_up(self, claim: Claim) -> list[Callable[[], object]]:
        """Return functions that each build a query that may follow such a claim: the release, and
        the claims after a release and after an expiry."""
        follower = replace(claim, lost=None, takeover=False)
        released, expired = (
            Revision(holder, 1, claim.beat) for holder in (None, f"not {claim.holder}")
        )
        return [
            lambda: self.release(Release(claim.role, claim.holder, 1, 2)),
            lambda: self.claim(replace(follower, expected=released)),
            lambda: self.claim(replace(follower, expected=expired, takeover=True)),
        ]

    def release(self, release: Release, *, strict: bool = False) -> bytes:
        """Return the query for a release."""
        shape = ReleaseShape.of(release, strict)
        if shape not in self._releases:
            self._releases[shape] = InlineTemplate(lambda params: self._release(params, shape))
        return self._releases[shape].fill(
            {
                **{name: getattr(release, name) for name in release.__slots__},
                **swaps.closing(release),
            }
        )

    def override(self, override: Override) -> bytes:
        """Return the query for an operator's override."""
        return self._override.fill(swaps.override_parameters(override))

    def retire(self, requests: Sequence[Retire]) -> bytes:
        """Return the query that shrinks the rows of these roles to their tokens.

        It answers with the roles whose rows it has changed.
        """
        params = {_KEY + request.role: swaps.retirement_parameters(request) for request in requests}
        roles = [request.role for request in requests]
        return self._retirements.fill({"roles": roles, "params": params})

    def renew_one(self, renewal: Renew) -> bytes | None:
        """Return the quick query for one renewal; None if it changes more than the lease."""
        return None if _has_news(renewal) else self._quick_renewal.fill(_renewal(renewal))

    def renew(self, renewals: Sequence[Renew]) -> bytes:
        """Return one query for all renewals. Its answer leaves out rows that do not exist."""
        if len(renewals) == 1:
            return self._one_renewal.fill(_renewal(renewals[0]))
        params = {_KEY + renewal.role: _renewal(renewal) for renewal in renewals}
        return self._renewals.fill(
            {"roles": [renewal.role for renewal in renewals], "params": params}
        )

    def renew_all(self, renewals: Sequence[Renew]) -> bytes | None:
        """Return one query that renews the rows that are as their holders left them.

        Its answer contains the server's report, without rows, and its clock: `replaced` in the
        report is how many were renewed. It leaves other rows
        (another holder, another ttl, a clock that stepped back) to `renew`, which recognizes by its
        beat what this query has renewed.

        Returns:
            None if these renewals are too few or one of them changes more than its lease.
        """
        if len(renewals) < MIN_BATCH_SIZE or any(map(_has_news, renewals)):
            return None
        return self._batch.fill(
            [
                (renewal.holder, renewal.token, renewal.ttl, renewal.beat, renewal.role)
                for renewal in renewals
            ]
        )

    def read(self, roles: Collection[str] | None) -> Any:
        """Return the query for rows as a majority has committed them, with the server's clock."""
        rows = (
            self.majority.filter(row_views.is_row)
            if roles is None
            else self.majority.get_all(*roles)
        )
        return rows.without("history", "kept").map(
            lambda row: {"row": row, "now": self.r.now().to_epoch_time()}
        )

    def history(self, roles: Collection[str] | None) -> Any:
        """Return the query for the terms that rows remember, by role."""
        rows = self.majority if roles is None else self.majority.get_all(*roles)
        return rows.pluck("id", "history")

    def kept(self, role: str) -> Any:
        """Return the query for the token and the kept text of a row; None if there is no row."""
        return self.majority.get(role).pluck("token", "kept", "holder", "retired").default(None)

    def watch(self, roles: Collection[str] | None) -> Any:
        """Return the query for the same rows as they change. Renewals are included, since a
        candidate counts a takeover from the last revision that it saw."""
        rows = self.table if roles is None else self.table.get_all(*roles)
        return rows.pluck(*FIELDS, "retired").changes(include_initial=True, squash=False)

    def _claim(self, params: Mapping[str, Any], shape: ClaimShape) -> Any:
        r = self.r
        blank = swaps.blank_row()

        def replaced(old: Any, row: Any) -> Any:
            return r.branch(
                swaps.may_claim(params, row, shape), swaps.claimed_row(params, row, shape), old
            )

        def strictly(old: Any) -> Any:
            return self._strict_row(old).do(lambda row: replaced(old, row))

        def quickly(old: Any) -> Any:
            if shape.expected:  # Then the row exists.
                return replaced(old, old)
            return old.default(blank).do(lambda row: replaced(old, row))

        return self._swap(params, strictly if shape.strict else quickly)

    def _strict_row(self, old: Any) -> Any:
        """Return the ReQL for the fields of a row that may not exist, or was edited by a person."""
        view = row_views.strict_view(old)
        return self.r.branch(old.eq(None), swaps.blank_row(), view)

    @cached_property
    def _override(self) -> InlineTemplate:
        def query(params: Mapping[str, Any]) -> Any:
            def replaced(old: Any, row: Any) -> Any:
                applies = swaps.is_expected_strictly(params, row)
                return self.r.branch(applies, swaps.overridden_row(params, row), old)

            def strictly(old: Any) -> Any:
                return self._strict_row(old).do(lambda row: replaced(old, row))

            return self._swap(params, strictly)

        return InlineTemplate(query)

    def _release(self, params: Mapping[str, Any], shape: ReleaseShape) -> Any:
        r = self.r
        if shape.strict:
            return self._swap(
                params,
                lambda old: r.branch(
                    swaps.is_held(params, old),
                    old.merge(swaps.release_changes(params, old, shape)),
                    old,
                ),
            )
        changes = swaps.release_changes(params, r.row, shape)
        changed = r.branch(swaps.is_held(params, r.row), changes, {})
        row = self.table.get(params["role"])
        return self._report(row.update(changed, return_changes="always", durability="hard"))

    def _swap(self, params: Mapping[str, Any], replaced: Callable[[Any], Any]) -> Any:
        """Replace the row of `params["role"]`, which may not exist, by what `replaced` returns."""
        row = self.table.get(params["role"])
        return self._report(row.replace(replaced, return_changes="always", durability="hard"))

    def _report(self, written: Any) -> Any:
        return self._with_clock(written, {"old_val": True, "new_val": _LARGE})

    def _with_clock(self, written: Any, omitted: Mapping[str, Any] | None = None) -> Any:
        """Return the report of a write with the server's clock, without these parts of its rows."""

        def answer(report: Any) -> dict[str, Any]:
            shortened = report.without({"changes": omitted}) if omitted else report
            return {"written": shortened, "now": self.r.now().to_epoch_time()}

        return written.do(answer)

    @cached_property
    def _quick_renewal(self) -> InlineTemplate:
        def query(params: Mapping[str, Any]) -> Any:
            as_asked = [params["holder"], params["token"], params["ttl"], params["beat"]]
            row = self.table.get(params["role"])
            return self._with_clock(
                row.update(self._as_left(self.r.row, as_asked), durability="hard")
            )

        return InlineTemplate(query)

    @cached_property
    def _one_renewal(self) -> JsonTemplate:
        def query(params: Any) -> Any:
            written = self.table.get(params["role"]).replace(
                lambda old: self.r.branch(old.eq(None), old, self._renewed(old, params)),
                return_changes="always",
                durability="hard",
            )
            return self._with_clock(written, {"old_val": _LARGE, "new_val": _LARGE})

        return JsonTemplate(query)

    @cached_property
    def _renewals(self) -> JsonTemplate:
        def query(params: Any) -> Any:
            written = self.table.get_all(self.r.args(params["roles"])).replace(
                lambda old: params["params"][self.r.expr(_KEY) + old["id"]].do(
                    lambda own: self._renewed(old, own)
                ),
                return_changes="always",
                durability="hard",
            )
            return self._with_clock(written, {"old_val": _LARGE, "new_val": _LARGE})

        return JsonTemplate(query)

    @cached_property
    def _retirements(self) -> JsonTemplate:
        def query(params: Any) -> Any:
            def shrunk(old: Any) -> Any:
                own = params["params"][self.r.expr(_KEY) + old["id"]]
                unused = swaps.may_retire(own, row_views.strict_view(old))
                token = old["token"].default(0)
                return self.r.branch(unused, row_views.retired_row(old["id"], token), old)

            written = self.table.get_all(self.r.args(params["roles"])).replace(
                shrunk, return_changes="always", durability="hard"
            )
            return written.do(
                lambda report: {
                    "error": report["first_error"].default(None),
                    "roles": report["changes"]
                    .default([])
                    .filter(lambda change: change["old_val"].ne(change["new_val"]))["new_val"][
                        "id"
                    ],
                }
            )

        return JsonTemplate(query)

    @cached_property
    def _batch(self) -> JsonTemplate:
        """An insert, in which each new row carries the parameters for the stored one.

        It takes three fifths of the time of an update of `get_all`, which reads rows twice and
        sends all parameters to every shard.
        """

        def on_conflict(_id: Any, old: Any, new: Any) -> Any:
            return new["params"].do(lambda own: old.merge(self._as_left(old, own)))

        def query(params: Any) -> Any:
            # A row with `minval` cannot be written, so none is created where none exists.
            rows = params.map(
                lambda values: {"id": values[4], "params": values, "never": self.r.minval}
            )
            return self._with_clock(
                self.table.insert(rows, conflict=on_conflict, durability="hard")
            )

        return JsonTemplate(query)

    def _as_left(self, old: Any, params: Any) -> Any:
        """Return what a renewal changes if the row is just as its holder left it.

        `params` is the list of holder, token, ttl and beat.
        """
        r = self.r
        as_left = r.and_(
            old["holder"].eq(params[0]),
            old["token"].eq(params[1]),
            old["ttl"].eq(params[2]),
            old["beat"].lt(params[3]),
            old["renewed_at"].le(r.now()),
        )
        return r.branch(as_left, {"beat": params[3], "renewed_at": r.now()}, {})

    def _renewed(self, old: Any, params: Any) -> Any:
        r = self.r
        changes = {
            "beat": params["beat"],
            "ttl": r.branch(old["ttl"].gt(params["ttl"]), old["ttl"], params["ttl"]),
            "renewed_at": r.branch(old["renewed_at"].gt(r.now()), old["renewed_at"], r.now()),
            "info": r.literal(
                r.branch(params.has_fields("info"), r.json(params["info"]), old["info"].default({}))
            ),
            "kept": params["keep"].default(old["kept"]).default(""),
        }
        return r.branch(swaps.is_held(params, old), old.merge(changes), old)


@lru_cache(maxsize=4)
def shared_queries(database: str, table: str) -> Queries:
    """Return the queries on a table. Stores of one process share them, because building one through
    the driver takes about 2 ms."""
    return Queries(database, table)


def _has_news(renewal: Renew) -> bool:
    """Return whether a renewal changes more than the lease."""
    return renewal.info is not None or renewal.keep is not None


def _renewal(renewal: Renew) -> dict[str, Any]:
    fields = {name: getattr(renewal, name) for name in ("role", "holder", "token", "beat", "ttl")}
    if renewal.info is not None:
        # As a text: an info that the server cannot read must not make the other renewals fail.
        fields["info"] = json.dumps(dict(renewal.info), allow_nan=False)
    if renewal.keep is not None:
        fields["keep"] = renewal.keep
    return fields
