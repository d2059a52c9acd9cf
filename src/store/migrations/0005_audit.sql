-- What happened, as a chain: each entry carries the hash of the one before it. `actor` is `key:` and the
-- id of an admin key, `system` or `unknown`; `details` is the text that was hashed.
CREATE TABLE audit_events (
    seq BIGINT NOT NULL PRIMARY KEY,
    noted_at BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    key_id TEXT,
    tenant_id TEXT,
    address TEXT,
    request_id TEXT,
    details TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    seal TEXT NOT NULL
);

CREATE INDEX audit_events_by_key ON audit_events (key_id, seq);
CREATE INDEX audit_events_by_tenant ON audit_events (tenant_id, seq);
CREATE INDEX audit_events_by_actor ON audit_events (actor, seq);
CREATE INDEX audit_events_by_action ON audit_events (action, seq);
CREATE INDEX audit_events_by_time ON audit_events (noted_at, seq);

-- The end of the chain. Its row is locked from an entry until the commit, after all other rows, so that
-- instances write one chain.
CREATE TABLE audit_head (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    noted_at BIGINT NOT NULL,
    hash TEXT NOT NULL,
    seal TEXT NOT NULL
);

INSERT INTO audit_head (id, seq, noted_at, hash, seal)
VALUES (1, 0, 0, '0000000000000000000000000000000000000000000000000000000000000000', '');
