-- Why campaigns do not move, as the scheduler sees it.
CREATE TABLE stall (
    campaign_id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL
) STRICT;
