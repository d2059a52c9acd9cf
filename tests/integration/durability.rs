//! `kill -9` in the middle of creating, revoking and regenerating keys, many times over. What was
//! acknowledged holds after the restart: created keys work, revoked and replaced ones don't.
//! What was not acknowledged may have happened or not, but leaves nothing broken.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

const ROUNDS: usize = 15;
const TASKS: usize = 4;
/// Acknowledged operations that a round waits for before it may kill.
const ACKNOWLEDGED_MIN: usize = 8;

/// What has to hold for one key's text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Must {
    Work,
    BeRefused,
    /// An operation on it was under way when the process was killed.
    DoEither,
}

#[derive(Debug, Clone)]
pub struct Fact {
    id: String,
    text: String,
    must: Must,
    because: &'static str,
}

/// Everything that was acknowledged, and how much of it in this round.
#[derive(Default)]
pub struct Ledger {
    pub facts: Vec<Fact>,
    acknowledged: usize,
}

pub type SharedLedger = Arc<Mutex<Ledger>>;

/// A task that works on keys until the process is gone.
struct Worker {
    client: Client,
    admin: SocketAddr,
    admin_key: String,
    ledger: SharedLedger,
}

impl Worker {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.admin))
            .bearer_auth(&self.admin_key)
    }

    /// The answer's body if the operation was acknowledged; `None` when the process is gone.
    async fn ask(&self, request: RequestBuilder, status: u16) -> Option<Value> {
        let answer = request.send().await.ok()?;
        assert_eq!(answer.status(), status);
        let bytes = answer.bytes().await.ok()?;
        Some(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    fn note(&self, id: &str, text: &str, must: Must, because: &'static str) {
        let mut ledger = self.ledger.lock().expect("the ledger");
        ledger.facts.retain(|fact| fact.text != text);
        ledger.facts.push(Fact {
            id: id.to_owned(),
            text: text.to_owned(),
            must,
            because,
        });
        if must != Must::DoEither {
            ledger.acknowledged += 1;
        }
    }

    async fn create(&self) -> Option<(String, String)> {
        let body = json!({
            "name": "n", "tenant_id": "acme", "environment": "live", "scopes": ["orders:*"],
        });
        let created = self.ask(self.request(Method::POST, KEYS).json(&body), 201);
        let created = created.await?;
        let id = created["api_key"]["id"].as_str()?.to_owned();
        let text = created["key"].as_str()?.to_owned();
        self.note(&id, &text, Must::Work, "it was created");
        Some((id, text))
    }

    async fn revoke(&self, id: &str, text: &str) -> Option<()> {
        self.note(id, text, Must::DoEither, "its revocation was under way");
        let path = format!("{KEYS}/{id}");
        self.ask(self.request(Method::DELETE, &path), 204).await?;
        self.note(id, text, Must::BeRefused, "it was revoked");
        Some(())
    }

    async fn regenerate(&self, id: &str, text: &str, grace: u64) -> Option<String> {
        if grace == 0 {
            self.note(id, text, Must::DoEither, "its replacement was under way");
        }
        let path = format!("{KEYS}/{id}/regenerate");
        let body = json!({"grace_period_seconds": grace});
        let answer = self.ask(self.request(Method::POST, &path).json(&body), 200);
        let new = answer.await?["key"].as_str()?.to_owned();
        if grace == 0 {
            self.note(id, text, Must::BeRefused, "it was replaced without grace");
        }
        self.note(id, &new, Must::Work, "it is the replacement");
        Some(new)
    }

    /// Creates keys; what it does to them depends on their number.
    async fn run(self, task: usize) {
        for number in task.. {
            let Some((id, text)) = self.create().await else {
                return;
            };
            let went_on = match number % 4 {
                0 => Some(()),
                1 => self.revoke(&id, &text).await,
                2 => self.regenerate(&id, &text, 0).await.map(drop),
                _ => match self.regenerate(&id, &text, 3600).await {
                    // The last one ends its predecessor's grace, and then goes too.
                    Some(new) if number % 8 == 7 => self.end(&id, &text, &new).await,
                    Some(_) => Some(()),
                    None => None,
                },
            };
            if went_on.is_none() {
                return;
            }
        }
    }

    /// Revokes a key that has two valid secrets.
    async fn end(&self, id: &str, old: &str, new: &str) -> Option<()> {
        self.note(id, old, Must::DoEither, "its revocation was under way");
        self.revoke(id, new).await?;
        self.note(id, old, Must::BeRefused, "it was revoked within its grace");
        Some(())
    }
}

pub async fn check(sidekey: &Sidekey, facts: &[Fact], round: usize) {
    for fact in facts {
        let status = sidekey.status("/", &fact.text).await;
        let holds = match fact.must {
            Must::Work => status == 200,
            Must::BeRefused => status == 401,
            Must::DoEither => matches!(status, 200 | 401),
        };
        assert!(holds, "round {round}: {fact:?} is answered {status}");
    }
}

/// What the records say must fit what the keys do.
async fn check_records(sidekey: &Sidekey, facts: &[Fact]) {
    for fact in facts.iter().filter(|fact| fact.because.contains("revoked")) {
        let path = format!("{KEYS}/{}", fact.id);
        let record = sidekey.ask(Method::GET, &path, None).await.json();
        assert_eq!(record["status"], "revoked", "{fact:?}");
        assert!(record["revoked_at"].is_string(), "{record}");
    }
}

/// Lets tasks work on keys until some operations are acknowledged, kills the program at a moment
/// that nobody chose, and starts it again.
pub async fn work_until_killed(
    mut sidekey: Sidekey,
    admin_key: &str,
    ledger: &SharedLedger,
) -> Sidekey {
    ledger.lock().expect("the ledger").acknowledged = 0;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let worker = Worker {
                client: sidekey.client.clone(),
                admin: sidekey.admin,
                admin_key: admin_key.to_owned(),
                ledger: ledger.clone(),
            };
            tokio::spawn(worker.run(task))
        })
        .collect();
    eventually("some operations are acknowledged", async || {
        ledger.lock().expect("the ledger").acknowledged >= ACKNOWLEDGED_MIN
    })
    .await;
    // Any moment will do: the tasks are in the middle of something all the time.
    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
    sidekey.kill();
    for task in tasks {
        task.await.expect("the task saw no wrong answer");
    }
    sidekey.restart().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let upstream = Upstream::start().await;
    // Refused keys are part of the plan here.
    let generous = "[limits]\nfailed_auth = { name = \"f\", quota = 1000000, window_seconds = 1 }";
    let mut sidekey = Sidekey::start(&config(upstream.address, generous)).await;
    let admin_key = sidekey.admin_key();
    let ledger: SharedLedger = Arc::default();
    for round in 0..ROUNDS {
        let before = ledger.lock().expect("the ledger").facts.len();
        sidekey = work_until_killed(sidekey, &admin_key, &ledger).await;
        let facts = ledger.lock().expect("the ledger").facts.clone();
        assert!(facts.len() > before);
        check(&sidekey, &facts[before..], round).await;
    }
    // Later rounds have not undone earlier ones either.
    let facts = ledger.lock().expect("the ledger").facts.clone();
    for must in [Must::Work, Must::BeRefused] {
        let count = facts.iter().filter(|fact| fact.must == must).count();
        assert!(count >= ROUNDS, "{count} facts of {must:?} prove little");
    }
    check(&sidekey, &facts, ROUNDS).await;
    check_records(&sidekey, &facts).await;
}
