-- Probes of many connections at once: none waits for another's commit. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

-- As before, but each backend has a key of its own. Its version is 0, so no event has it. With one key for
-- all, probes ran one after another, and where commits were slow those that waited too long failed.
CREATE OR REPLACE FUNCTION mcp.probe() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    key CONSTANT uuid := lpad(to_hex(pg_backend_pid()), 32, '0');
BEGIN
    INSERT INTO mcp.webhook_claims VALUES (key, now());
    INSERT INTO mcp.webhook_events (event_id, workspace_id, platform, event_type, external_id, body_sha256, body_size,
        received_at, kafka_topic, status)
    VALUES (key, '', '', '', '', sha256(''), 0, now(), '', 'parked');
    DELETE FROM mcp.webhook_events WHERE event_id = key AND received_at = now();
    DELETE FROM mcp.webhook_claims WHERE event_id = key;
END
$$;
COMMENT ON FUNCTION mcp.probe() IS 'Claims a key that is reserved for this backend, writes its receipt and deletes both: proves that this server takes what a batch writes.';
