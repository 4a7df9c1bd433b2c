"""What a server's report on a swap means, as a `Result`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coord.core.lease import MAX_TOKEN, Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.errors import StoreRefused
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import errors
from coord.stores.rethinkdb.queries.rows import is_well_formed, lease


def failure(err: RequestError | StoreRefused) -> Failure:
    return err.failure() if isinstance(err, RequestError) else Failure.of_refusal(err)


def hit_foreign_row(written: Mapping[str, Any]) -> bool:
    """Return whether a quick swap found a row that a person edited. Then it has changed nothing."""
    error = str(written.get("first_error", ""))
    # A swap that may have been applied must not be sent again.
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
    """Return the results of renewals.

    Args:
        renewals: The renewals.
        outcome: The answer of the server.
        after_batch: Whether the same renewals were sent as a batch before, which may have applied
            some of them.
    """
    written, now = outcome["written"], outcome["now"]
    changes = written.get("changes", [])
    if written["errors"] and not any(change.get("error") for change in changes):
        # The server does not say which row could not be written, so no answer counts.
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
    """Return the result of a swap that was sent before in a batch.

    A row with the beat of the swap shows that the batch has applied it, because beats are unique.

    Args:
        swap: The swap.
        result: The result of the second request.
        doubtful: Whether the batch may have applied the swap. Then a failure is unknown (rule 8).
    """
    if doubtful and isinstance(result, Failure):
        return result._replace(unknown=True)
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
    """Return whether a quick claim that changed nothing may have misread the row, which a person
    may have edited."""
    if row is None:
        return False
    parsed = lease(row, None)
    as_expected = (
        claim.expected is not None
        and parsed.revision == claim.expected
        and (parsed.vacant or claim.takeover)
    )
    return not is_well_formed(row) or as_expected or parsed.token >= MAX_TOKEN
