"""`coord/core/swaps.py` in ReQL: when a row may be claimed, and what becomes of it.

`params` are the claim's parameters. `row` has the fields of the row as coord writes them; they come
from `rows.strict_view` where people may have edited the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from coord.core.history import MAX_TERMS, short_info
from coord.core.lease import MAX_TOKEN, PAUSED, LossReason
from coord.core.operations import Claim, Override, Release, Retire
from coord.core.validation import MAX_TTL
from coord.stores.rethinkdb import driver, errors


class ClaimShape(NamedTuple):
    """Which parts a claim has. Other parts are neither sent nor evaluated by the server.

    Attributes:
        strict: Whether the query checks the type of every field.
        expected: Whether the claim expects a revision.
        free: Whether the query must check that the role may be claimed.
        closed: Whether the expected row is vacant, so that its last term has ended.
        skew: Whether the claim may use the server's clock.
        lost: Whether the claim says how the last term of its candidate ended.
        info: Whether the candidate has an info.
        floor: Whether the floor may raise the token.
        pausable: Whether an operator may have paused the role; an expected row says whether.
    """

    strict: bool
    expected: bool
    free: bool
    closed: bool
    skew: bool
    lost: bool
    info: bool
    floor: bool
    pausable: bool

    @classmethod
    def of(cls, claim: Claim, strict: bool) -> ClaimShape:
        row = None if strict else claim.expected
        vacant = row is not None and row.holder is None
        is_own = row is not None and row.holder == claim.holder and row.beat < claim.beat
        return cls(
            strict,
            claim.expected is not None,
            not (claim.takeover or vacant or is_own),
            vacant,
            claim.skew is not None,
            claim.lost is not None and row is None,
            bool(claim.info),
            strict or (row is None and claim.floor > 0),
            row is None or row.holder == PAUSED,
        )


def parameters(claim: Claim) -> dict[str, Any]:
    """Return the parameters for the template of the claim's shape."""
    values = {
        name: getattr(claim, name) for name in ("role", "holder", "beat", "ttl", "skew", "floor")
    }
    if claim.lost is not None:
        values["lost_token"] = claim.lost[0]
    if claim.expected is not None:
        values |= {f"expected_{name}": value for name, value in claim.expected._asdict().items()}
        values["token"] = min(max(claim.expected.token, claim.floor), MAX_TOKEN - 1) + 1
    if claim.info:
        # As a text, so that `$reql_type$` in it has no meaning, and nesting is no error.
        info = dict(claim.info)
        values["info"] = json.dumps(info, allow_nan=False)
    return {**values, **opening(claim)}


def blank_row() -> dict[str, Any]:
    """Return the fields that a claim reads if there is no row."""
    return {
        "holder": None,
        "token": 0,
        "beat": 0,
        "ttl": 0,
        "renewed_at": driver.reql().epoch_time(0),
        "history": [],
        "kept": "",
        "retired": False,
    }


def may_claim(params: Mapping[str, Any], row: Any, shape: ClaimShape) -> Any:
    """Return the ReQL for whether the claim is applied."""
    r = driver.reql()
    conditions = []
    if shape.expected:
        matches = is_expected_strictly if shape.strict else is_expected
        conditions.append(matches(params, row))
    if shape.free:
        free = [
            row["holder"].eq(None),
            r.and_(row["holder"].eq(params["holder"]), row["beat"].lt(params["beat"])),
        ]
        if shape.skew:
            free.append(r.now().sub(row["renewed_at"]).gt(row["ttl"].add(params["skew"])))
        conditions.append(r.or_(*free))
    if shape.pausable:
        conditions.append(row["holder"].ne(PAUSED))
    if not shape.strict:
        # Only a row that a person edited has another token. The strict form handles it.
        conditions.append(r.le(0, row["token"], MAX_TOKEN - 1))
    return r.and_(*conditions) if conditions else r.expr(True)


def claimed_row(params: Mapping[str, Any], row: Any, shape: ClaimShape) -> Any:
    """Return the ReQL for the row after the claim."""
    r = driver.reql()
    now = r.now().to_epoch_time()

    def with_token(token: Any) -> Any:
        return {
            "id": params["role"],
            "holder": params["holder"],
            "token": token,
            "beat": params["beat"],
            "ttl": params["ttl"],
            "renewed_at": r.now(),
            "since": now,
            "info": r.json(params["info"]) if shape.info else {},
            "history": after_claim(params, row, token, closed=shape.closed, lost=shape.lost),
            "kept": row["kept"].default(""),
        }

    if shape.expected and not shape.strict:
        return with_token(params["token"])
    return _next_token(params, row, shape).do(with_token)


def _next_token(params: Mapping[str, Any], row: Any, shape: ClaimShape) -> Any:
    r, token = driver.reql(), row["token"]
    last = (
        r.branch(token.gt(params["floor"]), token.floor(), params["floor"])
        if shape.floor
        else token.floor()
    )
    if not shape.strict:
        return last.add(1)  # `may_claim` has checked its bounds.
    return r.branch(
        token.lt(MAX_TOKEN), last.add(1), r.error(f"{errors.REFUSAL}the token is at its end")
    )


# The history of a row (`coord/core/history.py`) is a list of texts. Each is JSON about how a term
# began and, on a second line, about how it ended. The server decodes and encodes the whole row at
# each write, and that takes much longer with sixteen objects than with sixteen texts.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def opening(claim: Claim) -> dict[str, str]:
    """Return the parameters of a claim for the history: how its term begins, and why the term
    before may have ended."""
    began = _encode({"holder": claim.holder, "info": short_info(claim.info)})
    ended = LossReason.EXPIRED.value
    expected, lost = claim.expected, claim.lost
    if (
        lost is not None
        and expected is not None
        and (expected.holder, expected.token) == (claim.holder, lost[0])
    ):
        ended = lost[1]
    reasons = {"ended": _encode(ended), "lost_reason": _encode("" if lost is None else lost[1])}
    return {"opening": f",{began[1:-1]},", **reasons}


def closing(swap: Override | Release) -> dict[str, str]:
    """Return the parameters of a swap for the history: why a term ends."""
    return {"closing": "," + _encode({"reason": swap.reason, "by": swap.by})[1:]}


def after_claim(
    params: Mapping[str, Any], row: Any, token: Any, *, closed: bool, lost: bool
) -> Any:
    """Return the ReQL for the history after a claim.

    Args:
        params: The parameters of the claim.
        row: The row before.
        token: The token of the new term.
        closed: Whether the last term in the row has ended.
        lost: Whether the claim says how the last term of its candidate ended, which may be the last
            term in the row.
    """
    r = driver.reql()
    opened = [
        '{"token":',
        _text(token),
        params["opening"],
        '"since":',
        _text(r.now().to_epoch_time()),
    ]
    if not closed:
        reason = params["ended"]
        if lost:
            is_own = r.and_(
                row["holder"].eq(params["holder"]), row["token"].eq(params["lost_token"])
            )
            reason = r.branch(is_own, params["lost_reason"], reason)
        runs_out = row["renewed_at"].to_epoch_time().add(row["ttl"])
        opened += [
            ',"ended":[',
            _text(runs_out),
            ",",
            reason,
            "]",
        ]  # Readers use it only if that term has not ended.
    return row["history"].append(r.add(*opened, "}")).slice(-MAX_TERMS)


def after_release(params: Mapping[str, Any], old: Any) -> Any:
    """Return the ReQL for the history after a release, which ends the last term of `old`."""
    history = old["history"]
    return history.change_at(-1, history.nth(-1).add(*_ending(params))).default([])


def after_strict_release(params: Mapping[str, Any], old: Any) -> Any:
    """Do the same as `after_release` for a row that people may have edited."""
    return entries(old).do(lambda history: _closed(params, history))


def _closed(params: Mapping[str, Any], history: Any) -> Any:
    # A term ends once. Without this check the row would grow whenever an operator pauses a role.
    is_open = driver.reql().and_(history.is_empty().not_(), history.nth(-1).match("\n").eq(None))
    last = history.nth(-1).add(*_ending(params))
    return driver.reql().branch(is_open, history.change_at(-1, last), history)


def entries(row: Any) -> Any:
    """Return the ReQL for the terms of a row that people may have edited, without other entries."""
    r = driver.reql()
    is_list = row["history"].default(None).type_of().eq("ARRAY")
    terms = row["history"].filter(lambda entry: entry.type_of().eq("STRING"))
    return r.branch(is_list, terms, [])


def _ending(params: Mapping[str, Any]) -> list[Any]:
    return ['\n{"until":', _text(driver.reql().now().to_epoch_time()), params["closing"]]


def _text(number: Any) -> Any:
    return number.coerce_to("string")


_MIN_TTL = 1e-300
"""The smallest number that counts as a ttl."""
_MAX_TIME = 100_000_000_000
"""Seconds since 1970, later than every valid time."""


def is_held(params: Any, row: Any) -> Any:
    """Return the ReQL for whether the row is a complete lease of the holder in `params`.

    The server orders values by type first, so a value between two numbers is a number. This is
    quicker than comparing types.
    """
    r = driver.reql()
    return r.and_(
        row["holder"].eq(params["holder"]),
        row["token"].eq(params["token"]),
        r.lt(-1, row["beat"], params["beat"]),
        r.le(_MIN_TTL, row["ttl"], MAX_TTL),
        r.le(r.epoch_time(0), row["renewed_at"], r.epoch_time(_MAX_TIME)),
    ).default(False)


class ReleaseShape(NamedTuple):
    """What a release does, as `ClaimShape` says it of a claim.

    Attributes:
        strict: Whether the query handles a history that a person edited.
        lingers: Whether nobody may have the role for a while.
        reserves: Whether one candidate may have it in that time.
        keeps: Whether the release replaces the text that the role keeps.
    """

    strict: bool
    lingers: bool
    reserves: bool
    keeps: bool

    @classmethod
    def of(cls, release: Release, strict: bool) -> ReleaseShape:
        lingers = release.linger > 0
        reserves = lingers and release.to is not None
        return cls(strict or lingers, lingers, reserves, release.keep is not None)


PLAIN_RELEASE = ReleaseShape(strict=False, lingers=False, reserves=False, keeps=False)


def release_changes(params: Mapping[str, Any], row: Any, shape: ReleaseShape) -> dict[str, Any]:
    """Return all fields that a release changes, with the history.

    Args:
        params: The parameters of the release.
        row: The row before.
        shape: What the release does.
    """
    history = after_strict_release if shape.strict else after_release
    kept = {"kept": params["keep"]} if shape.keeps else {}
    if shape.reserves:
        after = {
            "holder": params["to"],
            "beat": 0,
            "ttl": params["linger"],
            "since": 0,
            "info": driver.reql().literal({}),
        }
    elif shape.lingers:
        after = {"beat": params["beat"], "ttl": params["linger"]}
    else:
        after = {"beat": params["beat"], "holder": None, "since": 0}
    return {"renewed_at": driver.reql().now(), "history": history(params, row), **after, **kept}


def override_parameters(override: Override) -> dict[str, Any]:
    """Return the parameters of the query for an override."""
    expected = {f"expected_{name}": value for name, value in override.expected._asdict().items()}
    values = {name: getattr(override, name) for name in ("role", "holder", "beat", "ttl")}
    info = json.dumps(dict(override.info), allow_nan=False)
    return {**values, **expected, **closing(override), "info": info}


def overridden_row(params: Mapping[str, Any], row: Any) -> Any:
    """Return the ReQL for the row after an override.

    A lease expires at `renewed_at + ttl`, so a row that has a holder keeps both: it must not last
    longer, nor shorter. `row` is a `rows.strict_view`.
    """
    r = driver.reql()
    is_held = row["holder"].ne(None)
    return {
        "id": params["role"],
        "holder": params["holder"],
        "token": row["token"],
        "beat": params["beat"],
        "ttl": r.branch(is_held, row["ttl"], params["ttl"]),
        "renewed_at": r.branch(is_held, row["renewed_at"], r.now()),
        "since": r.now().to_epoch_time(),
        "info": r.json(params["info"]),
        "history": _closed(params, row["history"]),
        "kept": row["kept"].default(""),
    }


def is_expected(params: Mapping[str, Any], row: Any) -> Any:
    """Return the ReQL for whether the row is at the expected revision."""
    names = ("holder", "token", "beat")
    return driver.reql().and_(*(row[name].eq(params[f"expected_{name}"]) for name in names))


def is_expected_strictly(params: Mapping[str, Any], row: Any) -> Any:
    """Do the same as `is_expected` for a `rows.strict_view`: a retired role counts as no row."""
    token = driver.reql().branch(row["retired"], 0, row["token"])
    return is_expected(params, row.merge({"token": token}))


def retirement_parameters(request: Retire) -> dict[str, Any]:
    """Return the parameters of `may_retire`. Only a vacant row may be expected."""
    expected = request.expected
    before = min(request.before, _MAX_TIME)
    return {"expected_token": expected.token, "expected_beat": expected.beat, "before": before}


def may_retire(params: Any, row: Any) -> Any:
    """Return the ReQL for whether a row may be deleted (rule 12). `row` is a `rows.strict_view`."""
    r = driver.reql()
    return r.and_(
        row["retired"].not_(),
        row["holder"].eq(None),
        row["token"].eq(params["expected_token"]),
        row["beat"].eq(params["expected_beat"]),
        row["renewed_at"].to_epoch_time().lt(params["before"]),
        row["kept"].eq(""),
    )
