//! What the dashboard's tests look at: the program in front of a service, with scopes that say what they
//! are for, and counts that are stored at once.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::sidekey::{Key, Sidekey};
use crate::harness::upstream::Upstream;

pub struct World {
    /// Answers for as long as it is kept.
    _upstream: Upstream,
    pub sidekey: Sidekey,
}

impl World {
    pub async fn start() -> Self {
        let upstream = Upstream::start().await;
        let sidekey = Sidekey::start(&config(upstream.address)).await;
        World {
            _upstream: upstream,
            sidekey,
        }
    }

    /// Makes requests with `key` that the service answers with each of `statuses`, and waits until they
    /// are counted.
    pub async fn use_key(&self, key: &Key, statuses: &[u16]) {
        let before = self.requests_of(&key.id).await;
        for status in statuses {
            let request = self.sidekey.request(reqwest::Method::GET, "/orders");
            let request = request.header("x-answer-status", status.to_string());
            let answer = request.bearer_auth(&key.text).send().await;
            assert_eq!(answer.expect("an answer").status(), *status);
        }
        let wanted = before + statuses.len() as u64;
        eventually("the requests are counted", || async {
            self.requests_of(&key.id).await >= wanted
        })
        .await;
    }

    async fn requests_of(&self, id: &str) -> u64 {
        let usage = self.usage_of(id, "hour").await;
        let rows = usage["data"].as_array().expect("rows");
        rows.iter()
            .map(|row| row["requests"].as_u64().expect("a number"))
            .sum()
    }

    /// What the API says of a key's usage, by `day` or `hour`.
    pub async fn usage_of(&self, id: &str, interval: &str) -> Value {
        let path = format!("/api/v1/platform/api-keys/{id}/usage?interval={interval}");
        let reply = self.sidekey.ask(reqwest::Method::GET, &path, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// An admin key of tenant `acme` that may do what `scopes` say.
    pub async fn colleague(&self, scopes: &[&str]) -> Key {
        let fields = json!({"name": "a colleague", "scopes": scopes});
        self.sidekey.create_key(fields).await
    }
}

/// Waits for the next hour where this one is nearly over: what is counted from now on is of one hour.
pub async fn early_in_an_hour() {
    const HOUR_SECONDS: u64 = 3600;
    const ENOUGH_SECONDS: u64 = 180;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = HOUR_SECONDS - now.expect("a time").as_secs() % HOUR_SECONDS;
    if left < ENOUGH_SECONDS {
        tokio::time::sleep(Duration::from_secs(left)).await;
    }
}

fn config(server: SocketAddr) -> String {
    format!(
        r#"
[usage]
flush_interval_seconds = 1

[[upstreams]]
name = "service"
servers = ["{server}"]

[[routes]]
name = "all"
path = "/"
upstream = "service"

[[scopes]]
name = "orders:read"
description = "See orders"
[[scopes]]
name = "orders:write"
description = "Create and change orders"
"#
    )
}
