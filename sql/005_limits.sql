-- How much each workspace may send: overrides of its plan, and the sliding windows that all
-- instances share. Instances lease quota in chunks, never one by one, so these tables see a few
-- statements a second, whatever the traffic. Expand-only: once applied anywhere, this file is never
-- edited.
-- SPDX-License-Identifier: Apache-2.0

ALTER TABLE core.workspaces
    ADD COLUMN limit_per_minute int CHECK (limit_per_minute BETWEEN 0 AND 1000000000),
    ADD COLUMN limit_per_hour   int CHECK (limit_per_hour BETWEEN 0 AND 1000000000);
COMMENT ON COLUMN core.workspaces.limit_per_minute IS 'Webhooks per minute and platform, in place of the plan''s; 0 = no limit, null = the plan''s.';
COMMENT ON COLUMN core.workspaces.limit_per_hour IS 'Webhooks per hour and platform, in place of the plan''s; 0 = no limit, null = the plan''s.';
COMMENT ON COLUMN core.workspaces.plan IS 'default, free, pro or enterprise; their figures are in the gateway''s configuration, under limits.';

-- A window is 31 slots, the newest first: 2 s each for the minute, 2 min each for the hour. A slot
-- counts until all of it is out, so that no minute and no hour ever holds more than the limit; the
-- price is that a window is up to a thirtieth too long.
CREATE TABLE mcp.webhook_quotas (
    workspace_id text NOT NULL,
    platform     text NOT NULL,
    minute_slot  bigint NOT NULL,   -- number of the newest slot: Unix time / 2 s
    minute_used  bigint[] NOT NULL CHECK (cardinality(minute_used) = 31),
    hour_slot    bigint NOT NULL,   -- Unix time / 120 s
    hour_used    bigint[] NOT NULL CHECK (cardinality(hour_used) = 31),
    PRIMARY KEY (workspace_id, platform)
) WITH (
    -- Rows are updated in place, over and over.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE mcp.webhook_quotas IS 'What each workspace has used of its limits, per platform, over all instances: two sliding windows. Rows of the last hour only. No foreign keys: a row outlives its workspace by an hour.';

CREATE TABLE mcp.webhook_instances (
    instance_id uuid PRIMARY KEY,
    seen_at     timestamptz NOT NULL
);
COMMENT ON TABLE mcp.webhook_instances IS 'Gateways that are alive: each says so every few seconds. Their number is what a limit is divided by while Postgres is away.';

-- Slots don't go back: a clock that was set back counts into the newest slot. One that lies more
-- than a window ahead was written by a clock that was wrong, and is over.
CREATE FUNCTION mcp.quota_slot(newest bigint, present bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN newest BETWEEN present AND present + 31 THEN newest ELSE present END
$$;
COMMENT ON FUNCTION mcp.quota_slot(bigint, bigint) IS 'The slot to count into, of a window''s newest slot and the present one.';

-- The window `behind` slots later; one that was ahead is over.
CREATE FUNCTION mcp.quota_slide(used bigint[], behind bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN behind = 0 THEN used
                WHEN behind NOT BETWEEN 1 AND 30 THEN array_fill(0::bigint, ARRAY[31])
                ELSE array_fill(0::bigint, ARRAY[behind::int]) || used[1:31 - behind::int] END
$$;
COMMENT ON FUNCTION mcp.quota_slide(bigint[], bigint) IS 'A window of 31 slots, as it is some slots later.';

-- Adds to the newest slot; what is given back is taken off the newest slots that hold something,
-- because it was leased a moment ago.
CREATE FUNCTION mcp.quota_settle(used bigint[], spent bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part bigint;
BEGIN
    IF spent >= 0 THEN
        used[1] := used[1] + spent;
        RETURN used;
    END IF;
    FOR i IN 1..31 LOOP
        part := least(used[i], -spent);
        used[i] := used[i] - part;
        spent := spent + part;
        EXIT WHEN spent = 0;
    END LOOP;
    RETURN used;
END
$$;
COMMENT ON FUNCTION mcp.quota_settle(bigint[], bigint) IS 'A window with so much more, or less, in it.';

-- How many slots must pass until the window holds less than the limit; 0 = none.
CREATE FUNCTION mcp.quota_slots_to_wait(used bigint[], "limit" bigint) RETURNS int
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    total bigint := 0;
BEGIN
    FOR i IN 1..31 LOOP
        total := total + used[i];
        IF total >= "limit" THEN
            RETURN 32 - i;
        END IF;
    END LOOP;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION mcp.quota_slots_to_wait(bigint[], bigint) IS 'How many slots must pass until a window holds less than the limit.';

-- One call serves all quotas that an instance is short of in a moment; one row of arrays per quota:
-- its limits (0 = none), what was spent without a lease since the last call (negative: leased, not
-- spent, given back), and how much more is wanted. In order of the key, so that two instances can't
-- deadlock, and each row is read under its lock. What is granted is used up for everybody else at
-- once; near the limit it is a share of the rest, so that nobody sits on the last of it. READ
-- COMMITTED only.
CREATE FUNCTION mcp.lease_quotas(workspaces text[], platforms text[], minute_limits int[], hour_limits int[],
    minute_spent bigint[], hour_spent bigint[], wants int[], instances int)
RETURNS TABLE (item int, granted int, plenty boolean, wait_ms int)
LANGUAGE plpgsql ROWS 64 AS $$
DECLARE
    ask record;
    q mcp.webhook_quotas;
    now_s float8;
    slot bigint;
    room bigint;
    used bigint;
BEGIN
    FOR ask IN
        SELECT * FROM unnest(workspaces, platforms, minute_limits, hour_limits, minute_spent, hour_spent, wants)
            WITH ORDINALITY AS a(workspace, platform, minute_limit, hour_limit, minute_spent, hour_spent, want, n)
         ORDER BY a.workspace, a.platform, a.n
    LOOP
        LOOP
            SELECT * INTO q FROM mcp.webhook_quotas w
             WHERE w.workspace_id = ask.workspace AND w.platform = ask.platform FOR UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO mcp.webhook_quotas VALUES (ask.workspace, ask.platform,
                0, array_fill(0::bigint, ARRAY[31]), 0, array_fill(0::bigint, ARRAY[31])) ON CONFLICT DO NOTHING;
        END LOOP;
        -- After the lock: whoever comes later has the later time.
        now_s := extract(epoch FROM clock_timestamp());
        slot := mcp.quota_slot(q.minute_slot, floor(now_s / 2)::bigint);
        q.minute_used := mcp.quota_settle(mcp.quota_slide(q.minute_used, slot - q.minute_slot), ask.minute_spent);
        q.minute_slot := slot;
        slot := mcp.quota_slot(q.hour_slot, floor(now_s / 120)::bigint);
        q.hour_used := mcp.quota_settle(mcp.quota_slide(q.hour_used, slot - q.hour_slot), ask.hour_spent);
        q.hour_slot := slot;

        room := 9223372036854775807;
        plenty := true;
        wait_ms := 0;
        IF ask.minute_limit > 0 THEN
            used := (SELECT sum(u) FROM unnest(q.minute_used) u);
            room := ask.minute_limit - used;
            plenty := used * 2 <= ask.minute_limit;
            IF room <= 0 THEN
                wait_ms := ceil(((q.minute_slot + mcp.quota_slots_to_wait(q.minute_used, ask.minute_limit)) * 2 - now_s) * 1000);
            END IF;
        END IF;
        IF ask.hour_limit > 0 THEN
            used := (SELECT sum(u) FROM unnest(q.hour_used) u);
            room := least(room, ask.hour_limit - used);
            plenty := plenty AND used * 2 <= ask.hour_limit;
            IF ask.hour_limit <= used THEN
                wait_ms := greatest(wait_ms, ceil(((q.hour_slot + mcp.quota_slots_to_wait(q.hour_used, ask.hour_limit)) * 120 - now_s) * 1000));
            END IF;
        END IF;
        granted := CASE WHEN room <= 0 THEN 0 ELSE least(ask.want, greatest(1, room / (2 * greatest(instances, 1)))) END;
        q.minute_used[1] := q.minute_used[1] + granted;
        q.hour_used[1] := q.hour_used[1] + granted;
        UPDATE mcp.webhook_quotas w
           SET minute_slot = q.minute_slot, minute_used = q.minute_used, hour_slot = q.hour_slot, hour_used = q.hour_used
         WHERE w.workspace_id = ask.workspace AND w.platform = ask.platform;
        item := ask.n;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION mcp.lease_quotas(text[], text[], int[], int[], bigint[], bigint[], int[], int) IS 'Settles what an instance has spent and leases it more, for many quotas at once: how much was granted, whether half of every window is free, and when the next becomes free.';

CREATE FUNCTION mcp.instance_alive(instance uuid) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mcp.webhook_instances VALUES (instance, clock_timestamp())
        ON CONFLICT (instance_id) DO UPDATE SET seen_at = excluded.seen_at;
    -- What was seen in the future was seen by a clock that was wrong.
    RETURN (SELECT count(*) FROM mcp.webhook_instances
             WHERE seen_at BETWEEN clock_timestamp() - interval '10 s' AND clock_timestamp() + interval '10 s');
END
$$;
COMMENT ON FUNCTION mcp.instance_alive(uuid) IS 'Says that an instance is alive; returns how many are.';

-- Called by one instance every minute.
CREATE FUNCTION mcp.purge_quotas() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    slot bigint := floor(extract(epoch FROM now()) / 120);
    purged int;
BEGIN
    DELETE FROM mcp.webhook_instances WHERE seen_at NOT BETWEEN now() - interval '1 hour' AND now() + interval '1 hour';
    -- A row that is in use is locked and young; nobody is waited for. A window is over on either
    -- side, or a clock that was wrong for a while would leave rows for ever.
    DELETE FROM mcp.webhook_quotas WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM mcp.webhook_quotas WHERE hour_slot NOT BETWEEN slot - 31 AND slot + 31
         LIMIT 10000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mcp.purge_quotas() IS 'Deletes quotas whose windows are over, at most 10000, and instances that are gone.';
