-- Calls that hold reservations. A call counts as running until its lease expires.
CREATE TABLE parley.running_calls (
  id            text COLLATE "C" PRIMARY KEY,
  key           text COLLATE "C" NOT NULL,             -- key:ID
  account       text COLLATE "C" NOT NULL,             -- account:NAME
  started       float8 NOT NULL,                       -- determines the day and the month of its reservations
  lease_expires float8 NOT NULL,
  reserved      text NOT NULL                          -- JSON: the charges to return if the call crashes
);

CREATE INDEX running_calls_by_key ON parley.running_calls (key);
CREATE INDEX running_calls_by_account ON parley.running_calls (account);

-- They replace the reservations of turns. Those of a minute before this migration are not returned.
DROP INDEX parley.turns_reserved;
ALTER TABLE parley.turns DROP COLUMN reserved;

-- Returns the used amount of a limit at a time. The arithmetic is that of parley.stores.buckets.
CREATE FUNCTION parley.used_now(kind text, used float8, updated float8, size float8, clock float8) RETURNS float8
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN kind LIKE '%\_day' THEN CASE WHEN floor(updated / 86400) = floor(clock / 86400) THEN used ELSE 0 END
    WHEN kind LIKE '%\_month' THEN CASE
      WHEN date_trunc('month', to_timestamp(updated) AT TIME ZONE 'UTC')
        = date_trunc('month', to_timestamp(clock) AT TIME ZONE 'UTC') THEN used ELSE 0 END
    ELSE greatest(0, used - abs(clock - updated) * size / 60)
  END
$$;

DROP FUNCTION parley.reserve(text[], text[], float8[], float8[], float8);

-- Withdraws all charges, or none if one of them does not fit, and stores the call that holds them, if there is one.
-- Returns the amounts used before. The rows of limits are locked in one order before the time is read; the row of
-- `concurrent` serves only as a lock.
CREATE FUNCTION parley.reserve(
  subjects text[], kinds text[], sizes float8[], amounts float8[], clock float8,
  call_id text, call_key text, call_account text, lease float8, reserved text,
  OUT granted boolean, OUT used float8[], OUT moment float8
) LANGUAGE plpgsql AS $$
BEGIN
  -- The commit does not wait for the disk: a crash of the database loses the counts of its last moments only.
  PERFORM set_config('synchronous_commit', 'off', true);
  INSERT INTO parley.buckets (subject, kind, used, updated, per_minute)
  SELECT DISTINCT subject, kind, 0, 0, 0 FROM unnest(subjects, kinds) AS charge (subject, kind)
  ORDER BY subject, kind ON CONFLICT DO NOTHING;
  PERFORM FROM parley.buckets JOIN unnest(subjects, kinds) AS charge (subject, kind) USING (subject, kind)
  ORDER BY subject, kind FOR UPDATE OF buckets;
  moment := coalesce(clock, extract(epoch FROM clock_timestamp())::float8);
  used := ARRAY(
    SELECT CASE
      WHEN kind = 'concurrent' THEN (
        SELECT count(*) FROM parley.running_calls WHERE (key = subject OR account = subject) AND lease_expires > moment
      )
      ELSE parley.used_now(kind, bucket.used, bucket.updated, size, moment)
    END
    FROM unnest(subjects, kinds, sizes) WITH ORDINALITY AS charge (subject, kind, size, place)
    JOIN parley.buckets AS bucket USING (subject, kind) ORDER BY place
  );
  granted := coalesce((
    SELECT bool_and(amount = 0 OR before + amount <= size + 1e-6 * least(1, size))
    FROM unnest(used, amounts, sizes) AS charge (before, amount, size)
  ), true);
  IF granted THEN
    UPDATE parley.buckets SET used = before + amount, updated = moment, per_minute = size
    FROM unnest(subjects, kinds, reserve.used, amounts, sizes) AS charge (subject, kind, before, amount, size)
    WHERE buckets.subject = charge.subject AND buckets.kind = charge.kind AND amount <> 0
    AND charge.kind <> 'concurrent';
    IF call_id IS NOT NULL THEN
      INSERT INTO parley.running_calls VALUES (call_id, call_key, call_account, moment, moment + lease, reserved);
    END IF;
  END IF;
END $$;

-- Replaces the reserved amounts of a call with the used ones, even if they overdraw a limit. A call that has no row any
-- more has lost its reservation: it is charged what it used. A day or a month that has ended is not charged.
CREATE FUNCTION parley.settle(
  call text, subjects text[], kinds text[], sizes float8[], amounts float8[], reserved float8[], clock float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  began float8;
BEGIN
  DELETE FROM parley.running_calls WHERE id = call RETURNING started INTO began;
  PERFORM parley.correct(began, subjects, kinds, sizes, amounts, reserved, clock);
END $$;

-- Applies the corrections of a call that began at a time; NULL if its reservation has been returned.
CREATE FUNCTION parley.correct(
  began float8, subjects text[], kinds text[], sizes float8[], amounts float8[], reserved float8[], clock float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  moment float8;
BEGIN
  INSERT INTO parley.buckets (subject, kind, used, updated, per_minute)
  SELECT DISTINCT subject, kind, 0, 0, 0 FROM unnest(subjects, kinds) AS charge (subject, kind)
  ORDER BY subject, kind ON CONFLICT DO NOTHING;
  PERFORM FROM parley.buckets JOIN unnest(subjects, kinds) AS charge (subject, kind) USING (subject, kind)
  ORDER BY subject, kind FOR UPDATE OF buckets;
  moment := coalesce(clock, extract(epoch FROM clock_timestamp())::float8);
  UPDATE parley.buckets AS bucket SET
    used = greatest(0, parley.used_now(bucket.kind, bucket.used, bucket.updated, size, moment) + change),
    updated = moment, per_minute = size
  FROM (
    -- An amount of 1 that was used at the beginning and does not count now belongs to a day or a month that has ended.
    SELECT subject, kind, size, CASE
      WHEN began IS NULL THEN amount
      WHEN kind LIKE '%\_day' OR kind LIKE '%\_month' THEN
        (amount - withheld) * parley.used_now(kind, 1, began, size, moment)
      ELSE amount - withheld
    END AS change
    FROM unnest(subjects, kinds, sizes, amounts, correct.reserved) AS charge (subject, kind, size, amount, withheld)
  ) AS charge
  WHERE bucket.subject = charge.subject AND bucket.kind = charge.kind AND change <> 0;
END $$;

ALTER TABLE parley.sessions ADD COLUMN bytes bigint NOT NULL DEFAULT 0; -- of all its messages, serialized

UPDATE parley.sessions SET bytes = size FROM (
  SELECT session_id, sum(octet_length(message)) AS size FROM parley.messages GROUP BY session_id
) AS stored WHERE session_id = id;

-- What each account has stored, in slots that are added up: transactions of different connections rarely wait for each
-- other. A trigger keeps it equal to the sessions that are not deleted.
CREATE TABLE parley.storage (
  account  text COLLATE "C" NOT NULL,
  slot     integer NOT NULL,
  sessions bigint NOT NULL,
  bytes    bigint NOT NULL,
  PRIMARY KEY (account, slot)
) WITH (fillfactor = 50);

INSERT INTO parley.storage
SELECT account, 0, count(*), sum(bytes) FROM parley.sessions WHERE deleted IS NULL GROUP BY account;

CREATE FUNCTION parley.count_storage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  owner text := CASE WHEN TG_OP = 'DELETE' THEN OLD.account ELSE NEW.account END;
  sessions bigint := 0;
  bytes bigint := 0;
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.deleted IS NULL THEN
    sessions := -1;
    bytes := -OLD.bytes;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.deleted IS NULL THEN
    sessions := sessions + 1;
    bytes := bytes + NEW.bytes;
  END IF;
  IF sessions <> 0 OR bytes <> 0 THEN
    INSERT INTO parley.storage AS stored VALUES (owner, pg_backend_pid() % 64, sessions, bytes)
    ON CONFLICT (account, slot) DO UPDATE SET
      sessions = stored.sessions + excluded.sessions, bytes = stored.bytes + excluded.bytes;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER count_storage AFTER INSERT OR DELETE OR UPDATE OF bytes, deleted ON parley.sessions
FOR EACH ROW EXECUTE FUNCTION parley.count_storage();

-- Locks what an account stores until the end of the transaction, and returns it. A statement of its own reads the amounts
-- after the lock was acquired.
CREATE FUNCTION parley.lock_storage(owner text, OUT sessions bigint, OUT bytes bigint) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(owner, 7012640071583063));
  SELECT coalesce(sum(storage.sessions), 0), coalesce(sum(storage.bytes), 0) INTO sessions, bytes
  FROM parley.storage WHERE account = owner;
END $$;
