//! The SQL store: one set of queries for SQLite and PostgreSQL.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyPool, AssertSqlSafe, Connection, Executor, Row, SqlSafeStr};

use super::audit::Journal;
use super::claims::{self, ClaimPage};
use super::rows::{self, COLUMNS};
use super::{CHANGES_MAX, Change, KeyFilter, KeyOrder, KeyStore, Page, PageFrom, StoreError};
use crate::audit::Note;
use crate::clock::Timestamp;
use crate::key::{KeyId, KeyRecord};

/// Connections to the database, but for the one that writes where only one can.
const CONNECTIONS_MAX: u32 = 4;
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may take to show that it is sound, before it goes back to the others.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one operation may take as a whole: a server that hangs is one that is away.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Write-ahead logging, so that readers never wait for a writer; every commit reaches the disk
/// before it is acknowledged.
const SQLITE_PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
    PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 3000;";

/// A server ends what takes longer, so that nobody waits for a lock for ever. And every statement reads
/// few rows by an index: a planner whose statistics are old must not think of something better, or that
/// a statement is worth compiling, which takes a hundred times as long as running it.
pub const POSTGRES_SETTINGS: &str = "SET statement_timeout = 5000; SET lock_timeout = 3000; \
    SET idle_in_transaction_session_timeout = 10000; \
    SET enable_seqscan = off; SET enable_bitmapscan = off; \
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off;";

/// For who only reads.
const SQLITE_READER_PRAGMAS: &str = "PRAGMA query_only = ON; PRAGMA busy_timeout = 3000;";
const POSTGRES_READER_SETTINGS: &str =
    "SET default_transaction_read_only = on; SET statement_timeout = 5000;";

/// How long an instance waits for the schema: another one may be bringing it up to date.
const MIGRATION_SETTINGS: &str = "SET statement_timeout = 600000; SET lock_timeout = 600000;";

/// Where the engines' schemas differ: the words for `{generated}` (SQLite adds no other column to a
/// table, PostgreSQL has no other), for `{clustered}` (a table that is its own index), for
/// `{bytewise}` (an order that no locale changes), for `{counting}` and `{using}` (triggers), for
/// `{ordering}` (columns that lists are ordered by: PostgreSQL writes the table once for them all).
const SQLITE_WORDS: [(&str, &str); 6] = [
    ("{generated}", "VIRTUAL"),
    ("{clustered}", "WITHOUT ROWID"),
    ("{bytewise}", ""),
    (
        "{counting}",
        include_str!("migrations/0007_counting_sqlite.sql"),
    ),
    ("{using}", include_str!("migrations/0011_using_sqlite.sql")),
    (
        "{ordering}",
        include_str!("migrations/0011_ordering_sqlite.sql"),
    ),
];
const POSTGRES_WORDS: [(&str, &str); 6] = [
    ("{generated}", "STORED"),
    ("{clustered}", ""),
    ("{bytewise}", "COLLATE \"C\""),
    (
        "{counting}",
        include_str!("migrations/0007_counting_postgres.sql"),
    ),
    (
        "{using}",
        include_str!("migrations/0011_using_postgres.sql"),
    ),
    (
        "{ordering}",
        include_str!("migrations/0011_ordering_postgres.sql"),
    ),
];

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "keys", include_str!("migrations/0001_keys.sql")),
    (2, "changes", include_str!("migrations/0002_changes.sql")),
    (
        3,
        "instances",
        include_str!("migrations/0003_instances.sql"),
    ),
    (4, "lists", include_str!("migrations/0004_lists.sql")),
    (5, "audit", include_str!("migrations/0005_audit.sql")),
    (7, "tenants", include_str!("migrations/0007_tenants.sql")),
    (6, "usage", include_str!("migrations/0006_usage.sql")),
    (8, "imports", include_str!("migrations/0008_imports.sql")),
    (
        9,
        "idempotency",
        include_str!("migrations/0009_idempotency.sql"),
    ),
    (
        10,
        "dashboard sessions",
        include_str!("migrations/0010_dashboard_sessions.sql"),
    ),
    (11, "orders", include_str!("migrations/0011_orders.sql")),
    (12, "rankings", include_str!("migrations/0012_rankings.sql")),
    (
        13,
        "reminders",
        include_str!("migrations/0013_reminders.sql"),
    ),
];

/// What each engine has its own words for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// The time now in milliseconds since the Unix epoch.
    pub now_ms: &'static str,
    /// What ends an `INSERT ... SELECT` of one row that a crash may lose: its commit need not wait
    /// for the disk.
    pub may_be_lost: &'static str,
    /// Whether a value can be an array.
    pub has_arrays: bool,
}

const SQLITE: Dialect = Dialect {
    now_ms: "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    // Its commits differ by connection only, and those for keys share it.
    may_be_lost: "WHERE true",
    has_arrays: false,
};

const POSTGRES: Dialect = Dialect {
    now_ms: "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    may_be_lost: "FROM (SELECT set_config('synchronous_commit', 'off', true)) AS hasty",
    has_arrays: true,
};

/// Ends `work` with the error `late` makes when it takes too long.
pub async fn within<T, E>(
    late: impl FnOnce(String) -> E,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(OPERATION_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(late(format!(
            "no answer within {} s",
            OPERATION_TIMEOUT.as_secs()
        ))),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) if db.is_unique_violation() => StoreError::Conflict,
            _ if is_about_tls(&error) => StoreError::Unavailable(format!(
                "{error}; check the host, sslmode and sslrootcert in store.url"
            )),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

fn is_about_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        // What a handshake finds out arrives as an error of the connection, and so does the lack of a
        // file: the only ones that are read are certificates.
        sqlx::Error::Io(cause) => {
            cause.kind() == std::io::ErrorKind::NotFound
                || cause.to_string().contains("certificate")
        }
        _ => false,
    }
}

/// Connections to a database, for its store and for the embedded twins that live in it.
///
/// SQLite lets one connection write at a time. Others that want to would try again and again, and who gets
/// in is chance: under a load some would wait for seconds. So there is one connection that writes, and
/// who wants it waits in turn. Readers never wait for it.
#[derive(Clone)]
pub struct Pools {
    readers: AnyPool,
    writer: AnyPool,
}

impl Pools {
    /// One pool for everything.
    fn shared(pool: AnyPool) -> Self {
        Pools {
            writer: pool.clone(),
            readers: pool,
        }
    }

    /// For what only reads.
    pub fn readers(&self) -> &AnyPool {
        &self.readers
    }

    /// For what writes. Who has a connection of it must not wait for another.
    pub fn writer(&self) -> &AnyPool {
        &self.writer
    }
}

/// Keys in an SQL database.
#[derive(Clone)]
pub struct SqlStore {
    pools: Pools,
    dialect: Dialect,
    journal: Option<Arc<Journal>>,
}

impl SqlStore {
    /// Connects to `url` and brings the schema up to date. An SQLite file is made where there is
    /// none, readable by its owner only.
    pub async fn open(url: &SecretString) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let url = url.expose_secret();
        if let Some(path) = sqlite_path(url) {
            create_private_file(&path).map_err(|error| {
                StoreError::Unavailable(format!(
                    "{} can't be made or written: {error}; check the directory and its owner",
                    path.display()
                ))
            })?;
        }
        let options = AnyConnectOptions::from_str(url)?;
        let is_sqlite = url.starts_with("sqlite:");
        let settings = if is_sqlite {
            SQLITE_PRAGMAS
        } else {
            POSTGRES_SETTINGS
        };
        let pool = |connections: u32| {
            AnyPoolOptions::new()
                // All of them are opened now and kept: opening one takes milliseconds of CPU, and the
                // moment when several are wanted is the one when many new keys arrive.
                .min_connections(connections)
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // A file does not go away as a server does.
                .test_before_acquire(!is_sqlite)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        connection.execute(settings).await?;
                        Ok(())
                    })
                })
                .after_release(move |connection, _| {
                    // sqlx asks too, but waits for ever: connections to a host that has vanished would
                    // be missing from the pool until the system gives them up, for many minutes.
                    Box::pin(async move {
                        if is_sqlite {
                            return Ok(true);
                        }
                        match tokio::time::timeout(RELEASE_TIMEOUT, connection.ping()).await {
                            Ok(answer) => answer.map(|()| true),
                            // An error, so that it is closed without another word to the host.
                            Err(_) => Err(sqlx::Error::PoolTimedOut),
                        }
                    })
                })
                .connect_with(options.clone())
        };
        let mut pools = Pools::shared(pool(CONNECTIONS_MAX).await?);
        migrate(&pools.readers, is_sqlite).await.map_err(|error| {
            StoreError::Unavailable(format!("the schema can't be brought up to date: {error}"))
        })?;
        if is_sqlite {
            pools.writer = pool(1).await?;
        }
        Ok(Self::on(pools, url))
    }

    fn on(pools: Pools, url: &str) -> Self {
        let is_sqlite = url.starts_with("sqlite:");
        let dialect = if is_sqlite { SQLITE } else { POSTGRES };
        SqlStore {
            pools,
            dialect,
            journal: None,
        }
    }

    /// The same store, which seals what it notes. One that doesn't is for tools and tests: a verification
    /// tells what it has written.
    #[must_use]
    pub fn with_journal(self, journal: Journal) -> Self {
        SqlStore {
            journal: Some(Arc::new(journal)),
            ..self
        }
    }

    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref()
    }

    /// Connects to `url` to see what is there: makes no file, leaves the schema as it is and can't
    /// write.
    pub async fn open_to_read(url: &SecretString) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let url = url.expose_secret();
        let mut options = AnyConnectOptions::from_str(url)?;
        let mut settings = POSTGRES_READER_SETTINGS;
        if let Some(path) = sqlite_path(url) {
            if !path.is_file() {
                let detail = format!("there is no file {}", path.display());
                return Err(StoreError::Unavailable(detail));
            }
            options
                .database_url
                .query_pairs_mut()
                .append_pair("mode", "ro");
            settings = SQLITE_READER_PRAGMAS;
        }
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    connection.execute(settings).await?;
                    Ok(())
                })
            })
            .connect_with(options)
            .await?;
        Ok(Self::on(Pools::shared(pool), url))
    }

    /// For the embedded twins that live in the same database.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// For what only reads.
    pub fn readers(&self) -> &AnyPool {
        self.pools.readers()
    }

    /// For what writes.
    pub fn writer(&self) -> &AnyPool {
        self.pools.writer()
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pools.readers.close().await;
        self.pools.writer.close().await;
    }
}

async fn migrate(pool: &AnyPool, is_sqlite: bool) -> Result<(), MigrateError> {
    let words = if is_sqlite {
        SQLITE_WORDS
    } else {
        POSTGRES_WORDS
    };
    let migrations = MIGRATIONS.iter().map(|&(version, name, sql)| {
        let mut sql = sql.to_owned();
        for (place, word) in words {
            sql = sql.replace(place, word);
        }
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    let mut connection = pool.acquire().await?;
    if !is_sqlite {
        connection.execute(MIGRATION_SETTINGS).await?;
    }
    let result = migrator.run(&mut *connection).await;
    if !is_sqlite {
        connection.execute(POSTGRES_SETTINGS).await?;
    }
    result
}

fn sqlite_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite://")?;
    let path = rest.split('?').next().unwrap_or(rest);
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()?;
    Some(PathBuf::from(path.into_owned()))
}

fn create_private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    // SQLite gives the files beside it the same mode.
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        file.set_permissions(permissions)?;
    }
    Ok(())
}

/// Every operation has an end, whatever the server does.
pub(super) async fn within_limit<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    within(StoreError::Unavailable, work).await
}

#[async_trait]
impl KeyStore for SqlStore {
    async fn insert(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        within_limit(self.insert_row(record, note)).await
    }

    async fn insert_first(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        within_limit(self.insert_first_row(record, note)).await
    }

    async fn get(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE id = $1");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        row.as_ref().map(rows::read).transpose()
    }

    async fn update(&self, record: &KeyRecord, note: &Note) -> Result<(), StoreError> {
        within_limit(self.update_row(record, note)).await
    }

    async fn page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError> {
        within_limit(self.read_page(filter, order, from, limit)).await
    }

    async fn settle(&self, now: Timestamp) -> Result<bool, StoreError> {
        within_limit(self.settle_rows(now)).await
    }

    async fn claims(&self, after: Option<String>) -> Result<ClaimPage, StoreError> {
        within_limit(claims::read_page(self.readers(), after)).await
    }

    async fn changes_since(&self, seq: i64) -> Result<Vec<Change>, StoreError> {
        let sql = format!(
            "SELECT seq, key_id, tenant_id FROM key_changes WHERE seq > $1 ORDER BY seq LIMIT {CHANGES_MAX}"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(seq);
        let rows = within_limit(async { Ok(query.fetch_all(self.readers()).await?) }).await?;
        rows.iter()
            .map(|row| {
                let key_id: String = row.try_get("key_id")?;
                let tenant_id: Option<String> = row.try_get("tenant_id")?;
                let damaged = |column| StoreError::Damaged {
                    id: key_id.clone(),
                    column,
                };
                let tenant_id = tenant_id.map(|id| id.parse()).transpose();
                Ok(Change {
                    seq: row.try_get("seq")?,
                    key_id: key_id.parse().map_err(|_| damaged("key_id"))?,
                    tenant_id: tenant_id.map_err(|_| damaged("tenant_id"))?,
                })
            })
            .collect()
    }

    async fn last_change(&self) -> Result<i64, StoreError> {
        let query = sqlx::query("SELECT seq FROM change_counter WHERE id = 1");
        let row = within_limit(async { Ok(query.fetch_one(self.readers()).await?) }).await?;
        Ok(row.try_get("seq")?)
    }

    async fn forget_changes(&self, before: Timestamp) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM key_changes WHERE changed_at < $1");
        let query = query.bind(before.as_millis());
        within_limit(async { Ok(query.execute(self.writer()).await?) }).await?;
        Ok(())
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        let query = sqlx::query("SELECT id FROM api_keys LIMIT 1");
        let row = within_limit(async { Ok(query.fetch_optional(self.readers()).await?) }).await?;
        Ok(row.is_none())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // `SELECT 1` would not look at the database's file.
        self.is_empty().await.map(drop)
    }
}

#[cfg(test)]
mod tests;
