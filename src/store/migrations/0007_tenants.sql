-- What all keys of a tenant have in common.
CREATE TABLE tenants (
    -- In the order of its bytes, so that pages are the same on every engine.
    id TEXT {bytewise} NOT NULL PRIMARY KEY,
    display_name TEXT,
    contact_email TEXT,
    rate_limits TEXT,
    max_keys BIGINT,
    -- Keys that are not revoked. Counted by the database itself, so that the number is right whoever
    -- writes keys: versions that know nothing of tenants do, while others are brought up to date.
    key_count BIGINT NOT NULL DEFAULT 0,
    standing TEXT NOT NULL DEFAULT 'active',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1
);

CREATE INDEX tenants_by_standing ON tenants (standing, id);

{counting}

-- Changes of tenants have their place among those of keys, with a key id that no key has: versions
-- that don't know this column look for that key and find none. Locked after the keys, as by who writes
-- keys: they may run on meanwhile.
ALTER TABLE key_changes ADD COLUMN tenant_id TEXT;

INSERT INTO tenants (id, key_count, created_at, updated_at)
    SELECT tenant_id, SUM(CASE WHEN standing = 'revoked' THEN 0 ELSE 1 END),
        MIN(created_at), MIN(created_at)
    FROM api_keys GROUP BY tenant_id;
