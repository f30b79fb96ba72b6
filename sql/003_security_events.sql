-- What a security officer asks for: refused signatures and timestamps, copies, challenges, unknown
-- endpoints; summed by hour and source, so that a flood makes a handful of rows. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

CREATE TABLE mcp.security_events (
    hour           timestamptz NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('signature', 'timestamp', 'replay', 'challenge', 'endpoint')),
    outcome        text NOT NULL,
    platform       text NOT NULL,
    integration_id uuid,
    workspace_id   text,
    source         inet,
    count          bigint NOT NULL CHECK (count > 0),
    first_seen     timestamptz NOT NULL,
    last_seen      timestamptz NOT NULL CHECK (last_seen >= first_seen),
    -- By hour first: the purge and whoever asks for a time use it too.
    UNIQUE NULLS NOT DISTINCT (hour, platform, outcome, integration_id, source)
) WITH (fillfactor = 70); -- rows are updated once a second while their hour lasts
COMMENT ON TABLE mcp.security_events IS 'Sightings of all instances, summed: one row per hour, platform, outcome, integration and source. Never a path, a token, a body or a signature.';
COMMENT ON COLUMN mcp.security_events.hour IS 'The hour (UTC) that the row sums up.';
COMMENT ON COLUMN mcp.security_events.kind IS 'signature = it did not authenticate; timestamp = authentic, but too old, too new or undated; replay = a copy of an event that is recorded already (senders'' own retries among them); challenge = the platform''s question whether the address is ours; endpoint = no integration has the token.';
COMMENT ON COLUMN mcp.security_events.outcome IS 'What became of it, in the word that the log and webhook_failures_total have: signature_mismatch, timestamp_stale, unknown_endpoint …; duplicate for a replay, challenge for one that was answered.';
COMMENT ON COLUMN mcp.security_events.platform IS 'Name of the platform''s folder.';
COMMENT ON COLUMN mcp.security_events.integration_id IS 'Whose endpoint or account it was, where that was known; never of replays, which every integration has.';
COMMENT ON COLUMN mcp.security_events.workspace_id IS 'The integration''s workspace when the row was first written.';
COMMENT ON COLUMN mcp.security_events.source IS 'Address of the sender: IPv4 whole, IPv6 as its /64. Null sums up the other sources: those that came when an instance''s table was full, or had no address.';
COMMENT ON COLUMN mcp.security_events.count IS 'How many deliveries. Too high, but never too low, where a connection was lost while it was written.';
COMMENT ON COLUMN mcp.security_events.first_seen IS 'Receipt of the first of them.';
COMMENT ON COLUMN mcp.security_events.last_seen IS 'Receipt of the last of them.';

-- Called by each instance about once a second, when there is something new. In the order of the key, so that two instances
-- never wait for each other in a circle. hour is Unix time / 3600; first and last are Unix time in microseconds.
CREATE FUNCTION mcp.add_security_events(events jsonb) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    written int;
BEGIN
    INSERT INTO mcp.security_events AS old (hour, kind, outcome, platform, integration_id, workspace_id, source, count, first_seen, last_seen)
    SELECT to_timestamp(e.hour * 3600), e.kind, e.outcome, e.platform, e.integration, i.workspace_id, e.source, e.count,
           to_timestamp(e.first / 1e6), to_timestamp(e.last / 1e6)
      FROM jsonb_to_recordset(events) AS e(hour bigint, kind text, outcome text, platform text, integration uuid, source inet,
                                           count bigint, first bigint, last bigint)
      LEFT JOIN core.integrations i ON i.integration_id = e.integration
     ORDER BY e.hour, e.platform, e.outcome, e.integration, e.source
    ON CONFLICT (hour, platform, outcome, integration_id, source) DO UPDATE
       SET count = old.count + excluded.count,
           first_seen = least(old.first_seen, excluded.first_seen),
           last_seen = greatest(old.last_seen, excluded.last_seen);
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION mcp.add_security_events(jsonb) IS 'Adds an instance''s sightings to the rows of their hour; returns how many rows.';

-- Called by one instance a minute, with the purge of claims.
CREATE FUNCTION mcp.purge_security_events(older_than interval, max_rows int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    purged int;
BEGIN
    IF older_than IS NULL OR older_than < interval '1 day' OR max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 100000 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'security events are kept for a day at least, and max_rows is between 1 and 100000';
    END IF;
    DELETE FROM mcp.security_events WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM mcp.security_events WHERE hour < now() - older_than LIMIT max_rows));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mcp.purge_security_events(interval, int) IS 'Deletes at most max_rows security events of hours before now() - older_than; returns how many.';
