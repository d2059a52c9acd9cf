//! The audit log: what is noted, that it is one chain whoever writes it, and that whatever is done to it is
//! found and named.

mod api;
mod chain;
mod command;
mod outages;
mod plans;
mod refusals;
mod tampering;
mod unrecorded;

use reqwest::Method;
use serde_json::Value;

use crate::harness::api::Reply;
use crate::harness::run::{Ended, run};
use crate::harness::sidekey::Sidekey;

pub const EVENTS: &str = "/api/v1/platform/audit-events";

/// All events that `query` (such as `?action=key.created`) asks for, newest first.
pub async fn events(sidekey: &Sidekey, query: &str) -> Vec<Value> {
    events_as(sidekey, &sidekey.admin_key(), query).await
}

pub async fn events_as(sidekey: &Sidekey, key: &str, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let mut path = format!("{EVENTS}?{}", query.trim_start_matches('?'));
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={cursor}"));
        }
        let reply = sidekey.ask_as(Some(key), Method::GET, &path, None).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let mut body = reply.json();
        all.append(body["data"].as_array_mut().expect("events"));
        match body["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return all,
        }
    }
}

/// An export as it comes.
pub async fn export(sidekey: &Sidekey, query: &str) -> String {
    let path = format!("{EVENTS}/export{query}");
    let reply = sidekey.ask(Method::GET, &path, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/jsonl"));
    reply.text
}

pub fn lines(export: &str) -> Vec<Value> {
    let lines = export.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

pub async fn verification(sidekey: &Sidekey, query: &str) -> Reply {
    let path = format!("{EVENTS}/verification{query}");
    sidekey.ask(Method::GET, &path, None).await
}

/// `sidekey audit verify` over the API of `sidekey`.
pub async fn verify_over_api(sidekey: &Sidekey, more: &[&str]) -> Ended {
    let url = format!("http://{}", sidekey.admin);
    let arguments = [&["audit", "verify", "--admin-url", &url], more].concat();
    in_background(
        sidekey,
        &arguments,
        &[("SIDEKEY_ADMIN_KEY", &sidekey.admin_key())],
    )
    .await
}

/// `sidekey audit verify` on the stores of `sidekey`.
pub async fn verify_stores(sidekey: &Sidekey, store: &str, more: &[&str]) -> Ended {
    let arguments = [&["audit", "verify", "--config", "sidekey.toml"], more].concat();
    in_background(sidekey, &arguments, &[("SIDEKEY__STORE__URL", store)]).await
}

/// Runs the program; this thread has other things to do meanwhile, such as being asked.
pub async fn in_background(
    sidekey: &Sidekey,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Ended {
    let directory = sidekey.directory().to_owned();
    let own = |text: &&str| (*text).to_owned();
    let arguments: Vec<String> = arguments.iter().map(own).collect();
    let environment: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| (own(name), own(value)))
        .collect();
    let work = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let pairs: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (&**n, &**v)).collect();
        run(&directory, &arguments, &pairs)
    };
    tokio::task::spawn_blocking(work).await.expect("it runs")
}
