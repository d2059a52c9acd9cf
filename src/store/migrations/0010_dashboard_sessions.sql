-- Who is signed in to the dashboard. The id is a digest of what the browser holds: who can read this can't
-- be anybody. A session is its key's, and of the secret that signed in: what has become of these is looked
-- up on every request, and stands elsewhere.
CREATE TABLE dashboard_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
) {clustered};

CREATE INDEX dashboard_sessions_by_key ON dashboard_sessions (key_id, seen_at);

CREATE INDEX dashboard_sessions_by_creation ON dashboard_sessions (created_at);

CREATE INDEX dashboard_sessions_by_sight ON dashboard_sessions (seen_at);
