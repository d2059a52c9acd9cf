-- What was changed, in the order of the commits, so that other instances can follow. The counter's
-- row is locked from a change until its commit: numbers become visible in their order, without gaps.
CREATE TABLE change_counter (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);

INSERT INTO change_counter (id, seq) VALUES (1, 0);

CREATE TABLE key_changes (
    seq BIGINT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);
