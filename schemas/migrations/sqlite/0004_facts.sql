-- What providers report of messages after they took them.

-- Each kind of report about a delivery once: when it was first and last reported, and how often.
CREATE TABLE fact (
    campaign_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('accepted', 'deferred', 'delivered', 'bounced_soft', 'bounced_hard',
                                       'rejected_by_provider', 'expired_at_provider', 'complained', 'unsubscribed',
                                       'other')),
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (campaign_id, seq, kind)
) STRICT, WITHOUT ROWID;

-- How many deliveries of a campaign have a fact of a kind, changed in the transaction that makes the first.
CREATE TABLE fact_tally (
    campaign_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (campaign_id, kind)
) STRICT, WITHOUT ROWID;

-- The reports that were applied, so that each is applied once. Ids begin with the time of their report.
CREATE TABLE report_seen (
    id BLOB PRIMARY KEY,
    seen_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Reports about messages that are not known, without any address in the clear. They are looked at again twice.
CREATE TABLE orphan (
    id BLOB PRIMARY KEY,
    account TEXT NOT NULL,
    kind TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    proves_acceptance INTEGER NOT NULL CHECK (proves_acceptance IN (0, 1)),
    send_key BLOB,
    request_key BLOB,
    provider_id TEXT,
    address_hash BLOB,
    arrived_at_ms INTEGER NOT NULL,
    -- When it is looked at next; never again without.
    look_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX orphan_due ON orphan (look_at_ms) WHERE look_at_ms IS NOT NULL;
CREATE INDEX orphan_by_age ON orphan (arrived_at_ms);

-- The key of the request, where all its recipients share one: their reports name it.
ALTER TABLE attempt ADD COLUMN request_key BLOB;
CREATE INDEX attempt_by_request_key ON attempt (request_key) WHERE request_key IS NOT NULL;
