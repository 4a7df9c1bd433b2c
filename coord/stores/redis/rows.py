"""What the scripts take and answer, as values of coord."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coord.core.history import PastTerm, parse, short_info
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Override, Release, Renew, Result, Retire
from coord.errors import StoreRefused
from coord.stores import failures
from coord.stores.failures import RequestError
from coord.stores.redis import errors
from coord.stores.redis.connection import Word
from coord.stores.redis.url import RedisURL

MAX_TIME = 9e9
"""Seconds since 1970, later than every valid time."""

_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Keys:
    """The names of the keys and channels of one namespace."""

    def __init__(self, url: RedisURL) -> None:
        prefix = url.prefix
        self.meta, self.roles = f"{prefix}meta", f"{prefix}roles"
        self._lease, self._history, self._channel = f"{prefix}l:", f"{prefix}p:", f"{prefix}f:l:"
        self.all_channels = f"{prefix}f:l:*"

    def lease(self, role: str) -> str:
        """Return the key of the lease of `role`."""
        return self._lease + role

    def history(self, role: str) -> str:
        """Return the key of the history of `role`."""
        return self._history + role

    def channel(self, role: str) -> str:
        """Return the channel on which each change of the lease of `role` is published."""
        return self._channel + role


def microseconds(seconds: float) -> int:
    """Return a duration in the unit of the scripts."""
    return round(seconds * 1_000_000)


def claim_words(keys: Keys, claim: Claim) -> tuple[list[str], list[Word]]:
    """Return the keys and arguments of the script `CLAIM`."""
    expected, lost = claim.expected, claim.lost
    info = _json(dict(claim.info))
    return (
        [keys.lease(claim.role), keys.history(claim.role), keys.roles, keys.meta],
        [
            claim.role,
            claim.holder,
            claim.beat,
            repr(float(claim.ttl)),
            microseconds(claim.ttl),
            "-" if expected is None else "=" + (expected.holder or ""),
            0 if expected is None else expected.token,
            0 if expected is None else expected.beat,
            int(claim.takeover),
            "" if claim.skew is None else microseconds(claim.skew),
            claim.floor,
            info,
            "" if lost is None else lost[0],
            _json("" if lost is None else lost[1]),
            _json(claim.holder),
            _json(short_info(claim.info)),
            keys.channel(claim.role),
        ],
    )


def renew_words(keys: Keys, renewals: Sequence[Renew]) -> tuple[list[str], list[Word]]:
    """Return the keys and arguments of the script `RENEW`."""
    arguments: list[Word] = []
    for renewal in renewals:
        arguments += (
            renewal.holder,
            renewal.token,
            renewal.beat,
            repr(float(renewal.ttl)),
            microseconds(renewal.ttl),
            "" if renewal.info is None else _json(dict(renewal.info)),
            "" if renewal.keep is None else f"={renewal.keep}",
        )
    return [keys.meta, *(keys.lease(renewal.role) for renewal in renewals)], arguments


def release_words(keys: Keys, release: Release) -> tuple[list[str], list[Word]]:
    """Return the keys and arguments of the script `RELEASE`."""
    return (
        [keys.lease(release.role), keys.history(release.role), keys.meta],
        [
            release.role,
            release.holder,
            release.token,
            release.beat,
            repr(float(release.linger)),
            microseconds(release.linger),
            release.to or "",
            _json(release.reason),
            _json(release.by),
            keys.channel(release.role),
            "" if release.keep is None else f"={release.keep}",
        ],
    )


def override_words(keys: Keys, override: Override) -> tuple[list[str], list[Word]]:
    """Return the keys and arguments of the script `OVERRIDE`."""
    expected = override.expected
    return (
        [keys.lease(override.role), keys.history(override.role), keys.roles, keys.meta],
        [
            override.role,
            "=" + (expected.holder or ""),
            expected.token,
            expected.beat,
            override.holder,
            override.beat,
            repr(float(override.ttl)),
            microseconds(override.ttl),
            _json(dict(override.info)),
            _json(override.reason),
            _json(override.by),
            keys.channel(override.role),
        ],
    )


def retire_words(keys: Keys, requests: Sequence[Retire]) -> tuple[list[str], list[Word]]:
    """Return the keys and arguments of the script `RETIRE`."""
    names, arguments = [keys.meta, keys.roles], list[Word]()
    for request in requests:
        names += (keys.lease(request.role), keys.history(request.role))
        arguments += (
            request.role,
            "=" + (request.expected.holder or ""),
            request.expected.token,
            request.expected.beat,
            microseconds(min(request.before, MAX_TIME)),
        )
    return names, arguments


def result(url: RedisURL, role: str, reply: Any) -> Result:
    """Return the result of a swap that a script answered."""
    try:
        applied, lease = decode(url, role, reply)
    except RequestError as err:
        return err.failure()
    return Answer(applied, lease)


def decode(url: RedisURL, role: str, reply: Any) -> tuple[bool, Lease]:
    """Return whether a swap was applied, and the lease.

    Raises:
        RequestError: The script refused.
    """
    if len(reply) < 10:
        raise _refusal(url, role, reply)
    applied, now, holder, token, beat, ttl, expires_at, written_at, since, info = reply
    return bool(applied), Lease(
        role,
        None if holder is None else holder.decode(),
        int(token),
        int(beat),
        float(ttl),
        int(written_at) / 1_000_000,
        0.0 if holder is None else (int(expires_at) - int(now)) / 1_000_000,
        _info(info),
        int(float(since)) / 1_000_000,
    )


def kept(url: RedisURL, role: str, reply: Any) -> Kept:
    """Return the text that a role keeps, from the answer of the script `KEPT`.

    Raises:
        RequestError: The script refused.
    """
    if refused(reply):
        raise _refusal(url, role, reply)
    token, text = reply
    return Kept(int(token), text.decode(errors="replace"))


def _info(text: bytes | str) -> dict[str, Any]:
    # A person may have written anything there.
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def _refusal(url: RedisURL, role: str, reply: Any) -> RequestError:
    reason = reply[0]
    if reason == b"new epoch":
        seconds = int(reply[1]) / 1_000_000
        return RequestError(
            f"the Redis server was restarted or replaced, and may have lost a lease of {role!r}; "
            f"it elects nobody for another {seconds:.1f} s",
            unknown=False,
        )
    if reason == b"longer ttl":
        seconds = int(reply[1]) / 1_000_000
        return RequestError(
            f"the lease of {role!r} has a greater ttl than any before on this server, which is "
            f"stored first: try again in {seconds:.1f} s",
            unknown=False,
        )
    if reason == b"no tokens left":
        return RequestError(
            f"{role!r} has no fencing tokens left", unknown=False, refusal=StoreRefused
        )
    if reason == b"damaged":
        return failures.damaged(role)
    return errors.not_set_up(url)


def refused(reply: Any) -> bool:
    """Return whether a script with a list of results refused all of them."""
    return isinstance(reply, list) and len(reply) == 1 and isinstance(reply[0], bytes)


def message(payload: bytes) -> Lease | None:
    """Return the lease in a message of a channel; None if coord did not write it."""
    try:
        # The info comes with claims, with overrides, and with renewals that change it.
        role, holder, token, beat, ttl, remaining, written_at, *info = json.loads(payload)
        return Lease(
            role,
            holder,
            int(token),
            int(beat),
            float(ttl),
            int(written_at) / 1_000_000,
            0.0 if holder is None else int(remaining) / 1_000_000,
            _info(info[0]) if info else {},
        )
    except (ValueError, TypeError):
        return None


def terms(role: str, entries: Sequence[bytes]) -> list[PastTerm]:
    """Return the terms in a history, newest first."""
    return parse(role, [entry.decode(errors="replace") for entry in entries])


def failure(error: RequestError, count: int) -> list[Result]:
    """Return the same failure for each of `count` swaps."""
    failed: Failure = error.failure()
    return [failed] * count
