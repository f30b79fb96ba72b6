-- A key that another open transaction holds: seen from two connections, which one transaction that
-- is rolled back can't show. The second session comes through dblink.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS dblink;
SELECT plan(7);

SELECT dblink_connect('other', format('dbname=%L port=%s host=%L user=%L', current_database(), current_setting('port'),
    split_part(current_setting('unix_socket_directories'), ',', 1), session_user));
SELECT dblink_exec('other', 'BEGIN');
SELECT dblink_exec('other', 'LOCK TABLE mcp.webhook_claims IN SHARE MODE');
SELECT throws_ok($$SELECT * FROM mcp.claim_unblocked(ARRAY['f0000000-0000-8000-8000-00000000aa01']::uuid[])$$,
    '55P03', NULL, 'a table that is locked is no held key');
SELECT dblink_exec('other', 'ROLLBACK');

SELECT dblink_exec('other', 'BEGIN');
SELECT dblink_exec('other', $$INSERT INTO mcp.webhook_claims VALUES ('f0000000-0000-8000-8000-00000000aa02', now())$$);

CREATE TEMP TABLE began AS SELECT clock_timestamp() AS at;
SELECT results_eq($$SELECT right(event_id::text, 2), verdict FROM mcp.claim_unblocked(ARRAY[
    'f0000000-0000-8000-8000-00000000aa01', 'f0000000-0000-8000-8000-00000000aa02', 'f0000000-0000-8000-8000-00000000aa03']::uuid[], now())$$,
    $$VALUES ('01', 'new'), ('02', 'held'), ('03', 'new')$$, 'the held key is stepped over, its neighbours are claimed');
SELECT ok(clock_timestamp() - (SELECT at FROM began) < interval '1 s', 'without a long wait');
SELECT is((SELECT count(*)::int FROM mcp.webhook_claims WHERE event_id::text LIKE 'f0000000-0000-8000-8000-00000000aa%'), 2, 'two rows are ours');

SELECT dblink_exec('other', 'ROLLBACK');
SELECT results_eq($$SELECT right(event_id::text, 2), verdict FROM mcp.claim_unblocked(ARRAY['f0000000-0000-8000-8000-00000000aa02']::uuid[])$$,
    $$VALUES ('02', 'new')$$, 'given back, it can be claimed');

-- Probes of two connections: each has a key of its own.
SELECT dblink_exec('other', 'BEGIN');
SELECT dblink_exec('other', 'DO $do$ BEGIN PERFORM mcp.probe(); END $do$');
SET LOCAL lock_timeout = '50ms';
SELECT lives_ok($$SELECT mcp.probe()$$, 'a probe does not wait for another that is not committed yet');
SET LOCAL lock_timeout = 0;
SELECT dblink_exec('other', 'ROLLBACK');

-- Identities: the second session waits for the first, and is refused once that has committed; here
-- the first never commits, so that the wait itself is what is seen.
INSERT INTO core.workspaces VALUES ('t-race');
INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('t-race', 't-zoom', '{race}');
SELECT dblink_exec('other', 'SET lock_timeout = ''50ms''');
SELECT throws_ok($$SELECT dblink_exec('other', 'INSERT INTO core.integrations (workspace_id, platform, account_ids)
    VALUES (''t-race2'', ''t-zoom'', ''{race}'')')$$, '55P03', NULL, 'two sessions can''t take an identity side by side');

SELECT dblink_disconnect('other');
SELECT * FROM finish();
ROLLBACK;
