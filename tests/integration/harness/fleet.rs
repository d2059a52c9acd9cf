//! Several instances with names, on one database.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use super::api::Reply;
use super::redis::Redis;
use super::sidekey::{KEYS, Key, Sidekey, config};
use super::upstream::Upstream;
use super::{DEADLINE, eventually};

pub const NAMES: [&str; 4] = ["one", "two", "three", "four"];
/// So rare that what arrives in time did not arrive by polling.
pub const HARDLY_EVER: &str = "[store]\npoll_interval_ms = 60000\n";
/// Instances with names, on one database.
pub struct Fleet {
    pub all: Vec<Sidekey>,
    _directory: tempfile::TempDir,
    upstream: Upstream,
}

impl Fleet {
    /// `count` instances on the database at `store`, `more` in their configuration.
    pub async fn start(count: usize, store: &str, redis: Option<&Redis>, more: &str) -> Self {
        let upstream = Upstream::start().await;
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("admin.key").display().to_string();
        let config = config(upstream.address, more);
        let starting = NAMES[..count].iter().map(|name| {
            let mut environment = vec![
                ("SIDEKEY__STORE__URL", store.to_owned()),
                ("SIDEKEY__STORE__INSTANCE_NAME", (*name).to_owned()),
                ("SIDEKEY__ADMIN__BOOTSTRAP_KEY_FILE", key_file.clone()),
            ];
            if let Some(redis) = redis {
                environment.extend([
                    ("SIDEKEY__LIMITS__BACKEND", "redis".to_owned()),
                    ("SIDEKEY__REDIS__URL", redis.url()),
                ]);
            }
            let config = config.clone();
            async move {
                let environment: Vec<_> =
                    environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
                Sidekey::start_with(&config, &environment).await
            }
        });
        let all = join_all(starting).await;
        let admin = std::fs::read_to_string(&key_file).unwrap();
        // Where the harness looks for it.
        for sidekey in &all {
            std::fs::create_dir_all(sidekey.directory().join("data")).unwrap();
            std::fs::write(sidekey.directory().join("data/admin.key"), &admin).unwrap();
        }
        let fleet = Fleet {
            all,
            _directory: directory,
            upstream,
        };
        fleet.settle(redis.is_some()).await;
        fleet
    }

    /// Where the service behind them is.
    pub fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }

    /// Waits until every instance has said that it follows.
    pub async fn settle(&self, has_redis: bool) {
        for sidekey in &self.all {
            let connected = f64::from(u8::from(has_redis));
            eventually("events are connected", || async {
                sidekey.metric("sidekey_events_connected").await == connected
            })
            .await;
        }
        let key = self.key().await;
        eventually("all instances confirm", || async {
            revoke(&self.all[0], &key).await.header(FIELD) == Some(&*all_of(self.all.len()))
        })
        .await;
    }

    /// A key without limits, warm everywhere.
    pub async fn key(&self) -> Key {
        let key = self.all[0].create_key(json!({"rate_limits": []})).await;
        self.expect_at_once(&key, 200).await;
        key
    }

    /// Every instance answers with `status`, now.
    pub async fn expect_at_once(&self, key: &Key, status: u16) {
        for (sidekey, name) in self.all.iter().zip(NAMES) {
            assert_eq!(sidekey.status("/", &key.text).await, status, "{name}");
        }
    }

    /// Every instance answers with `status` in the end.
    pub async fn expect(&self, key: &Key, status: u16) {
        for (sidekey, name) in self.all.iter().zip(NAMES) {
            eventually(&format!("{name} answers {status}"), || async {
                sidekey.status("/", &key.text).await == status
            })
            .await;
        }
    }
}

/// The field that says who has confirmed a change.
pub const FIELD: &str = "sidekey-propagation";

/// Its value where all `count` instances have.
pub fn all_of(count: usize) -> String {
    format!("instances={count}, confirmed={count}, unconfirmed=()")
}

/// Revokes a key.
pub async fn revoke(sidekey: &Sidekey, key: &Key) -> Reply {
    let path = format!("{KEYS}/{}", key.id);
    let reply = sidekey.ask(Method::DELETE, &path, None).await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""), "{reply:?}");
    reply
}

/// From the moment a revocation is sent until the last instance refuses the key.
pub async fn time_to_refusal(fleet: &Fleet, key: &Key) -> Duration {
    let sent = Instant::now();
    let refusals = fleet.all.iter().map(|sidekey| async {
        loop {
            match sidekey.status("/", &key.text).await {
                // Without a pause the questions would be the load; it counts against the result.
                200 => tokio::time::sleep(Duration::from_millis(1)).await,
                401 => return sent.elapsed(),
                other => panic!("{other}"),
            }
        }
    });
    let all = async { tokio::join!(revoke(&fleet.all[0], key), join_all(refusals)) };
    let (_, times) = timeout(DEADLINE, all).await.expect("everyone refuses");
    times.into_iter().max().unwrap()
}
