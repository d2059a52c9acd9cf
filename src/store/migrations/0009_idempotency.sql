-- Answers to calls that make something, for who asks again because the first answer was lost. The
-- caller's key and the caller's idempotency key (its digest only) name one; of the body there is a digest
-- too. The secret that was shown is encrypted, and what opens it is not in here.
CREATE TABLE idempotent_answers (
    actor_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    body_digest TEXT NOT NULL,
    -- As it was given, without the secret.
    answer TEXT NOT NULL,
    sealed_secret TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (actor_id, digest)
);

CREATE INDEX idempotent_answers_by_time ON idempotent_answers (created_at);
