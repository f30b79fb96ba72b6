-- A marker whose event a copy has claimed meanwhile tells of a second record in the topic: that is
-- counted. Expand-only: what older programs do with the number is nothing.
-- SPDX-License-Identifier: Apache-2.0

-- As before, and it returns how many records have no receipt of their own. Our own commit, if it came
-- through after all, has the marker's time and place; that of a copy has others. Asked in a second
-- statement, which sees what was committed while the first one claimed.
CREATE OR REPLACE FUNCTION mcp.apply_markers(ids uuid[], workspaces text[], integrations uuid[], platforms text[], types text[],
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
            ON CONFLICT DO NOTHING RETURNING event_id)
    INSERT INTO mcp.webhook_events (event_id, workspace_id, integration_id, platform, event_type, external_id,
        body_sha256, body_size, received_at, kafka_topic, kafka_partition, kafka_offset, status)
    SELECT event_id, workspace_id, integration_id, platform, event_type, external_id, body_sha256, body_size,
           received_at, kafka_topic, kafka_partition, nullif(kafka_offset, -1), 'published'
      FROM marked JOIN claimed USING (event_id);
    SELECT count(*)::int
      FROM unnest(ids, times, partitions, offsets) AS m (event_id, received_at, kafka_partition, kafka_offset)
     WHERE NOT EXISTS (
        SELECT FROM mcp.webhook_events e
         WHERE e.event_id = m.event_id AND e.received_at = m.received_at AND e.kafka_partition = m.kafka_partition
           AND (m.kafka_offset = -1 OR e.kafka_offset = m.kafka_offset))
$$;
COMMENT ON FUNCTION mcp.apply_markers IS 'Claims events that are in their topic while their claim was lost, and writes their receipts; returns how many are in their topic beside another record or will be, because a copy was claimed meanwhile.';

COMMENT ON FUNCTION mcp.take_held(mcp.webhook_refused) IS 'Claims one held event and parks it, and returns 1 if it was new; or applies one marker, and returns 1 if a copy was claimed meanwhile.';
COMMENT ON FUNCTION mcp.unhold_each IS 'As mcp.unhold() and mcp.apply_markers(), one event after another: what Postgres refuses goes to mcp.webhook_refused with its claim. Returns the sum of what they return, and how many were refused.';
