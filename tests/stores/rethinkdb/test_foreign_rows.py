"""Rows that people wrote by hand, tokens at their end, and whose clock decides."""

from __future__ import annotations

from typing import Any

import pytest

from coord.core.lease import PAUSED, REVOKED
from coord.core.operations import Claim, Override, Release, Renew
from tests.stores.rethinkdb.kit import answered, ask, db, failed, opened, r, run

SECRET = "geheim"


def test_a_write_hook_that_refuses(rethinkdb_url: str) -> None:
    table = db(rethinkdb_url).table("coord_leases")
    ask(rethinkdb_url, table.set_write_hook(lambda context, old, new: r.error("geheim")))

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            result = failed(await store.claim(Claim("role", "a", 1, 30.0), 5))
            assert (result.unknown, SECRET in result.detail) == (False, False)
            assert await store.read(None, 5) == []

    run(body)


ROWS: list[dict[str, Any]] = [
    {},
    {"token": 7},
    {"holder": "x", "token": "seven", "beat": 1, "ttl": 9, "renewed_at": r.now()},
    {"holder": "x", "token": 7, "beat": 1, "ttl": 9},
    {"holder": "x", "token": 7, "beat": 1, "renewed_at": r.now()},
    {"holder": "x", "token": 7, "beat": None, "ttl": 9, "renewed_at": r.now()},
    {"holder": "x", "token": 7, "beat": 1, "ttl": "9", "renewed_at": r.now()},
    {"holder": "x", "token": 7, "beat": 1, "ttl": -9, "renewed_at": r.now()},
    {"holder": "x", "token": 7, "beat": 1, "ttl": 1e300, "renewed_at": r.now()},
    {"holder": "x", "token": 7, "beat": 1, "ttl": 9, "renewed_at": 1e9},
    {"holder": "", "token": 7, "beat": 1, "ttl": 9, "renewed_at": r.now()},
    {"holder": ["x"], "token": 7, "beat": [1], "ttl": {}, "renewed_at": "today", "info": "none"},
    {"holder": None, "token": 7.9, "beat": -3, "ttl": 9, "renewed_at": None, "info": 5},
]


def test_rows_written_by_hand(rethinkdb_url: str) -> None:
    """They are vacant, keep the token that is in them, are shown the same everywhere, and wedge
    nothing."""
    table = db(rethinkdb_url).table("coord_leases")
    rows = [{"id": f"row {number:02}", **row} for number, row in enumerate(ROWS)]
    sound = {
        "holder": "x",
        "token": 3,
        "beat": 4,
        "ttl": 9,
        "renewed_at": r.now(),
        "info": {"a": [1]},
        "more": 1,
    }
    ask(
        rethinkdb_url,
        table.insert([*rows, {"id": "sound", **sound}, {"id": 5}, {"id": ["list"], "token": 1}]),
    )

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            *odd, good = sorted(await store.read(None, 5), key=lambda item: item.role)
            assert (good.role, good.holder, good.revision, good.info) == (
                "sound",
                "x",
                ("x", 3, 4),
                {"a": [1]},
            )
            assert 8 < good.remaining <= 9
            assert [item.role for item in odd] == [row["id"] for row in rows]
            feed = store.watch([item.role for item in odd])
            leases = {
                (item.role, item.revision, item.ttl)
                for item in [await feed.__anext__() for _ in odd]
            }
            assert leases == {(item.role, item.revision, item.ttl) for item in odd}
            await feed.aclose()  # type: ignore[attr-defined]
            for row, lease in zip(rows, odd, strict=True):
                token = row.get("token", 0)
                assert lease.vacant, row
                assert lease.token == (int(token) if isinstance(token, (int, float)) else 0), row
                (renewed,) = await store.renew([Renew(lease.role, "x", lease.token, 50, 5.0)], 5)
                assert not answered(renewed).applied, row
                assert not answered(
                    await store.release(Release(lease.role, "x", lease.token, 50), 5)
                ).applied
                claimed = answered(
                    await store.claim(Claim(lease.role, "new", 1, 5.0, expected=lease.revision), 5)
                )
                assert claimed.applied, row
                assert claimed.lease.revision == ("new", lease.token + 1, 1)

    run(body)


def test_tokens_end_below_what_is_exact(rethinkdb_url: str) -> None:
    table = db(rethinkdb_url).table("coord_leases")
    ask(
        rethinkdb_url,
        table.insert([{"id": "last", "token": 2**53 - 1}, {"id": "over", "token": 1e300}]),
    )

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            last = answered(await store.claim(Claim("last", "a", 1, 5.0), 5))
            assert (last.applied, last.lease.token) == (True, 2**53)
            for claim in (Claim("last", "a", 2, 5.0), Claim("over", "a", 1, 5.0)):
                result = failed(await store.claim(claim, 5))
                assert (result.unknown, result.permanent, result.detail) == (
                    False,
                    True,
                    "the token is at its end",
                )

    run(body)


def test_the_servers_clock_decides(rethinkdb_url: str) -> None:
    """Rule 4 and what is left of a lease, by rows that were renewed at a known time."""
    table = db(rethinkdb_url).table("coord_leases")
    rows = [(f"{age} {ttl}", age, ttl) for age in (-40, 0, 5, 20) for ttl in (10, 30)]
    ask(
        rethinkdb_url,
        table.insert(
            [
                {
                    "id": role,
                    "holder": "x",
                    "token": 1,
                    "beat": 1,
                    "ttl": ttl,
                    "renewed_at": r.now() - age,
                    "info": {},
                }
                for role, age, ttl in rows
            ]
        ),
    )

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            remaining = {row.role: row.remaining for row in await store.read(None, 5)}
            for role, age, ttl in rows:
                assert remaining[role] == pytest.approx(ttl - age, abs=2)
            for skew in (20.0, 5.0):
                for role, age, ttl in rows:
                    result = answered(await store.claim(Claim(role, "y", 1, 30.0, skew=skew), 5))
                    assert result.applied == (age - ttl > skew), (role, skew)
            for role, age, ttl in rows:
                if age - ttl <= 5:
                    (answer,) = await store.renew([Renew(role, "x", 1, 2, 8.0)], 5)
                    lease = answered(answer).lease
                    assert lease.ttl == ttl
                    assert lease.remaining == pytest.approx(
                        ttl - min(age, 0), abs=2
                    )  # never less than it had

    run(body)


def test_pauses_do_not_let_a_row_grow(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            lease = answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).lease
            for beat in range(1, 7):
                holder = PAUSED if beat % 2 else REVOKED
                override = Override("role", lease.revision, holder, beat, by=str(beat))
                answer = answered(await store.override(override, 5))
                assert answer.applied
                lease = answer.lease
            (term,) = await store.past(["role"], 5)
            assert (term.reason, term.by) == ("evicted", "1")

    run(body)
    (row,) = ask(rethinkdb_url, db(rethinkdb_url).table("coord_leases").get("role"))
    assert [text.count("\n") for text in row["history"]] == [1]
