-- Keys and their metadata, one schema for every engine: ids are TEXT, times are BIGINT
-- milliseconds since the Unix epoch, lists and maps are JSON in TEXT.
CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    environment TEXT NOT NULL,
    hint TEXT NOT NULL,
    scopes TEXT NOT NULL,
    rate_limits TEXT,
    allowed_ips TEXT NOT NULL,
    contact_email TEXT,
    rotation_days BIGINT NOT NULL,
    metadata TEXT NOT NULL,
    standing TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    secret_created_at BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    previous_generation BIGINT,
    previous_valid_until BIGINT,
    revision BIGINT NOT NULL
);

CREATE INDEX api_keys_by_time ON api_keys (created_at, id);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_at, id);

-- The embedded twin of the secret store. No foreign key to api_keys: a new key's hash is written
-- before its row, so that a key that was acknowledged always has its hash.
CREATE TABLE key_hashes (
    key_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    tenant_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (key_id, generation)
);

-- The newest mints; the others are still believed.
CREATE TABLE mint_keys (
    id BIGINT NOT NULL PRIMARY KEY,
    material TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
