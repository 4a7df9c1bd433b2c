"""Raising the tokens of a table that was restored from a backup: `coord init --token-floor`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from coord import checks
from coord.errors import StoreUnavailable
from coord.stores.rethinkdb import careful, driver
from coord.stores.rethinkdb.connection import Pool
from coord.stores.rethinkdb.errors import Trouble, from_row
from coord.stores.rethinkdb.url import RethinkURL, parse_url


async def raise_tokens(
    url: RethinkURL | str, token_floor: int, roles: Collection[str] = (), timeout: float = 60.0
) -> tuple[int, int]:
    """Lift every token below `token_floor` to it, and make a vacant lease for each of `roles` that has none.

    How many were (lifted, made); atomic for each row. Nothing else of a lease changes: a leader whose token was lifted
    finds its renewal refused, loses its term (`LossReason.TAKEN`), and nobody takes its place any sooner. Doing it
    again, or over after an error, does no harm. `timeout` is in seconds. Raises `BadArgument`, `StoreUnavailable` or
    `StoreRefused`.
    """
    floor, named = checks.token_floor(token_floor), [checks.role(role) for role in roles]
    parsed, r = parse_url(url) if isinstance(url, str) else url, driver.reql()
    table = r.db(parsed.database).table(parsed.table)
    blank: dict[str, Any] = {"holder": None, "token": floor, "beat": 0, "ttl": 0, "since": 0, "info": {}, "history": []}
    rows = [{**blank, "id": role, "renewed_at": r.now()} for role in named]
    made = table.insert(rows, durability="hard", conflict=lambda _id, old, _new: old)
    lifted = table.update(
        lambda row: r.branch(careful.view(row)["token"].lt(floor), {"token": floor}, {}), durability="hard"
    )
    pool = Pool(parsed)
    try:
        return await asyncio.wait_for(_both(pool, made if rows else None, lifted, timeout), timeout)
    except asyncio.TimeoutError:
        raise StoreUnavailable(f"raising the tokens of {parsed.redacted} did not end within {timeout:g} s") from None
    except Trouble as trouble:
        raise trouble.error() from None
    finally:
        await pool.close()


async def _both(pool: Pool, made: Any, lifted: Any, timeout: float) -> tuple[int, int]:
    counts = []
    for query, count in ((lifted, "replaced"), (made, "inserted")):
        report: dict[str, Any] = {count: 0, "errors": 0} if query is None else await pool.run(query, timeout)
        if report["errors"]:
            raise from_row(report["first_error"])
        counts.append(int(report[count]))
    return counts[0], counts[1]
