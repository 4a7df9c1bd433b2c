"""The second fenced resource: a document in RethinkDB, written as docs/how-to and
examples/fenced_rethinkdb.py do it.

It is written through the public driver, over the worker's own proxies. There is no journal: each
answer says which token the write met, and whether an order of the writes explains all answers is
for the judge of fenced resources."""

from __future__ import annotations

import contextlib
import random
from typing import Any
from urllib.parse import urlsplit

from coord import CoordError, StaleToken
from coord.fencing import FIELD, rethinkdb_verify, rethinkdb_write

DOCUMENT = "document"
"""Its name in histories."""
DATABASE, TABLE, KEY = "chaos", "documents", "written"
CONNECT_WITHIN = 2.0


class NotWritten(Exception):
    """`unknown`: it may have been written, or may yet be."""

    def __init__(self, detail: str, unknown: bool) -> None:
        super().__init__(detail)
        self.unknown = unknown


class Document:
    """A worker's way to it. Blocking, as the driver is: a write that hangs may arrive at any later
    time."""

    def __init__(self, url: str, blind: bool = False) -> None:
        self._hosts = [address.rpartition(":") for address in urlsplit(url).netloc.split(",")]
        self._blind = blind
        import rethinkdb  # a driver that takes long, and which the judge does not need

        self._r, self._connection = rethinkdb.RethinkDB(), None

    def write(self, token: int, process: str) -> tuple[bool, int | None]:
        """Whether it was accepted, and which token it found there. Raises `NotWritten`."""
        table, changes = self._r.table(TABLE), {"writer": process}
        query = rethinkdb_write(table, KEY, changes, token)
        if self._blind:
            query = table.insert(
                {"id": KEY, FIELD: token, **changes}, conflict="update", return_changes="always"
            )
        connection = self._connected()
        try:
            result = query.run(connection)
            if result.get("errors"):
                raise NotWritten(str(result.get("first_error"))[:200], unknown=True)
            met = (result["changes"][0]["old_val"] or {}).get(FIELD)
            try:
                rethinkdb_verify(result, token)
            except StaleToken:
                return False, met
            return True, met
        except self._r.ReqlOpFailedError as err:
            raise NotWritten(type(err).__name__, unknown=False) from err
        except (CoordError, NotWritten):
            raise
        except Exception as err:  # whatever the driver says: it was sent
            self._drop()
            raise NotWritten(type(err).__name__, unknown=True) from err

    def _connected(self) -> Any:
        if self._connection is None:
            host, _, port = random.choice(self._hosts)
            try:
                self._connection = self._r.connect(
                    host, int(port), DATABASE, timeout=CONNECT_WITHIN
                )
            except Exception as err:
                raise NotWritten(type(err).__name__, unknown=False) from err
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        with contextlib.suppress(Exception):
            connection.close(noreply_wait=False)


def set_up(r: Any, replicas: int) -> list[Any]:
    """The queries that make its table."""
    table = r.db(DATABASE).table(TABLE)
    return [
        r.db_create(DATABASE),
        r.db(DATABASE).table_create(TABLE, replicas=replicas),
        table.wait(wait_for="all_replicas_ready", timeout=20),
    ]


def met(operations: list[Any]) -> dict[str, int]:
    """What came of the writes to the document: those that were answered, and of these the stale
    ones."""
    answered = [
        operation
        for operation in operations
        if operation.role == DOCUMENT and operation.action == "write" and operation.outcome == "ok"
    ]
    old = [item for item in answered if item.args["token"] < (item.result["met"] or 0)]
    accepted = sum(bool(item.result["accepted"]) for item in old)
    return {
        "writes": len(answered),
        "stale_attempted": len(old),
        "stale_refused": len(old) - accepted,
        "stale_accepted": accepted,
    }
