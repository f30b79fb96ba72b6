-- What came while Postgres was away: payloads in the holding topic, and markers of events that are in
-- their topic while their claim was lost. How far both are taken over stands here. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

CREATE TABLE mcp.webhook_hold_offsets (
    kafka_topic     text NOT NULL,
    kafka_partition int NOT NULL,
    next_offset     bigint NOT NULL DEFAULT 0,
    -- All that had come by then was taken over.
    caught_up_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_topic, kafka_partition)
);
COMMENT ON TABLE mcp.webhook_hold_offsets IS 'How far each partition of the holding topic and of its markers is taken over. Whoever takes over locks the row, and moves it in the transaction that takes over.';

-- Payloads: each that is new is claimed and parked. The others are copies of something durable. One
-- event may stand twice in a batch.
CREATE FUNCTION mcp.unhold(ids uuid[], workspaces text[], integrations uuid[], platforms text[], types text[],
    external_ids text[], digests bytea[], sizes int[], times timestamptz[], topics text[], keys bytea[],
    headers bytea[], bodies bytea[]) RETURNS int
LANGUAGE sql AS $$
    WITH held AS (
        SELECT DISTINCT ON (event_id) *
          FROM unnest(ids, workspaces, integrations, platforms, types, external_ids, digests, sizes, times, topics,
                      keys, headers, bodies) WITH ORDINALITY
            AS h (event_id, workspace_id, integration_id, platform, event_type, external_id, body_sha256, body_size,
                  received_at, kafka_topic, record_key, record_headers, body, n)
         ORDER BY event_id, n),
    claimed AS (
        INSERT INTO mcp.webhook_claims (event_id, received_at)
        SELECT event_id, now() FROM held ORDER BY event_id
            ON CONFLICT DO NOTHING RETURNING event_id),
    receipts AS (
        INSERT INTO mcp.webhook_events (event_id, workspace_id, integration_id, platform, event_type, external_id,
            body_sha256, body_size, received_at, kafka_topic, status)
        SELECT event_id, workspace_id, integration_id, platform, event_type, external_id, body_sha256, body_size,
               received_at, kafka_topic, 'parked'
          FROM held JOIN claimed USING (event_id)),
    parked AS (
        INSERT INTO mcp.webhook_outbox (event_id, received_at, kafka_topic, record_key, record_headers, body)
        SELECT event_id, received_at, kafka_topic, record_key, record_headers, body
          FROM held JOIN claimed USING (event_id) ORDER BY n)
    SELECT count(*)::int FROM claimed
$$;
COMMENT ON FUNCTION mcp.unhold IS 'Claims held events and parks those that are new; returns how many were.';

-- Markers: the event is in its topic already, so only what was lost with the transaction is written again.
CREATE FUNCTION mcp.apply_markers(ids uuid[], workspaces text[], integrations uuid[], platforms text[], types text[],
    external_ids text[], digests bytea[], sizes int[], times timestamptz[], topics text[], partitions int[],
    offsets bigint[]) RETURNS int
LANGUAGE sql AS $$
    WITH marked AS (
        SELECT DISTINCT ON (event_id) *
          FROM unnest(ids, workspaces, integrations, platforms, types, external_ids, digests, sizes, times, topics,
                      partitions, offsets) WITH ORDINALITY
            AS m (event_id, workspace_id, integration_id, platform, event_type, external_id, body_sha256, body_size,
                  received_at, kafka_topic, kafka_partition, kafka_offset, n)
         ORDER BY event_id, n),
    claimed AS (
        INSERT INTO mcp.webhook_claims (event_id, received_at)
        SELECT event_id, now() FROM marked ORDER BY event_id
            ON CONFLICT DO NOTHING RETURNING event_id),
    receipts AS (
        INSERT INTO mcp.webhook_events (event_id, workspace_id, integration_id, platform, event_type, external_id,
            body_sha256, body_size, received_at, kafka_topic, kafka_partition, kafka_offset, status)
        SELECT event_id, workspace_id, integration_id, platform, event_type, external_id, body_sha256, body_size,
               received_at, kafka_topic, kafka_partition, nullif(kafka_offset, -1), 'published'
          FROM marked JOIN claimed USING (event_id))
    SELECT count(*)::int FROM claimed
$$;
COMMENT ON FUNCTION mcp.apply_markers IS 'Claims events that are in their topic while their claim was lost, and writes their receipts; returns how many were not claimed meanwhile.';

-- As before, but the window counts back from when the holding topic was last seen empty: a copy that is
-- still held must find the claim that it is a copy of. Seen empty every ten seconds at the latest.
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
         LIMIT max_rows));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mcp.purge_claims(interval, int) IS 'Deletes at most max_rows claims that are older than the dedup window and whose events are neither parked nor stuck; the window counts back from when nothing was held. Returns how many.';
