//! The program, configured for the load, and the keys that call it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::bucket::Bucket;
use crate::harness::eventually;
use crate::harness::sidekey::{Key, Sidekey};

const VALID_KEYS: usize = 50;
const EXPIRED_KEYS: usize = 4;
/// Keys whose limit the load exceeds.
pub const LIMITED_KEYS: usize = 2;
const TENANTS: usize = 10;
/// When expired keys have expired. Nobody can make one, but a key can be changed to be one.
const EXPIRED_AT: &str = "2020-01-01T00:00:00Z";

/// What most keys are held to: nobody reaches it.
const WIDE_TOKENS: u64 = 1_000_000_000;
/// What a limited key's bucket holds.
const TIGHT_BURST: u32 = 10;
/// What all keys are granted, and what the routes need.
pub const GRANTED: &str = "orders:read";
pub const NEEDED_ELSEWHERE: &str = "orders:write";

/// A limit as callers are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub name: &'static str,
    pub quota: u64,
    pub window_seconds: u64,
    pub burst: u64,
}

const WIDE_LIMIT: Limit = Limit {
    name: "wide",
    quota: WIDE_TOKENS,
    window_seconds: 60,
    burst: WIDE_TOKENS,
};

/// What limited keys are held to.
pub fn tight(quota_per_second: u32) -> Bucket {
    Bucket {
        quota_per_second,
        burst: TIGHT_BURST,
    }
}

impl From<Bucket> for Limit {
    fn from(bucket: Bucket) -> Self {
        Limit {
            name: "tight",
            quota: bucket.quota_per_second.into(),
            window_seconds: 1,
            burst: bucket.burst.into(),
        }
    }
}

/// Somebody with a key.
#[derive(Debug)]
pub struct Caller {
    pub key: Key,
    pub tenant: String,
    pub limit: Limit,
}

/// Everybody.
pub struct World {
    pub valid: Vec<Caller>,
    pub limited: Vec<Caller>,
    pub expired: Vec<Caller>,
    /// Never used before.
    pub cold: Vec<Caller>,
    /// Requests that it took until all keys were as they should be.
    pub requests: u64,
}

/// Wrong keys are not limited here, or all of them would soon be answered 429. Refusals have no line in the
/// log: whoever starts the program collects its lines, and there would be millions.
pub fn config(service: SocketAddr, more: &str) -> String {
    format!(
        r#"
[[upstreams]]
name = "service"
servers = ["{service}"]

[[routes]]
name = "orders"
path = "/orders"
upstream = "service"
scopes = ["{GRANTED}"]

[[routes]]
name = "refunds"
path = "/refunds"
upstream = "service"
scopes = ["{NEEDED_ELSEWHERE}"]

[[scopes]]
name = "{GRANTED}"
[[scopes]]
name = "{NEEDED_ELSEWHERE}"

[limits]
failed_auth = {{ name = "failed-auth", quota = {WIDE_TOKENS}, window_seconds = 60, burst = {WIDE_TOKENS} }}

[log]
access = "off"

{more}
"#
    )
}

impl World {
    /// Makes all keys, and uses those once that are not meant to be new.
    pub async fn prepare(sidekey: &Sidekey, cold_keys: usize, tight: Bucket) -> Self {
        let mut world = World {
            requests: 0,
            expired: callers(sidekey, EXPIRED_KEYS, WIDE_LIMIT).await,
            valid: callers(sidekey, VALID_KEYS, WIDE_LIMIT).await,
            limited: callers(sidekey, LIMITED_KEYS, tight.into()).await,
            cold: callers(sidekey, cold_keys, WIDE_LIMIT).await,
        };
        for caller in &world.expired {
            let over = json!({"expires_at": EXPIRED_AT});
            sidekey.change_key(&caller.key.id, over).await;
        }
        let requests = AtomicU64::new(0);
        for (callers, status) in [(&world.valid, 200), (&world.expired, 401)] {
            for caller in callers {
                eventually("a key is as it should be", || async {
                    requests.fetch_add(1, Ordering::Relaxed);
                    // In shadow mode nobody is refused.
                    let answer = sidekey.status("/orders", &caller.key.text).await;
                    answer == status || answer == 200
                })
                .await;
            }
        }
        world.requests = requests.into_inner();
        world
    }
}

async fn callers(sidekey: &Sidekey, count: usize, limit: Limit) -> Vec<Caller> {
    let mut callers = Vec::new();
    for number in 0..count {
        let tenant = format!("tenant-{}", number % TENANTS);
        let limits = json!([{
            "name": limit.name, "quota": limit.quota, "window_seconds": limit.window_seconds,
            "burst": limit.burst,
        }]);
        let fields = json!({"tenant_id": tenant, "scopes": [GRANTED], "rate_limits": limits});
        let key = sidekey.create_key(fields).await;
        callers.push(Caller { key, tenant, limit });
    }
    callers
}
