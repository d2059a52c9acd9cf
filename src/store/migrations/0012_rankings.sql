-- The busiest keys of an hour, of all ('platform') or of a tenant ('tenant/ID'), the busiest in place 1.
-- With each stands what a key that is not listed can have had at most (rest), and what all keys had (of_all).
CREATE TABLE usage_rankings (
    subject TEXT NOT NULL,
    start BIGINT NOT NULL,
    place BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    requests BIGINT NOT NULL,
    rest BIGINT NOT NULL,
    of_all BIGINT NOT NULL,
    PRIMARY KEY (subject, start, place)
) {clustered};

CREATE INDEX usage_rankings_by_start ON usage_rankings (start);

-- The hours that were complete when they were ranked.
CREATE TABLE usage_ranked_hours (
    start BIGINT NOT NULL PRIMARY KEY
);

-- One row: until when nobody has a turn at ranking.
CREATE TABLE usage_ranking (
    id BIGINT NOT NULL PRIMARY KEY,
    free_at BIGINT NOT NULL
);

INSERT INTO usage_ranking (id, free_at) VALUES (1, 0);
