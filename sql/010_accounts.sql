-- The watched invariant never skips: claims are compared in small steps, and how far that has come is
-- told. What holds up the purge is told, too. Expand-only.
-- SPDX-License-Identifier: Apache-2.0

-- Called by one instance until it returns 0. Short steps, because each looks through its whole time
-- for where max_claims end. A claim has the time of its transaction's begin: no transaction of ours
-- lives longer than 10 s, so what began before that is there or never will be.
CREATE FUNCTION mcp.compare_claims(max_claims int) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    done CONSTANT timestamptz := now() - interval '10 seconds';
    since timestamptz;
    until_ timestamptz;
    far timestamptz;
BEGIN
    SELECT until INTO since FROM mcp.webhook_accounted FOR UPDATE;
    -- The clock was ahead. When it was set right is not known, but calls come every minute.
    IF since > done THEN
        since := done - interval '10 minutes';
    END IF;
    until_ := least(since + interval '2 minutes', done);
    SELECT received_at INTO far FROM mcp.webhook_claims WHERE received_at >= since AND received_at < until_
     ORDER BY received_at OFFSET max_claims LIMIT 1;
    IF FOUND THEN
        -- Claims of one transaction share their time.
        until_ := greatest(far, since + interval '1 microsecond');
    END IF;
    -- Why is asked only of what is odd: it looks into all partitions.
    INSERT INTO mcp.webhook_unaccounted (event_id, reason)
    SELECT c.event_id, why FROM mcp.webhook_claims c, LATERAL mcp.why_unaccounted(c.event_id) why
     WHERE c.received_at >= since AND c.received_at < until_
       AND (SELECT count(*) FROM mcp.webhook_events e WHERE e.event_id = c.event_id
               AND e.received_at BETWEEN since - interval '1 day' AND until_ + interval '1 day') <> 1
       AND why IS NOT NULL
        ON CONFLICT DO NOTHING;
    UPDATE mcp.webhook_accounted SET until = until_;
    RETURN ceil(extract(epoch FROM done - until_));
END
$$;
COMMENT ON FUNCTION mcp.compare_claims(int) IS 'Compares the next claims with their receipts: those of two minutes at most, and about max_claims. Returns how many seconds of claims are left to compare.';

-- As before, but nothing is skipped, and further claims are mcp.compare_claims()'s.
CREATE OR REPLACE FUNCTION mcp.find_unaccounted(max_claims int DEFAULT 200000) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mcp.compare_claims(max_claims);
    INSERT INTO mcp.webhook_unaccounted (event_id, reason)
    SELECT id, why FROM (
        SELECT e.event_id AS id FROM mcp.webhook_events e WHERE e.status <> 'published'
           AND NOT EXISTS (SELECT FROM mcp.webhook_outbox o WHERE o.event_id = e.event_id AND e.status = 'parked')
           AND NOT EXISTS (SELECT FROM mcp.webhook_stuck s WHERE s.event_id = e.event_id AND e.status = 'stuck')
        UNION SELECT o.event_id FROM mcp.webhook_outbox o WHERE o.received_at > now() - interval '29 days'
           AND NOT EXISTS (SELECT FROM mcp.webhook_events e WHERE e.event_id = o.event_id AND e.status <> 'published')) seen,
        LATERAL mcp.why_unaccounted(id) why
     WHERE why IS NOT NULL
        ON CONFLICT DO NOTHING;
    DELETE FROM mcp.webhook_unaccounted WHERE mcp.why_unaccounted(event_id) IS NULL;
    RETURN (SELECT count(*) FROM mcp.webhook_unaccounted);
END
$$;
COMMENT ON FUNCTION mcp.find_unaccounted(int) IS 'Compares receipts that are not published, outbox and stuck list, and the next claims as mcp.compare_claims() does; returns how many events do not add up (mcp.webhook_unaccounted tells which).';

-- A row of a topic that no configuration names any more stays as it is, and the purge counts back from it.
CREATE FUNCTION mcp.purge_waits() RETURNS text
LANGUAGE sql STABLE SET timezone = 'UTC' AS $$
    SELECT coalesce((
        SELECT format('old claims are kept as if it were still %s, when partition %s of topic %s was last seen taken over: if no configuration names this topic any more and nothing is held there, delete its rows of mcp.webhook_hold_offsets',
                      date_trunc('second', caught_up_at), kafka_partition, kafka_topic)
          FROM mcp.webhook_hold_offsets WHERE caught_up_at < now() - interval '1 hour'
         ORDER BY caught_up_at, kafka_topic, kafka_partition LIMIT 1), '')
$$;
COMMENT ON FUNCTION mcp.purge_waits() IS 'Which partition of a holding topic has held up mcp.purge_claims() for over an hour, in words; empty = none.';
