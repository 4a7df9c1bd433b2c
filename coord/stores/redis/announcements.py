"""Announcements in Redis: a hash each, and sorted sets by the time at which they expire.

Keys, all with the prefix of the namespace: `a:KEY` is the announcement; `aa` has all keys, `au` the
urgent ones, `ar:ROLE` those of a role, `ac:ROLE` its candidates.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from coord.core.announcements import (
    CANDIDATE,
    MAX_COUNTED,
    Announcement,
    counted_roles,
    decode_announcement,
    encode_body,
)
from coord.stores.failures import RequestError
from coord.stores.redis import errors, scripts
from coord.stores.redis.connection import Reply, Scripts, Word
from coord.stores.redis.feed import SUBSCRIBED, subscribe
from coord.stores.redis.url import RedisURL

READ_TIMEOUT = 10.0
"""Seconds that the first rows of a feed may take."""
PURGE_SIZE = 1_000
"""Announcements that one script of `purge` deletes."""
MAX_PURGED = 20
"""Expired announcements that are deleted whenever others are posted."""

# KEYS: meta. ARGV[1]: the prefix of the namespace. All keys are in the slot of meta.
_PRELUDE = (
    scripts.CLOCK
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not set up'} end
local P = ARGV[1]
local function delete(key)
  local role = redis.call('HGET', P .. 'a:' .. key, 'r')
  redis.call('DEL', P .. 'a:' .. key)
  redis.call('ZREM', P .. 'aa', key)
  redis.call('ZREM', P .. 'au', key)
  if role then
    redis.call('ZREM', P .. 'ar:' .. role, key)
    redis.call('ZREM', P .. 'ac:' .. role, key)
  end
end
local function delete_expired(limit)
  local keys = redis.call('ZRANGEBYSCORE', P .. 'aa', '-inf', text(now), 'LIMIT', 0, limit)
  for _, key in ipairs(keys) do delete(key) end
  return #keys
end
local function show(key)
  local r = redis.call('HMGET', P .. 'a:' .. key, 'r', 'k', 'y', 'l', 'u', 'w', 'x')
  return {key, r[1], r[2], r[3], r[4], r[5], r[6], text((tonumber(r[7]) or now) - now)}
end
"""
)

POST = (
    _PRELUDE
    + """
-- ARGV: 2 expired ones to delete, 3 how many roles to count, the roles, then for each announcement
-- key, role, kind, body, ttl, ttl in us, urgent, is a candidate, message
delete_expired(tonumber(ARGV[2]))
local roles = tonumber(ARGV[3])
for n = 4 + roles, #ARGV, 9 do
  local key, role, ends = ARGV[n], ARGV[n + 1], text(now + tonumber(ARGV[n + 5]))
  delete(key)
  redis.call('HSET', P .. 'a:' .. key, 'r', role, 'k', ARGV[n + 2], 'y', ARGV[n + 3],
    'l', ARGV[n + 4], 'u', ARGV[n + 6], 'w', text(now), 'x', ends)
  redis.call('ZADD', P .. 'aa', ends, key)
  redis.call('ZADD', P .. 'ar:' .. role, ends, key)
  if ARGV[n + 7] == '1' then redis.call('ZADD', P .. 'ac:' .. role, ends, key) end
  if ARGV[n + 6] == '1' then redis.call('ZADD', P .. 'au', ends, key) end
end
local counts = {}
for n = 4, 3 + roles do
  counts[#counts + 1] = redis.call('ZCOUNT', P .. 'ac:' .. ARGV[n], text(now), '+inf')
end
for n = 4 + roles, #ARGV, 9 do
  if ARGV[n + 6] == '1' then
    redis.pcall('PUBLISH', P .. 'f:a', '[' .. text(now) .. ',' .. ARGV[n + 8] .. ']')
  end
end
return counts
"""
)
WITHDRAW = _PRELUDE + "for n = 2, #ARGV do delete(ARGV[n]) end return 1"
PURGE = _PRELUDE + "return delete_expired(tonumber(ARGV[2]))"
READ = (
    _PRELUDE
    + """
-- ARGV: 2 the suffix of the sorted set for each set to read
local found = {}
for n = 2, #ARGV do
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. ARGV[n], text(now), '+inf')) do
    found[#found + 1] = show(key)
  end
end
return {found}
"""
)


class RedisAnnouncements:
    """The announcements of one namespace. Implements `coord.stores.protocol.Announcements`.

    Args:
        runner: Runs scripts on the connection of the store.
        url: Names the namespace.
    """

    def __init__(self, runner: Scripts, url: RedisURL) -> None:
        self._scripts, self._url = runner, url

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        """Write announcements, and count the candidates. See `protocol.Announcements.post`."""
        if not notices:
            return {}
        roles = counted_roles(notices)
        words: list[Word] = [MAX_PURGED, len(roles), *roles]
        for notice in notices:
            body = encode_body(notice.body)
            message = encode_body({"a": [notice.key, notice.role, notice.kind, body, notice.ttl]})
            words += (
                notice.key,
                notice.role,
                notice.kind,
                body,
                repr(float(notice.ttl)),
                round(notice.ttl * 1_000_000),
                int(notice.urgent),
                int(notice.kind == CANDIDATE),
                message,
            )
        counts = await self._run(POST, words, timeout)
        return {
            role: min(int(count), MAX_COUNTED) for role, count in zip(roles, counts, strict=True)
        }

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys, if they exist."""
        if keys:
            await self._run(WITHDRAW, sorted(keys), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about `roles` (None: about every role)."""
        sets = ["aa"] if roles is None else [f"ar:{role}" for role in sorted(set(roles))]
        return await self._read(sets, timeout)

    async def _read(self, sets: Sequence[str], timeout: float) -> list[Announcement]:
        if not sets:
            return []
        (answer,) = await self._run(READ, sets, timeout)
        decoded = (_decode(row) for row in answer)
        return [notice for notice in decoded if notice is not None]

    async def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements, and again whenever one is posted."""
        feed = subscribe(self._scripts.client, [f"{self._url.prefix}f:a"], "")
        try:
            async with contextlib.aclosing(feed):
                async for payload in feed:
                    if payload == SUBSCRIBED:  # nothing is missed from here on
                        for notice in await self._read(["au"], READ_TIMEOUT):
                            yield notice
                    elif (posted := _message(payload)) is not None:
                        yield posted
        except RequestError as err:
            raise err.error() from None

    async def purge(self, timeout: float) -> int:
        """Delete all expired announcements, and return how many they were."""
        count, deleted = 0, PURGE_SIZE
        while deleted == PURGE_SIZE:
            deleted = int(await self._run(PURGE, [PURGE_SIZE], timeout))
            count += deleted
        return count

    async def _run(self, script: str, words: Sequence[Word], timeout: float) -> Reply:
        prefix = self._url.prefix
        try:
            reply = await self._scripts.run(script, [f"{prefix}meta"], [prefix, *words], timeout)
            if reply == [b"not set up"]:
                raise errors.not_set_up(self._url)
        except RequestError as err:
            raise err.error() from None
        return reply


def _decode(row: Sequence[Any]) -> Announcement | None:
    key, role, kind, body, ttl, urgent, posted, remaining = (
        value.decode(errors="replace") if isinstance(value, bytes) else value for value in row
    )
    try:
        times = float(ttl), int(posted) / 1_000_000, int(remaining) / 1_000_000
    except (TypeError, ValueError):
        return None
    return decode_announcement(
        key,
        role,
        kind,
        body,
        ttl=times[0],
        urgent=urgent == "1",
        posted_at=times[1],
        seconds_left=times[2],
    )


def _message(payload: bytes) -> Announcement | None:
    try:
        posted, fields = json.loads(payload)
        key, role, kind, body, ttl = fields["a"]
        return decode_announcement(
            key,
            role,
            kind,
            body,
            ttl=ttl,
            urgent=True,
            posted_at=posted / 1_000_000,
            seconds_left=ttl,
        )
    except (ValueError, TypeError, KeyError):
        return None
