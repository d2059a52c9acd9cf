//! How long sessions last, on a clock that tests move.

use async_trait::async_trait;
use secrecy::SecretString;

use super::*;
use crate::clock::ManualClock;
use crate::key::Policy;
use crate::store::SqlStore;
use crate::store::sessions::SESSIONS_OF_KEY_MAX;

const SECOND: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(3600);
const MAX: Duration = Duration::from_secs(12 * 3600);

struct Bench {
    _directory: tempfile::TempDir,
    store: SqlStore,
    clock: Arc<ManualClock>,
    sessions: Sessions,
}

async fn bench(idle: Duration, max: Duration) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    let clock = ManualClock::at(Timestamp::from_millis(1_800_000_000_000));
    let settings = DashboardSettings {
        is_enabled: true,
        url: None,
        proxy_url: None,
        session_idle: idle,
        session_max: max,
        sign_in: Arc::new(Policy {
            name: "sign-in".to_owned(),
            quota: 1,
            window_seconds: 1,
            burst: None,
        }),
    };
    Bench {
        _directory: directory,
        sessions: Sessions::new(Arc::new(store.clone()), &settings, clock.clone()),
        store,
        clock,
    }
}

impl Bench {
    async fn begin(&self) -> Token {
        let key = "4fzN8cQ2pLrT".parse().unwrap();
        self.sessions.begin(key, Generation(3)).await.unwrap()
    }

    async fn lasts(&self, token: &Token) -> bool {
        self.sessions.find(token).await.unwrap().is_some()
    }

    async fn row(&self, token: &Token) -> Option<Session> {
        self.store.session(&token.id()).await.unwrap()
    }
}

#[tokio::test]
async fn a_session_is_of_its_key_and_secret() {
    let bench = bench(IDLE, MAX).await;
    let token = bench.begin().await;
    let session = bench.sessions.find(&token).await.unwrap().unwrap();
    assert_eq!(session.key_id.as_str(), "4fzN8cQ2pLrT");
    assert_eq!(session.generation, Generation(3));
    assert!(!bench.lasts(&Token::random().unwrap()).await);
    bench.sessions.end(&token).await.unwrap();
    assert!(!bench.lasts(&token).await);
    bench.sessions.end(&token).await.unwrap();
}

#[tokio::test]
async fn who_looks_at_no_page_is_signed_out() {
    let bench = bench(IDLE, MAX).await;
    let token = bench.begin().await;
    for _ in 0..3 {
        bench.clock.advance(IDLE - SECOND);
        assert!(bench.lasts(&token).await, "it is in use");
    }
    bench.clock.advance(IDLE);
    assert!(!bench.lasts(&token).await);
}

#[tokio::test]
async fn nobody_stays_signed_in_for_ever() {
    let bench = bench(IDLE, MAX).await;
    let token = bench.begin().await;
    let steps = MAX.as_secs() / 1800;
    for _ in 1..steps {
        bench.clock.advance(Duration::from_secs(1800));
        assert!(bench.lasts(&token).await);
    }
    bench.clock.advance(Duration::from_secs(1799));
    assert!(bench.lasts(&token).await);
    assert!(bench.row(&token).await.is_some());
    bench.clock.advance(SECOND);
    assert!(!bench.lasts(&token).await);
    bench.sessions.forget().await.unwrap();
    assert!(bench.row(&token).await.is_none());
}

#[tokio::test]
async fn a_page_is_no_reason_to_write() {
    let bench = bench(IDLE, MAX).await;
    let token = bench.begin().await;
    let begun = bench.row(&token).await.unwrap().seen_at;
    bench.clock.advance(TOUCH_INTERVAL_MAX - SECOND);
    assert!(bench.lasts(&token).await);
    assert_eq!(bench.row(&token).await.unwrap().seen_at, begun);
    bench.clock.advance(SECOND);
    assert!(bench.lasts(&token).await);
    let seen = bench.row(&token).await.unwrap().seen_at;
    assert_eq!(seen, begun.plus(TOUCH_INTERVAL_MAX));
}

/// A store that reads, and writes nothing that it was not told before.
struct ReadOnly(SqlStore);

#[async_trait]
impl SessionStore for ReadOnly {
    async fn add_session(&self, session: &Session) -> Result<(), StoreError> {
        self.0.add_session(session).await
    }

    async fn session(&self, id: &str) -> Result<Option<Session>, StoreError> {
        self.0.session(id).await
    }

    async fn touch_session(&self, _id: &str, _now: Timestamp) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("it can't be written".to_owned()))
    }

    async fn end_session(&self, id: &str) -> Result<(), StoreError> {
        self.0.end_session(id).await
    }

    async fn forget_sessions(
        &self,
        created: Timestamp,
        seen: Timestamp,
    ) -> Result<bool, StoreError> {
        self.0.forget_sessions(created, seen).await
    }
}

#[tokio::test]
async fn a_session_that_can_not_be_touched_lasts() {
    let mut bench = bench(IDLE, MAX).await;
    bench.sessions.store = Arc::new(ReadOnly(bench.store.clone()));
    let token = bench.begin().await;
    bench.clock.advance(TOUCH_INTERVAL_MAX);
    assert!(bench.lasts(&token).await);
    bench.clock.advance(IDLE);
    assert!(!bench.lasts(&token).await);
}

#[tokio::test]
async fn short_sessions_are_seen_more_often() {
    let bench = bench(Duration::from_secs(8), MAX).await;
    let token = bench.begin().await;
    for _ in 0..20 {
        bench.clock.advance(SECOND);
        assert!(bench.lasts(&token).await);
    }
}

#[tokio::test]
async fn what_has_ended_is_forgotten_and_nothing_else() {
    let bench = bench(IDLE, MAX).await;
    let old = bench.begin().await;
    bench.clock.advance(MAX - IDLE / 2);
    let (idle, in_use) = (bench.begin().await, bench.begin().await);
    for _ in 0..2 {
        assert!(!bench.sessions.forget().await.unwrap());
        bench.clock.advance(IDLE / 2);
        assert!(bench.lasts(&in_use).await);
    }
    assert!(bench.row(&old).await.is_none());
    assert!(bench.row(&idle).await.is_some());
    bench.sessions.forget().await.unwrap();
    assert!(bench.row(&idle).await.is_none());
    assert!(bench.row(&in_use).await.is_some());
}

#[tokio::test]
async fn a_key_has_so_many_sessions_and_those_not_in_use_end_first() {
    let bench = bench(IDLE, MAX).await;
    let mut tokens = Vec::new();
    for _ in 0..SESSIONS_OF_KEY_MAX {
        tokens.push(bench.begin().await);
        bench.clock.advance(SECOND);
    }
    bench.clock.advance(TOUCH_INTERVAL_MAX);
    assert!(bench.lasts(&tokens[0]).await, "the first one is in use");
    bench.begin().await;
    assert!(bench.row(&tokens[0]).await.is_some());
    assert!(bench.row(&tokens[1]).await.is_none());
    assert!(bench.row(&tokens[2]).await.is_some());
}
