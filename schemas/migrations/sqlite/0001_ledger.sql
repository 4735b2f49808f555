-- The ledger of one Dispatch installation on SQLite.
--
-- Times are milliseconds since 1970-01-01T00:00:00Z. Personal data is sealed (AES-256-GCM, a key per contact);
-- addresses are looked up by keyed hash. States are the words of the API.

CREATE TABLE ledger (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key_fingerprint BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE tenant (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    root_key BLOB NOT NULL,
    limits TEXT NOT NULL DEFAULT '{}',
    -- The tenant's gate: nothing of it is claimed while this is set.
    closed_at_ms INTEGER,
    closed_reason TEXT,
    created_at_ms INTEGER NOT NULL,
    CHECK ((closed_at_ms IS NULL) = (closed_reason IS NULL))
) STRICT;

CREATE TABLE api_key (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    label TEXT NOT NULL,
    permissions TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) STRICT;

-- The answers of calls made with an Idempotency-Key, written with their effect.
CREATE TABLE idempotency (
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    answer TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at_ms);

CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('customer_list', 'marketplace', 'own_prospect', 'account')),
    legal_basis TEXT NOT NULL
        CHECK (legal_basis IN ('consent', 'contract', 'legitimate_interest', 'legal_obligation')),
    reference TEXT,
    created_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX source_by_tenant ON source (tenant_id);

-- A list of kind 'messages' holds the people single messages were sent to; it is not shown.
CREATE TABLE list (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    source_id INTEGER NOT NULL REFERENCES source (id),
    kind TEXT NOT NULL DEFAULT 'contacts' CHECK (kind IN ('contacts', 'messages')),
    name TEXT NOT NULL,
    contacts INTEGER NOT NULL DEFAULT 0,
    -- The names of the fields its completed uploads have brought, as a JSON array.
    fields TEXT NOT NULL DEFAULT '[]',
    created_at_ms INTEGER NOT NULL,
    UNIQUE (tenant_id, kind, name)
) STRICT;

CREATE TABLE import (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    list_id INTEGER NOT NULL REFERENCES list (id),
    state TEXT NOT NULL CHECK (state IN ('running', 'applying', 'completed', 'rolling_back', 'failed')),
    totals TEXT NOT NULL DEFAULT '{}',
    report TEXT NOT NULL DEFAULT 'null',
    fields TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    -- Contacts of the upload that were erased before it completed.
    erased INTEGER NOT NULL DEFAULT 0,
    -- Every contact of the upload has this id or a higher one.
    first_contact INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER
) STRICT;
CREATE INDEX import_unfinished ON import (list_id) WHERE state IN ('running', 'applying', 'rolling_back');

-- Ids count up, so the contacts of one upload lie together and a campaign over them reads in order.
CREATE TABLE contact (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL,
    list_id INTEGER NOT NULL,
    import_id INTEGER,
    key BLOB NOT NULL,
    email BLOB,
    phone BLOB,
    fields BLOB,
    email_hash BLOB,
    phone_hash BLOB,
    email_destination INTEGER,
    phone_destination INTEGER,
    CHECK (email_hash IS NOT NULL OR phone_hash IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX contact_by_email ON contact (email_hash, list_id) WHERE email_hash IS NOT NULL;
CREATE UNIQUE INDEX contact_by_phone_alone ON contact (phone_hash, list_id) WHERE email_hash IS NULL;
CREATE INDEX contact_by_phone ON contact (phone_hash, list_id) WHERE phone_hash IS NOT NULL;
CREATE INDEX contact_by_list ON contact (list_id);

-- New values for contacts that were there before an upload; applied only when all of it has been read.
CREATE TABLE contact_change (
    import_id INTEGER NOT NULL,
    contact_id INTEGER NOT NULL,
    phone BLOB,
    fields BLOB,
    phone_hash BLOB,
    phone_destination INTEGER,
    PRIMARY KEY (import_id, contact_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX contact_change_by_contact ON contact_change (contact_id);
CREATE INDEX contact_change_by_phone ON contact_change (phone_hash) WHERE phone_hash IS NOT NULL;

-- One row per address and reason. Nothing is sent through a closed gate, and it outlives the contact.
CREATE TABLE gate (
    tenant_id INTEGER NOT NULL,
    address_hash BLOB NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('suppressed', 'unsubscribed', 'complained', 'hard_bounced', 'erased',
                                           'restricted', 'no_consent')),
    channel TEXT NOT NULL CHECK (channel IN ('email', 'sms')),
    closed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, address_hash, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE template (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

-- A campaign of lane 'transactional' is the stream of a template's single messages: always running, not shown.
CREATE TABLE campaign (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenant (id),
    name TEXT NOT NULL,
    lane TEXT NOT NULL CHECK (lane IN ('bulk', 'transactional')),
    state TEXT NOT NULL CHECK (state IN ('draft', 'scheduled', 'running', 'paused', 'cancelled', 'completed')),
    pause_reason TEXT,
    channel TEXT NOT NULL CHECK (channel IN ('email', 'sms')),
    purpose TEXT NOT NULL CHECK (purpose IN ('marketing', 'prospecting', 'service')),
    unknown_policy TEXT NOT NULL CHECK (unknown_policy IN ('verify', 'at_most_once', 'at_least_once')),
    account TEXT NOT NULL,
    limits TEXT NOT NULL DEFAULT '{}',
    content TEXT NOT NULL,
    stream_key TEXT UNIQUE,
    send_at_ms INTEGER,
    expires_at_ms INTEGER,
    -- The hours it may be sent in, as the API has them.
    sending_window TEXT,
    created_at_ms INTEGER NOT NULL,
    launched_at_ms INTEGER,
    ended_at_ms INTEGER,
    -- How far the audience has been found: the list by its position, the last contact looked at, the last one there
    -- was at launch, the next number.
    expansion_list INTEGER NOT NULL DEFAULT 0,
    expansion_contact INTEGER NOT NULL DEFAULT 0,
    expansion_until INTEGER NOT NULL DEFAULT 0,
    expanded INTEGER NOT NULL DEFAULT 0 CHECK (expanded IN (0, 1)),
    next_seq INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX campaign_by_tenant ON campaign (tenant_id, created_at_ms, id);
CREATE INDEX campaign_unfinished ON campaign (state) WHERE ended_at_ms IS NULL;

CREATE TABLE campaign_list (
    campaign_id INTEGER NOT NULL REFERENCES campaign (id),
    position INTEGER NOT NULL,
    list_id INTEGER NOT NULL REFERENCES list (id),
    PRIMARY KEY (campaign_id, position),
    UNIQUE (campaign_id, list_id)
) STRICT, WITHOUT ROWID;

-- How many deliveries of a campaign stand where, changed in the transaction that changes the deliveries.
CREATE TABLE tally (
    campaign_id INTEGER NOT NULL,
    state TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT '',
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (campaign_id, state, detail)
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
    campaign_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    contact_id INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'claimed', 'unknown', 'retry_wait', 'accepted', 'failed',
                                         'expired', 'stopped', 'unknown_final')),
    -- The stop reason, refusal code, evidence of acceptance, or why the outcome is unknown.
    detail TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    resends INTEGER NOT NULL DEFAULT 0,
    key_epoch INTEGER NOT NULL DEFAULT 0,
    -- The attempt that holds or held it.
    attempt_id INTEGER,
    -- The attempt whose token made the key of the request it was last in.
    root_id INTEGER,
    -- When the current send key was first used.
    first_sent_at_ms INTEGER,
    -- 1 once an attempt with the current send key ended without an answer: it may have been accepted.
    doubted INTEGER NOT NULL DEFAULT 0,
    -- 1 while "duplicate" would prove acceptance: an attempt with the current send key ended without an answer, and none
    -- is known to have been refused, which could have used the key up as well.
    duplicate_proves INTEGER NOT NULL DEFAULT 0,
    -- 1: must travel in a request of its own.
    alone INTEGER NOT NULL DEFAULT 0,
    -- When a waiting or unknown delivery is looked at next.
    next_at_ms INTEGER,
    provider_id TEXT,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (campaign_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_waiting ON delivery (state, next_at_ms) WHERE state IN ('retry_wait', 'unknown');

-- The variables of a single message, sealed with its contact's key; gone when the message is final.
CREATE TABLE message (
    campaign_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (campaign_id, seq)
) STRICT, WITHOUT ROWID;

-- One claim of a batch, durable before its requests leave. `ranges` are its deliveries: [[first, last], …]. `root_id` is the attempt whose token made the key of the
-- request: its own id, or the first attempt's when an unknown request is asked again.
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    campaign_id INTEGER NOT NULL,
    root_id INTEGER NOT NULL,
    token BLOB NOT NULL UNIQUE,
    ranges TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    -- How many of them have no outcome yet.
    open INTEGER NOT NULL,
    claimed_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER
) STRICT;
CREATE INDEX attempt_open ON attempt (claimed_at_ms) WHERE ended_at_ms IS NULL;
CREATE INDEX attempt_by_time ON attempt (claimed_at_ms);

-- Limits that an operator set while the engine ran; they win over the settings. Without any window nothing is limited.
CREATE TABLE operator_limit (
    kind TEXT NOT NULL CHECK (kind IN ('account', 'domain', 'country')),
    name TEXT NOT NULL,
    limits TEXT NOT NULL,
    set_at_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
