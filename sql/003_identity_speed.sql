-- Makes the identity trigger of 001 look in its indexes from the first row on. Within a session its
-- plan is made while the table is still small, so it kept reading the whole table: 20,000 rows in
-- one statement took a minute. Changes no result.
-- SPDX-License-Identifier: Apache-2.0

ALTER FUNCTION core.integrations_guard_identity() SET enable_seqscan = off;
-- Else new entries wait in an unsorted list that each look-up reads through.
ALTER INDEX core.integrations_account_ids SET (fastupdate = off);
ALTER INDEX core.integrations_emails SET (fastupdate = off);
ALTER INDEX core.integrations_domains SET (fastupdate = off);
