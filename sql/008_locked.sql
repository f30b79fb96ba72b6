-- A locked table is no held key.
-- SPDX-License-Identifier: Apache-2.0

-- As before, but while another session locks the whole table (LOCK TABLE, CREATE INDEX, VACUUM FULL) it fails with
-- lock_not_available, instead of calling every key held: then nothing can be claimed, and events are held.
CREATE OR REPLACE FUNCTION mcp.claim_unblocked(ids uuid[], received_at timestamptz DEFAULT now())
RETURNS TABLE (event_id uuid, verdict text)
LANGUAGE plpgsql ROWS 64 SET lock_timeout = '5ms' AS $$
BEGIN
    LOCK TABLE mcp.webhook_claims IN ROW EXCLUSIVE MODE;
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
COMMENT ON FUNCTION mcp.claim_unblocked(uuid[], timestamptz) IS 'Claims key by key without waiting: new = claimed by this transaction, known = claimed by a committed one, held = another open transaction holds the key. Fails when the whole table is locked.';
