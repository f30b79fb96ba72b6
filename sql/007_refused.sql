-- What Postgres itself refuses of what was held (a constraint, a trigger, a text that the database
-- can't hold): set aside with its claim, so that it keeps nothing else from its way. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

CREATE TABLE mcp.webhook_refused (
    event_id       uuid PRIMARY KEY,
    refused_at     timestamptz NOT NULL DEFAULT now(),
    reason         text NOT NULL,
    -- A marker's event is in its topic already; a payload's is nowhere but here.
    is_marker      boolean NOT NULL,
    -- As the holding topic had it. Nothing here may be refused, so texts are bytes and times are numbers.
    workspace_id   bytea NOT NULL,
    integration_id uuid NOT NULL,
    platform       bytea NOT NULL,
    event_type     bytea NOT NULL,
    external_id    bytea NOT NULL,
    body_sha256    bytea NOT NULL,
    body_size      int NOT NULL,
    received_us    bigint NOT NULL,
    kafka_topic    bytea NOT NULL,
    kafka_partition int, -- of a marker
    kafka_offset   bigint,
    record_key     bytea NOT NULL,
    record_headers bytea NOT NULL,
    body           bytea NOT NULL
);
COMMENT ON TABLE mcp.webhook_refused IS 'Held events whose receipt Postgres refuses. Each has its claim and no receipt; `hookgate stuck` lists them, retries them once the cause is mended, or drops them.';
COMMENT ON COLUMN mcp.webhook_refused.received_us IS 'Unix time in microseconds.';

DO $$
BEGIN
    ALTER TABLE mcp.webhook_refused ALTER body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

-- One held event on its way into the database, as mcp.unhold() or mcp.apply_markers() has it.
CREATE FUNCTION mcp.take_held(h mcp.webhook_refused) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    workspace CONSTANT text := convert_from(h.workspace_id, 'UTF8');
    platform CONSTANT text := convert_from(h.platform, 'UTF8');
    event_type CONSTANT text := convert_from(h.event_type, 'UTF8');
    external_id CONSTANT text := convert_from(h.external_id, 'UTF8');
    topic CONSTANT text := convert_from(h.kafka_topic, 'UTF8');
    received_at CONSTANT timestamptz := to_timestamp(0) + h.received_us * interval '1 microsecond';
BEGIN
    IF h.is_marker THEN
        RETURN mcp.apply_markers(ARRAY[h.event_id], ARRAY[workspace], ARRAY[h.integration_id], ARRAY[platform],
            ARRAY[event_type], ARRAY[external_id], ARRAY[h.body_sha256], ARRAY[h.body_size], ARRAY[received_at],
            ARRAY[topic], ARRAY[h.kafka_partition], ARRAY[h.kafka_offset]);
    END IF;
    RETURN mcp.unhold(ARRAY[h.event_id], ARRAY[workspace], ARRAY[h.integration_id], ARRAY[platform],
        ARRAY[event_type], ARRAY[external_id], ARRAY[h.body_sha256], ARRAY[h.body_size], ARRAY[received_at],
        ARRAY[topic], ARRAY[h.record_key], ARRAY[h.record_headers], ARRAY[h.body]);
END
$$;
COMMENT ON FUNCTION mcp.take_held(mcp.webhook_refused) IS 'Claims one held event and parks it, or applies one marker; returns 1 if it was new.';

-- For a batch that was refused whole: each event in a subtransaction, in the order of the claims. An
-- event is set aside only if the server takes what a batch writes otherwise: else the fault is the
-- server's, and nothing may be moved. Error classes are those of unhold_sql.c.
CREATE FUNCTION mcp.unhold_each(are_markers int, ids uuid[], workspaces bytea[], integrations uuid[], platforms bytea[],
    types bytea[], external_ids bytea[], digests bytea[], sizes int[], times_us bigint[], topics bytea[],
    partitions int[], offsets bigint[], keys bytea[], headers bytea[], bodies bytea[],
    OUT fresh int, OUT refused int)
LANGUAGE plpgsql AS $$
DECLARE
    held mcp.webhook_refused;
    why text;
BEGIN
    fresh := 0;
    refused := 0;
    SET CONSTRAINTS ALL IMMEDIATE; -- a deferred one would only speak up at COMMIT
    FOR held IN
        SELECT id, now(), '', are_markers = 1, workspace, integration, platform, type, external_id, digest, size, time_us,
               topic, CASE are_markers WHEN 1 THEN "partition" END, CASE are_markers WHEN 1 THEN "offset" END,
               key, header, body
          FROM unnest(ids, workspaces, integrations, platforms, types, external_ids, digests, sizes, times_us, topics,
                      partitions, offsets, keys, headers, bodies) WITH ORDINALITY
            AS h (id, workspace, integration, platform, type, external_id, digest, size, time_us, topic, "partition",
                  "offset", key, header, body, n)
         ORDER BY id, n
    LOOP
        BEGIN
            fresh := fresh + mcp.take_held(held);
            CONTINUE;
        EXCEPTION WHEN cardinality_violation OR data_exception OR integrity_constraint_violation
                    OR with_check_option_violation OR program_limit_exceeded OR plpgsql_error THEN
            why := SQLSTATE || ': ' || SQLERRM;
        END;
        IF refused = 0 THEN
            PERFORM mcp.probe();
        END IF;
        INSERT INTO mcp.webhook_claims VALUES (held.event_id, now()) ON CONFLICT DO NOTHING;
        IF FOUND THEN -- else it is a copy of something durable
            held.reason := why;
            INSERT INTO mcp.webhook_refused SELECT held.*;
            refused := refused + 1;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION mcp.unhold_each IS 'As mcp.unhold() and mcp.apply_markers(), one event after another: what Postgres refuses goes to mcp.webhook_refused with its claim. Returns how many were new, and how many were refused.';

CREATE FUNCTION mcp.retry_refused(id uuid) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    held mcp.webhook_refused;
BEGIN
    DELETE FROM mcp.webhook_refused WHERE event_id = id RETURNING * INTO held;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM mcp.webhook_claims WHERE event_id = id;
    PERFORM mcp.take_held(held);
    RETURN 1;
END
$$;
COMMENT ON FUNCTION mcp.retry_refused(uuid) IS 'Takes over a held event that Postgres refused; an error says that it still does. Returns 1, or 0 if there is no such event.';

-- As if it had never come: a copy would be new.
CREATE FUNCTION mcp.drop_stuck(id uuid) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    dropped int;
BEGIN
    WITH stuck AS (DELETE FROM mcp.webhook_stuck WHERE event_id = id RETURNING event_id, received_at),
         receipts AS (DELETE FROM mcp.webhook_events e USING stuck s
                       WHERE e.event_id = s.event_id AND e.received_at = s.received_at),
         refused AS (DELETE FROM mcp.webhook_refused WHERE event_id = id RETURNING event_id)
    SELECT count(*) INTO dropped FROM (SELECT event_id FROM stuck UNION SELECT event_id FROM refused) gone;
    IF dropped > 0 THEN
        DELETE FROM mcp.webhook_claims WHERE event_id = id;
    END IF;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION mcp.drop_stuck(uuid) IS 'Deletes a stuck or refused event with its payload, receipt and claim. Returns 1, or 0 if there is no such event.';

-- As before, and a claim without a receipt is in order while its event is set aside.
CREATE OR REPLACE FUNCTION mcp.why_unaccounted(id uuid) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN r.count = 0 AND NOT EXISTS (SELECT FROM mcp.webhook_claims WHERE event_id = id) THEN NULL
        WHEN r.count = 0 AND EXISTS (SELECT FROM mcp.webhook_refused WHERE event_id = id) THEN NULL
        WHEN r.count = 0 THEN 'a claim without a receipt'
        WHEN r.count > 1 THEN 'more than one receipt'
        WHEN r.status = 'parked' AND NOT EXISTS (SELECT FROM mcp.webhook_outbox WHERE event_id = id) THEN 'a parked receipt without its outbox row'
        WHEN r.status = 'stuck' AND NOT EXISTS (SELECT FROM mcp.webhook_stuck WHERE event_id = id) THEN 'a stuck receipt without its stuck row'
        WHEN r.status <> 'parked' AND EXISTS (SELECT FROM mcp.webhook_outbox WHERE event_id = id) THEN 'an outbox row although the receipt says otherwise'
        END
      FROM (SELECT count(*), max(status) AS status FROM mcp.webhook_events WHERE event_id = id) r
$$;

-- As before, and the claim of an event that is set aside stays too.
CREATE OR REPLACE FUNCTION mcp.purge_claims("window" interval, max_rows int) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    purged int;
    horizon timestamptz;
BEGIN
    IF "window" IS NULL OR "window" <= interval '0' OR max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 100000 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'window must be positive and max_rows between 1 and 100000';
    END IF;
    horizon := least(now(), (SELECT min(caught_up_at) FROM mcp.webhook_hold_offsets)) - "window";
    DELETE FROM mcp.webhook_claims WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM mcp.webhook_claims c WHERE c.received_at < horizon
           AND NOT EXISTS (SELECT FROM mcp.webhook_outbox o WHERE o.event_id = c.event_id)
           AND NOT EXISTS (SELECT FROM mcp.webhook_stuck s WHERE s.event_id = c.event_id)
           AND NOT EXISTS (SELECT FROM mcp.webhook_refused r WHERE r.event_id = c.event_id)
         LIMIT max_rows));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mcp.purge_claims(interval, int) IS 'Deletes at most max_rows claims that are older than the dedup window and whose events are neither parked nor stuck nor refused; the window counts back from when nothing was held. Returns how many.';
