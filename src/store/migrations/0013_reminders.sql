-- What was done about reminding somebody of the age of a key's secret. Nothing of it is a change of the key:
-- its revision stays. What was noted for another secret, or for other rotation_days, does not count.
ALTER TABLE api_keys ADD COLUMN reminder_generation BIGINT;
ALTER TABLE api_keys ADD COLUMN reminder_days BIGINT;
-- The moment from which the latest reminder was to be sent.
ALTER TABLE api_keys ADD COLUMN reminder_step BIGINT;
-- How often that was tried; 0: nothing is left to do for it; -1: it was begun, but not tried.
ALTER TABLE api_keys ADD COLUMN reminder_attempts BIGINT;
-- Who tries it now. Whoever finds the time in `reminder_at` over takes its place.
ALTER TABLE api_keys ADD COLUMN reminder_claim TEXT;
-- When there is something to do again.
ALTER TABLE api_keys ADD COLUMN reminder_at BIGINT;

-- The same, before anything was done as well: 14 days before the secret is due, or 3, or then. The engine
-- computes it, so it is right whoever writes.
ALTER TABLE api_keys ADD COLUMN sort_reminder BIGINT
    GENERATED ALWAYS AS (CASE
        WHEN standing <> 'active' OR lapsed = 'yes' OR rotation_days <= 0 THEN 9223372036854775807
        WHEN reminder_generation = generation AND reminder_days = rotation_days THEN reminder_at
        WHEN rotation_days > 14 THEN secret_created_at + (rotation_days - 14) * 86400000
        WHEN rotation_days > 3 THEN secret_created_at + (rotation_days - 3) * 86400000
        ELSE secret_created_at + rotation_days * 86400000 END) {generated};

CREATE INDEX api_keys_by_reminder ON api_keys (sort_reminder, id);

-- How many reminders all instances have begun within an hour. One row.
CREATE TABLE reminder_hours (
    id BIGINT NOT NULL PRIMARY KEY,
    hour BIGINT NOT NULL,
    begun BIGINT NOT NULL
);

INSERT INTO reminder_hours (id, hour, begun) VALUES (1, 0, 0);
