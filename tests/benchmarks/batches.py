"""How many renewals a second the one background thread puts, beside the store's own batch of as
many, in turns.

coord calls `store.renew` with all of them, on the coordinator's thread: from the requests to an answer
for each. The raw one is one update (one transaction) of as many rows like ours through the driver.
On RethinkDB it compares the same token and beat with each row, and no holder. coord carries the
holder, the token, the ttl and the beat of each row, and compares all of them; how long the same
insert takes if it compares nothing is the limit of it. Two tables are written in turns, and the
server has the cache that it chooses by itself: with one of 64 MB, in which both tables do not stay,
the same query takes one and a half times the CPU.
What is not in here is the time for which renewals wait for company on purpose; how fast batches go
while roles are held stands with the growth."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from coord import Coordinator
from coord.core.operations import Answer, Claim, Renew
from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting
from tests.benchmarks.turns import medians, seconds

TTL = 600.0
TIMEOUT = 60.0
RAW = "raw batch of as many"
BOUND = 0.9
"""Renewals a second, at least, as a share of the raw batch."""


class CoordRenewals:
    """A coordinator whose store has these leases."""

    def __init__(self, url: str, roles: int) -> None:
        self._coordinator = Coordinator(url)
        self._roles = [f"role-{number}" for number in range(roles)]
        self._beat = 1
        self._coordinator.portal.call(self._claim)

    def renew_all(self) -> float:
        """Seconds that it took."""
        self._beat += 1
        renewals = [Renew(role, f"holder of {role}", 1, self._beat, TTL) for role in self._roles]
        began = time.perf_counter()
        results = self._coordinator.portal.call(
            lambda: self._coordinator.inner.store.renew(renewals, TIMEOUT)
        )
        took = time.perf_counter() - began
        self._check(results)
        return took

    async def _claim(self) -> None:
        claims = (Claim(role, f"holder of {role}", 1, TTL) for role in self._roles)
        self._check(
            await asyncio.gather(
                *(self._coordinator.session.submit(claim, TIMEOUT) for claim in claims)
            )
        )

    @staticmethod
    def _check(results: Sequence[Any]) -> None:
        wrong = [
            result for result in results if not (isinstance(result, Answer) and result.applied)
        ]
        assert not wrong, wrong[0]

    def close(self) -> None:
        self._coordinator.close()


def raw_rethinkdb(
    where: Setting, url: str, roles: int
) -> tuple[dict[str, Callable[[], None]], Callable[[], None]]:
    """What renews rows like ours, by name, and what closes it."""
    from rethinkdb import RethinkDB

    assert where.server is not None
    r = RethinkDB()
    connection = r.connect(host=where.server.host, port=where.server.port)
    database = r.db(url.rsplit("/", 1)[1])
    database.table_create("raw_batch").run(connection)
    table = database.table("raw_batch")
    table.wait().run(connection)
    keys = [f"role-{number}" for number in range(roles)]
    like_ours = {"token": 1, "beat": 1, "ttl": TTL, "info": {}, "kept": "", "since": time.time()}
    past = '{"token":1,"holder":"%s","info":{},"since":1796057451.641,"ended":[0,"expired"]}'
    rows = [
        {
            "id": key,
            "holder": f"holder of {key}",
            "history": [past % f"holder of {key}"],
            "renewed_at": r.now(),
            **like_ours,
        }
        for key in keys
    ]
    for begin in range(0, roles, 1_000):
        table.insert(rows[begin : begin + 1_000]).run(connection)
    beat = 1

    def renew() -> None:
        nonlocal beat
        beat += 1
        change = {"beat": beat, "renewed_at": r.now(), "ttl": TTL}
        is_holder = lambda old: (old["token"] == 1) & (old["beat"] < beat)  # noqa: E731
        written = (
            table.get_all(*keys)
            .update(lambda old: r.branch(is_holder(old), change, {}))
            .run(connection)
        )
        assert written["replaced"] == roles, written

    def insert() -> None:
        nonlocal beat
        beat += 1
        own = [[f"holder of {key}", 1, TTL, beat, key] for key in keys]
        rows = r.json(json.dumps(own)).map(
            lambda values: {"id": values[4], "params": values, "never": r.minval}
        )
        change = lambda _, old, new: old.merge(  # noqa: E731
            {"beat": new["params"][3], "renewed_at": r.now()}
        )
        written = table.insert(rows, conflict=change).run(connection)
        assert written["replaced"] == roles, written

    works = {RAW: renew, "the insert that ours sends, without a comparison": insert}
    return works, lambda: connection.close(noreply_wait=False)


def raw_sqlite(path: str, roles: int) -> tuple[dict[str, Callable[[], None]], Callable[[], None]]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(
        "CREATE TABLE l (role TEXT NOT NULL PRIMARY KEY, holder TEXT, token INT, beat INT, ttl REAL, renewed_at REAL, "
        "runs_out REAL, clock TEXT, info TEXT)"
    )
    names = [f"role-{number}" for number in range(roles)]
    db.executemany(
        "INSERT INTO l VALUES (?, 'me', 1, 1, 15, 0, 0, 'boot', '{}')", [(name,) for name in names]
    )
    beat = 1

    def renew() -> None:
        nonlocal beat
        beat += 1
        db.execute("BEGIN IMMEDIATE")
        rows = []
        for begin in range(0, roles, 500):  # as many parameters as any SQLite takes
            some = names[begin : begin + 500]
            rows += db.execute(
                f"SELECT * FROM l WHERE role IN ({','.join('?' * len(some))})", some
            ).fetchall()
        now = time.time()
        values = [
            ("me", beat, TTL, now, now + TTL, "boot", row[0])
            for row in rows
            if row[1] == "me" and row[2] == 1
        ]
        db.executemany(
            "UPDATE l SET holder = ?, beat = ?, ttl = ?, renewed_at = ?, runs_out = ?, clock = ? WHERE role = ?",
            values,
        )
        db.execute("COMMIT")
        assert len(values) == roles

    return {RAW: renew}, db.close


def figures(
    store: str,
    url: str,
    roles: int,
    rounds: int,
    raw: tuple[dict[str, Callable[[], None]], Callable[[], None]],
) -> list[Figure]:
    works, close = raw
    with closing(CoordRenewals(url, roles)) as own_store:
        timed = {name: partial(seconds, work) for name, work in works.items()}
        taken = medians({"ours": own_store.renew_all, **timed}, rounds, warm_up=1)
    close()
    what = f"{store}: {roles:,} renewals at once, a second (median of {rounds})"
    reference = Reference(RAW, roles / taken[RAW])
    others = [name for name in works if name != RAW]
    return [
        Figure(what, roles / taken["ours"], "/s", (Aim("≥", BOUND, "ratio"),), reference),
        *(Figure(f"{store}: {name}", roles / taken[name], "/s", (), reference) for name in others),
    ]


def sections(where: Setting) -> list[Section]:
    few, rounds = where.pick((1_000, 11), (200, 2), (20, 1))
    rows: list[Figure] = []
    if where.server is not None:
        url, many = where.rethinkdb("batches"), where.pick(10_000, 200, 20)
        rows += figures("RethinkDB", url, many, rounds, raw_rethinkdb(where, url, many))
    raw = raw_sqlite(str(where.directory / "raw_batches.db"), few)
    rows += figures("SQLite", where.sqlite("batches"), few, rounds, raw)
    return [
        Section(
            "Renewals in bulk",
            rows,
            (__doc__ or "").partition("\n\n")[2].strip().replace("\n", " "),
        )
    ]


if __name__ == "__main__":
    alone(sections)
