-- Who may deliver: workspaces, their integrations with a meeting platform, and the integrations' own
-- secrets. Every instance keeps these three tables in memory (src/loader.c), so indexes here cost the
-- deliveries nothing. Expand-only: once applied anywhere, this file is never edited.
-- SPDX-License-Identifier: Apache-2.0

CREATE SCHEMA core;
COMMENT ON SCHEMA core IS 'Who may deliver: workspaces, integrations and their secrets.';

CREATE TABLE core.workspaces (
    workspace_id text PRIMARY KEY CHECK (workspace_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    name         text NOT NULL DEFAULT '',
    -- enterprise has no limits; the figures of the other plans are the limiter's.
    plan         text NOT NULL DEFAULT 'default' CHECK (plan IN ('default', 'free', 'pro', 'enterprise')),
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE core.workspaces IS 'A customer of the gateway. Its plan decides its limits; plan enterprise means none.';

CREATE TABLE core.integrations (
    integration_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id   text NOT NULL REFERENCES core.workspaces ON DELETE CASCADE,
    platform       text NOT NULL CHECK (platform ~ '^[a-z][a-z0-9-]{0,63}$'),
    status         text NOT NULL DEFAULT 'connected' CHECK (status IN ('connected', 'paused', 'disabled')),
    account_ids    text[] NOT NULL DEFAULT '{}' CHECK (cardinality(account_ids) <= 1000),
    emails         text[] NOT NULL DEFAULT '{}' CHECK (cardinality(emails) <= 1000),
    domains        text[] NOT NULL DEFAULT '{}' CHECK (cardinality(domains) <= 1000),
    -- A credential: the address of an endpoint route. The database keeps it readable because the
    -- operator must be able to show the address again.
    endpoint_token text UNIQUE CHECK (endpoint_token ~ '^[A-Za-z0-9_-]{16,128}$'),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE core.integrations IS 'A workspace connected to a platform: which account ids, e-mail addresses and domains are its own, and the token of its endpoint route. E-mail addresses and domains are stored in lower case.';
COMMENT ON COLUMN core.integrations.endpoint_token IS 'Credential; never log it.';

-- The identity trigger looks for overlaps on every change; without these each one reads the table,
-- and loading n integrations would take n * n steps.
-- Without fastupdate: else new entries wait in an unsorted list that each look-up reads through.
CREATE INDEX integrations_account_ids ON core.integrations USING gin (account_ids) WITH (fastupdate = off);
CREATE INDEX integrations_emails ON core.integrations USING gin (emails) WITH (fastupdate = off);
CREATE INDEX integrations_domains ON core.integrations USING gin (domains) WITH (fastupdate = off);
-- Deleting a workspace looks its integrations up.
CREATE INDEX integrations_workspace_id ON core.integrations (workspace_id);

CREATE TABLE core.integration_secrets (
    secret_id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    integration_id uuid NOT NULL REFERENCES core.integrations ON DELETE CASCADE,
    state          text NOT NULL DEFAULT 'current' CHECK (state IN ('next', 'current', 'retiring')),
    -- Version 1, nonce 12, tag 16, then at least one byte of ciphertext.
    sealed         bytea NOT NULL CHECK (octet_length(sealed) BETWEEN 30 AND 4096 AND get_byte(sealed, 0) = 1),
    not_after      timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE core.integration_secrets IS 'An integration''s own signing secrets, each sealed with AES-256-GCM under the gateway''s key file and bound to the integration''s id. At most 8 are live at a time, one of them current.';
COMMENT ON COLUMN core.integration_secrets.sealed IS 'What `hookgate seal` prints: it opens with the key file and for this integration only.';

-- Also the index by which an integration finds its secrets to delete and to count.
CREATE INDEX integration_secrets_integration_id ON core.integration_secrets (integration_id);
-- A rotation sets the old one to retiring before it makes the new one current.
CREATE UNIQUE INDEX integration_secrets_one_current ON core.integration_secrets (integration_id) WHERE state = 'current';

-- Writes addresses in one spelling and refuses an identity that another workspace has for the same
-- platform: the shared route would not know whom a delivery belongs to.
-- Without seqscan: a session's plan is made while the table is still small, and 20,000 rows in one statement then took a minute.
CREATE FUNCTION core.integrations_guard_identity() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    other record;
BEGIN
    NEW.emails := ARRAY(SELECT lower(btrim(e)) FROM unnest(NEW.emails) WITH ORDINALITY AS t(e, n) ORDER BY n);
    NEW.domains := ARRAY(SELECT lower(btrim(d)) FROM unnest(NEW.domains) WITH ORDINALITY AS t(d, n) ORDER BY n);

    IF EXISTS (SELECT FROM unnest(NEW.account_ids) a WHERE a IS NULL OR length(a) NOT BETWEEN 1 AND 256) THEN
        RAISE check_violation USING MESSAGE = 'an account id must have 1 to 256 characters';
    END IF;
    IF EXISTS (SELECT FROM unnest(NEW.emails) e
                WHERE e IS NULL OR length(e) > 320 OR e !~ '^[^@[:space:]]+@[^@[:space:]]+$') THEN
        RAISE check_violation USING MESSAGE = 'an e-mail address must look like name@domain';
    END IF;
    IF EXISTS (SELECT FROM unnest(NEW.domains) d
                WHERE d IS NULL OR length(d) > 253 OR d !~ '^[^@[:space:]]+$') THEN
        RAISE check_violation USING MESSAGE = 'a domain must be a name without @ or blanks';
    END IF;

    -- One change at a time per platform, so that two sessions can't take the same identity side by
    -- side. The check below needs a snapshot taken after the lock, which only READ COMMITTED gives.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'core.integrations can only be changed in READ COMMITTED transactions';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('core.integrations'), hashtext(NEW.platform));

    SELECT i.workspace_id, i.integration_id,
           CASE WHEN i.account_ids && NEW.account_ids THEN 'account id'
                WHEN i.emails && NEW.emails THEN 'e-mail address'
                ELSE 'domain' END AS kind
      INTO other
      FROM core.integrations i
     WHERE (i.account_ids && NEW.account_ids OR i.emails && NEW.emails OR i.domains && NEW.domains)
       AND i.platform = NEW.platform
       AND i.workspace_id <> NEW.workspace_id
       AND i.integration_id <> NEW.integration_id
     LIMIT 1;
    IF FOUND THEN
        RAISE unique_violation USING
            MESSAGE = format('this %s already belongs to workspace %s for platform %s',
                             other.kind, other.workspace_id, NEW.platform),
            DETAIL = format('It is listed by integration %s.', other.integration_id),
            HINT = 'Remove it there first.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION core.integrations_guard_identity() IS 'Trigger: one spelling of addresses, and one workspace per platform and identity.';

CREATE TRIGGER guard_identity
    BEFORE INSERT OR UPDATE OF integration_id, workspace_id, platform, account_ids, emails, domains
    ON core.integrations FOR EACH ROW EXECUTE FUNCTION core.integrations_guard_identity();

CREATE FUNCTION core.integrations_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION core.integrations_touch() IS 'Trigger: updated_at.';

CREATE TRIGGER touch BEFORE UPDATE ON core.integrations
    FOR EACH ROW EXECUTE FUNCTION core.integrations_touch();

-- The gateway tries at most 8 secrets per delivery (SECRETS_MAX); a ninth would be ignored there.
CREATE FUNCTION core.integration_secrets_guard_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The integration's row is the lock: two sessions can't both see seven.
    PERFORM FROM core.integrations WHERE integration_id = NEW.integration_id FOR NO KEY UPDATE;
    IF (NEW.not_after IS NULL OR NEW.not_after > now())
       AND (SELECT count(*) FROM core.integration_secrets
             WHERE integration_id = NEW.integration_id AND secret_id <> NEW.secret_id
               AND (not_after IS NULL OR not_after > now())) >= 8 THEN
        RAISE check_violation USING
            MESSAGE = format('integration %s has 8 live secrets already', NEW.integration_id),
            HINT = 'Delete one, or let one end by setting its not_after.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION core.integration_secrets_guard_count() IS 'Trigger: at most 8 live secrets per integration.';

CREATE TRIGGER guard_count BEFORE INSERT OR UPDATE OF secret_id, integration_id, not_after
    ON core.integration_secrets FOR EACH ROW EXECUTE FUNCTION core.integration_secrets_guard_count();

-- Statement level: one change of 100,000 rows is one message. Postgres sends it at COMMIT.
CREATE FUNCTION core.directory_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hookgate_directory', '');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION core.directory_notify() IS 'Trigger: tells every instance to load the directory again.';

CREATE TRIGGER directory_notify AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON core.workspaces
    FOR EACH STATEMENT EXECUTE FUNCTION core.directory_notify();
CREATE TRIGGER directory_notify AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON core.integrations
    FOR EACH STATEMENT EXECUTE FUNCTION core.directory_notify();
CREATE TRIGGER directory_notify AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON core.integration_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION core.directory_notify();
