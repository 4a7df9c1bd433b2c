"""What `coord doctor` checks of a PostgreSQL database. It changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from coord.errors import CoordError, StoreRefused, command
from coord.stores.failures import RequestError
from coord.stores.postgresql import schema
from coord.stores.postgresql.connection import Pool
from coord.stores.postgresql.url import PostgreSQLURL
from coord.stores.protocol import Finding

OLDEST = 130_000
"""The oldest version of a server that coord was written for."""
SETTINGS = """SELECT current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS number, pg_is_in_recovery() AS standby,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS synchronous_standbys,
    (SELECT count(*) FROM pg_stat_replication) AS standbys,
    extract(epoch FROM clock_timestamp())::float8 AS clock,
    (SELECT relpersistence::text FROM pg_class WHERE oid = to_regclass($1)) AS kind,
    to_regproc($2) IS NOT NULL AS functions,
    (SELECT array_agg(name) FROM unnest($3::text[]) AS name
      WHERE to_regclass($4 || '.' || name) IS NULL) AS missing,
    (SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace($4)
      AND proname LIKE $5 AND NOT has_function_privilege(oid, 'EXECUTE')) AS denied,
    (SELECT count(*) FROM pg_prepared_xacts) AS prepared,
    (SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)::float8
      FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()) AS oldest"""
OTHERS = ["announcements", "floors", "kept", "records"]
"""The tables beside that of the leases."""
LONG_TRANSACTION = 3600.0
"""Seconds after which an open transaction is reported."""


async def check(url: PostgreSQLURL, timeout: float) -> list[Finding]:
    """Check the server and the tables. Raises nothing."""
    pool, name = Pool(url), schema.quoted(url.schema)
    what = "connection"
    try:
        began = time.time()
        version = schema.VERSION
        args = (f"{name}.leases", f"{name}.retire_{version}", OTHERS, name, rf"%\_{version}")
        (row,) = await pool.run(SETTINGS, args, timeout)
        ended = time.time()
    except (RequestError, StoreRefused) as err:
        detail = err.detail if isinstance(err, RequestError) else str(err)
        refused = isinstance(err, CoordError) or err.refusal is not None
        advice = "check user, password and TLS" if refused else "check that the server runs"
        return [Finding("error", what, detail, advice)]
    finally:
        await pool.close()
    offset = row["clock"] - (began + ended) / 2
    detail = f"{url.redacted}, {(ended - began) * 1000:.0f} ms with the log-in"
    if pool.pooled:
        advice = "for handovers without this delay, connect to the server itself"
        detail += "; through a pooler, so waiting candidates notice a change up to 0.25 s later"
        connected = Finding("ok", what, detail, advice)
    else:
        connected = Finding("ok", what, detail)
    return [
        connected,
        _clock(offset, (ended - began) / 2, url.max_clock_skew),
        *_server(row),
        *_durability(row),
        *_tables(row, url),
    ]


def _clock(offset: float, unsure: float, skew: float | None) -> Finding:
    detail = f"the server's is {abs(offset):.3f} s from this machine's (±{unsure:.3f} s)"
    if skew is not None and abs(offset) - unsure > skew / 2:
        advice = f"run NTP on all machines, or raise max_clock_skew in the URL ({skew:g} s)"
        return Finding("warn", "clocks", detail, advice)
    return Finding("ok", "clocks", detail)


def _server(row: Any) -> Iterator[Finding]:
    if row["number"] < OLDEST:
        yield Finding("warn", "server", f"version {row['version']}", "upgrade to 13 or later")
    else:
        yield Finding("ok", "server", f"version {row['version']}")
    if row["prepared"]:
        detail = f"{row['prepared']} prepared transactions may hold locks"
        yield Finding("warn", "server", detail, "commit or roll them back (pg_prepared_xacts)")
    if row["oldest"] > LONG_TRANSACTION:
        detail = f"a transaction has been open for {row['oldest'] / 3600:.1f} h"
        advice = "end it: while it is open, each renewal leaves a dead row (pg_stat_activity)"
        yield Finding("warn", "server", detail, advice)


def _durability(row: Any) -> Iterator[Finding]:
    what = "durability"
    for name in ("fsync", "full_page_writes"):
        if row[name] != "on":
            detail = f"{name} is {row[name]}: after a power failure tokens may be lost"
            yield Finding("error", what, detail, f"set {name} = on")
    if row["synchronous_commit"] in ("off", "local"):
        setting = row["synchronous_commit"]
        detail = f"synchronous_commit is {setting}: acknowledged tokens may be lost"
        yield Finding("error", what, detail, "set synchronous_commit = on")
    if row["standbys"] and not row["synchronous_standbys"]:
        detail = (
            "the standbys are asynchronous: after a promotion two candidates may lead until the "
            "old leader's next renewal (their fencing tokens differ)"
        )
        advice = "set synchronous_standby_names"
        yield Finding("warn", what, detail, advice)
    elif row["fsync"] == "on" and row["synchronous_commit"] not in ("off", "local"):
        yield Finding("ok", what, f"synchronous_commit is {row['synchronous_commit']}")


def _tables(row: Any, url: PostgreSQLURL) -> Iterator[Finding]:
    what, init = f"schema {url.schema}", f"run `{command('init --url', url.redacted)}`"
    if row["kind"] is None or not row["functions"]:
        missing = "table leases" if row["kind"] is None else "functions of this version of coord"
        yield Finding("error", what, f"the {missing} does not exist", init)
    elif row["kind"] != "p":
        detail = "the table leases is not logged: it is empty after a crash"
        yield Finding("error", what, detail, f"ALTER TABLE {url.schema}.leases SET LOGGED")
    elif row["missing"]:
        names = ", ".join(row["missing"])
        yield Finding("error", what, f"these tables do not exist: {names}", init)
    elif row["denied"]:
        grant = f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {url.schema} TO this user"
        yield Finding("error", what, f"the user may not call {row['denied']} functions", grant)
    else:
        yield Finding("ok", what, "has the tables and the functions, which this user may call")
