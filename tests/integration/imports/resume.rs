//! Ten thousand keys, interrupted in the middle and sent again.

use std::collections::HashSet;
use std::time::Instant;

use reqwest::Method;
use serde_json::Value;

use super::{jsonl, plain, send, start, strong};
use crate::harness::run::run;
use crate::harness::sidekey::{KEYS, Sidekey};

const KEYS_ALL: usize = 10_000;
const BATCH: usize = 500;
/// Batches that are through before the process is killed, in the middle of the next one.
const BATCHES_BEFORE: usize = 6;

fn batch(number: usize) -> Vec<Value> {
    let numbers = number * BATCH..(number + 1) * BATCH;
    numbers.map(|number| plain(&strong(number))).collect()
}

/// What became of keys that were sent.
#[derive(Default)]
struct Sent {
    created: usize,
    existing: usize,
    ids: HashSet<String>,
}

impl Sent {
    /// Sends `lines`, and again from where there was no time for more.
    async fn send(&mut self, sidekey: &Sidekey, mut lines: &[Value]) {
        while !lines.is_empty() {
            let reply = send(sidekey, "", lines).await.json();
            let count = |member: &str| reply[member].as_u64().expect("a number") as usize;
            self.created += count("created");
            self.existing += count("existing");
            let results = reply["results"].as_array().expect("results").iter();
            let id = |result: &Value| result["key_id"].as_str().expect("an id").to_owned();
            self.ids.extend(results.map(id));
            let next = reply["next_line"].as_u64();
            let done = next.map_or(lines.len(), |line| line as usize - 1);
            assert!(done > 0, "{reply}");
            lines = &lines[done..];
        }
    }
}

/// The ids of all imported keys.
async fn imported(sidekey: &Sidekey) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{KEYS}?limit=1000&tenant_id=acme{cursor}");
        let page = sidekey.ask(Method::GET, &path, None).await.json();
        let keys = page["data"].as_array().expect("keys").iter();
        ids.extend(keys.map(|key| key["id"].as_str().expect("an id").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

fn resident_kib(sidekey: &Sidekey) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidekey.pid()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_goes_on_without_a_duplicate_or_a_gap() {
    let (mut sidekey, _upstream) = start().await;
    let begun = Instant::now();
    for number in 0..BATCHES_BEFORE {
        let mut sent = Sent::default();
        sent.send(&sidekey, &batch(number)).await;
        assert_eq!(sent.created, BATCH);
    }
    let mut done = (BATCHES_BEFORE * BATCH) as f64;
    for number in BATCHES_BEFORE.. {
        assert!(number < KEYS_ALL / BATCH, "it was killed in the middle");
        // The next batch is under way.
        let url = format!("http://{}{KEYS}/import", sidekey.admin);
        let request = sidekey
            .client
            .post(url)
            .bearer_auth(sidekey.admin_key())
            .header("content-type", "application/jsonl")
            .body(jsonl(&batch(number)));
        let interrupted = tokio::spawn(request.send());
        crate::harness::eventually("some of the batch is in", async || {
            sidekey.metric("sidekey_imported_keys").await > done + 50.0
        })
        .await;
        sidekey.kill();
        let is_answered = interrupted.await.expect("a task").is_ok();
        sidekey = sidekey.restart().await;
        if !is_answered {
            break;
        }
        // It was quicker than a busy machine killed it.
        done = sidekey.metric("sidekey_imported_keys").await;
    }
    let before = imported(&sidekey).await.len();
    assert!((done as usize + 50..KEYS_ALL).contains(&before), "{before}");

    let mut sent = Sent::default();
    for number in 0..KEYS_ALL / BATCH {
        sent.send(&sidekey, &batch(number)).await;
    }
    assert_eq!((sent.existing, sent.created), (before, KEYS_ALL - before));
    // What the kill left is at most one hash that no row names, and no row without its hash.
    let arguments = ["check", "--stores", "--config", "sidekey.toml"];
    let checked = run(sidekey.directory(), &arguments, &[]);
    assert!(
        !checked.stdout.contains("key without a hash"),
        "{checked:?}"
    );
    let leftovers = checked.stdout.matches("left-over hash: key ").count();
    assert!(leftovers <= 1, "{checked:?}");
    let all = imported(&sidekey).await;
    assert_eq!(all.len(), KEYS_ALL, "no duplicate, none missing");
    assert_eq!(all.into_iter().collect::<HashSet<_>>(), sent.ids);
    println!(
        "{KEYS_ALL} keys in {:.1} s, {} KiB resident",
        begun.elapsed().as_secs_f64(),
        resident_kib(&sidekey)
    );
    // Those around the interruption work, and the others.
    for number in (before - 20..before + 20).chain([0, KEYS_ALL - 1]) {
        assert_eq!(sidekey.status("/", &strong(number)).await, 200, "{number}");
    }
    assert_eq!(sidekey.status("/", &strong(KEYS_ALL)).await, 401);
    assert_eq!(
        sidekey.metric("sidekey_imported_keys").await,
        KEYS_ALL as f64
    );
}
