-- Keys that were there before Sidekey. Versions that don't know these columns make other keys.
ALTER TABLE api_keys ADD COLUMN origin TEXT NOT NULL DEFAULT 'minted';
-- How the current secret is presented: 'key' or 'basic'.
ALTER TABLE api_keys ADD COLUMN credential TEXT NOT NULL DEFAULT 'key';

-- Where imported secrets are found: a keyed hash of what is presented. Rows stay for good, so that
-- nothing is imported twice, nor comes back after it was revoked.
CREATE TABLE imported_keys (
    lookup TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL,
    -- The number of the change that made the key.
    seq BIGINT NOT NULL
) {clustered};

CREATE UNIQUE INDEX imported_keys_by_seq ON imported_keys (seq);
