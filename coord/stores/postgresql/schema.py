"""The tables and functions of coord in PostgreSQL: `coord/core/swaps.py` in PL/pgSQL.

Each swap is one call of one function. A function first reads the row without a lock, so that a
refused claim writes nothing and waits for nobody. Then it locks the row that it read, and only then
reads the clock: `clock_timestamp()`, since `now()` is the begin of the transaction, which may have
waited. A row that changed in between is read again. Everything runs under READ COMMITTED, where
each statement of a function sees what was committed before it.

The functions have the rights of the user who ran `coord init`. Programs need no right to write the
tables, so a mistake cannot delete a lease or lower a token. The names of functions end in the
version of this schema, so that an older coord finds its own functions while both run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from coord.core.announcements import CANDIDATE, MAX_COUNTED
from coord.core.history import MAX_TERMS
from coord.core.lease import PAUSED
from coord.stores.postgresql.floor_functions import FLOORS
from coord.stores.postgresql.record_functions import RECORDS

VERSION = 1
"""The version of this schema. It is the end of the names of all functions."""
LOCK = (4919, 1)
"""The advisory lock under which tables are created: `CREATE … IF NOT EXISTS` is not atomic."""

# Equality is by bytes (COLLATE "C"). `info` is a text and not jsonb, which rejects \u0000. No index
# contains a column that renewals change, so that PostgreSQL can update a row within its page. The
# kept texts have a table of their own, so that no renewal copies them; they are written while their
# lease is locked.
TABLES = """
CREATE TABLE IF NOT EXISTS {schema}.leases (
  role text COLLATE "C" PRIMARY KEY,
  holder text COLLATE "C",
  token bigint NOT NULL CHECK (token BETWEEN 0 AND 9007199254740992),
  beat bigint NOT NULL,
  ttl float8 NOT NULL CHECK (ttl BETWEEN 0 AND 2678400),
  expires_at timestamptz NOT NULL CHECK (isfinite(expires_at)),
  renewed_at timestamptz NOT NULL CHECK (isfinite(renewed_at)),
  since timestamptz CHECK (isfinite(since)),
  info text NOT NULL DEFAULT '{{}}',
  history text[] NOT NULL DEFAULT '{{}}'
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE IF NOT EXISTS {schema}.kept (
  role text COLLATE "C" PRIMARY KEY,
  content text NOT NULL
);

CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.announcements (
  key text COLLATE "C" PRIMARY KEY,
  role text COLLATE "C" NOT NULL,
  kind text NOT NULL,
  body text NOT NULL,
  ttl float8 NOT NULL,
  urgent boolean NOT NULL,
  posted_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS announcements_role ON {schema}.announcements (role);
CREATE INDEX IF NOT EXISTS announcements_urgent ON {schema}.announcements (key) WHERE urgent;
"""

FUNCTIONS = """
CREATE OR REPLACE FUNCTION {schema}.read_{version}(p_roles text[])
RETURNS TABLE (role text, holder text, token bigint, beat bigint, ttl float8, remaining float8,
  renewed_at float8, info text, since float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
  SELECT l.role, l.holder, l.token, l.beat, l.ttl,
    CASE WHEN l.holder IS NULL THEN 0
      ELSE extract(epoch FROM l.expires_at - clock_timestamp()) END::float8,
    extract(epoch FROM l.renewed_at)::float8, l.info,
    coalesce(extract(epoch FROM l.since), 0)::float8
  FROM {schema}.leases l WHERE p_roles IS NULL OR l.role = ANY (p_roles)
$$;

CREATE OR REPLACE FUNCTION {schema}.past_{version}(p_roles text[])
RETURNS TABLE (role text, history text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
  SELECT l.role, l.history FROM {schema}.leases l WHERE p_roles IS NULL OR l.role = ANY (p_roles)
$$;

CREATE OR REPLACE FUNCTION {schema}.kept_{version}(p_role text)
RETURNS TABLE (token bigint, content text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
  SELECT l.token, coalesce(k.content, '') FROM {schema}.leases l
    LEFT JOIN {schema}.kept k ON k.role = l.role WHERE l.role = p_role
$$;

-- The last term of a history ends, if it has not ended yet: a line is added to its text.
CREATE OR REPLACE FUNCTION {schema}.close_last_{version}(
  p_history text[], p_until timestamptz, p_reason text, p_by text
) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  n int := coalesce(array_length(p_history, 1), 0);
BEGIN
  IF n > 0 AND position(E'\\n' IN p_history[n]) = 0 THEN
    p_history[n] := p_history[n] || E'\\n{{"until":' || extract(epoch FROM p_until)::float8
      || ',"reason":' || p_reason || ',"by":' || p_by || '}}';
  END IF;
  RETURN p_history;
END $$;

-- outcome: 0 refused, 1 applied, 2 refused because there is no greater token.
CREATE OR REPLACE FUNCTION {schema}.claim_{version}(
  p_role text, p_holder text, p_beat bigint, p_ttl float8,
  p_expected boolean, p_expected_holder text, p_expected_token bigint, p_expected_beat bigint,
  p_takeover boolean, p_skew float8, p_floor bigint, p_info text,
  p_opening text, p_lost_token bigint, p_lost_reason text
) RETURNS TABLE (outcome int, holder text, token bigint, beat bigint, ttl float8,
  remaining float8, renewed_at float8, info text, since float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  old {schema}.leases;
  present boolean;
  clock timestamptz;
  last bigint;
  lowest bigint;
  reason text;
  terms text[];
BEGIN
  LOOP
    SELECT * INTO old FROM {schema}.leases l WHERE l.role = p_role;
    present := FOUND;
    IF NOT present THEN
      old.role := p_role; old.holder := NULL; old.token := 0; old.beat := 0; old.ttl := 0;
      old.expires_at := 'epoch'; old.renewed_at := 'epoch'; old.info := '{{}}';
      old.history := '{{}}';
    END IF;
    clock := clock_timestamp();
    last := greatest(old.token, p_floor, {schema}.token_floor_{version}());
    outcome := CASE
      WHEN old.holder = '{paused}' THEN 0
      WHEN p_expected AND NOT (old.holder IS NOT DISTINCT FROM p_expected_holder
        AND old.token = p_expected_token AND old.beat = p_expected_beat) THEN 0
      WHEN NOT (old.holder IS NULL OR (old.holder = p_holder AND p_beat > old.beat) OR p_takeover
        OR coalesce(extract(epoch FROM clock - old.expires_at) > p_skew, false)) THEN 0
      WHEN last >= 9007199254740992 THEN 2
      ELSE 1 END;
    IF outcome <> 1 THEN
      RETURN QUERY SELECT outcome, old.holder, old.token, old.beat, old.ttl,
        CASE WHEN old.holder IS NULL THEN 0
          ELSE extract(epoch FROM old.expires_at - clock) END::float8,
        extract(epoch FROM old.renewed_at)::float8, old.info,
        coalesce(extract(epoch FROM old.since), 0)::float8;
      RETURN;
    END IF;
    IF present THEN
      SELECT * INTO old FROM {schema}.leases l
        WHERE l.role = p_role AND l.holder IS NOT DISTINCT FROM old.holder
          AND l.token = old.token AND l.beat = old.beat
        FOR NO KEY UPDATE;
      CONTINUE WHEN NOT FOUND;
    END IF;
    clock := clock_timestamp();
    reason := CASE WHEN old.holder = p_holder AND old.token = p_lost_token
      THEN p_lost_reason ELSE '"expired"' END;
    terms := {schema}.close_last_{version}(old.history,
      least(clock, old.renewed_at + make_interval(secs => old.ttl)), reason, '""');
    terms := terms || ('{{"token":' || (last + 1) || p_opening || '"since":'
      || extract(epoch FROM clock)::float8 || '}}');
    terms := terms[greatest(1, array_length(terms, 1) - {max_terms} + 1):];
    IF present THEN
      UPDATE {schema}.leases l SET holder = p_holder, token = last + 1, beat = p_beat, ttl = p_ttl,
        expires_at = clock + make_interval(secs => p_ttl), renewed_at = clock, since = clock,
        info = p_info, history = terms
      WHERE l.role = p_role;
    ELSE
      INSERT INTO {schema}.leases (role, holder, token, beat, ttl, expires_at, renewed_at, since,
        info, history)
      VALUES (p_role, p_holder, last + 1, p_beat, p_ttl, clock + make_interval(secs => p_ttl),
        clock, clock, p_info, terms)
      ON CONFLICT DO NOTHING;
      CONTINUE WHEN NOT FOUND;
      lowest := {schema}.floor_of_{version}(p_role);
      IF lowest > last THEN
        UPDATE {schema}.leases l SET token = lowest + 1, history = ARRAY['{{"token":'
          || (lowest + 1) || p_opening || '"since":' || extract(epoch FROM clock)::float8 || '}}']
        WHERE l.role = p_role;
        last := lowest;
      END IF;
    END IF;
    RETURN QUERY SELECT 1, p_holder, last + 1, p_beat, p_ttl, p_ttl,
      extract(epoch FROM clock)::float8, p_info, extract(epoch FROM clock)::float8;
    RETURN;
  END LOOP;
END $$;

-- Locks the rows in the order of their roles, so that two batches cannot wait for each other, and
-- only those that the holder still has. If all were applied as they were asked for, it answers one
-- row without a role, which says when. No row at all means that no role has one.
CREATE OR REPLACE FUNCTION {schema}.renew_{version}(
  p_roles text[], p_holders text[], p_tokens bigint[], p_beats bigint[], p_ttls float8[],
  p_infos text[], p_keeps text[]
) RETURNS TABLE (applied boolean, role text, holder text, token bigint, beat bigint, ttl float8,
  remaining float8, renewed_at float8, info text, since float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  clock timestamptz;
  done text[];
  longer boolean;
BEGIN
  PERFORM 1 FROM {schema}.leases l
    JOIN unnest(p_roles, p_holders, p_tokens, p_beats) a (role, holder, token, beat)
      ON l.role = a.role AND l.holder = a.holder AND l.token = a.token AND l.beat < a.beat
    ORDER BY l.role FOR NO KEY UPDATE OF l;
  clock := clock_timestamp();
  WITH renewed AS (
    UPDATE {schema}.leases l SET beat = a.beat, ttl = greatest(l.ttl, a.ttl),
      expires_at = greatest(l.expires_at, clock + make_interval(secs => a.ttl)),
      renewed_at = greatest(l.renewed_at, clock), info = coalesce(a.info, l.info)
    FROM unnest(p_roles, p_holders, p_tokens, p_beats, p_ttls, p_infos)
      a (role, holder, token, beat, ttl, info)
    WHERE l.role = a.role AND l.holder = a.holder AND l.token = a.token AND l.beat < a.beat
    RETURNING l.role, l.ttl > a.ttl AS longer
  ) SELECT coalesce(array_agg(r.role), '{{}}'), coalesce(bool_or(r.longer), false)
    INTO done, longer FROM renewed r;
  IF p_keeps IS NOT NULL THEN
    INSERT INTO {schema}.kept AS k (role, content)
      SELECT a.role, a.keep FROM unnest(p_roles, p_keeps) a (role, keep)
      WHERE a.keep IS NOT NULL AND a.role = ANY (done)
    ON CONFLICT (role) DO UPDATE SET content = excluded.content;
  END IF;
  IF NOT longer AND cardinality(done) = cardinality(p_roles) THEN
    applied := true;
    renewed_at := extract(epoch FROM clock)::float8;
    RETURN NEXT;
    RETURN;
  END IF;
  RETURN QUERY SELECT d.role IS NOT NULL, l.role, l.holder, l.token, l.beat, l.ttl,
    CASE WHEN l.holder IS NULL THEN 0
      ELSE extract(epoch FROM l.expires_at - clock_timestamp()) END::float8,
    extract(epoch FROM l.renewed_at)::float8, l.info,
    coalesce(extract(epoch FROM l.since), 0)::float8
  FROM {schema}.leases l LEFT JOIN unnest(done) d (role) ON d.role = l.role
  WHERE l.role = ANY (p_roles);
END $$;

-- Need not wait for the disk: the log of the database is one sequence, so the claim of the
-- successor, which waits, makes the release durable before itself. A text to keep waits.
CREATE OR REPLACE FUNCTION {schema}.release_{version}(
  p_role text, p_holder text, p_token bigint, p_beat bigint, p_linger float8, p_to text,
  p_reason text, p_by text, p_keep text
) RETURNS TABLE (applied boolean, holder text, token bigint, beat bigint, ttl float8,
  remaining float8, renewed_at float8, info text, since float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  clock timestamptz;
  is_own boolean;
  lingers boolean := p_linger > 0;
  hands_over boolean := p_linger > 0 AND p_to IS NOT NULL;
BEGIN
  PERFORM 1 FROM {schema}.leases l WHERE l.role = p_role AND l.holder = p_holder
    AND l.token = p_token AND l.beat < p_beat FOR NO KEY UPDATE;
  is_own := FOUND;
  IF is_own THEN
    clock := clock_timestamp();
    UPDATE {schema}.leases l SET
      holder = CASE WHEN hands_over THEN p_to WHEN lingers THEN l.holder END,
      beat = CASE WHEN hands_over THEN 0 ELSE p_beat END,
      ttl = CASE WHEN lingers THEN p_linger ELSE l.ttl END,
      expires_at = clock + make_interval(secs => p_linger),
      renewed_at = clock,
      since = CASE WHEN lingers AND NOT hands_over THEN l.since END,
      info = CASE WHEN hands_over THEN '{{}}' ELSE l.info END,
      history = {schema}.close_last_{version}(l.history, clock, p_reason, p_by)
    WHERE l.role = p_role;
    IF p_keep IS NULL THEN
      PERFORM set_config('synchronous_commit', 'off', true);
    ELSE
      INSERT INTO {schema}.kept AS k (role, content) VALUES (p_role, p_keep)
        ON CONFLICT (role) DO UPDATE SET content = excluded.content;
    END IF;
    PERFORM pg_notify('{channel}', json_build_array(p_role)::text);
  END IF;
  RETURN QUERY SELECT is_own, l.holder, l.token, l.beat, l.ttl,
    CASE WHEN l.holder IS NULL THEN 0
      ELSE extract(epoch FROM l.expires_at - clock_timestamp()) END::float8,
    extract(epoch FROM l.renewed_at)::float8, l.info,
    coalesce(extract(epoch FROM l.since), 0)::float8
  FROM {schema}.leases l WHERE l.role = p_role;
END $$;

-- Gives the row to a holder that no candidate is. A row that has a holder keeps its ttl and the
-- time that remains. A row that exists is locked first; a new row is created by one of many.
CREATE OR REPLACE FUNCTION {schema}.override_{version}(
  p_role text, p_expected_holder text, p_expected_token bigint, p_expected_beat bigint,
  p_holder text, p_beat bigint, p_ttl float8, p_info text, p_reason text, p_by text
) RETURNS TABLE (applied boolean, holder text, token bigint, beat bigint, ttl float8,
  remaining float8, renewed_at float8, info text, since float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  clock timestamptz;
  is_applied boolean;
BEGIN
  PERFORM 1 FROM {schema}.leases l WHERE l.role = p_role
    AND l.holder IS NOT DISTINCT FROM p_expected_holder AND l.token = p_expected_token
    AND l.beat = p_expected_beat FOR NO KEY UPDATE;
  is_applied := FOUND;
  clock := clock_timestamp();
  IF is_applied THEN
    UPDATE {schema}.leases l SET holder = p_holder, beat = p_beat,
      ttl = CASE WHEN l.holder IS NULL THEN p_ttl ELSE l.ttl END,
      expires_at = CASE WHEN l.holder IS NULL THEN clock + make_interval(secs => p_ttl)
        ELSE l.expires_at END,
      renewed_at = clock, since = clock, info = p_info,
      history = {schema}.close_last_{version}(l.history, clock, p_reason, p_by)
    WHERE l.role = p_role;
  ELSIF p_expected_holder IS NULL AND p_expected_token = 0 AND p_expected_beat = 0 THEN
    INSERT INTO {schema}.leases (role, holder, token, beat, ttl, expires_at, renewed_at, since,
        info)
      VALUES (p_role, p_holder, 0, p_beat, p_ttl, clock + make_interval(secs => p_ttl), clock,
        clock, p_info)
      ON CONFLICT DO NOTHING;
    is_applied := FOUND;
    IF is_applied THEN
      UPDATE {schema}.leases l SET token = {schema}.floor_of_{version}(p_role)
        WHERE l.role = p_role AND l.token < {schema}.floor_of_{version}(p_role);
    END IF;
  END IF;
  RETURN QUERY SELECT is_applied, l.holder, l.token, l.beat, l.ttl,
    CASE WHEN l.holder IS NULL THEN 0
      ELSE extract(epoch FROM l.expires_at - clock_timestamp()) END::float8,
    extract(epoch FROM l.renewed_at)::float8, l.info,
    coalesce(extract(epoch FROM l.since), 0)::float8
  FROM {schema}.leases l WHERE l.role = p_role;
END $$;

-- Announcements need not survive a crash: their table is not logged, and no commit waits.
CREATE OR REPLACE FUNCTION {schema}.post_{version}(
  p_keys text[], p_roles text[], p_kinds text[], p_bodies text[], p_ttls float8[],
  p_urgent boolean[], p_counted text[]
) RETURNS TABLE (role text, candidates bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  clock timestamptz;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  DELETE FROM {schema}.announcements WHERE key IN (
    SELECT a.key FROM {schema}.announcements a WHERE a.expires_at <= clock_timestamp()
    LIMIT 100 FOR UPDATE SKIP LOCKED);
  clock := clock_timestamp();
  INSERT INTO {schema}.announcements AS a
    (key, role, kind, body, ttl, urgent, posted_at, expires_at)
    SELECT n.key, n.role, n.kind, n.body, n.ttl, n.urgent, clock,
      clock + make_interval(secs => n.ttl)
    FROM unnest(p_keys, p_roles, p_kinds, p_bodies, p_ttls, p_urgent)
      n (key, role, kind, body, ttl, urgent)
    ORDER BY n.key
  ON CONFLICT (key) DO UPDATE SET role = excluded.role, kind = excluded.kind, body = excluded.body,
    ttl = excluded.ttl, urgent = excluded.urgent, posted_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => excluded.ttl);
  IF true = ANY (p_urgent) THEN
    PERFORM pg_notify('{urgent_channel}', '');
  END IF;
  RETURN QUERY SELECT c.role, (SELECT count(*) FROM (
      SELECT 1 FROM {schema}.announcements a WHERE a.role = c.role AND a.kind = '{candidate}'
      LIMIT {max_counted}) few)
    FROM unnest(p_counted) c (role);
END $$;

CREATE OR REPLACE FUNCTION {schema}.withdraw_{version}(p_keys text[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  deleted bigint;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  DELETE FROM {schema}.announcements WHERE key IN (
    SELECT a.key FROM {schema}.announcements a WHERE a.key = ANY (p_keys)
    ORDER BY a.key FOR UPDATE);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END $$;

CREATE OR REPLACE FUNCTION {schema}.posted_{version}(p_roles text[], p_urgent boolean)
RETURNS TABLE (key text, role text, kind text, body text, ttl float8, urgent boolean,
  posted_at float8, remaining float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
  SELECT a.key, a.role, a.kind, a.body, a.ttl, a.urgent, extract(epoch FROM a.posted_at)::float8,
    extract(epoch FROM a.expires_at - clock_timestamp())::float8
  FROM {schema}.announcements a
  WHERE (p_roles IS NULL OR a.role = ANY (p_roles)) AND (NOT p_urgent OR a.urgent)
    AND a.expires_at > clock_timestamp()
$$;

CREATE OR REPLACE FUNCTION {schema}.purge_announcements_{version}() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  deleted bigint;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  DELETE FROM {schema}.announcements WHERE key IN (
    SELECT a.key FROM {schema}.announcements a WHERE a.expires_at <= clock_timestamp()
    ORDER BY a.key FOR UPDATE);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END $$;

-- Many claims, or many releases, in one transaction and in the order of their roles, so that two
-- batches cannot wait for each other. Not both, and no release with a text to keep among others: a
-- transaction with a release does not wait for the disk.
CREATE OR REPLACE FUNCTION {schema}.claim_all_{version}(
  p_roles text[], p_holders text[], p_beats bigint[], p_ttls float8[], p_expected boolean[],
  p_expected_holders text[], p_expected_tokens bigint[], p_expected_beats bigint[],
  p_takeovers boolean[], p_skews float8[], p_floors bigint[], p_infos text[], p_openings text[],
  p_lost_tokens bigint[], p_lost_reasons text[]
) RETURNS TABLE (role text, outcome int, holder text, token bigint, beat bigint, ttl float8,
  remaining float8, renewed_at float8, info text, since float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  n bigint;
BEGIN
  FOR n IN SELECT a.n FROM unnest(p_roles) WITH ORDINALITY a (role, n) ORDER BY a.role COLLATE "C"
  LOOP
    RETURN QUERY SELECT p_roles[n], c.* FROM {schema}.claim_{version}(p_roles[n], p_holders[n],
      p_beats[n], p_ttls[n], p_expected[n], p_expected_holders[n], p_expected_tokens[n],
      p_expected_beats[n], p_takeovers[n], p_skews[n], p_floors[n], p_infos[n], p_openings[n],
      p_lost_tokens[n], p_lost_reasons[n]) c;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION {schema}.release_all_{version}(
  p_roles text[], p_holders text[], p_tokens bigint[], p_beats bigint[], p_lingers float8[],
  p_to text[], p_reasons text[], p_by text[], p_keeps text[]
) RETURNS TABLE (role text, applied boolean, holder text, token bigint, beat bigint, ttl float8,
  remaining float8, renewed_at float8, info text, since float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  n bigint;
BEGIN
  FOR n IN SELECT a.n FROM unnest(p_roles) WITH ORDINALITY a (role, n) ORDER BY a.role COLLATE "C"
  LOOP
    RETURN QUERY SELECT p_roles[n], r.* FROM {schema}.release_{version}(p_roles[n], p_holders[n],
      p_tokens[n], p_beats[n], p_lingers[n], p_to[n], p_reasons[n], p_by[n], p_keeps[n]) r;
  END LOOP;
END $$;
"""


def quoted(schema: str) -> str:
    """Return the name of a schema as SQL has it."""
    return f'"{schema}"'


def channel(schema: str) -> str:
    """Return the channel on which changes of leases are announced."""
    return f"coord_leases_{schema}"


def urgent_channel(schema: str) -> str:
    """Return the channel on which urgent announcements are announced."""
    return f"coord_urgent_{schema}"


def payload(roles: Sequence[str] | None) -> str:
    """Return the payload of a notification about these roles; None means any role."""
    return json.dumps(roles, ensure_ascii=False)


def roles_in(payload: str) -> set[str] | None:
    """Return the roles in the payload of a notification; None means any role. Never raises."""
    try:
        named = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(named, list) or not all(isinstance(role, str) for role in named):
        return None
    return set(named)


def statements(schema: str) -> str:
    """Return the statements that create the tables and functions, or replace the functions."""
    values = {
        "schema": quoted(schema),
        "version": VERSION,
        "channel": channel(schema),
        "urgent_channel": urgent_channel(schema),
        "max_terms": MAX_TERMS,
        "paused": PAUSED,
        "candidate": CANDIDATE,
        "max_counted": MAX_COUNTED,
    }
    return (TABLES + FLOORS + FUNCTIONS + RECORDS).format(**values)


def revocations(schema: str) -> list[str]:
    """Return the statements after which only the owner, and whom the owner grants it, may call the
    functions."""
    return [f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {quoted(schema)} FROM PUBLIC"]


def calls(schema: str) -> dict[str, str]:
    """Return the queries that programs send, by name."""
    prefix = f"SELECT * FROM {quoted(schema)}."  # noqa: S608 (the schema was checked)
    leases = {
        "read": 1,
        "past": 1,
        "claim": 15,
        "claim_all": 15,
        "kept": 1,
        "renew": 7,
        "release": 9,
        "release_all": 9,
        "override": 10,
        "retire": 5,
        "raise_token_floor": 2,
    }
    announcements = {"post": 7, "withdraw": 1, "posted": 2, "purge_announcements": 0}
    records = {
        "register": 10,
        "refresh": 8,
        "remove": 3,
        "find": 5,
        "purge_records": 2,
        "publish": 10,
        "unpublish": 3,
    }
    counts = {**leases, **announcements, **records}
    return {
        name: f"{prefix}{name}_{VERSION}({', '.join(f'${n}' for n in range(1, count + 1))})"
        for name, count in counts.items()
    }
