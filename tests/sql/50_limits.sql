-- Leases of quota: windows that slide (time is moved by moving a row's slots), shares that shrink,
-- what is given back, and two sessions at once. The second session comes through dblink.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS dblink;
SELECT plan(53);
-- From the beginning of a slot, so that none ends meanwhile.
SELECT pg_sleep(2 - extract(epoch FROM clock_timestamp())::numeric % 2);

-- One quota: spent without a lease, wanted, of how many instances.
CREATE FUNCTION pg_temp.lease(who text, minute int, hour int, spent int, want int, instances int DEFAULT 1)
RETURNS TABLE (granted int, plenty boolean, wait_ms int) LANGUAGE sql AS $$
    SELECT granted, plenty, wait_ms FROM mcp.lease_quotas(ARRAY[who], '{zoom}', ARRAY[minute], ARRAY[hour],
        ARRAY[spent], ARRAY[spent], ARRAY[want], instances) $$;
CREATE FUNCTION pg_temp.used(who text) RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(u)::bigint FROM mcp.webhook_quotas, unnest(minute_used) u WHERE workspace_id = who $$;
-- As if so many seconds had passed.
CREATE FUNCTION pg_temp.pass(who text, seconds int) RETURNS void LANGUAGE sql AS $$
    UPDATE mcp.webhook_quotas SET minute_slot = minute_slot - seconds / 2, hour_slot = hour_slot - seconds / 120 WHERE workspace_id = who $$;

-- Granting.
SELECT results_eq($$SELECT granted, plenty, wait_ms FROM pg_temp.lease('t-a', 100, 1000, 0, 3)$$, $$VALUES (3, true, 0)$$, 'a first lease makes the row');
SELECT is(pg_temp.used('t-a'), 3::bigint, 'what is granted is used up for everybody else');
SELECT is((SELECT granted FROM pg_temp.lease('t-a', 100, 1000, 40, 0)), 0, 'settling alone grants nothing');
SELECT is(pg_temp.used('t-a'), 43::bigint, 'and counts what was spent');
SELECT is((SELECT plenty FROM pg_temp.lease('t-a', 100, 1000, 10, 0)), false, 'less than half is not plenty');
SELECT is((SELECT granted FROM pg_temp.lease('t-a', 100, 1000, 0, 60, 3)), 7, 'near the limit: half of an instance''s share of the rest (47 / 6)');
SELECT is((SELECT granted FROM pg_temp.lease('t-a', 100, 1000, 38, 60, 3)), 1, 'of the last two: one');
SELECT is((SELECT granted FROM pg_temp.lease('t-a', 100, 1000, 0, 60, 3)), 1, 'and one');
SELECT is((SELECT granted FROM pg_temp.lease('t-a', 100, 1000, 0, 60, 3)), 0, 'then none');
SELECT is(pg_temp.used('t-a'), 100::bigint, 'not one more than the limit');
SELECT ok((SELECT wait_ms FROM pg_temp.lease('t-a', 100, 1000, 0, 1)) BETWEEN 60000 AND 62000, 'the window is free when a minute has passed');

-- Giving back.
SELECT is((SELECT granted FROM pg_temp.lease('t-a', 100, 1000, -4, 0)), 0, 'given back');
SELECT is(pg_temp.used('t-a'), 96::bigint, 'is free again');
SELECT is((SELECT granted FROM pg_temp.lease('t-b', 100, 1000, 10, 0)), 0, 'a window with something in it');
SELECT pg_temp.pass('t-b', 10);
SELECT is((SELECT granted FROM pg_temp.lease('t-b', 100, 1000, 5, 0)), 0, 'and something newer');
SELECT is((SELECT granted FROM pg_temp.lease('t-b', 100, 1000, -8, 0)), 0, 'what is given back');
SELECT results_eq($$SELECT u FROM mcp.webhook_quotas, unnest(minute_used) WITH ORDINALITY AS t(u, n) WHERE workspace_id = 't-b' AND u > 0 ORDER BY n$$,
    $$VALUES (7::bigint)$$, 'comes off the newest first');
SELECT is((SELECT granted FROM pg_temp.lease('t-b', 100, 1000, -1000, 0)), 0, 'more than there is');
SELECT is(pg_temp.used('t-b'), 0::bigint, 'leaves nothing, never less');

-- Sliding.
SELECT is((SELECT granted FROM pg_temp.lease('t-c', 100, 1000, 100, 1)), 0, 'a full window');
SELECT pg_temp.pass('t-c', 60);
SELECT is((SELECT granted FROM pg_temp.lease('t-c', 100, 1000, 0, 1)), 0, 'is full for a minute, to the last moment of its newest slot');
SELECT pg_temp.pass('t-c', 2);
SELECT is((SELECT granted FROM pg_temp.lease('t-c', 100, 1000, 0, 1)), 1, 'then free');
SELECT is((SELECT sum(u)::int FROM mcp.webhook_quotas, unnest(hour_used) u WHERE workspace_id = 't-c'), 101, 'the hour remembers');
SELECT pg_temp.pass('t-c', 3720);
SELECT is((SELECT granted FROM pg_temp.lease('t-c', 100, 1000, 0, 1)), 1, 'and forgets');
SELECT is((SELECT sum(u)::int FROM mcp.webhook_quotas, unnest(hour_used) u WHERE workspace_id = 't-c'), 1, 'all of it');

-- Either window, or none.
SELECT results_eq($$SELECT granted, wait_ms BETWEEN 3590000 AND 3720000 FROM pg_temp.lease('t-d', 100, 50, 50, 1)$$, $$VALUES (0, true)$$, 'the hour alone is full');
SELECT results_eq($$SELECT granted, wait_ms FROM pg_temp.lease('t-d', 100, 0, 0, 2)$$, $$VALUES (2, 0)$$, 'without a limit per hour there is room');
SELECT is((SELECT granted FROM pg_temp.lease('t-e', 0, 0, 2000000000, 7)), 7, 'no limit at all');
SELECT is((SELECT granted FROM pg_temp.lease('t-e', 0, 0, 2000000000, 7)), 7, 'and sums beyond an int');

-- Clocks that jump. A row whose time was moved ahead is as one that was written before a jump back.
SELECT pg_temp.pass('t-c', -60);
SELECT is((SELECT granted FROM pg_temp.lease('t-c', 100, 1000, 0, 1)), 1, 'a clock that was set back by a minute breaks nothing');
SELECT ok((SELECT minute_slot > extract(epoch FROM now()) / 2 + 28 FROM mcp.webhook_quotas WHERE workspace_id = 't-c'), 'and slots don''t go back');
SELECT is(pg_temp.used('t-c'), 2::bigint, 'and what was used counts');
SELECT is((SELECT granted FROM pg_temp.lease('t-f', 10, 20, 10, 1)), 0, 'a full window');
SELECT pg_temp.pass('t-f', -62);
SELECT ok((SELECT wait_ms FROM pg_temp.lease('t-f', 10, 20, 0, 1)) BETWEEN 120000 AND 124000, 'a window ahead, at the most: full for two minutes');
SELECT pg_temp.pass('t-f', -62 - 2);
SELECT results_eq($$SELECT granted, wait_ms FROM pg_temp.lease('t-f', 10, 20, 0, 1)$$, $$VALUES (1, 0)$$, 'more than a window ahead it is over');
SELECT ok((SELECT minute_slot <= extract(epoch FROM clock_timestamp()) / 2 FROM mcp.webhook_quotas WHERE workspace_id = 't-f'), 'and begins anew');
SELECT is((SELECT sum(u)::int FROM mcp.webhook_quotas, unnest(hour_used) u WHERE workspace_id = 't-f'), 11, 'the hour, which is not, counts on');
SELECT is((SELECT granted FROM pg_temp.lease('t-g', 10, 10, 10, 1)), 0, 'a full hour');
SELECT pg_temp.pass('t-g', -30 * 86400);
SELECT results_eq($$SELECT granted, wait_ms FROM pg_temp.lease('t-g', 10, 10, 0, 1)$$, $$VALUES (1, 0)$$, 'a month ahead: over, and no wait that would not fit');

-- Many at once, in any order, one of them twice.
SELECT results_eq($$SELECT item, granted FROM mcp.lease_quotas('{t-z,t-y,t-z}', '{zoom,zoom,zoom}', '{9,9,9}', '{0,0,0}', '{0,0,0}', '{0,0,0}', '{2,3,4}', 1) ORDER BY item$$,
    $$VALUES (1, 2), (2, 3), (3, 3)$$, 'each item has its answer');
SELECT is((SELECT granted FROM mcp.lease_quotas('{t-z}', '{otter}', '{9}', '{0}', '{0}', '{0}', '{3}', 1)), 3, 'platforms don''t share');

-- Two sessions: the second waits for the row and then sees what the first has used.
SELECT dblink_connect('other', format('dbname=%L port=%s host=%L user=%L', current_database(), current_setting('port'),
    split_part(current_setting('unix_socket_directories'), ',', 1), session_user));
-- Rows that it commits outlive the test.
SELECT dblink_exec('other', $$DELETE FROM mcp.webhook_quotas WHERE workspace_id = 't-two'$$);
SELECT dblink_exec('other', 'BEGIN');
SELECT is((SELECT granted FROM dblink('other', $$SELECT granted FROM mcp.lease_quotas('{t-two}', '{zoom}', '{10}', '{0}', '{8}', '{8}', '{1}', 1)$$) AS t(granted int)),
    1, 'the other session has one of the last two');
SET LOCAL lock_timeout = '50ms';
SELECT throws_ok($$SELECT pg_temp.lease('t-two', 10, 0, 0, 2)$$, '55P03', NULL, 'while it is open, the row is its own');
SELECT dblink_exec('other', 'COMMIT');
SELECT results_eq($$SELECT granted FROM pg_temp.lease('t-two', 10, 0, 0, 2)$$, $$VALUES (1)$$, 'then one is left, not two');
SELECT dblink_disconnect('other');

-- Instances and the purge.
DELETE FROM mcp.webhook_instances;
SELECT is(mcp.instance_alive('00000000-0000-0000-0000-00000000aa01'), 1, 'one instance');
SELECT is(mcp.instance_alive('00000000-0000-0000-0000-00000000aa02'), 2, 'two');
UPDATE mcp.webhook_instances SET seen_at = now() - interval '11 s' WHERE instance_id = '00000000-0000-0000-0000-00000000aa01';
SELECT is(mcp.instance_alive('00000000-0000-0000-0000-00000000aa02'), 1, 'who is silent for ten seconds counts no longer');
UPDATE mcp.webhook_instances SET seen_at = now() + interval '1 day' WHERE instance_id = '00000000-0000-0000-0000-00000000aa01';
SELECT is(mcp.instance_alive('00000000-0000-0000-0000-00000000aa02'), 1, 'nor who was seen in the future');
DELETE FROM mcp.webhook_quotas WHERE workspace_id NOT LIKE 't-%';
SELECT pg_temp.pass('t-y', 3900);
SELECT is(mcp.purge_quotas(), 1, 'a quota that nobody used for over an hour goes');
SELECT is((SELECT count(*)::int FROM mcp.webhook_instances), 1, 'and the instance of the future');
SELECT pg_temp.pass('t-f', -3480);
SELECT is(mcp.purge_quotas(), 0, 'an hour that lies ahead by less than its length stays');
SELECT pg_temp.pass('t-f', -480);
SELECT is(mcp.purge_quotas(), 1, 'by more, it goes');
SELECT isnt_empty($$SELECT FROM mcp.webhook_quotas WHERE workspace_id = 't-z'$$, 'the others stay');

SELECT * FROM finish();
ROLLBACK;
