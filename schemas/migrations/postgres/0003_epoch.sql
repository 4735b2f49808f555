-- Whether this ledger is what it was: a server that failed over, or a restored copy, has forgotten its last commits.

-- The server the ledger was last used on (system identifier and timeline), and a number that goes up every second: the
-- second place (`ledger.second_place_folder`) knows it too, and a higher one there says that something was forgotten.
CREATE TABLE ledger_epoch (
    id bigint PRIMARY KEY CHECK (id = 1),
    server text NOT NULL,
    head bigint NOT NULL,
    moved_at_ms bigint NOT NULL
) WITH (fillfactor = 50);

-- The times in which nothing was claimed because the ledger had forgotten, each with its reason and how it ended. At
-- most one is open.
CREATE TABLE quarantine (
    id bigint PRIMARY KEY,
    entered_at_ms bigint NOT NULL,
    reason text NOT NULL,
    -- Deliveries that were called unknown.
    doubted bigint NOT NULL DEFAULT 0,
    left_at_ms bigint,
    -- Once everything in doubt was marked; or an operator took the risk, who is named then.
    left_how text CHECK (left_how IN ('settled', 'accept_duplicates')),
    left_by text,
    CHECK ((left_at_ms IS NULL) = (left_how IS NULL))
);
CREATE UNIQUE INDEX quarantine_open ON quarantine ((left_at_ms IS NULL)) WHERE left_at_ms IS NULL;

-- An attempt that stands for requests nobody remembers: its deliveries may have been in any, under any of their keys.
ALTER TABLE attempt ADD COLUMN forgotten boolean NOT NULL DEFAULT false;

-- Which server this is: after a restore elsewhere or a failover it is another. Both functions are everybody's unless a
-- server takes them away; then a failover is not seen here.
CREATE FUNCTION this_server() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/'
        || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_function THEN
    RETURN 'unknown';
END $$;
