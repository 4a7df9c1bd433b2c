"""Service records in Redis: a hash each, and a set of ids for each role.

Keys, all with the prefix of the namespace and the name of the table: `s:TABLE:i:ID` is the record,
`s:TABLE:all` has all ids and `s:TABLE:r:ROLE` those of a role. A record has the fields `v` (all
that the service says, as JSON), `r` role, `o` load ('' if it is not a number), `t` ttl in seconds,
`b` the last heartbeat in microseconds since 1970 by the server's clock, `f` the first one as JSON,
and `n`, the nonce of a tombstone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.core.validation import is_number
from coord.runtime.retry import rng
from coord.stores.failures import RequestError
from coord.stores.redis import errors, scripts
from coord.stores.redis.connection import Reply, Scripts, Word
from coord.stores.redis.feed import subscribe
from coord.stores.redis.url import RedisURL

TOMBSTONE_TTL = 60.0
"""The ttl in seconds of the tombstone of a record that had no valid ttl."""

# KEYS: meta. ARGV: 1 the prefix of the table's keys, 2 the prefix of its channels.
_PRELUDE = (
    scripts.CLOCK
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not set up'} end
local P, C = ARGV[1], ARGV[2]
local function get(id)
  local r = redis.call('HMGET', P .. 'i:' .. id, 'v', 'r', 'o', 't', 'b', 'f', 'n')
  if not (r[1] or r[7]) then return nil end
  return {id = id, v = r[1], r = r[2], o = r[3], t = r[4], b = r[5], f = r[6], n = r[7]}
end
local function show(r)
  return {r.id, r.v or false, r.t or false, r.b or false, r.f or false, text(now)}
end
local function hint(role) if role then redis.pcall('PUBLISH', C .. role, '') end end
local function delete(r)
  redis.call('DEL', P .. 'i:' .. r.id)
  redis.call('SREM', P .. 'all', r.id)
  if r.r then redis.call('SREM', P .. 'r:' .. r.r, r.id) end
end
local function remaining(r)
  local ttl, beat = tonumber(r.t or ''), tonumber(r.b or '')
  if not ttl or ttl <= 0 or not beat then return nil end
  return ttl * 1000000 - (now - beat)
end
local function put(old, id, value, role, load, ttl, first, beat)
  if old then delete(old) end
  local stamp = old and not old.n and old.f or first
  if stamp == '' then
    stamp = string.format('{"$reql_type$":"TIME","epoch_time":%.3f,"timezone":"+00:00"}',
      math.floor(beat / 1000) / 1000)
  end
  local r = {id = id, v = value, r = role, o = load, t = ttl, b = text(beat), f = stamp}
  redis.call('HSET', P .. 'i:' .. id, 'v', value, 'r', role, 'o', load, 't', ttl, 'b', r.b,
    'f', stamp)
  redis.call('SADD', P .. 'all', id)
  redis.call('SADD', P .. 'r:' .. role, id)
  return r
end
local function tombstone(id, nonce, ttl)
  redis.call('HSET', P .. 'i:' .. id, 'n', nonce, 't', ttl, 'b', text(now - ttl * 1000000))
  redis.call('SADD', P .. 'all', id)
end
local function published(r)
  local ok, value = pcall(cjson.decode, r.v or '')
  if ok and type(value) == 'table' and type(value.holder) == 'string'
    and type(value.token) == 'number' then return value.token end
end
"""
)

WRITE = (
    _PRELUDE
    + """
-- ARGV: 3 register, refresh or publish, 4 id, 5 value, 6 role, 7 load, 8 ttl, 9 first heartbeat or
-- '', 10 nonce, or the token of a leader, 11 us since the heartbeat of a leader
local r, role = get(ARGV[4]), ARGV[6]
local there = r and not r.n
if ARGV[3] == 'register' and r and r.n == ARGV[10] then return {'refused'} end
if ARGV[3] == 'refresh' and not there then return {'refused'} end
if ARGV[3] == 'publish' and there then
  local token, left = published(r), remaining(r)
  if token and token > tonumber(ARGV[10]) then return {'refused'} end
  if not token and left and left > 0 then return {'refused'} end
end
local stored = put(r, ARGV[4], ARGV[5], role, ARGV[7], ARGV[8], ARGV[9], now - tonumber(ARGV[11]))
if not there then hint(role) end
return {'stored', show(stored)}
"""
)
REMOVE = (
    _PRELUDE
    + f"""
-- ARGV: 3 id, 4 nonce or '', 5 the token of a leader or ''
local r = get(ARGV[3])
if ARGV[5] ~= '' then
  local token = r and not r.n and published(r)
  if not token or token > tonumber(ARGV[5]) then return 0 end
end
if r then delete(r) end
if ARGV[4] ~= '' then
  local left = r and not r.n and remaining(r)
  tombstone(ARGV[3], ARGV[4], left and r.t or '{TOMBSTONE_TTL}')
end
if not r or r.n then return 0 end
hint(r.r)
return 1
"""
)
LOOKUP = (
    _PRELUDE
    + """
-- ARGV: 3 all, healthy or least, 4 the suffix of the set, or an id, 5 1 for an id, 6 role or ''
local ids = ARGV[5] == '1' and {ARGV[4]} or redis.call('SMEMBERS', P .. ARGV[4])
local found, best, least = {}, nil, nil
for _, id in ipairs(ids) do
  local r = get(id)
  if r and not r.n and (ARGV[6] == '' or r.r == ARGV[6]) then
    local left = remaining(r)
    if ARGV[3] == 'all' or (left and left > 0) then
      if ARGV[3] == 'least' then
        local load = tonumber(r.o or '') or math.huge
        if not best or load < least then best, least = r, load end
      else
        found[#found + 1] = show(r)
      end
    end
  end
end
if best then found[1] = show(best) end
return {found}
"""
)
PURGE = (
    _PRELUDE
    + """
-- ARGV: 3 how many ttls
local count = 0
for _, id in ipairs(redis.call('SMEMBERS', P .. 'all')) do
  local r = get(id)
  local left = r and remaining(r)
  if left and tonumber(r.t) * 1000000 - left > tonumber(ARGV[3]) * tonumber(r.t) * 1000000 then
    delete(r)
    if not r.n then hint(r.r) end
    count = count + 1
  end
end
return count
"""
)


class RedisRecords:
    """The service records in one table of a namespace. Implements `protocol.Records`.

    Args:
        runner: Runs scripts on the connection of the store.
        url: Names the namespace.
        table: The name of the table.
    """

    def __init__(self, runner: Scripts, url: RedisURL, table: str) -> None:
        self._scripts, self._url = runner, url
        self._prefix = f"{url.prefix}s:{table}:"
        self._channels = f"{url.prefix}f:s:{table}:"

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write the record, and return it as stored. See `protocol.Records.register`."""
        return await self._write("register", record, nonce, 0, timeout)

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """Write the record if it exists, and return it as stored; None if it does not exist."""
        return await self._write("refresh", record, "", 0, timeout)

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write the record of a leader under its role. See `protocol.Records.publish`."""
        silent = round((record["ttl"] - remaining) * 1_000_000)
        whole = {"load": None, **record, "id": record["role"]}
        return await self._write("publish", whole, record["token"], silent, timeout) is not None

    async def _write(
        self, how: str, record: Mapping[str, Any], mark: Word, silent: int, timeout: float
    ) -> Record | None:
        value = dict(record)
        first = value.pop("first_heartbeat", None)
        value.pop("last_heartbeat", None)
        load = record.get("load")
        reply = await self._run(
            WRITE,
            [
                how,
                records.encode_record(record["id"]),
                records.encode_record(value),
                record["role"],
                repr(load) if is_number(load) else "",
                repr(float(record["ttl"])),
                "" if first is None else records.encode_record(first),
                mark,
                silent,
            ],
            timeout,
        )
        return None if reply[0] == b"refused" else _record(reply[1])

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete the record, and return whether it existed. See `protocol.Records.remove`."""
        words = [records.encode_record(key), nonce or "", ""]
        return bool(await self._run(REMOVE, words, timeout))

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the record of a leader, unless a later leader wrote it."""
        return bool(await self._run(REMOVE, [records.encode_record(role), "", token], timeout))

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """Return the healthy record of `role` with the lowest load; None if there is none."""
        healthy = await self._lookup("least", role, None, timeout)
        return _record(healthy[0]) if healthy else None

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """Return at most `count` healthy records of `role`, drawn at random."""
        healthy = await self.healthy(role, timeout)
        return rng.sample(healthy, min(count, len(healthy)))

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """Return the healthy records of `role` (None: of every role), or the one with id `key`."""
        return [_record(row) for row in await self._lookup("healthy", role, key, timeout)]

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """Return the records of `role` (None: of every role), healthy or not."""
        judged = []
        for row in await self._lookup("all", role, None, timeout):
            record = _record(row)
            if records.has_valid_times(record):
                silent = (int(row[5]) - int(row[3])) / 1_000_000
                judged.append(RecordWithRemaining(record, float(row[2]) - silent))
        return judged

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records that were silent for more than `ttls` of their own ttls."""
        return int(await self._run(PURGE, [repr(float(ttls))], timeout))

    async def malformed(self, timeout: float) -> list[Record]:
        """Return the records that have a problem."""
        rows = await self._lookup("all", None, None, timeout)
        malformed = []
        for row in rows:
            record = _record(row)
            now = datetime.fromtimestamp(int(row[5]) / 1_000_000, timezone.utc)
            if records.problems(record, now):
                malformed.append(record)
        return malformed

    async def watch(self, role: str) -> AsyncIterator[None]:
        """Yield at once, and whenever a service of `role` appears or disappears."""
        feed = subscribe(self._scripts.client, [self._channels + role], "")
        try:
            async with contextlib.aclosing(feed):
                async for _ in feed:
                    yield
        except RequestError as err:
            raise err.error() from None

    async def _lookup(
        self, what: str, role: str | None, key: str | None, timeout: float
    ) -> Sequence[Any]:
        words: list[Word] = (
            ["all" if role is None else f"r:{role}", 0]
            if key is None
            else [records.encode_record(key), 1]
        )
        (answer,) = await self._run(LOOKUP, [what, *words, role or ""], timeout)
        return answer  # type: ignore[no-any-return]  # the script answers a list

    async def _run(self, script: str, words: Sequence[Word], timeout: float) -> Reply:
        arguments = [self._prefix, self._channels, *words]
        try:
            reply = await self._scripts.run(script, [f"{self._url.prefix}meta"], arguments, timeout)
            if reply == [b"not set up"]:
                raise errors.not_set_up(self._url)
        except RequestError as err:
            raise err.error() from None
        return reply


def _record(row: Sequence[Any]) -> Record:
    """Return the record in a row of a script; what a person damaged is left out."""
    key, value, _, beat, first, _ = row
    try:
        record = records.decode_record((value or b"{}").decode())
        record = record if isinstance(record, dict) else {}
    except (TypeError, ValueError):
        record = {}
    try:
        record["id"] = records.decode_record(key.decode())
    except (TypeError, ValueError):
        record["id"] = key.decode(errors="replace")
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        record["first_heartbeat"] = records.decode_record(first.decode())
    if beat is not None:
        try:
            milliseconds = int(beat) // 1000
            record["last_heartbeat"] = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        except (ValueError, OverflowError, OSError):
            record["last_heartbeat"] = beat.decode(errors="replace")
    return record
