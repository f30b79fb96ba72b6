-- What was delivered: the claim that makes an event unique, and its receipt. Every accepted event
-- writes one row to each, so every index and check here costs throughput. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

CREATE SCHEMA mcp;
COMMENT ON SCHEMA mcp IS 'What was delivered: claims and receipts of webhooks.';

CREATE TABLE mcp.webhook_claims (
    event_id    uuid PRIMARY KEY,
    received_at timestamptz NOT NULL
) WITH (
    -- Purged all day long: vacuum by count, not by share of the table, and without pauses, so that
    -- the purge never leaves a hill of dead rows.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE mcp.webhook_claims IS 'One row per event taken within the dedup window; its primary key is the deduplication. The event id is derived from the dedup key, so every instance and every retry computes the same.';

-- For the purge only. Rows come in the order of time, so a BRIN index finds the old ones and costs
-- an insert almost nothing, which a btree would not.
CREATE INDEX webhook_claims_received_at ON mcp.webhook_claims
    USING brin (received_at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE mcp.webhook_events (
    event_id        uuid NOT NULL,
    workspace_id    text NOT NULL,
    integration_id  uuid,
    platform        text NOT NULL,
    event_type      text NOT NULL,
    external_id     text NOT NULL,
    body_sha256     bytea NOT NULL CHECK (octet_length(body_sha256) = 32),
    body_size       int NOT NULL CHECK (body_size >= 0),
    received_at     timestamptz NOT NULL,
    kafka_topic     text NOT NULL,
    kafka_partition int,
    kafka_offset    bigint,
    status          text NOT NULL CHECK (status IN ('published', 'parked', 'stuck')),
    -- A parked or stuck event has no place in the topic yet; a success report may carry no offset.
    CHECK (status <> 'published' OR kafka_partition IS NOT NULL)
) PARTITION BY RANGE (received_at);
COMMENT ON TABLE mcp.webhook_events IS 'One receipt per claim, inserted in the claim''s transaction: what came, for whom, and where in Kafka its payload is. Partitioned by day (UTC), so that retention drops a partition. No foreign keys: a receipt outlives its workspace.';

-- By id, for audit and support. Not unique: a partitioned table can't be unique without the time,
-- and the claim already is.
CREATE INDEX webhook_events_event_id ON mcp.webhook_events (event_id);
-- By time within a day, for audit. No further index: each costs every event, and what else is asked
-- of receipts is rare enough to read a day's partition.
CREATE INDEX webhook_events_received_at ON mcp.webhook_events USING brin (received_at) WITH (pages_per_range = 32);

-- Takes what has no partition of its own, so that a late maintenance run never refuses an event.
CREATE TABLE mcp.webhook_events_default PARTITION OF mcp.webhook_events DEFAULT;
COMMENT ON TABLE mcp.webhook_events_default IS 'Receipts of days that have no partition. Normally empty.';

-- Called by `hookgate migrate` and by each instance every minute. ATTACH and not CREATE … PARTITION
-- OF: the latter locks the whole table against inserts until all open batches have ended.
CREATE FUNCTION mcp.ensure_event_partitions(days_ahead int DEFAULT 7) RETURNS int
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    outer_timeout CONSTANT text := current_setting('lock_timeout');
    day date;
    part text;
    strays int;
    made int := 0;
BEGIN
    IF days_ahead IS NULL OR days_ahead NOT BETWEEN 0 AND 60 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'days_ahead must be between 0 and 60';
    END IF;
    -- The usual case takes no lock: nothing is missing.
    IF NOT EXISTS (SELECT FROM generate_series(0, days_ahead) n
                    WHERE to_regclass('mcp.webhook_events_' || to_char(current_date + n, 'YYYYMMDD')) IS NULL) THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('mcp.webhook_events'), 0);
    -- Inserts into the default partition would queue behind a waiting ATTACH: give up soon, the next
    -- call comes within a minute.
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR day IN SELECT current_date + n FROM generate_series(0, days_ahead) n LOOP
        part := 'webhook_events_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('mcp.' || part) IS NOT NULL;
        BEGIN
            -- ATTACH takes this lock anyway; taken first, it keeps new strays out while old ones move.
            LOCK TABLE mcp.webhook_events_default IN ACCESS EXCLUSIVE MODE;
            SELECT count(*) INTO strays FROM
                (SELECT FROM mcp.webhook_events_default
                  WHERE received_at >= day AND received_at < day + 1 LIMIT 10001) s;
            IF strays > 10000 THEN
                -- Moving them would stall deliveries; the day stays in the default partition, and
                -- drop_event_partitions() clears it from there.
                RAISE WARNING 'receipts of % stay in the default partition', day;
                CONTINUE;
            END IF;
            EXECUTE format('CREATE TABLE mcp.%I (LIKE mcp.webhook_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', part);
            IF strays > 0 THEN
                EXECUTE format('WITH moved AS (DELETE FROM mcp.webhook_events_default WHERE received_at >= %L AND received_at < %L RETURNING *) INSERT INTO mcp.%I SELECT * FROM moved',
                               day::timestamptz, (day + 1)::timestamptz, part);
            END IF;
            EXECUTE format('ALTER TABLE mcp.webhook_events ATTACH PARTITION mcp.%I FOR VALUES FROM (%L) TO (%L)',
                           part, day::timestamptz, (day + 1)::timestamptz);
            EXECUTE format('COMMENT ON TABLE mcp.%I IS %L', part, format('Receipts of %s (UTC).', day));
            made := made + 1;
        EXCEPTION WHEN lock_not_available THEN
            RAISE WARNING 'no partition for % yet: the table is busy', day;
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', outer_timeout, true);
    RETURN made;
END
$$;
COMMENT ON FUNCTION mcp.ensure_event_partitions(int) IS 'Makes the receipts'' partitions from today to days_ahead days ahead; returns how many were made. Moves strays of a new day out of the default partition.';

-- Called by one instance every minute. Dropping takes an exclusive lock on the whole table for a
-- moment (DETACH CONCURRENTLY is refused where there is a default partition), so it waits 100 ms at
-- most: that bounds the stall, and a busy moment is passed over.
CREATE FUNCTION mcp.drop_event_partitions(older_than interval) RETURNS int
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    outer_timeout CONSTANT text := current_setting('lock_timeout');
    horizon CONSTANT timestamptz := now() - older_than;
    part name;
    dropped int := 0;
BEGIN
    IF older_than IS NULL OR older_than < interval '1 day' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'receipts are kept for a day at least';
    END IF;
    PERFORM set_config('lock_timeout', '100ms', true);
    FOR part IN
        SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
         WHERE h.inhparent = 'mcp.webhook_events'::regclass
           AND c.relname ~ '^webhook_events_[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= horizon
         ORDER BY c.relname
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE mcp.%I', part);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            RAISE WARNING 'partition % could not be dropped yet: the table is busy', part;
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', outer_timeout, true);
    DELETE FROM mcp.webhook_events_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM mcp.webhook_events_default WHERE received_at < horizon LIMIT 10000));
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION mcp.drop_event_partitions(interval) IS 'Drops the receipts'' partitions that ended before now() - older_than; returns how many.';

-- Called by one instance in a loop until it returns less than max_rows; each call is a transaction of
-- its own, so that no lock and no snapshot lives long. By ctid: claims are never updated. Without
-- seqscan: the estimate of an empty answer would otherwise make it read the whole table each minute.
CREATE FUNCTION mcp.purge_claims("window" interval, max_rows int) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    purged int;
BEGIN
    IF "window" IS NULL OR "window" <= interval '0' OR max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 100000 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'window must be positive and max_rows between 1 and 100000';
    END IF;
    DELETE FROM mcp.webhook_claims WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM mcp.webhook_claims WHERE received_at < now() - "window" LIMIT max_rows));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mcp.purge_claims(interval, int) IS 'Deletes at most max_rows claims that are older than the dedup window; returns how many.';

-- For a batch whose claim statement timed out: finds out which keys another open transaction holds,
-- and claims the rest. In order, each key in a subtransaction: a wait of ON CONFLICT DO NOTHING is
-- a lock wait, so lock_timeout ends it and only that key is undone. READ COMMITTED only.
CREATE FUNCTION mcp.claim_unblocked(ids uuid[], received_at timestamptz DEFAULT now())
RETURNS TABLE (event_id uuid, verdict text)
LANGUAGE plpgsql ROWS 64 SET lock_timeout = '5ms' AS $$
BEGIN
    FOR event_id IN SELECT DISTINCT u.id FROM unnest(ids) AS u(id) WHERE u.id IS NOT NULL ORDER BY 1 LOOP
        BEGIN
            INSERT INTO mcp.webhook_claims VALUES (event_id, received_at) ON CONFLICT DO NOTHING;
            verdict := CASE WHEN FOUND THEN 'new' ELSE 'known' END;
        EXCEPTION WHEN lock_not_available THEN
            verdict := 'held';
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION mcp.claim_unblocked(uuid[], timestamptz) IS 'Claims key by key without waiting: new = claimed by this transaction, known = claimed by a committed one, held = another open transaction holds the key.';
