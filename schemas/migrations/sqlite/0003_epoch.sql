-- Whether this ledger is what it was: a restored copy has forgotten what came after it.

-- A number that goes up every second: the second place (`ledger.second_place_folder`) knows it too, and a higher one
-- there says that something was forgotten. A file has no server.
CREATE TABLE ledger_epoch (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    server TEXT NOT NULL,
    head INTEGER NOT NULL,
    moved_at_ms INTEGER NOT NULL
) STRICT;

-- The times in which nothing was claimed because the ledger had forgotten, each with its reason and how it ended. At
-- most one is open.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    entered_at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    -- Deliveries that were called unknown.
    doubted INTEGER NOT NULL DEFAULT 0,
    left_at_ms INTEGER,
    -- Once everything in doubt was marked; or an operator took the risk, who is named then.
    left_how TEXT CHECK (left_how IN ('settled', 'accept_duplicates')),
    left_by TEXT,
    CHECK ((left_at_ms IS NULL) = (left_how IS NULL))
) STRICT;
CREATE UNIQUE INDEX quarantine_open ON quarantine ((left_at_ms IS NULL)) WHERE left_at_ms IS NULL;

-- 1: an attempt that stands for requests nobody remembers: its deliveries may have been in any, under any of their keys.
ALTER TABLE attempt ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
