-- The ledger of one Dispatch installation on PostgreSQL 15 or newer.
--
-- Times are milliseconds since 1970-01-01T00:00:00Z. Personal data is sealed (AES-256-GCM, a key per contact);
-- addresses are looked up by keyed hash. States are the words of the API.

CREATE TABLE ledger (
    id bigint PRIMARY KEY CHECK (id = 1),
    key_fingerprint bytea NOT NULL,
    created_at_ms bigint NOT NULL
);

CREATE TABLE tenant (
    id bigint PRIMARY KEY,
    name text NOT NULL UNIQUE,
    root_key bytea NOT NULL,
    limits text NOT NULL DEFAULT '{}',
    -- Since when nothing is sent for it, and why; both or neither.
    closed_at_ms bigint,
    closed_reason text,
    created_at_ms bigint NOT NULL,
    CHECK ((closed_at_ms IS NULL) = (closed_reason IS NULL))
);

CREATE TABLE api_key (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    label text NOT NULL,
    permissions text NOT NULL,
    secret_hash bytea NOT NULL,
    created_at_ms bigint NOT NULL,
    expires_at_ms bigint NOT NULL,
    revoked_at_ms bigint
);

-- The answers of calls made with an Idempotency-Key, written with their effect.
CREATE TABLE idempotency (
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    route text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    answer text NOT NULL,
    created_at_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, route, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at_ms);

CREATE TABLE source (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('customer_list', 'marketplace', 'own_prospect', 'account')),
    legal_basis text NOT NULL
        CHECK (legal_basis IN ('consent', 'contract', 'legitimate_interest', 'legal_obligation')),
    reference text,
    created_at_ms bigint NOT NULL
);
CREATE INDEX source_by_tenant ON source (tenant_id);

-- A list of kind 'messages' holds the people single messages were sent to; it is not shown.
CREATE TABLE list (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    source_id bigint NOT NULL REFERENCES source (id),
    kind text NOT NULL DEFAULT 'contacts' CHECK (kind IN ('contacts', 'messages')),
    name text NOT NULL,
    contacts bigint NOT NULL DEFAULT 0,
    -- The names of the fields its completed uploads have brought, as a JSON array.
    fields text NOT NULL DEFAULT '[]',
    created_at_ms bigint NOT NULL,
    UNIQUE (tenant_id, kind, name)
);

CREATE TABLE import (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    list_id bigint NOT NULL REFERENCES list (id),
    state text NOT NULL CHECK (state IN ('running', 'applying', 'completed', 'rolling_back', 'failed')),
    totals text NOT NULL DEFAULT '{}',
    report text NOT NULL DEFAULT 'null',
    -- The names of the fields it brings, as a JSON array.
    fields text NOT NULL DEFAULT '[]',
    error text,
    -- Contacts of the upload that were erased before it completed.
    erased bigint NOT NULL DEFAULT 0,
    -- Every contact of the upload has this id or a higher one.
    first_contact bigint NOT NULL,
    created_at_ms bigint NOT NULL,
    -- When its process last wrote for it: one that is silent for long is dead, and another finishes or removes it.
    seen_at_ms bigint NOT NULL,
    ended_at_ms bigint
);
-- One upload at a time per list.
CREATE UNIQUE INDEX import_unfinished ON import (list_id) WHERE state IN ('running', 'applying', 'rolling_back');

-- Ids count up, so the contacts of one upload lie together and a campaign over them reads in order. They are taken in
-- blocks, each when it is needed: a contact of an upload has a higher id than all that were there when it began.
CREATE SEQUENCE contact_id AS bigint;

CREATE TABLE contact (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL,
    list_id bigint NOT NULL,
    import_id bigint,
    key bytea NOT NULL,
    email bytea,
    phone bytea,
    fields bytea,
    email_hash bytea,
    phone_hash bytea,
    email_destination bigint,
    phone_destination bigint,
    CHECK (email_hash IS NOT NULL OR phone_hash IS NOT NULL)
);
-- Sealed bytes do not compress, and one row must not cost two reads.
ALTER TABLE contact ALTER key SET STORAGE PLAIN, ALTER email SET STORAGE PLAIN, ALTER phone SET STORAGE PLAIN,
    ALTER fields SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX contact_by_email ON contact (email_hash, list_id) WHERE email_hash IS NOT NULL;
CREATE UNIQUE INDEX contact_by_phone_alone ON contact (phone_hash, list_id) WHERE email_hash IS NULL;
CREATE INDEX contact_by_phone ON contact (phone_hash, list_id) WHERE phone_hash IS NOT NULL;
CREATE INDEX contact_by_list ON contact (list_id, id);

-- New values for contacts that were there before an upload; applied only when all of it has been read.
CREATE TABLE contact_change (
    import_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    phone bytea,
    fields bytea,
    phone_hash bytea,
    phone_destination bigint,
    PRIMARY KEY (import_id, contact_id)
);
CREATE INDEX contact_change_by_contact ON contact_change (contact_id);
CREATE INDEX contact_change_by_phone ON contact_change (phone_hash) WHERE phone_hash IS NOT NULL;

-- One row per address and reason. Nothing is sent through a closed gate, and it outlives the contact.
CREATE TABLE gate (
    tenant_id bigint NOT NULL,
    address_hash bytea NOT NULL,
    reason text NOT NULL CHECK (reason IN ('suppressed', 'unsubscribed', 'complained', 'hard_bounced', 'erased',
                                           'restricted', 'no_consent')),
    channel text NOT NULL CHECK (channel IN ('email', 'sms')),
    closed_at_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, address_hash, reason)
);

CREATE TABLE template (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    source text NOT NULL,
    created_at_ms bigint NOT NULL,
    UNIQUE (tenant_id, name)
);

-- A campaign of lane 'transactional' is the stream of a template's single messages: always running, not shown.
CREATE TABLE campaign (
    id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    lane text NOT NULL CHECK (lane IN ('bulk', 'transactional')),
    state text NOT NULL CHECK (state IN ('draft', 'scheduled', 'running', 'paused', 'cancelled', 'completed')),
    pause_reason text,
    channel text NOT NULL CHECK (channel IN ('email', 'sms')),
    purpose text NOT NULL CHECK (purpose IN ('marketing', 'prospecting', 'service')),
    unknown_policy text NOT NULL CHECK (unknown_policy IN ('verify', 'at_most_once', 'at_least_once')),
    account text NOT NULL,
    limits text NOT NULL DEFAULT '{}',
    content text NOT NULL,
    stream_key text UNIQUE,
    send_at_ms bigint,
    expires_at_ms bigint,
    -- The hours it may send in, as JSON; any hour without.
    sending_window text,
    created_at_ms bigint NOT NULL,
    launched_at_ms bigint,
    ended_at_ms bigint,
    -- The month its deliveries are kept under: year * 100 + month of its creation. It never changes.
    month integer NOT NULL
);
CREATE INDEX campaign_by_tenant ON campaign (tenant_id, created_at_ms, id);
CREATE INDEX campaign_unfinished ON campaign (state) WHERE ended_at_ms IS NULL;

-- How far a campaign's audience has been found: the list by its position, the last contact looked at, the last one
-- there was at launch, the next number. Apart from the campaign, because it changes with every chunk.
CREATE TABLE expansion (
    campaign_id bigint PRIMARY KEY REFERENCES campaign (id),
    tenant_id bigint NOT NULL,
    list_position bigint NOT NULL DEFAULT 0,
    contact_id bigint NOT NULL DEFAULT 0,
    until_contact bigint NOT NULL DEFAULT 0,
    done boolean NOT NULL DEFAULT false,
    next_seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE campaign_list (
    campaign_id bigint NOT NULL REFERENCES campaign (id),
    tenant_id bigint NOT NULL,
    position bigint NOT NULL,
    list_id bigint NOT NULL REFERENCES list (id),
    PRIMARY KEY (campaign_id, position),
    UNIQUE (campaign_id, list_id)
);

-- How many deliveries of a campaign stand where, changed in the transaction that changes the deliveries. A campaign
-- has several rows for each state, its shards, so that workers do not wait for each other; their sum counts.
CREATE TABLE tally (
    campaign_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    shard smallint NOT NULL,
    state text NOT NULL,
    detail text NOT NULL DEFAULT '',
    deliveries bigint NOT NULL,
    PRIMARY KEY (campaign_id, shard, state, detail)
) WITH (fillfactor = 50);

-- One row per recipient of a campaign. Kept in a partition per month, so that what is too old is dropped and not
-- deleted. No index holds a column that changes, and pages have room: updates stay on their page (HOT).
CREATE TABLE delivery (
    month integer NOT NULL,
    campaign_id bigint NOT NULL,
    seq bigint NOT NULL,
    tenant_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    -- The attempt that holds or held it.
    attempt_id bigint,
    -- The attempt whose token made the key of the request it was last in.
    root_id bigint,
    -- When the current send key was first used.
    first_sent_at_ms bigint,
    -- When a waiting or unknown delivery is looked at next.
    next_at_ms bigint,
    updated_at_ms bigint NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    resends smallint NOT NULL DEFAULT 0,
    key_epoch smallint NOT NULL DEFAULT 0,
    -- Once an attempt with the current send key ended without an answer: it may have been accepted.
    doubted boolean NOT NULL DEFAULT false,
    -- While "duplicate" would prove acceptance: an attempt with the current send key ended without an answer, and none is
    -- known to have been refused, which could have used the key up as well.
    duplicate_proves boolean NOT NULL DEFAULT false,
    -- Must travel in a request of its own.
    alone boolean NOT NULL DEFAULT false,
    state text NOT NULL CHECK (state IN ('ready', 'claimed', 'unknown', 'retry_wait', 'accepted', 'failed',
                                         'expired', 'stopped', 'unknown_final')),
    -- The stop reason, refusal code, evidence of acceptance, or why the outcome is unknown.
    detail text NOT NULL DEFAULT '',
    provider_id text,
    PRIMARY KEY (month, campaign_id, seq)
) PARTITION BY LIST (month);

-- The deliveries that wait for their next try or are unknown, by when they are looked at: an index on the deliveries
-- themselves would cost every one of them its HOT updates.
CREATE TABLE waiting (
    campaign_id bigint NOT NULL,
    seq bigint NOT NULL,
    tenant_id bigint NOT NULL,
    month integer NOT NULL,
    state text NOT NULL CHECK (state IN ('retry_wait', 'unknown')),
    next_at_ms bigint NOT NULL,
    PRIMARY KEY (campaign_id, seq)
);
CREATE INDEX waiting_by_time ON waiting (state, next_at_ms);

-- The variables of a single message, sealed with its contact's key; gone when the message is final.
CREATE TABLE message (
    campaign_id bigint NOT NULL,
    seq bigint NOT NULL,
    tenant_id bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (campaign_id, seq)
);

-- One claim of a batch, durable before its requests leave. `ranges` are its deliveries: [[first, last], …]. `root_id`
-- is the attempt whose token made the key of the request: its own id, or the first attempt's when an unknown request
-- is asked again.
CREATE TABLE attempt (
    id bigint PRIMARY KEY,
    campaign_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    month integer NOT NULL,
    root_id bigint NOT NULL,
    token bytea NOT NULL UNIQUE,
    ranges text NOT NULL,
    deliveries bigint NOT NULL,
    -- How many of them have no outcome yet.
    open bigint NOT NULL,
    claimed_at_ms bigint NOT NULL,
    ended_at_ms bigint
) WITH (fillfactor = 80);
CREATE INDEX attempt_open ON attempt (claimed_at_ms) WHERE ended_at_ms IS NULL;
CREATE INDEX attempt_by_time ON attempt (claimed_at_ms);

-- The processes that schedule: they share the campaigns among those that were seen lately.
CREATE TABLE scheduler (
    id bigint PRIMARY KEY,
    seen_at_ms bigint NOT NULL
) WITH (fillfactor = 50);

-- The limits that all workers share: how much each lets through, and what it has counted. Every change moves the version.
-- Until wanted_until_ms a process may be alive whose settings want it; one that only an operator wants has none.
CREATE TABLE rate_limit (
    scope text PRIMARY KEY,
    windows text NOT NULL,
    counted text NOT NULL,
    version bigint NOT NULL,
    wanted_until_ms bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 30);

-- The accounts that take nothing now: refused with a code, or told to wait.
CREATE TABLE account_pause (
    account text PRIMARY KEY,
    refused text,
    since_ms bigint NOT NULL,
    until_ms bigint NOT NULL
);

-- Limits that an operator set while the engine ran; they win over the settings. Without any window nothing is limited.
CREATE TABLE operator_limit (
    kind text NOT NULL CHECK (kind IN ('account', 'domain', 'country')),
    name text NOT NULL,
    limits text NOT NULL,
    set_at_ms bigint NOT NULL,
    PRIMARY KEY (kind, name)
);

-- The second wall between tenants, behind the tenant in every statement. A connection that says nothing sees nothing.
-- One that works for a tenant sets dispatch.tenant for the length of its transaction; the scheduler's and the workers'
-- connections have dispatch.scope = 'engine', and they alone see a table without an owner. FORCE makes the policies hold
-- for the tables' owner too; a superuser passes them, so the engine should not be one.
CREATE FUNCTION keep_apart(name text, owner text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY tenants_apart ON %I USING (
        (SELECT current_setting(''dispatch.scope'', true)) = ''engine''%s)', name, coalesce(
        ' OR ' || quote_ident(owner)
        || ' = (SELECT nullif(current_setting(''dispatch.tenant'', true), '''')::bigint)', ''));
END $$;

SELECT keep_apart(name, CASE name WHEN 'tenant' THEN 'id' ELSE 'tenant_id' END)
  FROM unnest(ARRAY['tenant', 'api_key', 'idempotency', 'source', 'list', 'import', 'contact', 'contact_change', 'gate',
                    'template', 'campaign', 'expansion', 'campaign_list', 'tally', 'delivery', 'waiting', 'message',
                    'attempt']) AS t (name);
SELECT keep_apart(name, NULL) FROM unnest(ARRAY['rate_limit', 'account_pause', 'operator_limit']) AS t (name);

-- Makes the partition for a month's deliveries, unless it is there. It is attached and not created as one, because
-- attaching lets the other months be written meanwhile. A reader of the partition itself meets the wall too. Its rows
-- change often: dead ones go before they fill its pages, and its statistics follow a table that grows by millions an
-- hour.
CREATE FUNCTION keep_month(month integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'delivery_' || month;
BEGIN
    -- One at a time: "DSPL".
    PERFORM pg_advisory_xact_lock(1146310732, 0);
    IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'delivery'::regclass AND c.relname = name) THEN
        RETURN;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I (LIKE delivery INCLUDING ALL, CHECK (month = %s)) WITH (fillfactor = 35,
             autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1,
             autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)', name, month);
    PERFORM keep_apart(name, 'tenant_id');
    EXECUTE format('ALTER TABLE delivery ATTACH PARTITION %I FOR VALUES IN (%s)', name, month);
END $$;
