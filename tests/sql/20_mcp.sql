-- Claims and receipts: the functions, and partitions by day. Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET LOCAL timezone = 'UTC';
SELECT plan(26);

CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('f0000000-0000-8000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.receipt(n int, at timestamptz, state text DEFAULT 'published', part int DEFAULT 0, sha bytea DEFAULT sha256('x')) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO mcp.webhook_events (event_id, workspace_id, platform, event_type, external_id, body_sha256, body_size,
        received_at, kafka_topic, kafka_partition, status)
    VALUES (pg_temp.id(n), 'w', 'zoom', 't', 'e', sha, 1, at, 'webhooks.zoom', part, state) $$;

-- Claims.
INSERT INTO mcp.webhook_claims VALUES (pg_temp.id(1), now());
SELECT throws_ok($$INSERT INTO mcp.webhook_claims VALUES (pg_temp.id(1), now())$$, '23505', NULL, 'a claim is unique');
SELECT results_eq($$SELECT * FROM mcp.claim_unblocked(ARRAY[pg_temp.id(3), pg_temp.id(1), pg_temp.id(2), pg_temp.id(2)], now())$$,
    $$VALUES (pg_temp.id(1), 'known'), (pg_temp.id(2), 'new'), (pg_temp.id(3), 'new')$$, 'new and known keys, in order, each once');
SELECT is((SELECT count(*)::int FROM mcp.webhook_claims WHERE event_id IN (pg_temp.id(2), pg_temp.id(3))), 2, 'the new ones are claimed');
SELECT is_empty($$SELECT * FROM mcp.claim_unblocked('{}')$$, 'no keys, no verdicts');
SELECT is(current_setting('lock_timeout'), '0', 'its lock_timeout ends with it');

-- The purge.
DELETE FROM mcp.webhook_claims WHERE received_at < now() - interval '300 days';
INSERT INTO mcp.webhook_claims SELECT pg_temp.id(n), now() - interval '400 days' FROM generate_series(100, 109) n;
SELECT is(mcp.purge_claims('300 days', 4), 4, 'at most max_rows');
SELECT is(mcp.purge_claims('300 days', 100), 6, 'then the rest');
SELECT is(mcp.purge_claims('300 days', 100), 0, 'then none');
SELECT is((SELECT count(*)::int FROM mcp.webhook_claims WHERE event_id = pg_temp.id(1)), 1, 'a fresh claim stays');
SELECT throws_ok($$SELECT mcp.purge_claims('0', 1)$$, '22023', NULL, 'no window is refused: it would forget everything');
SELECT throws_ok($$SELECT mcp.purge_claims(NULL, 1)$$, '22023', NULL, 'so is null');

-- Receipts.
SELECT throws_ok($$SELECT pg_temp.receipt(1, now(), 'lost')$$, '23514', NULL, 'an unknown status');
SELECT throws_ok($$SELECT pg_temp.receipt(1, now(), 'published', NULL)$$, '23514', NULL, 'published without a partition');
SELECT lives_ok($$SELECT pg_temp.receipt(1, now(), 'parked', NULL)$$, 'parked without one');
SELECT throws_ok($$SELECT pg_temp.receipt(1, now(), 'published', 0, 'short')$$, '23514', NULL, 'a digest has 32 bytes');

-- Partitions.
SELECT mcp.ensure_event_partitions(7);
SELECT is(mcp.ensure_event_partitions(7), 0, 'nothing is missing after the first call');
SELECT is((SELECT count(*)::int FROM generate_series(0, 7) n
    WHERE to_regclass('mcp.webhook_events_' || to_char(current_date + n, 'YYYYMMDD')) IS NOT NULL), 8, 'today and seven days ahead');
SELECT pg_temp.receipt(2, now() + interval '20 days');
SELECT is((SELECT tableoid::regclass::text FROM mcp.webhook_events WHERE event_id = pg_temp.id(2)), 'mcp.webhook_events_default', 'another day goes to the default partition');
SELECT lives_ok($$SELECT mcp.ensure_event_partitions(21)$$, 'a partition for a day that has strays');
SELECT is((SELECT tableoid::regclass::text FROM mcp.webhook_events WHERE event_id = pg_temp.id(2)),
    'mcp.webhook_events_' || to_char(now() + interval '20 days', 'YYYYMMDD'), 'takes them over');
SELECT is((SELECT count(*)::int FROM pg_index WHERE indrelid = to_regclass('mcp.webhook_events_' || to_char(current_date + 20, 'YYYYMMDD'))), 3, 'and has all indexes');

CREATE TABLE mcp.webhook_events_20010101 PARTITION OF mcp.webhook_events FOR VALUES FROM ('2001-01-01Z') TO ('2001-01-02Z');
SELECT pg_temp.receipt(3, '2001-01-01 12:00Z');
SELECT pg_temp.receipt(4, '2001-01-05 12:00Z');
SELECT is(mcp.drop_event_partitions('3650 days'), 1, 'an old partition is dropped');
SELECT is((SELECT count(*)::int FROM mcp.webhook_events WHERE event_id IN (pg_temp.id(3), pg_temp.id(4))), 0, 'with its receipts, and old strays');
SELECT is((SELECT count(*)::int FROM mcp.webhook_events WHERE event_id = pg_temp.id(1)), 1, 'a fresh receipt stays');
SELECT throws_ok($$SELECT mcp.drop_event_partitions('0')$$, '22023', NULL, 'no retention is refused');

SELECT is((SELECT count(*)::int FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('core', 'mcp', 'hookgate') AND c.relkind IN ('r', 'p') AND obj_description(c.oid) IS NULL
      AND c.relname <> 'webhook_events_20010101'), 0, 'every table has a comment');

SELECT * FROM finish();
ROLLBACK;
