"""The queries on the table of leases: `stores/rules.py`, said in ReQL, so that one query reads, decides and writes.

A lease runs out at `renewed_at + ttl` by `r.now()`, which is one constant within a query: the wall clock of the server
that got it. A row that was written by hand may hold anything; `view` is total, and what it cannot use is a vacant lease
that keeps its token. Rows are compared as `view` shows them, to the servers as to us.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from coord.checks import MAX_TTL
from coord.lease import MAX_TOKEN, Lease
from coord.operations import Claim, Release, Renew
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.url import RethinkURL

_KEY = "role "
"""Before the roles that are keys of an object, where `$reql_type$` would mean something."""


class Queries:
    """Terms, ready to be run. Nothing here talks to a server."""

    def __init__(self, url: RethinkURL) -> None:
        self.r = driver.reql()
        self.table = self.r.db(url.database).table(url.table)
        self.up_to_date = self.r.db(url.database).table(url.table, read_mode="majority")

    # -- swaps: each answers with {changed, errors, first_error, rows: [{row, changed, error}]} --------------------

    def claim(self, asked: Claim) -> Any:
        """rules.claim"""
        r = self.r

        def decide(row: Any) -> Any:
            may = r.or_(
                row["holder"].eq(None),
                r.and_(row["holder"].eq(asked.holder), row["beat"].lt(asked.beat)),
                asked.takeover,
                False if asked.skew is None else row["remaining"].lt(-asked.skew),
            )
            if asked.expected is not None:
                seen = asked.expected
                may = r.and_(row["holder"].eq(seen.holder), row["token"].eq(seen.token), row["beat"].eq(seen.beat), may)
            return may

        def after(_old: Any, row: Any) -> Any:
            return {
                "id": asked.role,
                "holder": asked.holder,
                "token": r.branch(
                    row["token"].lt(MAX_TOKEN),
                    r.expr([row["token"], asked.floor]).max() + 1,
                    r.error(f"{errors.REFUSAL}the token is at its end"),
                ),
                "beat": asked.beat,
                "ttl": asked.ttl,
                "renewed_at": r.now(),
                "info": r.json(_text(asked.info)),
            }

        return self._swap(asked.role, decide, after)

    def release(self, asked: Release) -> Any:
        """rules.release"""

        def after(old: Any, _row: Any) -> Any:
            left = {"ttl": asked.linger} if asked.linger > 0 else {"holder": None}
            return old.merge({**left, "beat": asked.beat, "renewed_at": self.r.now()})

        def decide(row: Any) -> Any:
            return self.r.and_(row["holder"].eq(asked.holder), row["token"].eq(asked.token), row["beat"].lt(asked.beat))

        return self._swap(asked.role, decide, after)

    def renew(self, renewals: Sequence[Renew]) -> Any:
        """rules.renew, for all of them at once. Rows that do not exist are not in the answer."""
        r = self.r
        asked_for = {
            _KEY + one.role: {"holder": one.holder, "token": one.token, "beat": one.beat, "ttl": one.ttl}
            # A text within the text: what the server cannot read of one row's info must not fail the others.
            | ({} if one.info is None else {"info": _text(one.info)})
            for one in renewals
        }

        def renewed(old: Any, asked: Any) -> Any:
            # Not by way of `view`, which would take three quarters of the time of a batch.
            mine = r.and_(
                old["holder"].default(None).eq(asked["holder"]),
                old["token"].default(None).eq(asked["token"]),
                self._held(old),
                old["beat"].lt(asked["beat"]),
            )
            changed = {
                "beat": asked["beat"],
                "ttl": r.branch(old["ttl"].gt(asked["ttl"]), old["ttl"], asked["ttl"]),
                "renewed_at": r.branch(old["renewed_at"].gt(r.now()), old["renewed_at"], r.now()),
                "info": r.literal(r.branch(asked.has_fields("info"), r.json(asked["info"]), old["info"].default({}))),
            }
            return r.branch(mine, old.merge(changed), old)

        def all_of(asked: Any) -> Any:
            written = self.table.get_all(*(one.role for one in renewals)).replace(
                lambda old: asked[r.expr(_KEY) + old["id"]].do(lambda mine: renewed(old, mine)),
                return_changes="always",
                durability="hard",
            )
            return self._outcome(written)

        return r.json(_text(asked_for)).do(all_of)

    # -- reads ---------------------------------------------------------------------------------------------------

    def read(self, roles: Collection[str] | None) -> Any:
        """Rows as `view` shows them, as last committed by a majority."""
        rows = self.up_to_date if roles is None else self.up_to_date.get_all(*roles)
        return rows.map(lambda row: self._view(row))  # noqa: PLW0108 # the driver counts a function's parameters

    def watch(self, roles: Collection[str]) -> Any:
        """The same rows as they change. Heartbeats are in it: a sight of one is what a takeover is counted from."""
        hints = self.table.get_all(*roles).map(lambda row: self._view(row, timed=False))
        return hints.changes(include_initial=True, squash=False)

    # -- what they are made of -----------------------------------------------------------------------------------

    def _swap(self, role: str, decide: Any, after: Any) -> Any:
        """Replace the row of `role`, existing or not, by `after` where `decide`; both see it as `view` shows it."""
        r = self.r
        blank = {"id": role, "holder": None, "token": 0, "beat": 0, "ttl": 0, "remaining": 0}

        def replaced(old: Any) -> Any:
            row = r.branch(old.eq(None), r.expr(blank), self._view(old))
            return row.do(lambda seen: r.branch(decide(seen), after(old, seen), old))

        written = self.table.get(role).replace(replaced, return_changes="always", durability="hard")
        return self._outcome(written)

    def _outcome(self, written: Any) -> Any:
        """The rows after the write and, in the same query, by the same clock, how long they have left."""
        r = self.r

        def row(change: Any) -> Any:
            new = change["new_val"].default(None)
            changed = change["old_val"].default(None).ne(new)
            return {
                # What we have written needs no looking into; it is nearly all that there is in a batch of renewals.
                "row": r.branch(changed, self._plain(new), new.eq(None), None, self._view(new)),
                "changed": changed,
                "error": change["error"].default(""),
            }

        return written.do(
            lambda result: {
                "errors": result["errors"],
                "first_error": result["first_error"].default(""),
                "rows": result["changes"].default([]).map(row),
            }
        )

    def _plain(self, row: Any) -> Any:
        """What `view` makes of a row that a swap has just written."""
        left = row["renewed_at"].to_epoch_time() + row["ttl"] - self.r.now().to_epoch_time()
        timed = {"renewed_at": row["renewed_at"].to_epoch_time(), "remaining": left}
        return row.pluck("id", "holder", "token", "beat", "ttl", "info").merge(timed)

    def _view(self, row: Any, timed: bool = True) -> Any:
        """The row with every field of its right type, whatever is stored. `timed`: with what is left of it."""
        r = self.r

        held = self._held(row)

        def count(name: str) -> Any:
            return r.branch(r.and_(self._kind(row, name).eq("NUMBER"), row[name].gt(0)), row[name].floor(), 0)

        renewed_at = r.branch(self._kind(row, "renewed_at").eq("PTYPE<TIME>"), row["renewed_at"].to_epoch_time(), 0)
        fields: dict[str, Any] = {
            "id": row["id"],
            "holder": r.branch(held, row["holder"], None),
            "token": r.expr([count("token"), MAX_TOKEN]).min(),
            "beat": count("beat"),
            "ttl": r.branch(self._has_ttl(row), row["ttl"], 0),
        }
        if timed:
            left = row["renewed_at"].to_epoch_time() + row["ttl"] - r.now().to_epoch_time()
            fields |= {
                "renewed_at": renewed_at,
                "remaining": r.branch(held, left, 0),
                "info": r.branch(self._kind(row, "info").eq("OBJECT"), row["info"], {}),
            }
        return r.expr(fields)

    def _held(self, row: Any) -> Any:
        """Whether the row is a whole one with a holder in it. All others are vacant."""
        kinds = {"holder": "STRING", "token": "NUMBER", "beat": "NUMBER", "renewed_at": "PTYPE<TIME>"}
        right = (self._kind(row, name).eq(kind) for name, kind in kinds.items())
        return self.r.and_(*right, self._has_ttl(row), row["holder"].ne(""))

    def _has_ttl(self, row: Any) -> Any:
        is_number = self._kind(row, "ttl").eq("NUMBER")
        return self.r.and_(is_number, row["ttl"].gt(0), row["ttl"].le(MAX_TTL))

    @staticmethod
    def _kind(row: Any, name: str) -> Any:
        return row[name].default(None).type_of()


def _text(value: Mapping[str, Any]) -> str:
    """For `r.json`: deeper than the driver lets us nest, and quicker to make than terms."""
    return json.dumps(dict(value), allow_nan=False)


def lease(row: dict[str, Any]) -> Lease:
    """The lease that a `view` shows. A feed has no clock: there a held lease has its whole ttl left."""
    held = row["holder"] is not None
    return Lease(
        role=row["id"],
        holder=row["holder"],
        token=int(row["token"]),
        beat=int(row["beat"]),
        ttl=float(row["ttl"]),
        renewed_at=float(row.get("renewed_at", 0.0)),
        remaining=float(row.get("remaining", row["ttl"])) if held else 0.0,
        info=row["info"] if isinstance(row.get("info"), dict) else {},
    )
