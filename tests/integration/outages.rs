//! The database goes away under load, and comes back: killed, or hanging with its connections open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use sidekey::store::sql::OPERATION_TIMEOUT;
use tokio::task::JoinHandle;

use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// What may come on top of a limit.
const MARGIN: Duration = Duration::from_secs(2);
/// A busy machine may hold anybody up for longer: so often something may try to be in time, and so often
/// there may be an outage.
const TRIES: usize = 5;
const OUTAGES: usize = 3;
/// How long a request takes at most that needs no database, or is told at once that it is away.
const AT_ONCE: Duration = MARGIN;
/// How long a cold key takes at most: one operation runs into its limit.
const COLD_MAX: Duration = OPERATION_TIMEOUT.saturating_add(MARGIN);
const WARM_CLIENTS: usize = 4;
const COLD_KEYS: usize = 30;
const BREAKER: &str = "sidekey_breaker_open{dependency=\"database\"}";

/// One answer that a client got.
struct Answer {
    begin: Instant,
    took: Duration,
    status: u16,
    may_retry: bool,
}

async fn ask(sidekey: &Sidekey, key: &Key) -> Answer {
    let begin = Instant::now();
    let answer = sidekey.get("/", &key.text).await;
    Answer {
        begin,
        took: begin.elapsed(),
        status: answer.status().as_u16(),
        may_retry: answer.headers().contains_key("retry-after"),
    }
}

/// Clients that call until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    warm: Vec<JoinHandle<Vec<Answer>>>,
    cold: JoinHandle<Vec<Answer>>,
    admin: JoinHandle<Acknowledged>,
}

/// What an administrator was told to be done.
#[derive(Default)]
struct Acknowledged {
    created: Vec<Key>,
    revoked: Vec<Key>,
}

impl Load {
    fn start(sidekey: &Arc<Sidekey>, warm: &Key, cold: Vec<Key>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |keys: Vec<Key>, pause: Duration| {
            let (sidekey, stop) = (sidekey.clone(), stop.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                let mut keys = keys.iter().cycle();
                while !stop.load(Ordering::Relaxed) {
                    answers.push(ask(&sidekey, keys.next().unwrap()).await);
                    tokio::time::sleep(pause).await;
                }
                answers
            })
        };
        Load {
            warm: (0..WARM_CLIENTS)
                .map(|_| client(vec![warm.clone()], Duration::from_millis(2)))
                .collect(),
            cold: client(cold, Duration::from_millis(100)),
            admin: tokio::spawn(administrate(sidekey.clone(), stop.clone())),
            stop,
        }
    }
}

/// Creates keys, and revokes every other one.
async fn administrate(sidekey: Arc<Sidekey>, stop: Arc<AtomicBool>) -> Acknowledged {
    let mut done = Acknowledged::default();
    while !stop.load(Ordering::Relaxed) || done.created.is_empty() {
        let reply = create(&sidekey).await;
        if reply.status == 201 {
            let body = reply.json();
            let key = Key {
                id: body["api_key"]["id"].as_str().unwrap().to_owned(),
                text: body["key"].as_str().unwrap().to_owned(),
            };
            if done.created.len() > done.revoked.len() {
                let path = format!("{KEYS}/{}", key.id);
                let revoked = sidekey.ask(Method::DELETE, &path, None).await;
                match revoked.status {
                    204 => done.revoked.push(key),
                    other => assert_eq!(other, 503, "{revoked:?}"),
                }
            } else {
                done.created.push(key);
            }
        } else {
            reply.problem(503);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    done
}

async fn create(sidekey: &Sidekey) -> Reply {
    let body =
        json!({"name": "k", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]});
    sidekey.ask(Method::POST, KEYS, Some(&body)).await
}

async fn breaker_is(sidekey: &Sidekey, state: f64) {
    eventually(&format!("{BREAKER} is {state}"), || async {
        sidekey.metric(BREAKER).await == state
    })
    .await;
}

/// Fails unless `work` is done at once.
async fn at_once<R: Future<Output = ()>>(what: &str, mut work: impl FnMut() -> R) {
    let mut took = Duration::ZERO;
    for _ in 0..TRIES {
        let begin = Instant::now();
        work().await;
        took = begin.elapsed();
        if took < AT_ONCE {
            return;
        }
    }
    panic!("{took:?} for {what}");
}

/// Everybody who needs the database is told so at once.
async fn everything_is_refused_at_once(sidekey: &Sidekey, cold: &Key) {
    for _ in 0..10 {
        at_once("a cold key", || async {
            let answer = ask(sidekey, cold).await;
            assert_eq!((answer.status, answer.may_retry), (503, true));
        })
        .await;
    }
    let key = format!("{KEYS}/{}", cold.id);
    let name = json!({"name": "new"});
    for (method, path, body) in [
        (Method::GET, KEYS, None),
        (Method::GET, key.as_str(), None),
        (Method::PATCH, key.as_str(), Some(&name)),
        (Method::DELETE, key.as_str(), None),
    ] {
        at_once(&format!("{method} {path}"), || async {
            let reply = sidekey.ask(method.clone(), path, body).await;
            reply.problem(503);
            assert!(reply.header("retry-after").is_some(), "{method} {reply:?}");
        })
        .await;
    }
    at_once("a creation and the probes", || async {
        let created = create(sidekey).await;
        created.problem(503);
        let ready = sidekey.ask_as(None, Method::GET, "/readyz", None).await;
        assert_eq!(ready.status, 503);
        let alive = sidekey.ask_as(None, Method::GET, "/healthz", None).await;
        assert_eq!(alive.status, 200);
    })
    .await;
}

/// One of a few outages has to be without an answer that comes late.
async fn outages_under_load(is_killed: bool) {
    let mut late = Vec::new();
    for _ in 0..OUTAGES {
        late = an_outage_under_load(is_killed).await;
        if late.is_empty() {
            return;
        }
    }
    panic!("{late:?}");
}

/// What came late.
async fn an_outage_under_load(is_killed: bool) -> Vec<String> {
    let upstream = Upstream::start().await;
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    let config = config(upstream.address, "[limits]\ndefault = []\n");
    let sidekey = Sidekey::start_with(&config, &[("SIDEKEY__STORE__URL", url.as_str())]).await;
    let sidekey = Arc::new(sidekey);
    let warm = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
    let mut cold = Vec::new();
    for _ in 0..COLD_KEYS {
        cold.push(sidekey.create_key(json!({})).await);
    }
    let last = cold.pop().unwrap();

    let load = Load::start(&sidekey, &warm, cold.clone());
    eventually("there is load", || async {
        sidekey.metric("sidekey_proof_misses_total").await > 4.0
    })
    .await;
    if is_killed {
        postgres.kill();
    } else {
        postgres.signal("STOP");
    }
    breaker_is(&sidekey, 1.0).await;
    everything_is_refused_at_once(&sidekey, &last).await;
    if is_killed {
        postgres.launch().await;
    } else {
        postgres.signal("CONT");
    }
    breaker_is(&sidekey, 0.0).await;
    eventually("it is ready", || async {
        let ready = sidekey.ask_as(None, Method::GET, "/readyz", None).await;
        ready.status == 200
    })
    .await;
    let recovered = Instant::now();
    for key in cold.iter().chain([&last]) {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    assert_eq!(create(&sidekey).await.status, 201);

    load.stop.store(true, Ordering::Relaxed);
    let mut late = Vec::new();
    for client in load.warm {
        for answer in client.await.unwrap() {
            assert_eq!(answer.status, 200, "a warm key");
            if answer.took >= AT_ONCE {
                late.push(format!("{:?} for a warm key", answer.took));
            }
        }
    }
    for answer in load.cold.await.unwrap() {
        if answer.took >= COLD_MAX {
            late.push(format!("{:?} for a cold key", answer.took));
        }
        match answer.status {
            200 => {}
            503 => assert!(
                answer.may_retry && answer.begin < recovered,
                "an error afterwards"
            ),
            other => panic!("{other} for a cold key"),
        }
    }
    let done = load.admin.await.unwrap();
    assert!(!done.created.is_empty());
    for key in &done.created {
        assert_eq!(
            sidekey.status("/", &key.text).await,
            200,
            "{} is lost",
            key.id
        );
    }
    for key in &done.revoked {
        assert_eq!(
            sidekey.status("/", &key.text).await,
            401,
            "{} is back",
            key.id
        );
    }
    late
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_under_load() {
    outages_under_load(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_under_load() {
    outages_under_load(false).await;
}
