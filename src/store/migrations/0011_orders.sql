-- What lists are ordered by, where no column says it yet. The engine computes it, so it is right whoever
-- writes. What is never is the greatest number.

{ordering}

-- Their first columns differ: where an order's index could be read for another order, a planner that knows
-- no values (PostgreSQL's generic plans) does it, and sorts.
CREATE INDEX api_keys_by_part_name ON api_keys ((part || '/name'), sort_name, id);
CREATE INDEX api_keys_by_tenant_part_name ON api_keys ((tenant_part || '/name'), sort_name, id);
CREATE INDEX api_keys_by_part_expires ON api_keys ((part || '/expires'), sort_expires, id);
CREATE INDEX api_keys_by_tenant_part_expires ON api_keys ((tenant_part || '/expires'), sort_expires, id);
CREATE INDEX api_keys_by_part_rotation ON api_keys ((part || '/rotation'), sort_rotation, id);
CREATE INDEX api_keys_by_tenant_part_rotation ON api_keys ((tenant_part || '/rotation'), sort_rotation, id);

-- Keys that were never used. The database itself keeps this table, and key_uses.tenant_id: once for each
-- secret, so that whoever stores usage has nothing to do with it.
CREATE TABLE key_unused (
    key_id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL
) {clustered};

CREATE INDEX key_unused_by_tenant ON key_unused (tenant_id, key_id);

ALTER TABLE key_uses ADD COLUMN tenant_id TEXT;

{using}

UPDATE key_uses SET tenant_id = (SELECT tenant_id FROM api_keys WHERE id = key_uses.key_id);

INSERT INTO key_unused (key_id, tenant_id)
    SELECT id, tenant_id FROM api_keys
    WHERE NOT EXISTS (SELECT 1 FROM key_uses WHERE key_uses.key_id = api_keys.id);

CREATE INDEX key_uses_by_time ON key_uses (last_used_at, key_id);
CREATE INDEX key_uses_by_tenant ON key_uses (tenant_id, last_used_at, key_id);
