-- Why campaigns do not move, as their schedulers see it: whatever process is asked can say so.
CREATE TABLE stall (
    campaign_id bigint PRIMARY KEY,
    tenant_id bigint NOT NULL,
    reason text NOT NULL
) WITH (fillfactor = 50);
SELECT keep_apart('stall', 'tenant_id');
