"""Leases and terms as etcd holds them, and the transactions that swap them.

Keys, all with the prefix `/coord/NAMESPACE/`: `l/ROLE` is the lease as JSON; `p/ROLE\\0TOKEN` is a
term and `p/ROLE\\0TOKEN.e` its end; `k/ROLE` is the text that the role keeps; `f/PREFIX` is a floor
(`floors.py`). A role has no NUL in it, so these prefixes are unambiguous. A renewal writes the
lease only, so neither the history nor the kept text costs it anything.

No key hangs on a lease of etcd: see the page about etcd for the reasons.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coord.core import history, swaps
from coord.core.history import MAX_TERMS, PastTerm, parse
from coord.core.lease import Lease
from coord.core.operations import Claim, Override, Release, Renew
from coord.core.validation import is_number
from coord.stores import failures
from coord.stores.etcd.floors import Floors
from coord.stores.etcd.gateway import Answer, decode, encode, end_of_prefix
from coord.stores.etcd.url import EtcdURL

TOKEN_DIGITS = 16
"""Digits of 2^53, so that keys sort by token."""

_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Row:
    """A lease with the revision of its key; revision 0 means that the key does not exist.

    Attributes:
        revision: The `mod_revision` of the key. No two writes of an era leave the same one, so
            comparing it is comparing holder, token and beat.
        lease: The lease; `remaining` is from `expires_at`.
        expires_at: When the lease expires, in seconds since 1970 by the clock of the client that
            wrote it. For people, and for takeover only if the URL allows it.
    """

    revision: int
    lease: Lease
    expires_at: float = 0.0

    def now(self) -> Lease:
        """Return the lease with `remaining` counted from now."""
        lease = self.lease
        if lease.vacant:
            return lease
        remaining = self.expires_at - time.time()
        rest = lease.ttl, lease.renewed_at, remaining, lease.info, lease.since
        return Lease(lease.role, lease.holder, lease.token, lease.beat, *rest)


class Keys:
    """The names of the keys of one namespace."""

    def __init__(self, url: EtcdURL) -> None:
        self.leases = f"{url.prefix}l/"
        self._terms = f"{url.prefix}p/"
        self._kept = f"{url.prefix}k/"
        self.floors = f"{url.prefix}f/"
        self.era = f"{url.prefix}e"
        self.announcements, self.candidates = f"{url.prefix}a/", f"{url.prefix}c/"

    def lease(self, role: str) -> str:
        """Return the key of the lease of `role`."""
        return self.leases + role

    def kept(self, role: str) -> str:
        """Return the key of the text that `role` keeps."""
        return self._kept + role

    def terms(self, role: str) -> str:
        """Return the prefix of the history of `role`."""
        return f"{self._terms}{role}\0"

    def all_terms(self) -> str:
        """Return the prefix of the history of every role."""
        return self._terms

    def role_of_term(self, key: str) -> str:
        """Return the role of a key of the history."""
        return key.removeprefix(self._terms).partition("\0")[0]

    def term(self, role: str, token: int) -> str:
        """Return the key of a term."""
        return f"{self.terms(role)}{token:0{TOKEN_DIGITS}d}"


def absent(role: str) -> Row:
    """Return the row of a role that nobody has claimed."""
    return Row(0, Lease(role))


def decode_row(role: str, pair: Mapping[str, Any]) -> Row:
    """Return the row in a key and its value.

    Raises:
        RequestError: coord did not write it.
    """
    try:
        fields = json.loads(decode(pair["value"]))
        holder, info = fields["holder"], fields["info"]
        numbers = [fields[name] for name in ("token", "beat", "ttl", "renewed", "expires", "since")]
        is_valid = all(is_number(number) for number in numbers)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid or not (holder is None or isinstance(holder, str)):
        raise failures.damaged(role)
    token, beat, ttl, renewed, expires, since = numbers
    lease = Lease(
        role,
        holder,
        int(token),
        int(beat),
        float(ttl),
        float(renewed),
        0.0,
        info if isinstance(info, dict) else {},
        float(since),
    )
    return Row(int(pair["mod_revision"]), lease, float(expires))


def encode_lease(lease: Lease, expires_at: float) -> str:
    """Return the value of the key of a lease."""
    return _json(
        {
            "holder": lease.holder,
            "token": lease.token,
            "beat": lease.beat,
            "ttl": lease.ttl,
            "renewed": lease.renewed_at,
            "expires": expires_at,
            "since": lease.since,
            "info": dict(lease.info),
        }
    )


@dataclass(frozen=True, slots=True)
class Swap:
    """A transaction that writes a row if nobody else wrote it, and otherwise reads it.

    If it expects no row, it also compares the floors, and otherwise reads them, too.

    Attributes:
        request: The transaction.
        before: The row that it expects.
        after: The lease that it writes.
        expires_at: When that lease expires.
    """

    request: dict[str, Any]
    before: Row
    after: Lease
    expires_at: float


def swap(
    keys: Keys, row: Row, operation: Claim | Override | Renew | Release, floors: Floors
) -> Swap | None:
    """Return the transaction for an operation on `row`; None if the rules refuse it."""
    now, wall = row.now(), time.time()
    writes: list[dict[str, Any]] = []
    if isinstance(operation, Claim):
        after = swaps.claim(now, operation, wall)
    elif isinstance(operation, Renew):
        after = swaps.renew(now, operation, wall)
    elif isinstance(operation, Override):
        after = swaps.override(now, operation, wall)
    else:
        after = swaps.release(now, operation, wall)
    if after is None:
        return None
    is_first = row.revision == 0
    if is_first and isinstance(operation, (Claim, Override)):
        after = swaps.born(after, operation, floors.of(operation.role))
    expires_at = 0.0 if after.vacant else wall + after.remaining
    key = keys.lease(operation.role)
    writes.append(put(key, encode_lease(after, expires_at)))
    if not isinstance(operation, Renew):
        writes += _history(keys, now, operation, after, wall)
    if isinstance(operation, (Renew, Release)) and operation.keep is not None:
        # Another key, but the same transaction: it is written only if the lease is as it was seen.
        writes.append(put(keys.kept(operation.role), operation.keep))
    request: dict[str, Any] = {
        "compare": [{"target": "MOD", "key": encode(key), "mod_revision": str(row.revision)}],
        "success": writes,
        "failure": [{"request_range": {"key": encode(key)}}],
    }
    if is_first:
        request["compare"].append(floors.unchanged())
        request["failure"].append({"request_range": floors.range()})
    return Swap(request, row, after, expires_at)


def _history(
    keys: Keys, row: Lease, operation: Claim | Override | Release, after: Lease, wall: float
) -> list[dict[str, Any]]:
    until, reason, by = history.end_of_term(row, operation, wall)
    if not isinstance(operation, Claim):
        end = _json({"until": until, "reason": reason, "by": by})
        key = f"{keys.term(row.role, row.token)}.e"
        # A term ends once: the term of a lease that lingers, or was revoked, has ended before.
        absent_yet = {"target": "VERSION", "key": encode(key), "version": "0"}
        return [{"request_txn": {"compare": [absent_yet], "success": [put(key, end)]}}]
    entry = history.new_entry(operation, after.token, wall)
    # The end of a term is a key of its own, and the first line that names a field counts.
    opened = {name: entry[name] for name in ("token", "holder", "info", "since")}
    if row.holder is not None:
        opened["ended"] = [until, reason]
    first_kept = keys.term(row.role, max(after.token - MAX_TERMS + 1, 0))
    old = {"key": encode(keys.terms(row.role)), "range_end": encode(first_kept)}
    return [
        put(keys.term(row.role, after.token), _json(opened)),
        {"request_delete_range": old},
    ]


def put(key: str, value: str, lease: int = 0) -> dict[str, Any]:
    """Return the part of a transaction that writes a key."""
    attached = {"lease": str(lease)} if lease else {}
    return {"request_put": {"key": encode(key), "value": encode(value), **attached}}


def all_with(prefix: str) -> dict[str, Any]:
    """Return the range of all keys that begin with `prefix`."""
    return {"key": encode(prefix), "range_end": end_of_prefix(prefix)}


def pairs(answer: Answer) -> Sequence[Mapping[str, Any]]:
    """Return the keys and values in the answer to a range."""
    items: Sequence[Mapping[str, Any]] = answer.get("kvs", [])
    return items


def terms(keys: Keys, items: Sequence[Mapping[str, Any]]) -> list[PastTerm]:
    """Return the terms in keys of the history, newest first within a role."""
    begins: dict[str, dict[str, str]] = {}
    ends: dict[tuple[str, str], str] = {}
    for pair in items:
        key, text = decode(pair["key"]), decode(pair["value"])
        role, token = keys.role_of_term(key), key.rpartition("\0")[2]
        if token.endswith(".e"):
            ends[role, token.removesuffix(".e")] = f"\n{text}"
        else:
            begins.setdefault(role, {})[token] = text
    return [
        term
        for role, texts in sorted(begins.items())
        for term in parse(
            role,
            [texts[token] + ends.get((role, token), "") for token in sorted(texts)][-MAX_TERMS:],
        )
    ]
