"""Raising the tokens of a file that was restored from a backup: `coord init --token-floor`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from coord import checks
from coord.stores.sqlite.handle import Handle
from coord.stores.sqlite.store import SQLiteStore
from coord.stores.sqlite.worker import Job

RAISE = "UPDATE coord_leases SET token = ? WHERE token < ?"
MAKE = """INSERT INTO coord_leases (role, token, beat, ttl, renewed_at, runs_out, boot_id, info)
    VALUES (?, ?, 0, 0, 0, 0, '', '{}') ON CONFLICT (role) DO NOTHING"""


async def raise_tokens(
    store: SQLiteStore, token_floor: int, roles: Collection[str] = (), timeout: float = 60.0
) -> tuple[int, int]:
    """Lift every token below `token_floor` to it, and make a vacant lease for each of `roles` that has none.

    How many were (lifted, made); all in one transaction. Nothing else of a lease changes: a leader whose token was
    lifted finds its renewal refused, loses its term (`LossReason.TAKEN`), and nobody takes its place any sooner. Doing
    it again does nothing. `timeout` is in seconds. Raises `BadArgument`, `StoreUnavailable` or `StoreRefused`.
    """
    floor, named = checks.token_floor(token_floor), [checks.role(role) for role in roles]

    def work(job: Job[Any], handle: Handle) -> tuple[int, int]:
        conn = handle.begin(synced=True)
        lifted = conn.execute(RAISE, (floor, floor)).rowcount
        made = conn.executemany(MAKE, [(role, floor) for role in named]).rowcount if named else 0
        job.commit(handle)
        return lifted, made

    return await store._ask(work, timeout)
