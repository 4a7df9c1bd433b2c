"""The table and the functions of service records in PostgreSQL, as templates of `schema.py`."""

from __future__ import annotations

RECORDS = """
CREATE TABLE IF NOT EXISTS {schema}.records (
  registry text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  role text COLLATE "C",
  load float8,
  ttl float8,
  holder text,
  token float8,
  first_heartbeat timestamptz,
  last_heartbeat timestamptz,
  tombstone text,
  body text NOT NULL,
  PRIMARY KEY (registry, id)
);
CREATE INDEX IF NOT EXISTS records_role ON {schema}.records (registry, role);

CREATE OR REPLACE FUNCTION {schema}.register_{version}(
  p_registry text, p_id text, p_body text, p_role text, p_load float8, p_ttl float8, p_holder text,
  p_token float8, p_first timestamptz, p_nonce text
) RETURNS TABLE (first_heartbeat timestamptz, last_heartbeat timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
  INSERT INTO {schema}.records AS r (registry, id, body, role, load, ttl, holder, token,
    first_heartbeat, last_heartbeat)
  SELECT p_registry, p_id, p_body, p_role, p_load, p_ttl, p_holder, p_token, coalesce(p_first, c), c
    FROM date_trunc('milliseconds', clock_timestamp()) c
  ON CONFLICT (registry, id) DO UPDATE SET body = p_body, role = p_role, load = p_load, ttl = p_ttl,
    holder = p_holder, token = p_token,
    first_heartbeat = coalesce(r.first_heartbeat, excluded.first_heartbeat),
    last_heartbeat = date_trunc('milliseconds', clock_timestamp()), tombstone = NULL
  WHERE r.tombstone IS DISTINCT FROM p_nonce
  RETURNING r.first_heartbeat, r.last_heartbeat
$$;

-- A heartbeat that a crash loses is followed by another, so it does not wait for the disk.
CREATE OR REPLACE FUNCTION {schema}.refresh_{version}(
  p_registry text, p_id text, p_body text, p_role text, p_load float8, p_ttl float8, p_holder text,
  p_token float8
) RETURNS TABLE (first_heartbeat timestamptz, last_heartbeat timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  RETURN QUERY UPDATE {schema}.records r SET body = p_body, role = p_role, load = p_load,
    ttl = p_ttl, holder = p_holder, token = p_token,
    last_heartbeat = date_trunc('milliseconds', clock_timestamp())
  WHERE r.registry = p_registry AND r.id = p_id AND r.tombstone IS NULL
  RETURNING r.first_heartbeat, r.last_heartbeat;
END $$;

CREATE OR REPLACE FUNCTION {schema}.remove_{version}(p_registry text, p_id text, p_nonce text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  old {schema}.records;
  seconds float8;
BEGIN
  SELECT * INTO old FROM {schema}.records r
    WHERE r.registry = p_registry AND r.id = p_id FOR UPDATE;
  IF p_nonce IS NULL THEN
    DELETE FROM {schema}.records r WHERE r.registry = p_registry AND r.id = p_id;
  ELSE
    seconds := CASE WHEN old.ttl > 0 AND old.last_heartbeat IS NOT NULL THEN old.ttl ELSE 60 END;
    INSERT INTO {schema}.records AS r (registry, id, body, ttl, last_heartbeat, tombstone)
    VALUES (p_registry, p_id, '{{}}', seconds,
      clock_timestamp() - make_interval(secs => seconds), p_nonce)
    ON CONFLICT (registry, id) DO UPDATE SET body = '{{}}', role = NULL, load = NULL,
      ttl = excluded.ttl, holder = NULL, token = NULL, first_heartbeat = NULL,
      last_heartbeat = excluded.last_heartbeat, tombstone = p_nonce;
  END IF;
  RETURN old.id IS NOT NULL AND old.tombstone IS NULL;
END $$;

-- p_mode: healthy, least (by load), sample (at random), judged (healthy or not), every (malformed
-- ones, too).
CREATE OR REPLACE FUNCTION {schema}.find_{version}(
  p_registry text, p_role text, p_id text, p_mode text, p_limit bigint
) RETURNS TABLE (id text, body text, first_heartbeat timestamptz, last_heartbeat timestamptz,
  remaining float8, clock timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
  SELECT r.id, r.body, r.first_heartbeat, r.last_heartbeat,
    r.ttl - extract(epoch FROM clock_timestamp() - r.last_heartbeat)::float8, clock_timestamp()
  FROM {schema}.records r
  WHERE r.registry = p_registry AND r.tombstone IS NULL
    AND (p_role IS NULL OR r.role = p_role) AND (p_id IS NULL OR r.id = p_id)
    AND (p_mode = 'every' OR (r.ttl > 0 AND r.last_heartbeat IS NOT NULL AND (p_mode = 'judged'
      OR extract(epoch FROM clock_timestamp() - r.last_heartbeat)::float8 < r.ttl)))
  ORDER BY CASE WHEN p_mode = 'least' AND r.load IS NULL THEN 1 ELSE 0 END,
    CASE WHEN p_mode = 'least' THEN r.load WHEN p_mode = 'sample' THEN random() END
  LIMIT p_limit
$$;

CREATE OR REPLACE FUNCTION {schema}.purge_records_{version}(p_registry text, p_ttls float8)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  deleted bigint;
BEGIN
  DELETE FROM {schema}.records r WHERE r.registry = p_registry AND r.ttl > 0
    AND extract(epoch FROM clock_timestamp() - r.last_heartbeat)::float8 > r.ttl * p_ttls;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END $$;

CREATE OR REPLACE FUNCTION {schema}.publish_{version}(
  p_registry text, p_id text, p_body text, p_role text, p_load float8, p_ttl float8, p_holder text,
  p_token float8, p_first timestamptz, p_remaining float8
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  old {schema}.records;
  present boolean;
  beat timestamptz;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  LOOP
    SELECT * INTO old FROM {schema}.records r
      WHERE r.registry = p_registry AND r.id = p_id FOR UPDATE;
    present := FOUND;
    IF present AND old.tombstone IS NULL AND (CASE
        WHEN old.holder IS NOT NULL AND old.token IS NOT NULL THEN old.token > p_token
        ELSE coalesce(old.ttl > 0 AND extract(epoch FROM clock_timestamp() - old.last_heartbeat)
          < old.ttl, false) END) THEN
      RETURN false;
    END IF;
    beat := date_trunc('milliseconds',
      clock_timestamp() - make_interval(secs => p_ttl - p_remaining));
    IF present THEN
      UPDATE {schema}.records r SET body = p_body, role = p_role, load = p_load, ttl = p_ttl,
        holder = p_holder, token = p_token, last_heartbeat = beat, tombstone = NULL,
        first_heartbeat = coalesce(r.first_heartbeat, p_first, beat)
      WHERE r.registry = p_registry AND r.id = p_id;
      RETURN true;
    END IF;
    INSERT INTO {schema}.records (registry, id, body, role, load, ttl, holder, token,
      first_heartbeat, last_heartbeat)
    VALUES (p_registry, p_id, p_body, p_role, p_load, p_ttl, p_holder, p_token,
      coalesce(p_first, beat), beat)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN true;
    END IF;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION {schema}.unpublish_{version}(
  p_registry text, p_id text, p_token float8
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  DELETE FROM {schema}.records r WHERE r.registry = p_registry AND r.id = p_id
    AND r.holder IS NOT NULL AND r.token <= p_token;
  RETURN FOUND;
END $$;
"""
