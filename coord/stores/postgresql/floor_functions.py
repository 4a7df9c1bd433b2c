"""What keeps tokens rising in PostgreSQL although rows are deleted or lost (see `schema.py`).

The first token of a role without a row is above three numbers: the floor that the claim knows, the
floor of the timeline, and the floors of all prefixes of the role. `retire` raises the floor of a
prefix in the transaction that deletes rows. A claim reads the floors *after* it has inserted the
row of its role. A transaction that deleted an earlier row of this role has committed by then, so
the claim sees that floor; and a later deletion needs the row of this claim to be committed. So no
lock is needed between claims and deletions.
"""

from __future__ import annotations

FLOORS = """
CREATE TABLE IF NOT EXISTS {schema}.floors (
  prefix text COLLATE "C" PRIMARY KEY,
  token bigint NOT NULL CHECK (token BETWEEN 0 AND 9007199254740992)
);

CREATE OR REPLACE FUNCTION {schema}.floor_of_{version}(p_role text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $$
  SELECT coalesce(max(f.token), 0) FROM {schema}.floors f
    WHERE left(p_role, length(f.prefix)) = f.prefix
$$;

CREATE OR REPLACE FUNCTION {schema}.protect_floor_{version}() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR new.token < old.token OR new.prefix <> old.prefix THEN
    RAISE EXCEPTION 'coord: the floor of the tokens never falls';
  END IF;
  RETURN new;
END $$;

DROP TRIGGER IF EXISTS protect_floor ON {schema}.floors;
CREATE TRIGGER protect_floor BEFORE UPDATE OR DELETE ON {schema}.floors
FOR EACH ROW EXECUTE FUNCTION {schema}.protect_floor_{version}();

CREATE OR REPLACE FUNCTION {schema}.protect_lease_{version}() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF old.holder IS NULL AND old.token <= {schema}.floor_of_{version}(old.role) THEN
      RETURN old;
    END IF;
    RAISE EXCEPTION 'coord: a lease keeps its token, so its row stays';
  ELSIF new.token < old.token THEN
    RAISE EXCEPTION 'coord: a fencing token never falls';
  END IF;
  RETURN new;
END $$;

DROP TRIGGER IF EXISTS protect_lease ON {schema}.leases;
CREATE TRIGGER protect_lease BEFORE UPDATE OF token OR DELETE ON {schema}.leases
FOR EACH ROW EXECUTE FUNCTION {schema}.protect_lease_{version}();

-- After a promotion, tokens that the old primary issued and the new one never received must not be
-- issued again. Each promotion begins a new timeline, and each timeline has tokens of its own.
CREATE OR REPLACE FUNCTION {schema}.token_floor_{version}() RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
  RETURN (('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint - 1)
    << 32;
END $$;

-- Deletes vacant rows that are as they were seen, were written before p_before and keep no text.
-- Rows that others have locked stay: somebody is changing them, and waiting could be a deadlock.
CREATE OR REPLACE FUNCTION {schema}.retire_{version}(
  p_roles text[], p_prefixes text[], p_tokens bigint[], p_beats bigint[], p_before float8[]
) RETURNS TABLE (role text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
  unused text[];
BEGIN
  SELECT coalesce(array_agg(u.role), '{{}}') INTO unused FROM (
    SELECT l.role FROM {schema}.leases l
      JOIN unnest(p_roles, p_tokens, p_beats, p_before) a (role, token, beat, before)
        ON l.role = a.role AND l.holder IS NULL AND l.token = a.token AND l.beat = a.beat
          AND extract(epoch FROM l.renewed_at)::float8 < a.before
      WHERE NOT EXISTS (SELECT 1 FROM {schema}.kept k WHERE k.role = l.role AND k.content <> '')
      FOR UPDATE OF l SKIP LOCKED) u;
  INSERT INTO {schema}.floors AS f (prefix, token)
    SELECT a.prefix, max(l.token) FROM unnest(p_roles, p_prefixes) a (role, prefix)
      JOIN {schema}.leases l ON l.role = a.role
      WHERE l.role = ANY (unused) GROUP BY a.prefix ORDER BY a.prefix
    ON CONFLICT (prefix) DO UPDATE SET token = greatest(f.token, excluded.token);
  DELETE FROM {schema}.kept k WHERE k.role = ANY (unused);
  RETURN QUERY DELETE FROM {schema}.leases l WHERE l.role = ANY (unused) RETURNING l.role;
END $$;

CREATE OR REPLACE FUNCTION {schema}.raise_token_floor_{version}(p_floor bigint, p_roles text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = {schema}, pg_temp AS $$
DECLARE
  raised bigint;
  created bigint;
BEGIN
  UPDATE {schema}.leases l SET token = p_floor WHERE l.token < p_floor;
  GET DIAGNOSTICS raised = ROW_COUNT;
  UPDATE {schema}.floors f SET token = p_floor WHERE f.token < p_floor;
  INSERT INTO {schema}.leases (role, token, beat, ttl, expires_at, renewed_at)
    SELECT DISTINCT r, p_floor, 0, 0, 'epoch'::timestamptz, 'epoch'::timestamptz
    FROM unnest(p_roles) r
    ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS created = ROW_COUNT;
  UPDATE {schema}.leases l SET token = {schema}.floor_of_{version}(l.role)
    WHERE l.role = ANY (p_roles) AND l.token < {schema}.floor_of_{version}(l.role);
  RETURN raised + created;
END $$;
"""
