-- Parking: outbox, stuck list, probe, the purge that spares what is parked, and the watched invariant.
-- Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET LOCAL timezone = 'UTC';
SELECT plan(28);

CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('f1000000-0000-8000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.receipt(n int, at timestamptz, state text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO mcp.webhook_events (event_id, workspace_id, platform, event_type, external_id, body_sha256, body_size,
        received_at, kafka_topic, kafka_partition, status)
    VALUES (pg_temp.id(n), 'w', 'zoom', 't', 'e', sha256('x'), 1, at, 'webhooks.zoom', CASE state WHEN 'published' THEN 0 END, state) $$;
CREATE FUNCTION pg_temp.claim(n int, at timestamptz) RETURNS void LANGUAGE sql AS $$ INSERT INTO mcp.webhook_claims VALUES (pg_temp.id(n), at) $$;
CREATE FUNCTION pg_temp.outbox(n int, at timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO mcp.webhook_outbox (event_id, received_at, kafka_topic, record_key, record_headers, body)
    VALUES (pg_temp.id(n), at, 'webhooks.zoom', 'k', 'h', 'b') $$;
CREATE FUNCTION pg_temp.state(n int) RETURNS text LANGUAGE sql AS $$ SELECT status FROM mcp.webhook_events WHERE event_id = pg_temp.id(n) $$;

DELETE FROM mcp.webhook_claims;
DELETE FROM mcp.webhook_events;
DELETE FROM mcp.webhook_outbox;
DELETE FROM mcp.webhook_stuck;
DELETE FROM mcp.webhook_unaccounted;
UPDATE mcp.webhook_accounted SET until = now() - interval '125 seconds';

-- Outbox.
SELECT pg_temp.outbox(1, now());
SELECT throws_ok($$SELECT pg_temp.outbox(1, now())$$, '23505', NULL, 'an event is parked once');
SELECT throws_ok($$UPDATE mcp.webhook_outbox SET undecided_since = now()$$, '23514', NULL, 'undecided needs the record''s time');
SELECT lives_ok($$UPDATE mcp.webhook_outbox SET undecided_since = now(), record_time = now()$$, 'with it, it is fine');

-- The purge.
SELECT pg_temp.claim(n, now() - interval '400 days') FROM generate_series(1, 4) n;
SELECT mcp.set_stuck(ARRAY[pg_temp.id(99)], 'no such event');
SELECT pg_temp.outbox(2, now());
SELECT is(mcp.set_stuck(ARRAY[pg_temp.id(2)], 'too large'), 1, 'a parked event gets stuck');
SELECT is(mcp.purge_claims('300 days', 100), 2, 'old claims go');
SELECT results_eq($$SELECT event_id FROM mcp.webhook_claims ORDER BY 1$$, $$VALUES (pg_temp.id(1)), (pg_temp.id(2))$$,
    'but not those of parked and stuck events');
DELETE FROM mcp.webhook_claims;
DELETE FROM mcp.webhook_outbox;
DELETE FROM mcp.webhook_stuck;

-- Stuck and back.
SELECT pg_temp.outbox(3, now()), pg_temp.receipt(3, now(), 'parked'), pg_temp.outbox(4, now()), pg_temp.receipt(4, now(), 'parked');
SELECT is(mcp.set_stuck(ARRAY[pg_temp.id(3), pg_temp.id(4)], 'too large'), 2, 'two get stuck');
SELECT is((SELECT count(*)::int FROM mcp.webhook_outbox), 0, 'they leave the outbox');
SELECT results_eq($$SELECT event_id, reason, body FROM mcp.webhook_stuck ORDER BY 1$$,
    $$VALUES (pg_temp.id(3), 'too large', 'b'::bytea), (pg_temp.id(4), 'too large', 'b')$$, 'and keep their payload');
SELECT is(pg_temp.state(3), 'stuck', 'the receipt says so');
SELECT is(mcp.retry_stuck(ARRAY[pg_temp.id(3)]), 1, 'one goes back');
SELECT is(pg_temp.state(3) || pg_temp.state(4), 'parkedstuck', 'its receipt alone says parked');
SELECT is((SELECT undecided_since IS NULL AND key_partition IS NULL FROM mcp.webhook_outbox WHERE event_id = pg_temp.id(3)), true, 'it is ready to be sent');
SELECT is(mcp.retry_stuck(), 1, 'all the others');
SELECT is((SELECT count(*)::int FROM mcp.webhook_stuck), 0, 'none is left');

-- The probe.
SELECT lives_ok($$SELECT mcp.probe()$$, 'a probe');
SELECT lives_ok($$SELECT mcp.probe()$$, 'and one more');
SELECT is((SELECT count(*)::int FROM mcp.webhook_claims), 0, 'leave no claim');
SELECT is((SELECT count(*)::int FROM mcp.webhook_events WHERE workspace_id = ''), 0, 'and no receipt');

-- The invariant. Claims of the last 10 s may belong to open transactions.
SELECT pg_temp.claim(n, now() - interval '1 minute') FROM generate_series(3, 4) n;
SELECT is(mcp.find_unaccounted(), 0, 'parked events add up');
UPDATE mcp.webhook_accounted SET until = now() - interval '125 seconds';
SELECT pg_temp.claim(5, now() - interval '1 minute'), pg_temp.claim(6, now());
SELECT pg_temp.claim(7, now() - interval '1 minute'), pg_temp.receipt(7, now(), 'published'), pg_temp.receipt(7, now(), 'published');
SELECT pg_temp.claim(8, now() - interval '1 minute'), pg_temp.receipt(8, now(), 'published');
DELETE FROM mcp.webhook_outbox WHERE event_id = pg_temp.id(3);
SELECT is(mcp.find_unaccounted(), 3, 'what does not add up is counted');
SELECT results_eq($$SELECT event_id, reason FROM mcp.webhook_unaccounted ORDER BY 1$$,
    $$VALUES (pg_temp.id(3), 'a parked receipt without its outbox row'), (pg_temp.id(5), 'a claim without a receipt'),
             (pg_temp.id(7), 'more than one receipt')$$, 'and named');
SELECT is(mcp.find_unaccounted(), 3, 'it stays counted, although its claim was looked at');
SELECT pg_temp.receipt(5, now(), 'published'), pg_temp.outbox(3, now());
SELECT is(mcp.find_unaccounted(), 1, 'until it adds up');
DELETE FROM mcp.webhook_unaccounted;
UPDATE mcp.webhook_accounted SET until = now() - interval '125 seconds';
SELECT pg_temp.claim(9, now() - interval '2 minutes'), pg_temp.claim(10, now() - interval '90 seconds');
SELECT is(mcp.find_unaccounted(1), 1, 'at most so many claims in one call');
SELECT ok((SELECT until < now() - interval '80 seconds' FROM mcp.webhook_accounted), 'the next call goes on from there');
SELECT is(mcp.find_unaccounted(100), 3, 'and finds the rest: the other one, and the doubled receipt from before');

SELECT is(mcp.durability_problems() LIKE '%read-only%', false, 'this server is not read-only');

SELECT * FROM finish();
ROLLBACK;
