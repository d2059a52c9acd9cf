//! What all keys of a tenant have in common: its row, its cap, its suspension, its limits.

mod api;
mod limits;
mod rows;
mod suspension;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::sidekey::Sidekey;

/// `[store]`: answers wait for other instances for as long as they may at most.
const PATIENT: &str = "[store]\npropagation_wait_ms = 10000\n";
/// The path of the API of tenants.
pub const TENANTS: &str = "/api/v1/platform/tenants";

/// PUTs a tenant.
pub async fn put(sidekey: &Sidekey, id: &str, body: Value) -> Reply {
    sidekey
        .ask(Method::PUT, &format!("{TENANTS}/{id}"), Some(&body))
        .await
}

/// What a tenant is now.
pub async fn show(sidekey: &Sidekey, id: &str) -> Value {
    let reply = sidekey
        .ask(Method::GET, &format!("{TENANTS}/{id}"), None)
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Suspends or resumes a tenant.
pub async fn set(sidekey: &Sidekey, id: &str, what: &str) -> Reply {
    let reply = sidekey
        .ask(Method::POST, &format!("{TENANTS}/{id}/{what}"), None)
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// The body of a new key of `acme`.
pub fn new_key() -> Value {
    json!({"name": "k", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]})
}
