-- What providers report of messages after they took them.

-- Each kind of report about a delivery once: when it was first and last reported, and how often. Kept in a partition per
-- month, as the deliveries are.
CREATE TABLE fact (
    month integer NOT NULL,
    campaign_id bigint NOT NULL,
    seq bigint NOT NULL,
    tenant_id bigint NOT NULL,
    first_at_ms bigint NOT NULL,
    last_at_ms bigint NOT NULL,
    reports bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('accepted', 'deferred', 'delivered', 'bounced_soft', 'bounced_hard',
                                       'rejected_by_provider', 'expired_at_provider', 'complained', 'unsubscribed',
                                       'other')),
    PRIMARY KEY (month, campaign_id, seq, kind)
) PARTITION BY LIST (month);

-- How many deliveries of a campaign have a fact of a kind, changed in the transaction that makes the first. Several rows
-- for each, its shards, so that processes do not wait for each other; their sum counts.
CREATE TABLE fact_tally (
    campaign_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    shard smallint NOT NULL,
    kind text NOT NULL,
    deliveries bigint NOT NULL,
    PRIMARY KEY (campaign_id, shard, kind)
) WITH (fillfactor = 50);

-- The reports that were applied, so that each is applied once. Ids begin with the time of their report.
CREATE TABLE report_seen (
    id bytea PRIMARY KEY,
    seen_at_ms bigint NOT NULL
);

-- Reports about messages that are not known, without any address in the clear. They are looked at again twice.
CREATE TABLE orphan (
    id bytea PRIMARY KEY,
    account text NOT NULL,
    kind text NOT NULL,
    at_ms bigint NOT NULL,
    proves_acceptance boolean NOT NULL,
    send_key bytea,
    request_key bytea,
    provider_id text,
    address_hash bytea,
    arrived_at_ms bigint NOT NULL,
    -- When it is looked at next; never again without.
    look_at_ms bigint
);
CREATE INDEX orphan_due ON orphan (look_at_ms) WHERE look_at_ms IS NOT NULL;
CREATE INDEX orphan_by_age ON orphan (arrived_at_ms);

-- The key of the request, where all its recipients share one: their reports name it.
ALTER TABLE attempt ADD COLUMN request_key bytea;
CREATE INDEX attempt_by_request_key ON attempt (request_key) WHERE request_key IS NOT NULL;

SELECT keep_apart(name, 'tenant_id') FROM unnest(ARRAY['fact', 'fact_tally']) AS t (name);
SELECT keep_apart(name, NULL) FROM unnest(ARRAY['report_seen', 'orphan']) AS t (name);

-- As before, and a month's partition of facts with it.
CREATE OR REPLACE FUNCTION keep_month(month integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept text;
    options text;
    name text;
BEGIN
    -- One at a time: "DSPL".
    PERFORM pg_advisory_xact_lock(1146310732, 0);
    FOR kept, options IN VALUES
        ('delivery', 'fillfactor = 35, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1,
                      autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0'),
        ('fact', 'fillfactor = 90') LOOP
        name := kept || '_' || month;
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                               WHERE i.inhparent = kept::regclass AND c.relname = name);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL, CHECK (month = %s)) WITH (%s)', name, kept, month, options);
        PERFORM keep_apart(name, 'tenant_id');
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%s)', kept, name, month);
    END LOOP;
END $$;

-- For the months there are.
SELECT keep_month(substring(c.relname FROM '\d+$')::integer)
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'delivery'::regclass;
