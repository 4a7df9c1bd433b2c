"""The transactions that delete rows in etcd and raise the floor of their prefix (rule 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coord.core import swaps
from coord.core.operations import Retire
from coord.stores.etcd import era, floors, rows
from coord.stores.etcd.gateway import Answer, decode, encode
from coord.stores.etcd.rows import Keys, Row

MAX_ROLES = 60
"""Roles in one transaction: etcd takes 128 operations, and reading a role takes two."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A transaction that deletes the rows which are as they were read.

    Attributes:
        request: The transaction. It fails if somebody else has written the floor since it was read,
            or begun an era.
        requests: What it deletes, in the order of its answers.
    """

    request: dict[str, Any]
    requests: Sequence[Retire]


def parts(requests: Sequence[Retire]) -> list[list[Retire]]:
    """Return the requests by prefix, in parts that are one transaction each."""
    by_prefix: dict[str, list[Retire]] = {}
    for request in requests:
        by_prefix.setdefault(request.prefix, []).append(request)
    return [
        same[start : start + MAX_ROLES]
        for same in by_prefix.values()
        for start in range(0, len(same), MAX_ROLES)
    ]


def look(keys: Keys, part: Sequence[Retire]) -> dict[str, Any]:
    """Return the transaction that reads what `deletion` needs, all at the same moment."""
    names = [keys.floors + part[0].prefix]
    for request in part:
        names += [keys.lease(request.role), keys.kept(request.role)]
    ranges = [{"request_range": {"key": encode(name)}} for name in names]
    return {"success": [era.look(keys.era), *ranges]}


def deletion(keys: Keys, part: Sequence[Retire], answer: Answer) -> Deletion | None:
    """Return the transaction that deletes what may be deleted of `part`; None if nothing may.

    Args:
        keys: The names of the keys.
        part: Requests of one prefix.
        answer: The answer to `look`.

    Raises:
        RequestError: coord did not write a row or the floor.
    """
    present_era, *responses = answer["responses"]
    floor, *rows_of_part = [rows.pairs(response["response_range"]) for response in responses]
    unused = [
        (request, row)
        for request, lease, kept in zip(part, rows_of_part[::2], rows_of_part[1::2], strict=True)
        if lease
        for row in [rows.decode_row(request.role, lease[0])]
        if swaps.retire(row.now(), request, decode(kept[0].get("value", "")) if kept else "")
    ]
    if not unused:
        return None
    key = keys.floors + part[0].prefix
    kept_floor: Mapping[str, Any] = floor[0] if floor else {"mod_revision": "0"}
    before = floors.token_in(kept_floor, keys.floors) if floor else 0
    token = max(before, *(row.lease.token for _, row in unused))
    request = {
        "compare": [
            {"target": "MOD", "key": encode(key), "mod_revision": kept_floor["mod_revision"]},
            era.same(keys.era, era.read(present_era)),
        ],
        "success": [rows.put(key, str(token)), *(_delete(keys, row) for _, row in unused)],
    }
    return Deletion(request, [request for request, _ in unused])


def deleted(deletion: Deletion, answer: Answer) -> set[str]:
    """Return the roles whose rows the transaction deleted. The others were written meanwhile."""
    responses = answer["responses"][1:]
    return {
        request.role
        for request, response in zip(deletion.requests, responses, strict=True)
        if response["response_txn"].get("succeeded")
    }


def _delete(keys: Keys, row: Row) -> dict[str, Any]:
    role = row.lease.role
    key = encode(keys.lease(role))
    # The kept text is only ever written together with the row, so comparing the row is enough.
    deletes = [{"key": key}, {"key": encode(keys.kept(role))}, rows.all_with(keys.terms(role))]
    return {
        "request_txn": {
            "compare": [{"target": "MOD", "key": key, "mod_revision": str(row.revision)}],
            "success": [{"request_delete_range": each} for each in deletes],
        }
    }
