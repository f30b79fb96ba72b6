-- Where events wait that Kafka could not take: parked in the claim's transaction, drained by any
-- instance, and the few that Kafka refuses for good. Empty in normal operation. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

CREATE TABLE mcp.webhook_outbox (
    -- Drained in this order, roughly that of arrival.
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        uuid NOT NULL UNIQUE,
    -- The receipt's: with it the receipt is found in its partition.
    received_at     timestamptz NOT NULL,
    parked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_topic     text NOT NULL,
    -- Where the key leads by the number of partitions at parking; a hint that keeps a partition
    -- without a leader from holding up the others.
    key_partition   int,
    -- Undecided: the record was handed to Kafka and no report came. It has the time record_time and
    -- went to sent_partition (NULL = not known). It may be sent again only when it was looked for there.
    undecided_since timestamptz,
    record_time     timestamptz,
    sent_partition  int,
    -- The record, as it will be published.
    record_key      bytea NOT NULL,
    record_headers  bytea NOT NULL,
    body            bytea NOT NULL,
    CHECK (undecided_since IS NULL OR record_time IS NOT NULL)
) WITH (
    -- Rows come and go: vacuum by count and without pauses (see webhook_claims).
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE mcp.webhook_outbox IS 'Events that are committed here because Kafka did not take them in time. Each has a receipt with status parked; a drainer publishes it, sets the receipt to published and deletes the row.';
COMMENT ON COLUMN mcp.webhook_outbox.record_headers IS 'Per header: length of the name (2 bytes, big-endian), name, length of the value (4 bytes), value.';

CREATE INDEX webhook_outbox_ready ON mcp.webhook_outbox (kafka_topic, seq) WHERE undecided_since IS NULL;
CREATE INDEX webhook_outbox_undecided ON mcp.webhook_outbox (undecided_since) WHERE undecided_since IS NOT NULL;

CREATE TABLE mcp.webhook_stuck (
    event_id       uuid PRIMARY KEY,
    received_at    timestamptz NOT NULL,
    stuck_at       timestamptz NOT NULL DEFAULT now(),
    reason         text NOT NULL,
    kafka_topic    text NOT NULL,
    record_key     bytea NOT NULL,
    record_headers bytea NOT NULL,
    body           bytea NOT NULL
);
COMMENT ON TABLE mcp.webhook_stuck IS 'Parked events that Kafka refuses for good (too large, no such topic, not authorised). `hookgate stuck retry` puts them back into the outbox once the cause is mended.';

-- Bodies are JSON: lz4 costs the parking path a fraction of what pglz does. Servers built without it
-- keep the default.
DO $$
BEGIN
    ALTER TABLE mcp.webhook_outbox ALTER body SET COMPRESSION lz4;
    ALTER TABLE mcp.webhook_stuck ALTER body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

-- What is not in Kafka yet: few rows, and nothing to write for a published one.
CREATE INDEX webhook_events_unpublished ON mcp.webhook_events (event_id) WHERE status <> 'published';

-- Moves parked events to the stuck ones; returns how many.
CREATE FUNCTION mcp.set_stuck(ids uuid[], why text) RETURNS int
LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM mcp.webhook_outbox WHERE event_id = ANY (ids)
        RETURNING event_id, received_at, kafka_topic, record_key, record_headers, body),
    stuck AS (
        INSERT INTO mcp.webhook_stuck (event_id, received_at, reason, kafka_topic, record_key, record_headers, body)
        SELECT event_id, received_at, why, kafka_topic, record_key, record_headers, body FROM gone),
    told AS (
        UPDATE mcp.webhook_events e SET status = 'stuck' FROM gone g
         WHERE e.event_id = g.event_id AND e.received_at = g.received_at)
    SELECT count(*)::int FROM gone
$$;
COMMENT ON FUNCTION mcp.set_stuck(uuid[], text) IS 'Moves events from the outbox to the stuck ones; returns how many.';

CREATE FUNCTION mcp.retry_stuck(ids uuid[] DEFAULT NULL) RETURNS int
LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM mcp.webhook_stuck WHERE ids IS NULL OR event_id = ANY (ids)
        RETURNING event_id, received_at, kafka_topic, record_key, record_headers, body),
    parked AS (
        INSERT INTO mcp.webhook_outbox (event_id, received_at, kafka_topic, record_key, record_headers, body)
        SELECT event_id, received_at, kafka_topic, record_key, record_headers, body FROM gone),
    told AS (
        UPDATE mcp.webhook_events e SET status = 'parked' FROM gone g
         WHERE e.event_id = g.event_id AND e.received_at = g.received_at)
    SELECT count(*)::int FROM gone
$$;
COMMENT ON FUNCTION mcp.retry_stuck(uuid[]) IS 'Puts stuck events (NULL = all) back into the outbox; returns how many.';

-- Closes a gateway's Postgres breaker: everything that a batch does, with a key that no event has, and
-- nothing left of it.
CREATE FUNCTION mcp.probe() RETURNS void
LANGUAGE sql AS $$
    INSERT INTO mcp.webhook_claims VALUES ('00000000-0000-0000-0000-000000000000', now());
    INSERT INTO mcp.webhook_events (event_id, workspace_id, platform, event_type, external_id, body_sha256, body_size,
        received_at, kafka_topic, status)
    VALUES ('00000000-0000-0000-0000-000000000000', '', '', '', '', sha256(''), 0, now(), '', 'parked');
    DELETE FROM mcp.webhook_events WHERE event_id = '00000000-0000-0000-0000-000000000000' AND received_at = now();
    DELETE FROM mcp.webhook_claims WHERE event_id = '00000000-0000-0000-0000-000000000000';
$$;
COMMENT ON FUNCTION mcp.probe() IS 'Claims a reserved key, writes its receipt and deletes both: proves that this server takes what a batch writes.';

-- As before, but the claim of an event that is still parked or stuck stays, however old: a copy must
-- not be published beside it.
CREATE OR REPLACE FUNCTION mcp.purge_claims("window" interval, max_rows int) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    purged int;
BEGIN
    IF "window" IS NULL OR "window" <= interval '0' OR max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 100000 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'window must be positive and max_rows between 1 and 100000';
    END IF;
    DELETE FROM mcp.webhook_claims WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM mcp.webhook_claims c WHERE c.received_at < now() - "window"
           AND NOT EXISTS (SELECT FROM mcp.webhook_outbox o WHERE o.event_id = c.event_id)
           AND NOT EXISTS (SELECT FROM mcp.webhook_stuck s WHERE s.event_id = c.event_id)
         LIMIT max_rows));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mcp.purge_claims(interval, int) IS 'Deletes at most max_rows claims that are older than the dedup window and whose events are neither parked nor stuck; returns how many.';

CREATE TABLE mcp.webhook_unaccounted (
    event_id uuid PRIMARY KEY,
    found_at timestamptz NOT NULL DEFAULT now(),
    reason   text NOT NULL
);
COMMENT ON TABLE mcp.webhook_unaccounted IS 'Events for which claim, receipt and outbox do not agree: found by mcp.find_unaccounted(), forgotten once they agree. Must be empty.';

CREATE TABLE mcp.webhook_accounted (
    until timestamptz NOT NULL
);
CREATE UNIQUE INDEX webhook_accounted_one_row ON mcp.webhook_accounted ((true));
COMMENT ON TABLE mcp.webhook_accounted IS 'One row: claims up to this time have been compared with their receipts.';
INSERT INTO mcp.webhook_accounted VALUES (now());

CREATE FUNCTION mcp.why_unaccounted(id uuid) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN r.count = 0 AND NOT EXISTS (SELECT FROM mcp.webhook_claims WHERE event_id = id) THEN NULL
        WHEN r.count = 0 THEN 'a claim without a receipt'
        WHEN r.count > 1 THEN 'more than one receipt'
        WHEN r.status = 'parked' AND NOT EXISTS (SELECT FROM mcp.webhook_outbox WHERE event_id = id) THEN 'a parked receipt without its outbox row'
        WHEN r.status = 'stuck' AND NOT EXISTS (SELECT FROM mcp.webhook_stuck WHERE event_id = id) THEN 'a stuck receipt without its stuck row'
        WHEN r.status <> 'parked' AND EXISTS (SELECT FROM mcp.webhook_outbox WHERE event_id = id) THEN 'an outbox row although the receipt says otherwise'
        END
      FROM (SELECT count(*), max(status) AS status FROM mcp.webhook_events WHERE event_id = id) r
$$;
COMMENT ON FUNCTION mcp.why_unaccounted(uuid) IS 'What does not agree about one event; NULL = all is well.';

-- Called by one instance every minute, so it compares sets and asks why only of what is odd: per row
-- it took longer than a statement may, in just the outage that fills the outbox. Claims are compared
-- once, from where the last call ended, and at most max_claims in one call; what waits is compared whole.
-- A claim has the time of its transaction's begin: no transaction of ours lives longer than 10 s, so
-- what began before that is there or never will be.
CREATE FUNCTION mcp.find_unaccounted(max_claims int DEFAULT 200000) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
    until_ timestamptz := now() - interval '10 seconds';
    far timestamptz;
BEGIN
    SELECT until INTO since FROM mcp.webhook_accounted FOR UPDATE;
    -- After a long pause only the last hour: the invariant is watched, not proven.
    since := greatest(since, until_ - interval '1 hour');
    SELECT received_at INTO far FROM mcp.webhook_claims WHERE received_at >= since AND received_at < until_
     ORDER BY received_at OFFSET max_claims LIMIT 1;
    until_ := greatest(coalesce(far, until_), since);
    INSERT INTO mcp.webhook_unaccounted (event_id, reason)
    SELECT id, why FROM (
        SELECT event_id AS id FROM (
            SELECT c.event_id, count(e.event_id) FROM mcp.webhook_claims c
              LEFT JOIN mcp.webhook_events e ON e.event_id = c.event_id
               AND e.received_at BETWEEN since - interval '1 day' AND until_ + interval '1 day'
             WHERE c.received_at >= since AND c.received_at < until_
             GROUP BY c.event_id HAVING count(e.event_id) <> 1) odd
        UNION SELECT e.event_id FROM mcp.webhook_events e WHERE e.status <> 'published'
           AND NOT EXISTS (SELECT FROM mcp.webhook_outbox o WHERE o.event_id = e.event_id AND e.status = 'parked')
           AND NOT EXISTS (SELECT FROM mcp.webhook_stuck s WHERE s.event_id = e.event_id AND e.status = 'stuck')
        UNION SELECT o.event_id FROM mcp.webhook_outbox o WHERE o.received_at > now() - interval '29 days'
           AND NOT EXISTS (SELECT FROM mcp.webhook_events e WHERE e.event_id = o.event_id AND e.status <> 'published')) seen,
        LATERAL mcp.why_unaccounted(id) why
     WHERE why IS NOT NULL
        ON CONFLICT DO NOTHING;
    DELETE FROM mcp.webhook_unaccounted WHERE mcp.why_unaccounted(event_id) IS NULL;
    UPDATE mcp.webhook_accounted SET until = until_;
    RETURN (SELECT count(*) FROM mcp.webhook_unaccounted);
END
$$;
COMMENT ON FUNCTION mcp.find_unaccounted(int) IS 'Compares recent claims, receipts, outbox and stuck list; returns how many events do not add up (mcp.webhook_unaccounted tells which).';

-- What makes a committed row less durable than it seems; empty = nothing.
CREATE FUNCTION mcp.durability_problems() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce(string_agg(problem, '; '), '') FROM (VALUES
        (current_setting('fsync') <> 'on', 'fsync is off: a crash of the machine loses what was committed'),
        (current_setting('full_page_writes') <> 'on', 'full_page_writes is off: a crash of the machine may damage the tables'),
        (pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on', 'the server is read-only'),
        (current_setting('synchronous_standby_names') = '' AND EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming'),
         'there are standbys but synchronous_standby_names is empty: a failover loses the last commits')
    ) AS checks (wrong, problem) WHERE wrong
$$;
COMMENT ON FUNCTION mcp.durability_problems() IS 'What makes commits on this server less durable than asked, in words; empty = nothing.';
