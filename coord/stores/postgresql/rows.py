"""Values of coord as parameters of the functions in PostgreSQL, and rows as leases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from coord.core.history import short_info
from coord.core.lease import Lease
from coord.core.operations import Claim, Override, Release, Renew, Retire

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def lease(row: Mapping[str, Any], role: str) -> Lease:
    """Return the lease in a row that a function answered with."""
    return Lease(
        role=role,
        holder=row["holder"],
        token=row["token"],
        beat=row["beat"],
        ttl=row["ttl"],
        renewed_at=row["renewed_at"],
        remaining=row["remaining"],
        info=decode_info(row["info"]),
        since=row["since"],
    )


def decode_info(text: str) -> dict[str, Any]:
    """Return the info in a column; what a person wrote there instead of an object is no info."""
    if text == "{}":
        return {}
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def encode_info(info: Mapping[str, Any]) -> str:
    """Return the text of the column `info`."""
    return _encode(dict(info)) if info else "{}"


def claim_parameters(claim: Claim) -> tuple[object, ...]:
    """Return the parameters of the function `claim`."""
    expected = claim.expected
    opening = _encode({"holder": claim.holder, "info": short_info(claim.info)})
    return (
        claim.role,
        claim.holder,
        claim.beat,
        float(claim.ttl),
        expected is not None,
        None if expected is None else expected.holder,
        None if expected is None else expected.token,
        None if expected is None else expected.beat,
        claim.takeover,
        None if claim.skew is None else float(claim.skew),
        claim.floor,
        encode_info(claim.info),
        f",{opening[1:-1]},",
        None if claim.lost is None else claim.lost[0],
        None if claim.lost is None else _encode(claim.lost[1]),
    )


def release_parameters(release: Release) -> tuple[object, ...]:
    """Return the parameters of the function `release`."""
    return (
        release.role,
        release.holder,
        release.token,
        release.beat,
        float(release.linger),
        release.to,
        _encode(release.reason),
        _encode(release.by),
        release.keep,
    )


def override_parameters(override: Override) -> tuple[object, ...]:
    """Return the parameters of the function `override`."""
    return (
        override.role,
        *override.expected,
        override.holder,
        override.beat,
        float(override.ttl),
        encode_info(override.info),
        _encode(override.reason),
        _encode(override.by),
    )


def retire_parameters(requests: Sequence[Retire]) -> tuple[object, ...]:
    """Return the parameters of the function `retire`, which deletes vacant rows only."""
    vacant = [request for request in requests if request.expected.holder is None]
    return (
        [request.role for request in vacant],
        [request.prefix for request in vacant],
        [request.expected.token for request in vacant],
        [request.expected.beat for request in vacant],
        [float(request.before) for request in vacant],
    )


def renew_parameters(renewals: Sequence[Renew]) -> tuple[object, ...]:
    """Return the parameters of the function `renew`."""
    keeps = [renewal.keep for renewal in renewals]
    return (
        [renewal.role for renewal in renewals],
        [renewal.holder for renewal in renewals],
        [renewal.token for renewal in renewals],
        [renewal.beat for renewal in renewals],
        [float(renewal.ttl) for renewal in renewals],
        [None if renewal.info is None else encode_info(renewal.info) for renewal in renewals],
        None if keeps.count(None) == len(keeps) else keeps,
    )


def in_columns(parameters: Sequence[tuple[object, ...]]) -> tuple[list[object], ...]:
    """Return the parameters of several calls as those of one call, each of which is an array."""
    return tuple(map(list, zip(*parameters, strict=True)))
