-- The watched invariant skips nothing: long lags, clocks that were wrong, claims of one time; and what
-- holds up the purge is named. Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET LOCAL timezone = 'UTC';
SELECT plan(22);

CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('f3000000-0000-8000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.claim(n int, ago interval) RETURNS void LANGUAGE sql AS $$ INSERT INTO mcp.webhook_claims VALUES (pg_temp.id(n), now() - ago) $$;
CREATE FUNCTION pg_temp.receipt(n int, ago interval) RETURNS void LANGUAGE sql AS $$
    INSERT INTO mcp.webhook_events (event_id, workspace_id, platform, event_type, external_id, body_sha256, body_size,
        received_at, kafka_topic, kafka_partition, status)
    VALUES (pg_temp.id(n), 'w', 'zoom', 't', 'e', sha256('x'), 1, now() - ago, 'webhooks.zoom', 0, 'published') $$;
-- As upkeep does; returns how many steps it took.
CREATE FUNCTION pg_temp.compare(max_claims int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    FOR step IN 1 .. 1000 LOOP
        IF mcp.compare_claims(max_claims) = 0 THEN RETURN step; END IF;
    END LOOP;
END
$$;
CREATE FUNCTION pg_temp.found() RETURNS int[] LANGUAGE sql AS $$ SELECT array_agg(right(event_id::text, 12)::int ORDER BY event_id) FROM mcp.webhook_unaccounted $$;

DELETE FROM mcp.webhook_claims;
DELETE FROM mcp.webhook_unaccounted;
UPDATE mcp.webhook_accounted SET until = now() - interval '3 hours';

-- A lag.
SELECT pg_temp.claim(1, '179 minutes'), pg_temp.claim(2, '90 minutes'), pg_temp.claim(3, '11 seconds'), pg_temp.claim(4, '10 seconds');
SELECT pg_temp.claim(5, '2 hours'), pg_temp.receipt(5, '2 hours');
SELECT pg_temp.claim(6, '2 hours'), pg_temp.receipt(6, '27 hours');
SELECT pg_temp.claim(7, '2 hours'), pg_temp.receipt(7, '25 hours'), pg_temp.receipt(7, '1 hour');
SELECT is(mcp.compare_claims(100), 10800 - 10 - 120, 'two minutes in one step');
SELECT is(pg_temp.found(), '{1}', 'are compared');
SELECT is(pg_temp.compare(100), 89, 'and the rest, step by step');
SELECT is(pg_temp.found(), '{1,2,3,7}', 'of which nothing is left out, except what may not be committed yet');
SELECT is((SELECT until FROM mcp.webhook_accounted), now() - interval '10 seconds', 'it is told how far it came');
SELECT is(mcp.compare_claims(100), 0, 'nothing is left');
DELETE FROM mcp.webhook_unaccounted;
UPDATE mcp.webhook_accounted SET until = now() - interval '3 hours';
SELECT is(mcp.find_unaccounted(), 1, 'older programs make such a step with each call');
SELECT is((SELECT until FROM mcp.webhook_accounted), now() - interval '178 minutes', 'and skip nothing either');

-- Many.
DELETE FROM mcp.webhook_claims;
DELETE FROM mcp.webhook_unaccounted;
UPDATE mcp.webhook_accounted SET until = now() - interval '1 minute';
SELECT pg_temp.claim(n, '1 minute') FROM generate_series(11, 13) n;
SELECT pg_temp.claim(n, '40 seconds') FROM generate_series(14, 16) n;
SELECT pg_temp.claim(17, '30 seconds');
SELECT is(mcp.compare_claims(2), 50, 'claims of one time are compared together, however many');
SELECT is(pg_temp.found(), '{11,12,13}', 'and no more');
SELECT is(mcp.compare_claims(2), 30, 'then the next');
SELECT is(mcp.compare_claims(2), 30, 'of the same time again');
SELECT is(pg_temp.found(), '{11,12,13,14,15,16}', 'are compared');
SELECT is(mcp.compare_claims(2), 0, 'to the end');
SELECT is(pg_temp.found(), '{11,12,13,14,15,16,17}', 'all of them');

-- A clock that was ahead.
DELETE FROM mcp.webhook_claims;
DELETE FROM mcp.webhook_unaccounted;
UPDATE mcp.webhook_accounted SET until = now() + interval '3 days';
SELECT pg_temp.claim(1, '9 minutes'), pg_temp.claim(2, '1 minute'), pg_temp.claim(3, '-2 days');
SELECT is(pg_temp.compare(100), 5, 'when it is right again, the last minutes are compared');
SELECT is(pg_temp.found(), '{1,2}', 'whatever was told to be compared');
SELECT is((SELECT until FROM mcp.webhook_accounted), now() - interval '10 seconds', 'and it goes on from there');

-- What holds up the purge.
DELETE FROM mcp.webhook_hold_offsets;
SELECT is(mcp.purge_waits(), '', 'nothing is held');
INSERT INTO mcp.webhook_hold_offsets VALUES ('webhooks.hold', 0, 0, now() - interval '1 hour'), ('webhooks.hold', 1, 0, now());
SELECT is(mcp.purge_waits(), '', 'nothing for long');
INSERT INTO mcp.webhook_hold_offsets VALUES ('renamed', 3, 7, '2026-01-31 12:00:00.5Z'), ('webhooks.hold', 9, 0, '2026-02-01');
SELECT matches(mcp.purge_waits(), 'still 2026-01-31 12:00:00\+00, when partition 3 of topic renamed ', 'a topic that nobody looks at');
SELECT is(length(mcp.purge_waits()) < 512 - 249, true, 'in so many words that a program has room for them');

SELECT * FROM finish();
ROLLBACK;
