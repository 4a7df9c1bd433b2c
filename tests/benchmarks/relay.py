"""What a handover takes of the store alone: a write that gives back, the feed that tells of it, a
write that takes.

Through the raw driver, blocking, one connection for the writes and one for the feed, in two
processes which do nothing else. Nothing of coord is in it but its clock. Run by `candidates`, for
`relay+rethinkdb://host:port/database/durability`: the durability is that of the write that gives
back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from coord.runtime import clock

SCHEME = "relay+rethinkdb://"
TABLE, ROW = "relay", "baton"

Tell = Callable[[str, int, float], None]


def url(host: str, port: int, database: str, durability: str) -> str:
    """For `Crowd`. Makes the database, the table and the one row in it."""
    from rethinkdb import RethinkDB

    r = RethinkDB()
    connection = r.connect(host=host, port=port)
    if database not in r.db_list().run(connection):
        r.db_create(database).run(connection)
    if TABLE not in r.db(database).table_list().run(connection):
        r.db(database).table_create(TABLE).run(connection)
    table = r.db(database).table(TABLE)
    table.wait().run(connection)
    table.insert({"id": ROW, "holder": None, "turn": 0}, conflict="replace").run(connection)
    connection.close(noreply_wait=False)
    return f"{SCHEME}{host}:{port}/{database}/{durability}"


def run(number: int, url: str, rest: float, tell: Tell) -> NoReturn:
    """Take the baton whenever it is free, give it back at SIGUSR1, and rest so many seconds."""
    from rethinkdb import RethinkDB

    address, database, durability = url.removeprefix(SCHEME).split("/")
    host, _, port = address.partition(":")
    r = RethinkDB()
    writes, feed = (r.connect(host=host, port=int(port), db=database) for _ in range(2))
    row = r.table(TABLE).get(ROW)

    def write(holder: int | None, change: dict[str, Any], durability: str) -> bool:
        report = row.update(
            lambda old: r.branch(old["holder"].eq(holder), change, {}),
            durability=durability,
            return_changes=True,
        ).run(writes)
        return bool(report["replaced"])

    tell("follows", number, clock.total_seconds())
    given_back = -1
    for change in row.changes(include_initial=True, squash=False).run(feed):
        new_row = change["new_val"]
        if new_row["holder"] is not None or new_row["turn"] <= given_back:
            continue
        if not write(None, {"holder": number, "turn": new_row["turn"] + 1}, "hard"):
            continue
        tell("elected", number, clock.total_seconds())
        signal.sigwait({signal.SIGUSR1})
        tell("stopping", number, clock.total_seconds())
        given_back = new_row["turn"] + 2
        write(number, {"holder": None, "turn": given_back}, durability)
        time.sleep(rest)
    raise RuntimeError("the feed ended")
