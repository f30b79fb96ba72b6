-- What Postgres refuses of what was held is set aside with its claim, alone, and only if the server takes
-- everything else; retried it goes its way once. Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT plan(36);

CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('f2000000-0000-8000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.ids(ns int[]) RETURNS uuid[] LANGUAGE sql AS $$ SELECT array_agg(pg_temp.id(n) ORDER BY i) FROM unnest(ns) WITH ORDINALITY AS u (n, i) $$;
CREATE FUNCTION pg_temp.many(t anyelement, ns int[]) RETURNS anyarray LANGUAGE sql AS $$ SELECT array_agg(t) FROM unnest(ns) $$;
-- The external id is the number, and `odd` takes the place of the first one's.
CREATE FUNCTION pg_temp.each(markers int, ns int[], odd bytea DEFAULT NULL, at_us bigint DEFAULT 1700000000000001) RETURNS text LANGUAGE sql AS $$
    SELECT fresh || ' ' || refused FROM mcp.unhold_each(markers, pg_temp.ids(ns), pg_temp.many('w'::bytea, ns), pg_temp.ids(ns),
        pg_temp.many('zoom'::bytea, ns), pg_temp.many('t'::bytea, ns),
        (SELECT array_agg(CASE WHEN i = 1 THEN coalesce(odd, n::text::bytea) ELSE n::text::bytea END ORDER BY i) FROM unnest(ns) WITH ORDINALITY AS u (n, i)),
        pg_temp.many(sha256('x'), ns), pg_temp.many(1, ns), pg_temp.many(at_us, ns), pg_temp.many('webhooks.zoom'::bytea, ns),
        pg_temp.many(2, ns), pg_temp.many(77::bigint, ns), pg_temp.many('k'::bytea, ns), pg_temp.many('\x'::bytea, ns), pg_temp.many('body'::bytea, ns)) $$;
CREATE FUNCTION pg_temp.receipt(n int) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', status, kafka_partition, kafka_offset), ', ') FROM mcp.webhook_events WHERE event_id = pg_temp.id(n) $$;
CREATE FUNCTION pg_temp.claims(n int) RETURNS int LANGUAGE sql AS $$ SELECT count(*)::int FROM mcp.webhook_claims WHERE event_id = pg_temp.id(n) $$;
CREATE FUNCTION pg_temp.reason(n int) RETURNS text LANGUAGE sql AS $$ SELECT reason FROM mcp.webhook_refused WHERE event_id = pg_temp.id(n) $$;
CREATE FUNCTION pg_temp.balk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not %', to_jsonb(NEW) ->> 'external_id'; END $$;

-- Without a fault it does what the others do.
SELECT is(pg_temp.each(0, '{3,1,3}'), '2 0', 'new ones are claimed, each once');
SELECT is(pg_temp.receipt(3), 'parked', 'and parked');
SELECT is((SELECT received_at FROM mcp.webhook_events WHERE event_id = pg_temp.id(3)), '2023-11-14 22:13:20.000001+00'::timestamptz, 'to the microsecond');
SELECT is(pg_temp.each(1, '{4,1,3}'), '2 0', 'markers are applied, and those counted whose event a copy has claimed');
SELECT is(pg_temp.receipt(4), 'published 2 77', 'with their place');

-- A trigger.
CREATE TRIGGER balk BEFORE INSERT ON mcp.webhook_events FOR EACH ROW WHEN (NEW.external_id = '6') EXECUTE FUNCTION pg_temp.balk();
SELECT is(pg_temp.each(0, '{5,6,7,6}'), '2 1', 'one is refused, the others are not');
SELECT is(pg_temp.receipt(7), 'parked', 'nor those behind it');
SELECT is(pg_temp.receipt(6), NULL, 'it has no receipt');
SELECT is(pg_temp.claims(6), 1, 'but its claim');
SELECT is(pg_temp.reason(6), 'P0001: not 6', 'and its reason');
SELECT is((SELECT body FROM mcp.webhook_refused WHERE event_id = pg_temp.id(6)), 'body'::bytea, 'and its body');
SELECT is(mcp.why_unaccounted(pg_temp.id(6)), NULL, 'so it is accounted for');
SELECT is(pg_temp.each(0, '{6}'), '0 0', 'a copy changes nothing');
SELECT throws_ok($$SELECT mcp.retry_refused(pg_temp.id(6))$$, 'P0001', 'not 6', 'while the cause is there a retry is refused');
SELECT is(pg_temp.claims(6), 1, 'and changes nothing');
UPDATE mcp.webhook_claims SET received_at = now() - interval '399 days' WHERE event_id = pg_temp.id(6);
DELETE FROM mcp.webhook_claims WHERE received_at < now() - interval '400 days';
UPDATE mcp.webhook_hold_offsets SET caught_up_at = now();
SELECT is(mcp.purge_claims('397 days', 100), 0, 'its claim is not purged');
DROP TRIGGER balk ON mcp.webhook_events;
SELECT is(mcp.retry_refused(pg_temp.id(6)), 1, 'then it goes its way');
SELECT is(pg_temp.receipt(6), 'parked', 'to the outbox');
SELECT is(pg_temp.claims(6), 1, 'with one claim');
SELECT is(mcp.retry_refused(pg_temp.id(6)), 0, 'once');

-- A marker.
CREATE TRIGGER balk BEFORE INSERT ON mcp.webhook_events FOR EACH ROW WHEN (NEW.external_id = '8') EXECUTE FUNCTION pg_temp.balk();
SELECT is(pg_temp.each(1, '{8,9}'), '0 1', 'of markers too');
DROP TRIGGER balk ON mcp.webhook_events;
SELECT is(mcp.retry_refused(pg_temp.id(8)), 1, 'retried');
SELECT is(pg_temp.receipt(8), 'published 2 77', 'it tells the place');

-- What a text or a time can't hold; a deferred constraint.
SELECT is(pg_temp.each(0, '{10}', '\xff'), '0 1', 'bytes that are no text');
INSERT INTO mcp.webhook_claims VALUES (pg_temp.id(15), now());
SELECT is(pg_temp.each(0, '{15}', '\xff'), '0 0', 'which need not be kept of a copy');
SELECT is(pg_temp.reason(15), NULL, 'and are not');
SELECT is(pg_temp.each(0, '{11}', NULL, 9223372036854775807), '0 1', 'a time beyond all');
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mcp.webhook_outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.event_id = 'f2000000-0000-8000-8000-000000000012') EXECUTE FUNCTION pg_temp.balk();
SELECT is(pg_temp.each(0, '{12,13}'), '1 1', 'what would only be refused at COMMIT');
SET CONSTRAINTS ALL DEFERRED;
DROP TRIGGER late ON mcp.webhook_outbox;

-- The fault is the server's.
CREATE TRIGGER balk BEFORE INSERT ON mcp.webhook_events FOR EACH ROW EXECUTE FUNCTION pg_temp.balk();
SELECT throws_ok($$SELECT pg_temp.each(0, '{14}')$$, 'P0001', 'not ', 'nothing is set aside when nothing is taken');
SELECT is(pg_temp.claims(14), 0, 'nor claimed');
DROP TRIGGER balk ON mcp.webhook_events;

-- Given up.
SELECT is(mcp.drop_stuck(pg_temp.id(10)), 1, 'a refused one is dropped');
SELECT is(pg_temp.claims(10), 0, 'with its claim');
SELECT is(mcp.set_stuck(ARRAY[pg_temp.id(3)], 'why'), 1, 'a stuck one');
SELECT is(mcp.drop_stuck(pg_temp.id(3)), 1, 'too');
SELECT is(pg_temp.receipt(3), NULL, 'with its receipt');
SELECT is(mcp.drop_stuck(pg_temp.id(5)), 0, 'what is on its way is not');

SELECT * FROM finish();
ROLLBACK;
