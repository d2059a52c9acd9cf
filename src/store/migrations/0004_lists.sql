-- What lists are read from. Versions that don't know these columns leave `search_revision` behind
-- `revision`; whoever does know them brings the row up to date (as the rows that are there already).

-- The name and the id, in small letters.
ALTER TABLE api_keys ADD COLUMN search TEXT;
-- The revision for which `search`, the key's grams and `lapsed` were written.
ALTER TABLE api_keys ADD COLUMN search_revision BIGINT NOT NULL DEFAULT 0;
-- 'yes': the key's time was over when somebody looked. A key expires without a write, so 'no' says
-- nothing.
ALTER TABLE api_keys ADD COLUMN lapsed TEXT NOT NULL DEFAULT 'no';

-- The part of all lists, and of its tenant's lists, where a key stands. One column each: a range of
-- an index ends for certain only at its first column.
ALTER TABLE api_keys ADD COLUMN part TEXT
    GENERATED ALWAYS AS (standing || '/' || lapsed || '/' || environment) {generated};
ALTER TABLE api_keys ADD COLUMN tenant_part TEXT
    GENERATED ALWAYS AS (tenant_id || '/' || standing || '/' || lapsed || '/' || environment)
    {generated};

CREATE INDEX api_keys_by_part ON api_keys (part, created_at, id);
CREATE INDEX api_keys_by_tenant_part ON api_keys (tenant_part, created_at, id);
CREATE INDEX api_keys_by_expiry ON api_keys (lapsed, expires_at);
CREATE INDEX api_keys_unsettled ON api_keys (id) WHERE search_revision <> revision;

-- Each three characters in a row of every name and id.
CREATE TABLE key_grams (
    gram TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (gram, created_at, id)
) {clustered};
