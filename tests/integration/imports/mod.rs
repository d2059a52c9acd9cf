//! Keys that were there before Sidekey: brought along as lists, found by a keyed index, and used like
//! any other.

mod fleet;
mod flood;
mod keys;
mod lists;
mod logins;
mod resume;
mod secrecy;
mod stores;
mod tenants;

use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

/// Everything that a key can be presented by, and no limit that a test could meet.
const SETTINGS: &str = r#"
[credentials]
sources = ["bearer", "basic", "header:X-API-Key", "query:api_key", "cookie:session"]
[limits]
default = [{ name = "plenty", quota = 1000000, window_seconds = 1 }]
failed_auth = { name = "failed-auth", quota = 1000000, window_seconds = 1 }
[[routes]]
name = "open"
path = "/open"
upstream = "service"
auth = "off"
"#;

async fn start() -> (Sidekey, Upstream) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, SETTINGS)).await;
    (sidekey, upstream)
}

/// A line of a list: `fields` over sound defaults.
fn line(fields: Value) -> Value {
    let mut line = json!({
        "name": "an old key", "tenant_id": "acme", "environment": "live", "scopes": ["orders:*"],
    });
    for (name, value) in fields.as_object().expect("an object") {
        line[name] = value.clone();
    }
    line
}

/// A line with a plain key.
fn plain(key: &str) -> Value {
    line(json!({"key": key}))
}

/// A key that is hard to guess, and looks like none of Sidekey's.
fn strong(number: usize) -> String {
    let digest = blake3::hash(&number.to_be_bytes()).to_hex();
    format!("legacy.{}", &digest.as_str()[..40])
}

/// JSON lines.
fn jsonl(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Sends a list as `key`.
async fn send_as(sidekey: &Sidekey, key: &str, query: &str, media_type: &str, list: &str) -> Reply {
    let url = format!("http://{}{KEYS}/import{query}", sidekey.admin);
    let request = sidekey.client.post(url).bearer_auth(key);
    let request = request.header("content-type", media_type);
    Reply::to(request.body(list.to_owned())).await
}

/// Sends JSON lines with the first admin key.
async fn send(sidekey: &Sidekey, query: &str, lines: &[Value]) -> Reply {
    let (key, list) = (sidekey.admin_key(), jsonl(lines));
    send_as(sidekey, &key, query, "application/jsonl", &list).await
}

/// Imports lines that are all new; the ids of the keys.
async fn import(sidekey: &Sidekey, lines: &[Value]) -> Vec<String> {
    let reply = send(sidekey, "", lines).await;
    assert_eq!(statuses(&reply), vec!["created"; lines.len()], "{reply:?}");
    let body = reply.json();
    assert_eq!(body["created"], lines.len());
    let results = body["results"].as_array().expect("results").iter();
    let id = |result: &Value| result["key_id"].as_str().expect("an id").to_owned();
    results.map(id).collect()
}

/// What became of each line.
#[track_caller]
fn statuses(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    let results = body["results"].as_array().expect("results").iter();
    let status = |result: &Value| result["status"].as_str().expect("a status").to_owned();
    results.map(status).collect()
}

/// The fields for which a line was refused.
fn refused_fields(reply: &Reply, index: usize) -> Vec<String> {
    let body = reply.json();
    let errors = body["results"][index]["errors"].as_array().expect("errors");
    errors
        .iter()
        .map(|error| error["field"].as_str().expect("a field").to_owned())
        .collect()
}

/// The status of GET with user and password.
async fn log_in(sidekey: &Sidekey, user: &str, password: &str) -> u16 {
    let request = sidekey.request(reqwest::Method::GET, "/");
    let answer = request.basic_auth(user, Some(password)).send().await;
    answer.expect("an answer").status().as_u16()
}

/// Runs of bcrypt, and looks at the index of imports, so far.
async fn work(sidekey: &Sidekey) -> (f64, f64) {
    (
        sidekey.metric("sidekey_bcrypt_runs_total").await,
        sidekey.metric("sidekey_import_lookups_total").await,
    )
}
