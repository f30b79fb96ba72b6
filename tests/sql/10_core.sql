-- Who may deliver: what core's constraints and triggers accept and refuse. Rolled back at the end.
-- SPDX-License-Identifier: Apache-2.0
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT plan(37);

INSERT INTO core.workspaces (workspace_id) VALUES ('t-one'), ('t-two');

SELECT lives_ok($$INSERT INTO core.workspaces VALUES (repeat('w', 64), 'n', 'enterprise')$$, '64 characters are a workspace id');
SELECT throws_ok($$INSERT INTO core.workspaces VALUES (repeat('w', 65))$$, '23514', NULL, '65 are not');
SELECT throws_ok($$INSERT INTO core.workspaces VALUES ('')$$, '23514', NULL, 'nor is none');
SELECT throws_ok($$INSERT INTO core.workspaces VALUES ('a/b')$$, '23514', NULL, 'nor is a slash');
SELECT throws_ok($$INSERT INTO core.workspaces VALUES (E'a\n')$$, '23514', NULL, 'nor is a line feed at the end');
SELECT throws_ok($$INSERT INTO core.workspaces VALUES ('t-p', '', 'none')$$, '23514', NULL, 'an unknown plan is refused');

SELECT lives_ok($$INSERT INTO core.integrations (workspace_id, platform, account_ids, emails, domains, endpoint_token)
    VALUES ('t-one', 't-zoom', '{acc-1,acc-2}', '{ Ann@Example.COM }', '{Example.com}', 'abcdefghij_-KLMN')$$, 'an integration');
SELECT is((SELECT emails FROM core.integrations WHERE workspace_id = 't-one'), '{ann@example.com}', 'addresses are stored in lower case');
SELECT is((SELECT domains FROM core.integrations WHERE workspace_id = 't-one'), '{example.com}', 'domains are stored in lower case');
SELECT is((SELECT status FROM core.integrations WHERE workspace_id = 't-one'), 'connected', 'it is connected');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, endpoint_token) VALUES ('t-two', 't-otter', 'abcdefghij_-KLMN')$$,
    '23505', NULL, 'a token is nobody else''s, on any platform');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, endpoint_token) VALUES ('t-two', 't-otter', 'abcdefghij_-KLM')$$,
    '23514', NULL, '15 characters are too short for a token');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, endpoint_token) VALUES ('t-two', 't-otter', 'abcdefghij_-KLMN/')$$,
    '23514', NULL, 'a token has no slash');
SELECT lives_ok($$INSERT INTO core.integrations (workspace_id, platform) VALUES ('t-two', 't-otter'), ('t-two', 't-otter')$$, 'two without a token');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform) VALUES ('t-two', 'Zoom')$$, '23514', NULL, 'a platform has no capitals');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, status) VALUES ('t-two', 't-zoom', 'gone')$$, '23514', NULL, 'an unknown status is refused');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform) VALUES ('t-none', 't-zoom')$$, '23503', NULL, 'an unknown workspace is refused');

SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('t-two', 't-zoom', '{x,acc-2}')$$,
    '23505', 'this account id already belongs to workspace t-one for platform t-zoom', 'an account id is one workspace''s');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, emails) VALUES ('t-two', 't-zoom', '{ANN@example.com}')$$,
    '23505', 'this e-mail address already belongs to workspace t-one for platform t-zoom', 'an address too, whatever its case');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, domains) VALUES ('t-two', 't-zoom', '{EXAMPLE.com}')$$,
    '23505', 'this domain already belongs to workspace t-one for platform t-zoom', 'a domain too');
SELECT lives_ok($$INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('t-two', 't-fireflies', '{acc-1}')$$, 'another platform is another matter');
SELECT lives_ok($$INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('t-one', 't-zoom', '{acc-1}')$$, 'so is the same workspace');
SELECT throws_ok($$UPDATE core.integrations SET platform = 't-zoom' WHERE workspace_id = 't-two' AND platform = 't-fireflies'$$,
    '23505', NULL, 'changing the platform is checked');
SELECT throws_ok($$UPDATE core.integrations SET platform = 't-zoom', account_ids = '{}', domains = '{example.com}' WHERE workspace_id = 't-two' AND platform = 't-fireflies'$$,
    '23505', NULL, 'changing the domains is checked');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, emails) VALUES ('t-two', 't-zoom', '{nobody}')$$, '23514', NULL, 'an address has an @');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, domains) VALUES ('t-two', 't-zoom', '{a@b}')$$, '23514', NULL, 'a domain has none');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('t-two', 't-zoom', '{""}')$$, '23514', NULL, 'an account id is not empty');
SELECT throws_ok($$INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('t-two', 't-zoom', '{NULL}')$$, '23514', NULL, 'nor null');

CREATE TEMP TABLE box AS SELECT ('\x01' || repeat('00', 29))::bytea AS sealed,
    (SELECT integration_id FROM core.integrations WHERE platform = 't-fireflies' AND workspace_id = 't-two') AS id;
SELECT lives_ok($$INSERT INTO core.integration_secrets (integration_id, sealed) SELECT id, sealed FROM box$$, 'a current secret');
SELECT throws_ok($$INSERT INTO core.integration_secrets (integration_id, sealed) SELECT id, sealed FROM box$$, '23505', NULL, 'there is one current');
SELECT throws_ok($$INSERT INTO core.integration_secrets (integration_id, state, sealed) SELECT id, 'next', '\x01' FROM box$$, '23514', NULL, 'too short to be sealed');
SELECT throws_ok($$INSERT INTO core.integration_secrets (integration_id, state, sealed) SELECT id, 'next', set_byte(sealed, 0, 2) FROM box$$,
    '23514', NULL, 'an unknown version');
SELECT lives_ok($$INSERT INTO core.integration_secrets (integration_id, state, sealed) SELECT id, 'retiring', sealed FROM box, generate_series(1, 7)$$, 'eight live ones');
SELECT throws_ok($$INSERT INTO core.integration_secrets (integration_id, state, sealed) SELECT id, 'next', sealed FROM box$$, '23514', NULL, 'a ninth is refused');
SELECT lives_ok($$INSERT INTO core.integration_secrets (integration_id, state, sealed, not_after) SELECT id, 'retiring', sealed, now() - interval '1 s' FROM box$$,
    'one that has ended is not counted');
SELECT throws_ok($$UPDATE core.integration_secrets SET not_after = NULL WHERE not_after IS NOT NULL AND integration_id = (SELECT id FROM box)$$, '23514', NULL, 'but may not come alive again');
DELETE FROM core.workspaces WHERE workspace_id = 't-two';
SELECT is((SELECT count(*)::int FROM core.integration_secrets WHERE integration_id = (SELECT id FROM box)), 0, 'secrets go with their workspace');

SELECT * FROM finish();
ROLLBACK;
