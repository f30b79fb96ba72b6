-- What was held is taken over: payloads are claimed and parked, markers become receipts, copies change
-- nothing, and claims outlive what is held. Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT plan(20);

CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('f1000000-0000-8000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.ids(ns int[]) RETURNS uuid[] LANGUAGE sql AS $$ SELECT array_agg(pg_temp.id(n) ORDER BY i) FROM unnest(ns) WITH ORDINALITY AS u (n, i) $$;
CREATE FUNCTION pg_temp.many(t anyelement, ns int[]) RETURNS anyarray LANGUAGE sql AS $$ SELECT array_agg(t) FROM unnest(ns) $$;
CREATE FUNCTION pg_temp.unhold(ns int[]) RETURNS int LANGUAGE sql AS $$
    SELECT mcp.unhold(pg_temp.ids(ns), pg_temp.many('w'::text, ns), pg_temp.ids(ns), pg_temp.many('zoom'::text, ns),
        pg_temp.many('t'::text, ns), pg_temp.many('e'::text, ns), pg_temp.many(sha256('x'), ns), pg_temp.many(1, ns),
        pg_temp.many(now() - interval '1 minute', ns), pg_temp.many('webhooks.zoom'::text, ns), pg_temp.many('k'::bytea, ns),
        pg_temp.many('\x'::bytea, ns), (SELECT array_agg(i::text::bytea ORDER BY i) FROM unnest(ns) WITH ORDINALITY AS u (n, i))) $$;
CREATE FUNCTION pg_temp.mark(ns int[], place bigint, at timestamptz DEFAULT now()) RETURNS int LANGUAGE sql AS $$
    SELECT mcp.apply_markers(pg_temp.ids(ns), pg_temp.many('w'::text, ns), pg_temp.ids(ns), pg_temp.many('zoom'::text, ns),
        pg_temp.many('t'::text, ns), pg_temp.many('e'::text, ns), pg_temp.many(sha256('x'), ns), pg_temp.many(1, ns),
        pg_temp.many(at, ns), pg_temp.many('webhooks.zoom'::text, ns), pg_temp.many(2, ns), pg_temp.many(place, ns)) $$;
CREATE FUNCTION pg_temp.receipt(n int) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', status, kafka_partition, kafka_offset), ', ') FROM mcp.webhook_events WHERE event_id = pg_temp.id(n) $$;

-- Payloads.
INSERT INTO mcp.webhook_claims VALUES (pg_temp.id(1), now());
SELECT is(pg_temp.unhold('{3,1,2,3}'), 2, 'new ones are claimed, each once, and copies are not');
SELECT is(pg_temp.receipt(2), 'parked', 'a receipt');
SELECT is((SELECT body FROM mcp.webhook_outbox WHERE event_id = pg_temp.id(3)), '1'::bytea, 'of two copies the first is parked');
SELECT is((SELECT count(*)::int FROM mcp.webhook_outbox), 2, 'one row each');
SELECT is((SELECT array_agg(event_id ORDER BY seq) FROM mcp.webhook_outbox), pg_temp.ids('{3,2}'), 'in the order in which they were held');
SELECT is((SELECT received_at FROM mcp.webhook_events WHERE event_id = pg_temp.id(2)), now() - interval '1 minute', 'the receipt tells when it came');
SELECT is(pg_temp.unhold('{1,2,3}'), 0, 'once more changes nothing');
SELECT is(pg_temp.receipt(1), NULL, 'a copy gets no receipt of its own');

-- Markers.
SELECT is(pg_temp.mark('{4,4,1}', 77), 1, 'a marker claims what was not claimed meanwhile; where it was, there are two records');
SELECT is(pg_temp.receipt(4), 'published 2 77', 'and tells where the record is');
SELECT is(pg_temp.mark('{4}', 77), 0, 'our own commit is no copy');
SELECT is(pg_temp.mark('{4,2}', 78), 2, 'another place is one, and so is what is parked');
SELECT is(pg_temp.receipt(4), 'published 2 77', 'the first receipt stays');
SELECT is(pg_temp.receipt(2), 'parked', 'there is one receipt');
SELECT is(pg_temp.mark('{5}', -1), 0, 'a place without an offset');
SELECT is(pg_temp.receipt(5), 'published 2', 'leaves the offset open');
SELECT is(pg_temp.mark('{5}', -1), 0, 'and is known by its time');
SELECT is(pg_temp.mark('{5}', -1, now() - interval '1 microsecond'), 1, 'which a copy does not share');

-- The purge waits for what is held.
DELETE FROM mcp.webhook_hold_offsets;
INSERT INTO mcp.webhook_hold_offsets VALUES ('webhooks.hold', 0, 0, now()), ('webhooks.hold', 1, 0, now() - interval '3 days');
UPDATE mcp.webhook_claims SET received_at = now() - interval '399 days' WHERE event_id = pg_temp.id(4);
DELETE FROM mcp.webhook_claims WHERE received_at < now() - interval '400 days';
SELECT is(mcp.purge_claims('397 days', 100), 0, 'the window counts back from when all was taken over');
UPDATE mcp.webhook_hold_offsets SET caught_up_at = now();
SELECT is(mcp.purge_claims('397 days', 100), 1, 'and then the claim goes');

SELECT * FROM finish();
ROLLBACK;
