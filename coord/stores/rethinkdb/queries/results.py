"""What a server's report on a swap means, as a `Result`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from coord.core.lease import MAX_TOKEN, Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.errors import StoreRefused
from coord.stores.rethinkdb import errors
from coord.stores.rethinkdb.errors import QueryError
from coord.stores.rethinkdb.queries.rows import is_well_formed, lease


def failure(err: QueryError | StoreRefused) -> Failure:
    return (
        err.failure()
        if isinstance(err, QueryError)
        else Failure(unknown=False, detail=str(err), permanent=True)
    )


def hit_foreign_row(written: Mapping[str, Any]) -> bool:
    """Whether a quick swap met a row that somebody wrote by hand. Then nothing was changed."""
    error = str(written.get("first_error", ""))
    # Never a second swap where the first may have been done.
    return bool(written["errors"]) and not (
        error.startswith(errors.REFUSAL) or errors.from_row(error).unknown
    )


def misread(claim: Claim, written: Mapping[str, Any]) -> bool:
    if written["errors"]:
        return hit_foreign_row(written)
    return bool(written["unchanged"]) and misread_row(claim, written["changes"][0]["new_val"])


def swapped(role: str, outcome: Mapping[str, Any]) -> Result:
    written = outcome["written"]
    if written["errors"]:
        return errors.from_row(written["first_error"]).failure()
    row = written["changes"][0]["new_val"]
    applied = written["replaced"] + written["inserted"] > 0
    return Answer(applied, lease(row, outcome["now"]) if row else Lease(role))


def renewed(
    renewals: Sequence[Renew], outcome: Mapping[str, Any], *, after_batch: bool
) -> list[Result]:
    """after_batch: the same renewals were tried as a batch just before, which may have applied
    some."""
    written, now = outcome["written"], outcome["now"]
    changes = written.get("changes", [])
    if written["errors"] and not any(change.get("error") for change in changes):
        # Some row could not be written, and the server does not say which: no answer is trusted.
        return [errors.from_row(written["first_error"]).failure()] * len(renewals)
    by_role = {
        row["id"]: one(row["id"], change, now) for change in changes if (row := _row(change))
    }
    results = [
        by_role.get(renewal.role, Answer(False, Lease(renewal.role))) for renewal in renewals
    ]
    return (
        [already_applied(*each) for each in zip(renewals, results, strict=True)]
        if after_batch
        else results
    )


def already_applied(
    swap: Renew | Claim | Release, result: Result, *, doubtful: bool = False
) -> Result:
    """Of one that was tried before, together with others: a row that bears its very beat, unique as
    those are, is what it made of it then. doubtful: it may have been applied then, so without a row
    nobody knows (rule 8)."""
    if doubtful and isinstance(result, Failure):
        return replace(result, unknown=True)
    if isinstance(result, Answer) and not result.applied and 0 < result.lease.beat == swap.beat:
        holder = None if isinstance(swap, Release) else swap.holder
        if result.lease.holder == holder and (
            isinstance(swap, Claim) or result.lease.token == swap.token
        ):
            return Answer(True, result.lease)
    return result


def _row(change: Mapping[str, Any]) -> dict[str, Any] | None:
    row: dict[str, Any] | None = change.get("new_val") or change.get("old_val")
    return row


def one(role: str, change: Mapping[str, Any], now: float) -> Result:
    if change.get("error"):
        return errors.from_row(change["error"]).failure()
    row = change.get("new_val")
    return Answer(change.get("old_val") != row, lease(row, now) if row else Lease(role))


def misread_row(claim: Claim, row: Mapping[str, Any] | None) -> bool:
    """Whether a quick claim that changed nothing may have taken this row, which it left, for what
    it is not."""
    if row is None:
        return False
    seen = lease(row, None)
    as_expected = (
        claim.expected is not None
        and seen.revision == claim.expected
        and (seen.vacant or claim.takeover)
    )
    return not is_well_formed(row) or as_expected or seen.token >= MAX_TOKEN
