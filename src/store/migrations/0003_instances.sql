-- Which instances there are, and how far each has followed the changes. Each writes its own row; times
-- are the database's, so that the instances' clocks need not agree.
CREATE TABLE instances (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- Every change up to this number has been applied.
    seen_seq BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    -- For so long after seen_at it counts as live, and for so long it may serve from memory.
    live_ms BIGINT NOT NULL,
    serves_ms BIGINT NOT NULL
);
