"""What the queries on service records in RethinkDB are made of. Every condition is total: a row may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from coord.records import codec
from coord.stores.rethinkdb import driver

INDEX = "role"


class Terms:
    """On one table of one database. Nothing here talks to a server."""

    def __init__(self, database: str, table: str) -> None:
        self._database, self._name = database, table

    @cached_property
    def _r(self) -> Any:
        return driver.reql()

    @property
    def _table(self) -> Any:
        return self._r.db(self._database).table(self._name)

    def _kind(self, row: Any, name: str) -> Any:
        return row[name].default(None).type_of()

    def _can_be_judged(self, row: Any) -> Any:
        return self._r.and_(
            self._kind(row, "ttl").eq("NUMBER"),
            row["ttl"].gt(0),
            self._kind(row, "last_heartbeat").eq("PTYPE<TIME>"),
        )

    def _remaining(self, row: Any) -> Any:
        return row["ttl"] - (self._r.now() - row["last_heartbeat"])

    def _is_published(self, row: Any) -> Any:
        return self._r.and_(self._kind(row, "holder").eq("STRING"), self._kind(row, "token").eq("NUMBER"))

    def _healthy(self, role: str | None, key: str | None = None) -> Any:
        rows = self._table
        if key is not None:
            rows = rows.get_all(key)
        elif role is not None:
            rows = rows.get_all(role, index=INDEX)
        return rows.filter(lambda row: self._r.branch(self._can_be_judged(row), self._remaining(row).gt(0), False))

    def _written(self, record: Mapping[str, Any], old: Any, ago: float = 0) -> Any:
        r = self._r
        given = {name: value for name, value in record.items() if name != "first_heartbeat"}
        before = record.get("first_heartbeat")
        else_first = r.now() if before is None else r.json(codec.dump(before))
        known = self._kind(old, "first_heartbeat").eq("PTYPE<TIME>")
        first = r.branch(known, old["first_heartbeat"], else_first)
        # As one text: deeper than the driver lets us nest, and quicker to make.
        return r.json(codec.dump(given)).merge({"first_heartbeat": first, "last_heartbeat": r.now() - ago})
