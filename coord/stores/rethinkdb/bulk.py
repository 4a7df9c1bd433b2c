"""Claims and releases of many roles, a query for all of one kind: `rules.py`, said of rows that a query brings along.

An insert, in which each row meets the one that is there (`conflict=`), as in `queries._batch`. It looks at the type of
every field, for a second query would be one for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coord.lease import MAX_TOKEN
from coord.operations import Answer, Claim, Release, Result
from coord.stores.rethinkdb import answers, careful, claims, driver, history, releases
from coord.stores.rethinkdb.claims import Shape
from coord.stores.rethinkdb.templates import Template

Kind = Shape | str
"""Of a claim, which parts it has."""
RELEASE, ALONE = "release", "alone"
MOST = 500
"""Swaps to one query."""
_KEY = "role "
"""Before the roles that are keys of an object, where `$reql_type$` would mean something."""


def parts(asked: Sequence[Claim | Release]) -> list[tuple[Kind, list[Claim | Release]]]:
    """What goes as one query each, but for those of `ALONE`."""
    kinds: dict[Kind, list[Claim | Release]] = {}
    for one in asked:
        kinds.setdefault(_kind(one), []).append(one)
    return [(kind, some[at : at + MOST]) for kind, some in kinds.items() for at in range(0, len(some), MOST)]


def _kind(swap: Claim | Release) -> Kind:
    if isinstance(swap, Claim):
        return Shape.of(swap, careful=True)
    return RELEASE if swap.linger <= 0 else ALONE  # which hands over, or lets the lease rest


class BulkQueries:
    """Queries, ready to be sent, on one table. The answer to each is {written: the server's report, now: its clock}."""

    def __init__(self, table: Any) -> None:
        self._r, self._table = driver.reql(), table
        self._templates: dict[Kind, Template] = {}

    def swaps(self, of: Kind, asked: Sequence[Claim | Release]) -> bytes:
        """All of them are of that kind, and for different roles."""
        if of not in self._templates:
            self._templates[of] = Template(lambda given: self._inserted(given, of))
        return self._templates[of].fill([_parameters(one) for one in asked])

    def _inserted(self, given: Any, of: Kind) -> Any:
        r = self._r

        def met(_id: Any, old: Any, _new: Any, by_role: Any) -> Any:
            return by_role[r.expr(_KEY) + old["id"]].do(lambda asked: self._swapped(asked, old, of))

        def inserted(by_role: Any) -> Any:
            return self._table.insert(
                given.map(lambda asked: self._fresh(asked, of)),
                conflict=lambda key, old, new: met(key, old, new, by_role),
                return_changes="always",
                durability="hard",
            )

        written = given.map(lambda asked: [r.expr(_KEY) + asked["role"], asked]).coerce_to("object").do(inserted)
        # The terms of a row are most of it, and no part of the answer.
        unasked = {"changes": {"old_val": {"history": True}, "new_val": {"history": True}}}
        return written.do(lambda report: {"written": report.without(unasked), "now": r.now().to_epoch_time()})

    def _fresh(self, asked: Any, of: Kind) -> Any:
        """What is there after a claim of a role that has no row. Where none is to be made, what cannot be written."""
        r = self._r
        nothing = {"id": asked["role"], "never": r.minval}
        if not isinstance(of, Shape):
            return nothing
        blank = r.expr(claims.blank())
        return r.branch(claims.may_be_had(asked, blank, of), claims.taken(asked, blank, of), nothing)

    def _swapped(self, asked: Any, old: Any, of: Kind) -> Any:
        r = self._r
        if not isinstance(of, Shape):
            told = {"renewed_at": r.now(), "history": history.after_careful_release(asked, old), **releases.left(asked)}
            return r.branch(releases.mine(asked, old), old.merge(told), old)

        def had(row: Any) -> Any:
            # An error would be one for all of them.
            may_be = r.and_(row["token"].lt(MAX_TOKEN), claims.may_be_had(asked, row, of))
            return r.branch(may_be, claims.taken(asked, row, of), old)

        return careful.view(old).do(had)


def results(asked: Sequence[Claim | Release], outcome: Mapping[str, Any]) -> list[Result | None]:
    """What came of each; None where the answer does not say, or nothing came of it for a reason of its own."""
    rows = {}
    for change in outcome["written"].get("changes", []):
        row = change.get("new_val") or change.get("old_val")
        if row and not change.get("error"):
            rows[row["id"]] = answers.one(row["id"], change, outcome["now"])
    return [_unless_refused(one, rows.get(one.role)) for one in asked]


def _unless_refused(asked: Claim | Release, result: Result | None) -> Result | None:
    at_its_end = isinstance(result, Answer) and not result.applied and result.lease.token >= MAX_TOKEN
    return None if at_its_end and isinstance(asked, Claim) else result


def _parameters(asked: Claim | Release) -> dict[str, Any]:
    if isinstance(asked, Claim):
        return claims.parameters(asked)
    fields = {name: getattr(asked, name) for name in ("role", "holder", "token", "beat")}
    return {**fields, **history.closing(asked)}
