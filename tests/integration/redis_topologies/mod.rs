//! Shared limits on every way to Redis: one server with a user of few rights, or behind TLS; Valkey; a
//! cluster; sentinels. The same checks on each, and what each does when servers go away.

mod cluster;
mod sentinel;
mod single;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;
use sidekey::redis_link::{RedisLink, Target, Trust};

use crate::harness::DEADLINE;
use crate::harness::redis::Redis;
use crate::harness::sidekey::{Key, Sidekey};
use crate::shared_limits::{Fleet, decided};

const CLOSED: &str = "[limits]\non_outage = \"closed\"\n";
const PASSWORD: &str = "change-this-password";
const LOGIN: &str = "sidekey:change-this-password@";

/// The users of config/redis-users.conf, as a server's argument.
fn users() -> [String; 2] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/redis-users.conf");
    ["--include".to_owned(), file.display().to_string()]
}

fn link(url: &str) -> RedisLink {
    let url = SecretString::from(url);
    RedisLink::new(&Target::new(&url, &Trust::default()).unwrap())
}

/// A key that passes once in an hour.
async fn key_of(fleet: &Fleet, tenant: &str) -> Key {
    let policies = json!([
        // So slow that the bucket is not full again, and forgotten, before somebody looks for it.
        {"name": "wide", "quota": 1000, "window_seconds": 2_592_000},
        {"name": "one", "quota": 1, "window_seconds": 3600},
    ]);
    let fields = json!({"rate_limits": policies, "tenant_id": tenant});
    fleet.all[0].create_key(fields).await
}

/// Of many requests over all instances with one token left, one passes.
async fn one_of_many_passes(fleet: &Fleet, tenant: &str) {
    let key = key_of(fleet, tenant).await;
    let calls = (0..12).map(|n| decided(&fleet.all[n % fleet.all.len()], &key));
    let mut statuses = join_all(calls).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200, "{tenant}: {statuses:?}");
    assert!(
        statuses[1..].iter().all(|status| *status == 429),
        "{tenant}: {statuses:?}"
    );
}

/// What holds on every topology.
async fn limits_are_shared(fleet: &Fleet, servers: &[&Redis]) {
    for number in 0..4 {
        one_of_many_passes(fleet, &format!("tenant-{number}")).await;
    }
    let mut names = Vec::new();
    for server in servers {
        names.extend(server.keys().await);
        server.ask("SCRIPT", &["FLUSH"]).await.unwrap();
    }
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(name.starts_with("sidekey:{tenant-"), "{name}");
    }
    for number in 4..8 {
        one_of_many_passes(fleet, &format!("tenant-{number}")).await;
    }
}

/// Whoever subscribes hears what is published.
async fn messages_arrive(link: &RedisLink) {
    let mut messages = link.pubsub().await.unwrap();
    messages.subscribe("sidekey:test").await.unwrap();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("sidekey:test").arg("hello");
    let mut stream = messages.on_message();
    // More than one, because in a cluster each may go to another server.
    for _ in 0..3 {
        link.query::<i64>(&publish).await.unwrap();
        let message = tokio::time::timeout(DEADLINE, stream.next());
        let message = message.await.unwrap().unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), "hello");
    }
}

/// How often `text` stands in what the program wrote.
fn count(sidekey: &Sidekey, text: &str) -> usize {
    sidekey.output().matches(text).count()
}

/// One answer, when it came, and how long it took.
#[derive(Debug)]
struct Answer {
    status: u16,
    at: Duration,
    took: Duration,
}

/// Requests one after another, until it is told to end.
struct Load {
    task: tokio::task::JoinHandle<Vec<Answer>>,
    end: tokio::sync::watch::Sender<bool>,
}

impl Load {
    fn start(sidekey: &Sidekey, key: &Key) -> Self {
        let (client, url) = (sidekey.client.clone(), format!("http://{}/", sidekey.proxy));
        let key = key.text.clone();
        let (end, ended) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let (start, mut answers) = (Instant::now(), Vec::new());
            while !*ended.borrow() {
                let at = start.elapsed();
                let answer = client.get(&url).bearer_auth(&key).send().await.unwrap();
                answers.push(Answer {
                    status: answer.status().as_u16(),
                    at,
                    took: start.elapsed() - at,
                });
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answers
        });
        Load { task, end }
    }

    async fn end(self) -> Vec<Answer> {
        self.end.send(true).unwrap();
        self.task.await.unwrap()
    }
}
