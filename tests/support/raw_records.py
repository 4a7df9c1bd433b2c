"""Rows that are put into a registry's table as they are, past the registry: as other programs, or
people, would."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from coord import ServiceRegistry
from coord.core.records import encode_record
from coord.core.validation import is_number
from coord.stores.memory.records import MemoryRecords
from coord.stores.postgresql.records import PostgreSQLRecords
from coord.stores.redis.records import RedisRecords
from coord.stores.rethinkdb.records import RethinkDBRecords
from coord.stores.sqlite.records import PUT, SQLiteRecords

LEFT_OUT: Any = object()


def write(
    registry: ServiceRegistry,
    key: str,
    role: object = LEFT_OUT,
    *,
    load: object = 1,
    ttl: object = 60,
    age: object = 0.0,
    **fields: Any,
) -> None:
    """`age`: how many seconds ago `last_heartbeat` was, by the store's clock; what is no float is
    put there itself."""
    records = registry.inner.records
    row = {"id": key, "role": role, "load": load, "ttl": ttl, **fields}
    row = {name: value for name, value in row.items() if value is not LEFT_OUT}
    if isinstance(records, MemoryRecords):
        if isinstance(age, float):
            row["last_heartbeat"] = datetime.now(timezone.utc) - timedelta(seconds=age)
        elif age is not LEFT_OUT:
            row["last_heartbeat"] = age
        records.write(row)
    elif isinstance(records, SQLiteRecords):
        clock = records._clock
        times: tuple[Any, Any] = (None, None) if age is LEFT_OUT else (age, age)
        if isinstance(age, float):
            times = (clock.wall() - age, clock.total() - age)
        columns = [row.get(name) for name in ("role", "load", "ttl")]
        values = (json.dumps(key), *columns, *times, clock.name, json.dumps(fields))
        registry.portal.call(
            lambda: records._write(lambda conn: records._sql(conn, PUT, *values), 5)
        )
    elif isinstance(records, RedisRecords):
        _write_redis(registry, records, row, age)
    elif isinstance(records, PostgreSQLRecords):
        _write_postgresql(registry, records, row, age)
    else:
        assert isinstance(records, RethinkDBRecords)
        if age is not LEFT_OUT:
            row["last_heartbeat"] = records._r.now() - age if isinstance(age, float) else age
        run(registry, records._table.insert(row, conflict="replace"))


def _write_postgresql(
    registry: ServiceRegistry, records: PostgreSQLRecords, row: dict[str, Any], age: object
) -> None:
    if age is not LEFT_OUT and not isinstance(age, float):
        row = {**row, "last_heartbeat": age}
    role, load, ttl = row.get("role"), row.get("load"), row.get("ttl")
    statement = (
        f"INSERT INTO {records._pool.url.schema}.records"
        " (registry, id, body, role, load, ttl, last_heartbeat) VALUES"
        " ($1, $2, $3, $4, $5, $6, clock_timestamp() - make_interval(secs => $7))"
        " ON CONFLICT (registry, id) DO UPDATE SET body = excluded.body, role = excluded.role,"
        " load = excluded.load, ttl = excluded.ttl, last_heartbeat = excluded.last_heartbeat,"
        " holder = NULL, token = NULL"
    )
    parameters = (
        records._registry,
        encode_record(row["id"]),
        encode_record(row),
        role if isinstance(role, str) else None,
        float(load) if is_number(load) else None,
        float(ttl) if is_number(ttl) else None,
        age if isinstance(age, float) else None,
    )
    registry.portal.call(lambda: records._pool.run(statement, parameters, 10))


def _write_redis(
    registry: ServiceRegistry, records: RedisRecords, row: dict[str, Any], age: object
) -> None:
    prefix, key = records._prefix, encode_record(row["id"])
    role, load, ttl = row.get("role"), row.get("load"), row.get("ttl")
    words: list[Any] = ["v", encode_record(row), "o", repr(load) if is_number(load) else ""]
    if isinstance(role, str):
        words += ["r", role]
    if is_number(ttl):
        words += ["t", repr(ttl)]
    if age is not LEFT_OUT:
        beat = str(round((time.time() - age) * 1e6)) if isinstance(age, float) else str(age)
        words += ["b", beat]
    commands: list[list[Any]] = [
        ["HSET", f"{prefix}i:{key}", *words],
        ["SADD", f"{prefix}all", key],
    ]
    if isinstance(role, str):
        commands.append(["SADD", f"{prefix}r:{role}", key])
    registry.portal.call(lambda: records._scripts.client.pipeline(10, commands))


def write_many(registry: ServiceRegistry, role: str, count: int) -> None:
    """Healthy records of a role, in one go."""
    records = registry.inner.records
    names = [(f"{role}:{number}", number) for number in range(count)]
    if isinstance(records, MemoryRecords):
        for name, load in names:
            write(registry, name, role, load=load, ttl=6000, host="h", pid=1)
    elif isinstance(records, SQLiteRecords):
        clock = records._clock
        body = json.dumps({"host": "h", "pid": 1})
        rows = [
            (json.dumps(name), role, load, 6000, clock.wall(), clock.total(), clock.name, body)
            for name, load in names
        ]
        statement = PUT.format(table=records._table)
        registry.portal.call(
            lambda: records._write(lambda conn: conn.executemany(statement, rows).rowcount, 30)
        )
    else:
        assert isinstance(records, RethinkDBRecords)
        row = {"role": role, "ttl": 6000, "last_heartbeat": records._r.now(), "host": "h", "pid": 1}
        run(
            registry,
            records._table.insert([{**row, "id": name, "load": load} for name, load in names]),
        )


def keys(registry: ServiceRegistry) -> set[object]:
    """The ids of all that is in the table, readable or not."""
    records = registry.inner.records
    if isinstance(records, MemoryRecords):
        return set(records._rows)
    if isinstance(records, SQLiteRecords):
        rows = registry.portal.call(
            lambda: records._read(
                lambda conn: records._sql(conn, 'SELECT id FROM "{table}"').fetchall(), 5
            )
        )
        return {json.loads(row[0]) for row in rows}
    if isinstance(records, PostgreSQLRecords):
        table = f"{records._pool.url.schema}.records"
        query = f"SELECT id FROM {table} WHERE registry = $1"
        rows = registry.portal.call(lambda: records._pool.run(query, (records._registry,), 10))
        return {json.loads(row["id"]) for row in rows}
    if isinstance(records, RedisRecords):
        ids = registry.portal.call(
            lambda: records._scripts.client.command(10, "SMEMBERS", f"{records._prefix}all")
        )
        return {json.loads(key) for key in ids}
    assert isinstance(records, RethinkDBRecords)
    return set(run(registry, records._table["id"]))


def run(registry: ServiceRegistry, term: Any) -> Any:
    """A query of RethinkDB's, over the registry's connection."""
    records = registry.inner.records
    assert isinstance(records, RethinkDBRecords)
    return registry.portal.call(lambda: records._run(term, 10))


def reql(registry: ServiceRegistry) -> Any:
    """The registry's database, in terms of RethinkDB's."""
    records = registry.inner.records
    assert isinstance(records, RethinkDBRecords)
    return records._r.db(records._database)
