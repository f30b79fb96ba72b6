-- Security events: sums by hour and source, and the purge. Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET LOCAL timezone = 'UTC';
SELECT plan(16);
DELETE FROM mcp.security_events;
INSERT INTO core.workspaces (workspace_id) VALUES ('seen');
INSERT INTO core.integrations (integration_id, workspace_id, platform) VALUES ('5f0c3a52-6a0e-4f3c-9d53-0f6f0c1f7b11', 'seen', 'zoom');

-- 490836 is 2025-12-29 12:00 UTC.
CREATE FUNCTION pg_temp.event(more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('hour', 490836, 'kind', 'signature', 'outcome', 'signature_mismatch', 'platform', 'zoom',
        'source', '192.0.2.1', 'count', 3, 'first', 1767009600000007, 'last', 1767009601000000) || more) $$;

SELECT is(mcp.add_security_events(pg_temp.event()), 1, 'a row is written');
SELECT results_eq('SELECT hour, kind, outcome, platform, integration_id, workspace_id, source, count, first_seen, last_seen FROM mcp.security_events',
    $$VALUES ('2025-12-29 12:00Z'::timestamptz, 'signature', 'signature_mismatch', 'zoom', NULL::uuid, NULL::text, '192.0.2.1'::inet, 3::bigint,
              '2025-12-29 12:00:00.000007Z'::timestamptz, '2025-12-29 12:00:01Z'::timestamptz)$$, 'as it was told');
SELECT mcp.add_security_events(pg_temp.event('{"count": 4, "first": 1767009600000001, "last": 1767009600500000}'));
SELECT results_eq('SELECT count, first_seen, last_seen FROM mcp.security_events',
    $$VALUES (7::bigint, '2025-12-29 12:00:00.000001Z'::timestamptz, '2025-12-29 12:00:01Z'::timestamptz)$$, 'the same key adds to its row');
SELECT mcp.add_security_events(pg_temp.event('{"source": null}')) FROM generate_series(1, 2);
SELECT is((SELECT count FROM mcp.security_events WHERE source IS NULL), 6::bigint, 'other sources have one row, not one each time');
SELECT mcp.add_security_events(pg_temp.event('{"hour": 490837}'));
SELECT mcp.add_security_events(pg_temp.event('{"source": "2001:db8:1:2::/64"}'));
SELECT mcp.add_security_events(pg_temp.event('{"outcome": "signature_missing"}'));
SELECT is((SELECT count(*)::int FROM mcp.security_events), 5, 'another hour, source or outcome is another row');
SELECT is((SELECT count(*)::int FROM mcp.security_events WHERE source <<= '2001:db8::/32'), 1, 'sources can be asked for by network');
SELECT mcp.add_security_events(pg_temp.event('{"integration": "5f0c3a52-6a0e-4f3c-9d53-0f6f0c1f7b11"}'));
SELECT is((SELECT workspace_id FROM mcp.security_events WHERE integration_id IS NOT NULL), 'seen', 'the workspace is the integration''s');
SELECT lives_ok($$SELECT mcp.add_security_events(pg_temp.event('{"integration": "00000000-0000-4000-8000-000000000000"}'))$$, 'an integration that is gone is none to stumble over');
SELECT is(mcp.add_security_events('[]'), 0, 'nothing, nothing');
SELECT throws_ok($$SELECT mcp.add_security_events(pg_temp.event('{"kind": "weather"}'))$$, '23514', NULL, 'an unknown kind');

-- The purge.
DELETE FROM mcp.security_events;
SELECT mcp.add_security_events(pg_temp.event(jsonb_build_object('hour', floor(extract(epoch FROM now() - make_interval(days => n)) / 3600)))) FROM generate_series(0, 9) n;
SELECT is(mcp.purge_security_events('6 days', 2), 2, 'at most max_rows');
SELECT is(mcp.purge_security_events('6 days', 100), 2, 'then the rest');
SELECT is((SELECT count(*)::int FROM mcp.security_events), 6, 'the younger ones stay');
SELECT throws_ok($$SELECT mcp.purge_security_events('1 hour', 1)$$, '22023', NULL, 'no retention is refused');
SELECT throws_ok($$SELECT mcp.purge_security_events(NULL, 1)$$, '22023', NULL, 'so is null');

SELECT is((SELECT count(*)::int FROM pg_attribute a WHERE a.attrelid = 'mcp.security_events'::regclass AND a.attnum > 0
    AND col_description(a.attrelid, a.attnum) IS NULL), 0, 'every column has a comment');

SELECT * FROM finish();
ROLLBACK;
