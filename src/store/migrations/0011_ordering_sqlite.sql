-- Of a row that nobody has brought up to date (see 0004) the name is empty. What is not to be replaced, as a
-- revoked key's secret, is due never.
ALTER TABLE api_keys ADD COLUMN sort_name TEXT
    GENERATED ALWAYS AS (COALESCE(search, '')) VIRTUAL;
ALTER TABLE api_keys ADD COLUMN sort_expires BIGINT
    GENERATED ALWAYS AS (COALESCE(expires_at, 9223372036854775807)) VIRTUAL;
ALTER TABLE api_keys ADD COLUMN sort_rotation BIGINT
    GENERATED ALWAYS AS (CASE WHEN standing <> 'revoked' AND rotation_days > 0
        THEN secret_created_at + rotation_days * 86400000 ELSE 9223372036854775807 END) VIRTUAL;
