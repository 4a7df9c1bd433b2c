"""The queries on the table of leases: `stores/rules.py`, said in ReQL, so that one query reads,
decides and writes.

A lease runs out at `renewed_at + ttl` by `r.now()`, which is one constant within a query: the wall
clock of the server that got it. A claim has two forms. The quick one takes the row as coord writes
it. Where a row written by hand makes it fail, or be refused, it has changed nothing, and the
strict one is put instead: it looks at the type of every field."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from coord.core.lease import Revision
from coord.core.operations import Claim, Release, Renew
from coord.stores.rethinkdb import driver
from coord.stores.rethinkdb.driver import InlineTemplate, JsonTemplate
from coord.stores.rethinkdb.queries import rows as row_views
from coord.stores.rethinkdb.queries import swaps
from coord.stores.rethinkdb.queries.bulk import BulkQueries
from coord.stores.rethinkdb.queries.rows import FIELDS
from coord.stores.rethinkdb.queries.swaps import ClaimShape
from coord.stores.rethinkdb.url import RethinkURL

_KEY = "role "
"""Before the roles that are keys of an object, where `$reql_type$` would mean something."""

_BATCH = 8
"""Renewals from which on rows are not sent back: that saves more than a second query, now and then,
costs."""


class Queries:
    """Queries, ready to be sent. Nothing here talks to a server.

    A swap answers with {written: the server's report with the rows, now: its clock}.
    """

    def __init__(self, url: RethinkURL) -> None:
        self.r = driver.reql()
        self.table = self.r.db(url.database).table(url.table)
        self._claims: dict[ClaimShape, InlineTemplate] = {}
        self.bulk = BulkQueries(self.table)
        self.up_to_date = self.r.db(url.database).table(url.table, read_mode="majority")

    def claim(self, asked: Claim, *, strict: bool = False) -> bytes:
        """rules.claim"""
        shape = ClaimShape.of(asked, strict)
        if shape not in self._claims:
            self._claims[shape] = InlineTemplate(lambda given: self._claim(given, shape))
        return self._claims[shape].fill(swaps.parameters(asked))

    def warm_up(self, asked: Claim) -> list[Callable[[], object]]:
        """Each builds one of the queries that follow upon such a claim: its candidate gives the
        role back, or takes it when another does, or fails to renew."""
        follower = replace(asked, lost=None, takeover=False)
        given_back, run_out = (
            Revision(holder, 1, asked.beat) for holder in (None, f"not {asked.holder}")
        )
        return [
            lambda: self._release,
            lambda: self.claim(replace(follower, expected=given_back)),
            lambda: self.claim(replace(follower, expected=run_out, takeover=True)),
        ]

    def release(self, asked: Release, *, strict: bool = False) -> bytes:
        """rules.release"""
        form = self._strict_release if strict else self._release
        if asked.linger > 0:
            form = self._lingering if asked.to is None else self._handover
        return form.fill(
            {**{name: getattr(asked, name) for name in asked.__slots__}, **swaps.closing(asked)}
        )

    def renew_one(self, asked: Renew) -> bytes | None:
        """rules.renew, as `renew_all` says it, for one: {written, now}."""
        return None if asked.info is not None else self._quick_renewal.fill(_renewal(asked))

    def renew(self, renewals: Sequence[Renew]) -> bytes:
        """rules.renew, for all of them at once. Rows that do not exist are not in the answer."""
        if len(renewals) == 1:
            return self._one_renewal.fill(_renewal(renewals[0]))
        asked = {_KEY + one.role: _renewal(one) for one in renewals}
        return self._renewals.fill({"roles": [one.role for one in renewals], "asked": asked})

    def renew_all(self, renewals: Sequence[Renew]) -> bytes | None:
        """rules.renew for rows that are just as their holders left them, with no row in the answer:
        {replaced: count}.

        What differs in anything (another holder, another ttl, a clock that stepped back) is left
        for `renew`, which knows by its beat what has been renewed here. None when these renewals
        cannot be put so."""
        if len(renewals) < _BATCH or any(one.info is not None for one in renewals):
            return None
        return self._batch.fill(
            [(one.holder, one.token, one.ttl, one.beat, one.role) for one in renewals]
        )

    def read(self, roles: Collection[str] | None) -> Any:
        """Rows as last committed by a majority, each with the server's clock."""
        rows = self.up_to_date if roles is None else self.up_to_date.get_all(*roles)
        return rows.without("history").map(
            lambda row: {"row": row, "now": self.r.now().to_epoch_time()}
        )

    def history(self, roles: Collection[str] | None) -> Any:
        """The terms that rows remember, by role."""
        rows = self.up_to_date if roles is None else self.up_to_date.get_all(*roles)
        return rows.pluck("id", "history")

    def watch(self, roles: Collection[str] | None) -> Any:
        """The same rows as they change. Heartbeats are in it: a sight of one is what a takeover is
        counted from."""
        rows = self.table if roles is None else self.table.get_all(*roles)
        return rows.pluck(*FIELDS).changes(include_initial=True, squash=False)

    # -- what they are made of
    # -----------------------------------------------------------------------------------

    def _claim(self, asked: Mapping[str, Any], shape: ClaimShape) -> Any:
        r = self.r
        blank = swaps.blank()

        def replaced(old: Any, row: Any) -> Any:
            return r.branch(swaps.may_claim(asked, row, shape), swaps.taken(asked, row, shape), old)

        def strictly(old: Any) -> Any:
            return r.branch(old.eq(None), blank, row_views.strict_view(old)).do(
                lambda row: replaced(old, row)
            )

        def quickly(old: Any) -> Any:
            if shape.expected:  # then there is one
                return replaced(old, old)
            return old.default(blank).do(lambda row: replaced(old, row))

        return self._swap(asked, strictly if shape.strict else quickly)

    @cached_property
    def _release(self) -> InlineTemplate:
        def released(asked: Mapping[str, Any]) -> Any:
            row = self.r.row
            return self.r.branch(swaps.mine(asked, row), swaps.given_back(asked, row), {})

        def one(asked: Mapping[str, Any]) -> Any:
            row = self.table.get(asked["role"])
            return self._report(
                row.update(released(asked), return_changes="always", durability="hard")
            )

        return InlineTemplate(one)

    @cached_property
    def _strict_release(self) -> InlineTemplate:
        return InlineTemplate(lambda asked: self._given_back(asked, swaps.left))

    @cached_property
    def _lingering(self) -> InlineTemplate:
        return InlineTemplate(lambda asked: self._given_back(asked, swaps.lingers))

    @cached_property
    def _handover(self) -> InlineTemplate:
        return InlineTemplate(lambda asked: self._given_back(asked, swaps.handed_over))

    def _given_back(
        self, asked: Mapping[str, Any], after: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> Any:
        r = self.r

        def replaced(old: Any) -> Any:
            told = {
                "renewed_at": r.now(),
                "history": swaps.after_strict_release(asked, old),
                **after(asked),
            }
            return r.branch(swaps.mine(asked, old), old.merge(told), old)

        return self._swap(asked, replaced)

    def _swap(self, asked: Mapping[str, Any], replaced: Callable[[Any], Any]) -> Any:
        """Put the row of `asked["role"]`, existing or not, through `replaced`."""
        row = self.table.get(asked["role"])
        return self._report(row.replace(replaced, return_changes="always", durability="hard"))

    def _report(self, written: Any) -> Any:
        # The terms of a row are most of it, and no part of the answer.
        unasked = {"changes": {"old_val": True, "new_val": {"history": True}}}
        return self._with_clock(written, lambda report: report.without(unasked))

    def _with_clock(self, written: Any, told: Callable[[Any], Any] = lambda report: report) -> Any:
        return written.do(
            lambda report: {"written": told(report), "now": self.r.now().to_epoch_time()}
        )

    @cached_property
    def _quick_renewal(self) -> InlineTemplate:
        def one(asked: Mapping[str, Any]) -> Any:
            as_asked = [asked["holder"], asked["token"], asked["ttl"], asked["beat"]]
            row = self.table.get(asked["role"])
            return self._with_clock(
                row.update(self._as_left(self.r.row, as_asked), durability="hard")
            )

        return InlineTemplate(one)

    @cached_property
    def _one_renewal(self) -> JsonTemplate:
        def one(asked: Any) -> Any:
            written = self.table.get(asked["role"]).replace(
                lambda old: self.r.branch(old.eq(None), old, self._renewed(old, asked)),
                return_changes="always",
                durability="hard",
            )
            return self._with_clock(written)

        return JsonTemplate(one)

    @cached_property
    def _renewals(self) -> JsonTemplate:
        def all_of(asked: Any) -> Any:
            written = self.table.get_all(self.r.args(asked["roles"])).replace(
                lambda old: asked["asked"][self.r.expr(_KEY) + old["id"]].do(
                    lambda mine: self._renewed(old, mine)
                ),
                return_changes="always",
                durability="hard",
            )
            return self._with_clock(written)

        return JsonTemplate(all_of)

    @cached_property
    def _batch(self) -> JsonTemplate:
        """An insert, in which each row meets the one that is there and brings what is asked of it.
        It takes three fifths of what an update of `get_all` takes: that reads rows twice, and hands
        all that is asked on to every few."""

        def met(_id: Any, old: Any, new: Any) -> Any:
            return new["asked"].do(lambda mine: old.merge(self._as_left(old, mine)))

        def all_of(asked: Any) -> Any:
            # A row with `minval` in it cannot be written: where there is none to meet, none is
            # made.
            rows = asked.map(lambda one: {"id": one[4], "asked": one, "never": self.r.minval})
            return self.table.insert(rows, conflict=met, durability="hard")

        return JsonTemplate(all_of)

    def _as_left(self, old: Any, asked: Any) -> Any:
        """What a renewal changes where the row is just as its holder left it. asked: holder, token,
        ttl, beat."""
        r = self.r
        as_left = r.and_(
            old["holder"].eq(asked[0]),
            old["token"].eq(asked[1]),
            old["ttl"].eq(asked[2]),
            old["beat"].lt(asked[3]),
            old["renewed_at"].le(r.now()),
        )
        return r.branch(as_left, {"beat": asked[3], "renewed_at": r.now()}, {})

    def _renewed(self, old: Any, asked: Any) -> Any:
        r = self.r
        changed = {
            "beat": asked["beat"],
            "ttl": r.branch(old["ttl"].gt(asked["ttl"]), old["ttl"], asked["ttl"]),
            "renewed_at": r.branch(old["renewed_at"].gt(r.now()), old["renewed_at"], r.now()),
            "info": r.literal(
                r.branch(asked.has_fields("info"), r.json(asked["info"]), old["info"].default({}))
            ),
        }
        return r.branch(swaps.mine(asked, old), old.merge(changed), old)


def _renewal(asked: Renew) -> dict[str, Any]:
    fields = {name: getattr(asked, name) for name in ("role", "holder", "token", "beat", "ttl")}
    # A text of its own: what the server cannot read of one row's info must not fail the others.
    return (
        fields
        if asked.info is None
        else {**fields, "info": json.dumps(dict(asked.info), allow_nan=False)}
    )
