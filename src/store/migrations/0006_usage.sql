-- What keys were used for. A subject is a key ('key/ID'), a tenant ('tenant/ID') or 'platform'; starts
-- are those of hours and days of UTC. An hour is in one of the two tables.
CREATE TABLE usage_hours (
    subject TEXT NOT NULL,
    start BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    errors_4xx BIGINT NOT NULL,
    errors_5xx BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    rate_limited BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    latency_us_sum BIGINT NOT NULL,
    latency_us_max BIGINT NOT NULL,
    PRIMARY KEY (subject, start)
) {clustered};

CREATE INDEX usage_hours_by_start ON usage_hours (start, subject);

CREATE TABLE usage_days (
    subject TEXT NOT NULL,
    start BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    errors_4xx BIGINT NOT NULL,
    errors_5xx BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    rate_limited BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    latency_us_sum BIGINT NOT NULL,
    latency_us_max BIGINT NOT NULL,
    PRIMARY KEY (subject, start)
) {clustered};

-- Over all time, so that nobody has to add hours up.
CREATE TABLE usage_totals (
    key_id TEXT NOT NULL PRIMARY KEY,
    requests BIGINT NOT NULL,
    errors_4xx BIGINT NOT NULL,
    errors_5xx BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    rate_limited BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    latency_us_sum BIGINT NOT NULL,
    latency_us_max BIGINT NOT NULL
);

-- When each secret of a key was last used.
CREATE TABLE key_uses (
    key_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    last_used_ip TEXT NOT NULL,
    PRIMARY KEY (key_id, generation)
) {clustered};

-- The last batch of each instance, written with what is in it: a batch that is sent again, because
-- nobody knows whether it arrived, is not added again.
CREATE TABLE usage_flushes (
    instance_id TEXT NOT NULL PRIMARY KEY,
    batch BIGINT NOT NULL,
    flushed_at BIGINT NOT NULL
);

-- One row, held by whoever turns hours into days.
CREATE TABLE usage_roll_up (
    id BIGINT NOT NULL PRIMARY KEY,
    turns BIGINT NOT NULL
);

INSERT INTO usage_roll_up (id, turns) VALUES (1, 0);
