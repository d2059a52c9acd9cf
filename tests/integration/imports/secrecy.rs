//! Planted imports are found nowhere: not in output, store, metrics or answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{SETTINGS, line, log_in, send, send_as, statuses, strong};
use crate::harness::raw::{Raw, get};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, sidekey};

const PASSWORD: &str = "through-the-looking-glass-1871";

fn contains(haystack: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

struct Planted {
    key: String,
    weak: String,
    hash: String,
}

impl Planted {
    /// What must not be found, with its forms.
    fn needles(&self) -> Vec<String> {
        let key = &self.key;
        vec![
            key.clone(),
            key[..20].to_owned(),
            key[key.len() - 20..].to_owned(),
            self.weak.clone(),
            PASSWORD.to_owned(),
            STANDARD.encode(key)[..40].to_owned(),
            STANDARD.encode(format!("alice:{PASSWORD}"))[8..].to_owned(),
        ]
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, haystack: &[u8]) {
        for needle in self.needles() {
            assert!(!contains(haystack, &needle), "{needle} in {place}");
        }
    }

    /// Lists in which secrets stand where they should, and where they should not.
    fn lists(&self) -> Vec<(&'static str, String)> {
        let (key, hash) = (&self.key, &self.hash);
        let mut lines = vec![
            line(json!({"key": key})),
            line(json!({"user": "alice", "hash": hash})),
            line(json!({"htpasswd": format!("alice:{hash}")})),
            line(json!({"key": [key]})),
            line(json!({"user": key, "hash": key})),
            line(json!({"htpasswd": key})),
            line(json!({"key": format!("{key} {key}")})),
            line(json!({"key": "x", "hash": hash})),
            line(json!({key: 1})),
            json!({"key": key}),
        ];
        for column in [
            "tenant_id",
            "environment",
            "expires_at",
            "contact_email",
            "rotation_days",
        ] {
            lines.push(line(json!({column: key, "key": "weak"})));
        }
        for (column, value) in [
            ("scopes", json!([key])),
            ("allowed_ips", json!([key])),
            (
                "rate_limits",
                json!([{"name": key, "quota": 0, "window_seconds": 1}]),
            ),
            ("rate_limits", json!([{key: 1}])),
            ("rate_limits", json!(key)),
            ("metadata", json!(key)),
        ] {
            lines.push(line(json!({column: value, "key": "weak"})));
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        vec![
            (
                "application/jsonl",
                format!("{text}{key}\n{{\"key\": {key}}}\n\"{key}\"\n"),
            ),
            ("text/csv", format!("{key}\n{key}\n")),
            ("text/csv", format!("key,name\n{key}\n\"{key}\n")),
            (
                "text/csv",
                format!("scopes,metadata,key\n{key},{key},{key}\n"),
            ),
            ("text/plain", key.clone()),
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_imports_are_found_nowhere() {
    let upstream = Upstream::start().await;
    let more = format!("{SETTINGS}\n[log]\nlevel = \"debug\"\naccess = \"all\"");
    let mut sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let planted = Planted {
        key: strong(7),
        weak: "partner-key-2019".to_owned(),
        hash: bcrypt::non_truncating_hash(PASSWORD, 4).unwrap(),
    };
    let admin = sidekey.admin_key();
    for (media_type, list) in planted.lists() {
        for query in ["?dry_run=true", "?allow_weak=true", ""] {
            let reply = send_as(&sidekey, &admin, query, media_type, &list).await;
            planted.assert_absent("an answer", reply.text.as_bytes());
            for part in [&planted.hash[7..29], &planted.hash[29..]] {
                assert!(!contains(reply.text.as_bytes(), part), "of a hash");
            }
        }
    }
    let weak = [line(json!({"key": planted.weak}))];
    let reply = send(&sidekey, "?allow_weak=true", &weak).await;
    assert_eq!(statuses(&reply), ["created"]);

    use_everywhere(&sidekey, &planted).await;
    let marker = sidekey.create_key(json!({})).await.id;
    eventually("the log is written", async || {
        sidekey.output().contains(&marker)
    })
    .await;
    let list = sidekey.ask(reqwest::Method::GET, sidekey::KEYS, None).await;
    planted.assert_absent("the list of keys", list.text.as_bytes());
    assert!(!list.text.contains("$2"), "a hash");
    planted.assert_absent("the metrics", sidekey.metrics().await.as_bytes());
    assert!(!sidekey.output().contains("$2"), "a hash in the output");
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    planted.assert_absent("the output", sidekey.output().as_bytes());
    let mut files = 0;
    for entry in std::fs::read_dir(sidekey.directory().join("data")).unwrap() {
        let path = entry.unwrap().path();
        planted.assert_absent(&path.display().to_string(), &std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files >= 2, "key and database");
}

/// Presents the secrets, also damaged ones, and checks what comes back.
async fn use_everywhere(sidekey: &Sidekey, planted: &Planted) {
    let key = &planted.key;
    for text in [key, &planted.weak] {
        assert_eq!(sidekey.status("/", text).await, 200);
    }
    assert_eq!(log_in(sidekey, "alice", PASSWORD).await, 200);
    let basic = |pair: String| format!("Authorization: Basic {}", STANDARD.encode(pair));
    let lines: Vec<String> = vec![
        format!("X-API-Key: {key}"),
        format!("Cookie: session={key}"),
        format!("Authorization: Bearer {key}x"),
        format!("Authorization: Bearer {}", &key[..30]),
        format!("Authorization: Token {key}"),
        format!("Authorization: Bearer {key}\r\nX-API-Key: {key}"),
        basic(format!("bob:{key}")),
        basic(format!("{key}:")),
        basic(format!("alice:{PASSWORD}x")),
        basic(format!("mallory:{PASSWORD}")),
        basic(format!("alice:{PASSWORD}:{PASSWORD}")),
    ];
    for path in [
        "/",
        "/open",
        "/a//b",
        &format!("/?api_key={key}"),
        &format!("/open?api_key={key}"),
    ] {
        for line in &lines {
            let mut raw = Raw::connect(sidekey.proxy).await;
            raw.send(get(path, &[line, "Connection: close"])).await;
            let answer: Vec<u8> = raw.read_to_end().await;
            planted.assert_absent(&format!("the answer to {path} {line}"), &answer);
        }
    }
    let lines: Vec<Value> = vec![line(json!({"key": key}))];
    assert_eq!(statuses(&send(sidekey, "", &lines).await), ["existing"]);
}
