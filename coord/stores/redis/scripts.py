"""The Lua scripts: what a claim, a renewal, a release and a read do, atomically on the server.

They say the same as `coord/core/swaps.py` and `coord/core/history.py`. A script is not a
transaction: what it wrote before an error stays. So each script reads and checks everything first,
writes at the end, and publishes last, where a refusal is ignored.

Keys, all with the prefix `{coord:NAMESPACE}:`:

* `l:ROLE`: a hash, the lease. `h` holder (missing if vacant), `t` token, `b` beat, `l` ttl in
  seconds, `x` when it expires, `w` when it was written, `s` when the term began, `i` info as JSON,
  `k` the text that the role keeps (missing until one was written), which claims do not change.
  Times are microseconds since 1970 by the server's clock.
* `p:ROLE`: a list, the history. Each element is a text of JSON lines.
* `roles`: the set of all roles.
* `meta`: a hash that only `coord init` creates. `id` the server's replication id, `floor` a number
  that all tokens exceed, `high` the greatest token, `longest` the greatest ttl in microseconds,
  `raised` when it was raised, `settled` the greatest ttl that is old enough to be used, `quiet`
  until when nobody is elected after an epoch began.

No key has an expiry of Redis: a row that disappears would take its token with it.

**Epochs.** Replication is asynchronous, and a server may lose its last writes in a crash. Then the
next claim of a role could get a token that was given before. So the first script that runs on a
server with another replication id (each restart and each promotion makes a new one) begins an
epoch: `floor` rises above every token that the old server can have given, and until the greatest
ttl has passed, no claim is applied, since a lease that was lost may still be believed in. That
holds for the holder of a lease, too: it may have released the role, and another candidate may have
claimed it, in the writes that were lost. Renewals go on. A ttl that is greater than any before is
stored first and used `SETTLE` later, so that the next server knows of it.

The replication id is a server's own, so it also changes where a backup is restored.

Numbers are written with `%.0f`, because `tostring` in Lua has 14 digits.
"""

from __future__ import annotations

from coord.core.history import MAX_TERMS
from coord.core.lease import MAX_TOKEN, PAUSED

EPOCH_STEP = 2**20
"""Tokens between the greatest known token and the first one of a new epoch. Claims that were
acknowledged and then lost may have given as many."""
SETTLE = 2_000_000
"""Microseconds from when a greater ttl is stored until leases may have it. By then the disk has it
(`appendfsync everysec` takes one second) and so do replicas that do not lag."""
EPOCH_ZERO = 1_577_836_800 * 1_000_000
"""2020-01-01 in microseconds since 1970. The floor of an epoch is also at least the microseconds
since then, which protects against an epoch that was lost itself; it stays below the greatest token
until the year 2305."""

CLOCK = """
local function text(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
"""
"""Lua: the time in microseconds since 1970, and how numbers are written."""

_PRELUDE = (
    CLOCK
    + f"""
local SETTLE = {SETTLE}
local replication = redis.call('INFO', 'replication')
if string.match(replication, 'role:(%a+)') ~= 'master' then
  return redis.error_reply('READONLY this server is a replica')
end
local function epoch(key)
  local m = redis.call('HMGET', key, 'id', 'floor', 'high', 'longest', 'quiet', 'settled',
    'raised')
  if not m[1] then return nil end
  local e = {{key = key, floor = tonumber(m[2]), high = tonumber(m[3]), longest = tonumber(m[4]),
    quiet = tonumber(m[5]), settled = tonumber(m[6]), raised = tonumber(m[7])}}
  local id = string.match(replication, 'master_replid:(%x+)')
  if id ~= m[1] then
    e.floor = math.max(e.floor, e.high + {EPOCH_STEP}, now - {EPOCH_ZERO})
    e.quiet, e.id = math.max(e.quiet, now + e.longest), id
  end
  return e
end
-- Whether a lease may last so long: seconds until it may, in microseconds, or nil.
local function too_long(e, ttl)
  if ttl <= e.settled then return nil end
  if ttl > e.longest then
    e.longest, e.raised = ttl, now
    return SETTLE
  end
  if now < e.raised + SETTLE then return e.raised + SETTLE - now end
  e.settled = e.longest
  return nil
end
local function store_longest(e)
  redis.call('HSET', e.key, 'longest', text(e.longest), 'settled', text(e.settled), 'raised',
    text(e.raised))
end
local function begin_epoch(e)
  if e.id then
    redis.call('HSET', e.key, 'id', e.id, 'floor', text(e.floor), 'quiet', text(e.quiet))
  end
end
local function row(key)
  local r = redis.call('HMGET', key, 'h', 't', 'b', 'l', 'x', 'w', 's', 'i')
  local lease = {{h = r[1], t = tonumber(r[2] or '0'), b = tonumber(r[3] or '0'), l = r[4] or '0',
    x = tonumber(r[5] or '0'), w = tonumber(r[6] or '0'), s = r[7] or '0', i = r[8] or '{{}}'}}
  if not (lease.t and lease.b and lease.x and lease.w and tonumber(lease.l)) then
    error('damaged')
  end
  return lease
end
local function reply(applied, r)
  return {{applied, text(now), r.h or false, text(r.t), text(r.b), r.l, text(r.x), text(r.w),
    r.s, r.i}}
end
local function publish(channel, role, r, info)
  redis.pcall('PUBLISH', channel, cjson.encode({{role, r.h or cjson.null, text(r.t), text(r.b),
    r.l, text(r.x - now), text(r.w), info}}))
end
local function seconds(microseconds) return string.format('%.6f', microseconds / 1000000) end
local function close_term(key, ended, reason, by)
  local last = redis.call('LINDEX', key, -1)
  if last and not string.find(last, '\\n', 1, true) then
    redis.call('LSET', key, -1, last .. '\\n{{"until":' .. seconds(ended) .. ',"reason":' .. reason
      .. ',"by":' .. by .. '}}')
  end
end
"""
)

CLAIM = (
    _PRELUDE
    + f"""
-- KEYS: lease, history, roles, meta
-- ARGV: role, holder, beat, ttl, ttl in us, expected holder (- if none is expected, = if vacant,
-- =ID), expected token, expected beat, takeover, skew in us or '', floor, info, lost token or '',
-- lost reason, the term's holder and info as JSON, channel
local e = epoch(KEYS[4])
if not e then return {{'not set up'}} end
local sound, r = pcall(row, KEYS[1])
if not sound then return {{'damaged'}} end
local beat = tonumber(ARGV[3])
local ttl = tonumber(ARGV[5])
local seen = ARGV[6] == '-' or
  ((r.h or '') == string.sub(ARGV[6], 2) and r.t == tonumber(ARGV[7]) and r.b == tonumber(ARGV[8]))
local mine = r.h == ARGV[2] and beat > r.b
local expired = ARGV[10] ~= '' and r.h and now - r.x > tonumber(ARGV[10])
local free = r.h ~= '{PAUSED}' and (not r.h or mine or ARGV[9] == '1' or expired)
if not (seen and free) then
  begin_epoch(e)
  return reply(0, r)
end
if now < e.quiet then
  begin_epoch(e)
  return {{'new epoch', text(e.quiet - now)}}
end
local left = too_long(e, ttl)
if left then
  begin_epoch(e)
  store_longest(e)
  return {{'longer ttl', text(left)}}
end
local token = math.max(r.t, tonumber(ARGV[11]), e.floor) + 1
if token > {MAX_TOKEN} then return {{'no tokens left'}} end
local old = r
r = {{h = ARGV[2], t = token, b = beat, l = ARGV[4], x = now + ttl, w = now, s = text(now),
  i = ARGV[12]}}
begin_epoch(e)
redis.call('HSET', e.key, 'high', text(math.max(e.high, token)), 'settled', text(e.settled))
redis.call('HSET', KEYS[1], 'h', r.h, 't', text(token), 'b', text(beat), 'l', r.l, 'x', text(r.x),
  'w', text(now), 's', r.s, 'i', r.i)
redis.call('SADD', KEYS[3], ARGV[1])
local reason = '"expired"'
if ARGV[13] ~= '' and old.h == ARGV[2] and old.t == tonumber(ARGV[13]) then reason = ARGV[14] end
close_term(KEYS[2], math.min(now, old.w + tonumber(old.l) * 1000000), reason, '""')
redis.call('RPUSH', KEYS[2], '{{"token":' .. text(token) .. ',"holder":' .. ARGV[15] .. ',"since":'
  .. seconds(now) .. ',"info":' .. ARGV[16] .. '}}')
redis.call('LTRIM', KEYS[2], -{MAX_TERMS}, -1)
publish(ARGV[17], ARGV[1], r, r.i)
return reply(1, r)
"""
)

RENEW = (
    _PRELUDE
    + """
-- KEYS: meta, then a lease for each renewal
-- ARGV: for each renewal its holder, token, beat, ttl, ttl in us, info or '', =TEXT to keep or ''
local e = epoch(KEYS[1])
if not e then return {'not set up'} end
local results, rows = {}, {}
local longest, settled = e.longest, e.settled
for n = 2, #KEYS do
  local a = (n - 2) * 7
  local ok, r = pcall(row, KEYS[n])
  if not ok then
    results[n - 1] = {'damaged'}
  elseif r.h ~= ARGV[a + 1] or r.t ~= tonumber(ARGV[a + 2]) or tonumber(ARGV[a + 3]) <= r.b then
    results[n - 1] = reply(0, r)
  elseif too_long(e, tonumber(ARGV[a + 5])) then
    results[n - 1] = {'longer ttl', text(e.raised + SETTLE - now)}
  else
    r.b = tonumber(ARGV[a + 3])
    if tonumber(ARGV[a + 4]) > tonumber(r.l) then r.l = ARGV[a + 4] end
    local ttl = tonumber(ARGV[a + 5])
    r.x, r.w = math.max(r.x, now + ttl), math.max(r.w, now)
    if ARGV[a + 6] ~= '' then r.i, r.news = ARGV[a + 6], true end
    if ARGV[a + 7] ~= '' then r.kept = string.sub(ARGV[a + 7], 2) end
    rows[n] = r
    results[n - 1] = reply(1, r)
  end
end
begin_epoch(e)
if e.longest ~= longest or e.settled ~= settled then store_longest(e) end
for n, r in pairs(rows) do
  redis.call('HSET', KEYS[n], 'b', text(r.b), 'l', r.l, 'x', text(r.x), 'w', text(r.w))
  if r.news then redis.call('HSET', KEYS[n], 'i', r.i) end
  if r.kept then redis.call('HSET', KEYS[n], 'k', r.kept) end
end
for n, r in pairs(rows) do
  local prefix, role = string.match(KEYS[n], '^(.-}:)l:(.*)$')
  publish(prefix .. 'f:l:' .. role, role, r, r.news and r.i or nil)
end
return results
"""
)

RELEASE = (
    _PRELUDE
    + """
-- KEYS: lease, history, meta
-- ARGV: role, holder, token, beat, linger, linger in us, successor or '', reason and by as JSON,
-- channel, =TEXT to keep or ''
local e = epoch(KEYS[3])
if not e then return {'not set up'} end
local sound, r = pcall(row, KEYS[1])
if not sound then return {'damaged'} end
local beat, linger = tonumber(ARGV[4]), tonumber(ARGV[6])
if not (r.h == ARGV[2] and r.t == tonumber(ARGV[3]) and beat > r.b) then
  begin_epoch(e)
  return reply(0, r)
end
r.b, r.w = beat, now
if linger > 0 then
  r.l, r.x = ARGV[5], now + linger
  -- The successor did not count beat 0, so what it sends next is newer.
  if ARGV[7] ~= '' then r.h, r.b, r.s, r.i = ARGV[7], 0, '0', '{}' end
else
  r.h, r.x, r.s = false, 0, '0'
end
begin_epoch(e)
redis.call('HSET', KEYS[1], 'b', text(r.b), 'l', r.l, 'x', text(r.x), 'w', text(now), 's', r.s,
  'i', r.i)
if r.h then redis.call('HSET', KEYS[1], 'h', r.h) else redis.call('HDEL', KEYS[1], 'h') end
if ARGV[11] ~= '' then redis.call('HSET', KEYS[1], 'k', string.sub(ARGV[11], 2)) end
close_term(KEYS[2], now, ARGV[8], ARGV[9])
publish(ARGV[10], ARGV[1], r)
return reply(1, r)
"""
)

OVERRIDE = (
    _PRELUDE
    + """
-- KEYS: lease, history, roles, meta
-- ARGV: role, expected holder (= if vacant, =ID), expected token, expected beat, holder, beat, ttl,
-- ttl in us, info, reason and by as JSON, channel
-- It elects nobody, so it needs no quiet time. A role without a row begins at the floor, because it
-- may have been retired.
local e = epoch(KEYS[4])
if not e then return {'not set up'} end
local sound, r = pcall(row, KEYS[1])
if not sound then return {'damaged'} end
begin_epoch(e)
if (r.h or '') ~= string.sub(ARGV[2], 2) or r.t ~= tonumber(ARGV[3]) or r.b ~= tonumber(ARGV[4])
then
  return reply(0, r)
end
if not r.h then r.l, r.x = ARGV[7], now + tonumber(ARGV[8]) end
if redis.call('EXISTS', KEYS[1]) == 0 then r.t = math.max(r.t, e.floor) end
r.h, r.b, r.w, r.s, r.i = ARGV[5], tonumber(ARGV[6]), now, text(now), ARGV[9]
redis.call('HSET', KEYS[1], 'h', r.h, 't', text(r.t), 'b', text(r.b), 'l', r.l, 'x', text(r.x),
  'w', text(now), 's', r.s, 'i', r.i)
redis.call('SADD', KEYS[3], ARGV[1])
close_term(KEYS[2], now, ARGV[10], ARGV[11])
publish(ARGV[12], ARGV[1], r, r.i)
return reply(1, r)
"""
)

READ = (
    _PRELUDE
    + """
-- KEYS: meta, then leases. A missing lease is false.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not set up'} end
local results = {}
for n = 2, #KEYS do
  local ok, r = pcall(row, KEYS[n])
  if not ok then
    results[n - 1] = {'damaged'}
  elseif redis.call('EXISTS', KEYS[n]) == 0 then
    results[n - 1] = false
  else
    results[n - 1] = reply(0, r)
  end
end
return results
"""
)

RETIRE = (
    _PRELUDE
    + """
-- KEYS: meta, roles, then a lease and a history for each role
-- ARGV: for each role its name, expected holder (= if vacant, =ID), token, beat, and the time
-- before which it must have been written
-- The floor of the namespace is above the tokens of all rows that are deleted, whatever their
-- prefixes are.
local e = epoch(KEYS[1])
if not e then return {'not set up'} end
local results, unused, floor = {}, {}, e.floor
for n = 3, #KEYS, 2 do
  local a = (n - 3) / 2 * 5
  local sound, r = pcall(row, KEYS[n])
  local kept = sound and redis.call('HGET', KEYS[n], 'k')
  if sound and redis.call('EXISTS', KEYS[n]) == 1 and not r.h and ARGV[a + 2] == '='
    and r.t == tonumber(ARGV[a + 3]) and r.b == tonumber(ARGV[a + 4])
    and r.w < tonumber(ARGV[a + 5]) and (not kept or kept == '')
  then
    unused[#unused + 1] = n
    floor = math.max(floor, r.t)
    results[#results + 1] = 1
  else
    results[#results + 1] = 0
  end
end
begin_epoch(e)
redis.call('HSET', e.key, 'floor', text(floor))
for _, n in ipairs(unused) do
  redis.call('DEL', KEYS[n], KEYS[n + 1])
  redis.call('SREM', KEYS[2], ARGV[(n - 3) / 2 * 5 + 1])
end
return results
"""
)

KEPT = (
    _PRELUDE
    + """
-- KEYS: meta, a lease. The answer is the token of the lease and its kept text.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not set up'} end
local kept = redis.call('HMGET', KEYS[2], 't', 'k')
if not tonumber(kept[1] or '0') then return {'damaged'} end
return {text(tonumber(kept[1] or '0')), kept[2] or ''}
"""
)

RAISE_FLOOR = (
    _PRELUDE
    + """
-- KEYS: meta, roles, then leases. ARGV: floor, 1 to create missing leases, then the roles.
local e = epoch(KEYS[1])
if not e then return {'not set up'} end
local floor, raise = tonumber(ARGV[1]), {}
for n = 3, #KEYS do
  local exists = redis.call('EXISTS', KEYS[n]) == 1
  local sound, r = pcall(row, KEYS[n])
  if (exists and sound and r.t < floor) or (not exists and ARGV[2] == '1') then
    raise[#raise + 1] = n
  end
end
begin_epoch(e)
redis.call('HSET', e.key, 'floor', text(math.max(e.floor, floor)), 'high',
  text(math.max(e.high, floor)))
for _, n in ipairs(raise) do
  redis.call('HSET', KEYS[n], 't', text(floor))
  redis.call('SADD', KEYS[2], ARGV[n])
end
return {#raise}
"""
)

INIT = """
-- KEYS: meta
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
redis.call('HSET', KEYS[1], 'id', id, 'floor', '0', 'high', '0', 'longest', '0', 'quiet', '0',
  'settled', '0', 'raised', '0')
return 1
"""
