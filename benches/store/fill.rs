//! Very many keys, made by the engine itself: far faster than through the store, and the same rows.

use secrecy::{ExposeSecret, SecretString};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, AssertSqlSafe};

use sidekey::clock::Timestamp;

/// When all keys stand as they were filled in: after those that expire, and before all others.
pub fn now() -> Timestamp {
    Timestamp::from_millis(5_000_000_000_000)
}
/// The times of creation are so many milliseconds apart.
pub const STEP_MS: i64 = 1_000;

/// The hard cases for lists: half of the keys are one tenant's; tenant `old` has the oldest thousandth;
/// only old keys are revoked or expired, so that the newest are none of these; one key is for tests, and
/// one is called a needle.
fn keys(count: u64) -> String {
    format!(
        "INSERT INTO api_keys (id, tenant_id, name, environment, hint, scopes, allowed_ips, \
           rotation_days, metadata, standing, created_at, updated_at, expires_at, secret_created_at, \
           generation, revision, search, search_revision, lapsed) \
         WITH RECURSIVE numbers (n) AS (\
           SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}), \
         named AS (SELECT n, \
           'ky' || substr(CAST(10000000000 + (n * CAST(387420489 AS BIGINT)) % 1000000007 AS TEXT), 2, 10) AS id, \
           CASE WHEN n = 5 THEN 'A Needle' ELSE \
             CASE n % 4 WHEN 0 THEN 'Billing' WHEN 1 THEN 'Orders' WHEN 2 THEN 'Mobile' ELSE 'Partner' END \
             || ' service ' || CAST(n AS TEXT) END AS name FROM numbers) \
         SELECT id, \
           CASE WHEN n <= {count} / 1000 THEN 'old' WHEN n % 2 = 0 THEN 'big' \
             ELSE 't' || CAST(n % 5000 AS TEXT) END, \
           name, CASE WHEN n = 77 THEN 'test' ELSE 'live' END, 'sk_live_' || id || '_...a1B2', \
           '[\"orders:read\",\"orders:write\"]', '[]', 90, '{{\"team\":\"payments\"}}', \
           CASE WHEN n % 1000 = 0 THEN 'disabled' WHEN n <= {count} / 20 THEN 'revoked' ELSE 'active' END, \
           n * {STEP_MS}, n * {STEP_MS}, \
           CASE WHEN n <= {count} / 5 * 2 THEN n * {STEP_MS} + 1 \
             WHEN n % 3 = 0 THEN 9000000000000 END, \
           n * {STEP_MS}, 1, 1, LOWER(name) || '\n' || LOWER(id), 1, \
           CASE WHEN n <= {count} / 5 * 2 THEN 'yes' ELSE 'no' END \
         FROM named"
    )
}

/// Sorted, so that the index grows at its end.
const GRAMS: &str = "INSERT INTO key_grams (gram, created_at, id) \
    WITH RECURSIVE places (place) AS (\
      SELECT 1 UNION ALL SELECT place + 1 FROM places WHERE place < 60) \
    SELECT substr(search, place, 3) AS gram, created_at, id \
    FROM api_keys, places WHERE place <= length(search) - 2 \
      AND substr(search, place, 3) NOT LIKE '%\n%' \
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING";

/// Two thirds of the keys were used, the newest last, and each of these by two secrets.
pub async fn fill_uses(pool: &AnyPool, count: u64) -> Result<(), sqlx::Error> {
    let statement = format!(
        "INSERT INTO key_uses (key_id, generation, last_used_at, last_used_ip) \
         SELECT id, secret, {} + created_at / {STEP_MS} - secret, '192.0.2.1' \
         FROM api_keys, (SELECT 1 AS secret UNION ALL SELECT 2) AS secrets \
         WHERE created_at / {STEP_MS} % 3 > 0 AND created_at <= {count} * CAST({STEP_MS} AS BIGINT)",
        now().as_millis()
    );
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(pool)
        .await?;
    Ok(())
}

/// Fills a store that was opened once. Keys that are there already stay.
pub async fn fill(url: &SecretString, count: u64) -> Result<AnyPool, sqlx::Error> {
    let is_sqlite = url.expose_secret().starts_with("sqlite:");
    let options = AnyPoolOptions::new().max_connections(1);
    let pool = options.connect(url.expose_secret()).await?;
    let (before, after) = if is_sqlite {
        (
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -200000",
            None,
        )
    } else {
        // What the server does by itself after a while.
        ("SET work_mem = '256MB'", Some("VACUUM ANALYZE"))
    };
    for statement in [before.to_owned(), keys(count), GRAMS.to_owned()] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&pool)
            .await?;
    }
    if let Some(statement) = after {
        sqlx::raw_sql(statement).execute(&pool).await?;
    }
    Ok(pool)
}
