//! A planted key is used in every way that a client can get wrong, and then searched for: in all
//! output at the chattiest log level, in the store's files, in /metrics, in every answer, in the
//! process's command line and environment. The same for the first admin key.

use std::net::SocketAddr;

use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use reqwest::Method;
use serde_json::json;
use sidekey::store::SqlStore;
use sqlx::Row;
use tokio::net::TcpListener;

use crate::harness::collector::Collector;
use crate::harness::raw::{Raw, get, request};
use crate::harness::sidekey::{KEYS, Key, Sidekey};
use crate::harness::upstream::nobody;
use crate::harness::{eventually, raw};

/// What must not be found, each with its name.
struct Needles(Vec<(&'static str, String)>);

impl Needles {
    /// The forms in which `key` could come out.
    fn of(key: &str) -> Self {
        let secret_and_check = &key[key.len() - 54..];
        let secret = &secret_and_check[..43];
        let hexadecimal: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut needles = vec![
            ("the key", key.to_owned()),
            ("its secret and check", secret_and_check.to_owned()),
            ("its secret", secret.to_owned()),
            // Enough to tell that most of it stands there, cut or with a character encoded.
            ("the first half of its secret", secret[..24].to_owned()),
            ("the second half of its secret", secret[20..].to_owned()),
            ("its bytes in hexadecimal", hexadecimal),
        ];
        // As base64 at each of the three places that a text can have in a longer one.
        for shift in 0..3 {
            let padded = format!("{}{secret}", "x".repeat(shift));
            for engine in [&STANDARD, &URL_SAFE] {
                let encoded = engine.encode(&padded);
                let certain = &encoded[4..encoded.len() - 4];
                needles.push(("its secret in base64", certain.to_owned()));
            }
        }
        Needles(needles)
    }

    /// Which of them stand in `haystack`.
    fn found_in(&self, haystack: &[u8]) -> Vec<&'static str> {
        let mut found: Vec<&'static str> = self
            .0
            .iter()
            .filter(|(_, needle)| contains(haystack, needle.as_bytes()))
            .map(|(name, _)| *name)
            .collect();
        found.dedup();
        found
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, haystack: &[u8]) {
        let found = self.found_in(haystack);
        assert!(
            found.is_empty(),
            "{found:?} in {place}: {}",
            String::from_utf8_lossy(&haystack[..haystack.len().min(4000)])
        );
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn the_search_finds_what_is_planted() {
    let key = "sk_live_4fzN8cQ2pLrT_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3A4b5C6d7E8f9G0h1I2";
    let needles = Needles::of(key);
    let basic = STANDARD.encode(format!("user:{key}"));
    let basic_alone = URL_SAFE.encode(format!("{key}:"));
    let shifted = STANDARD.encode(format!("ab{key}"));
    for planted in [
        key,
        &key[21..],
        &key[..70],
        &key[30..],
        &basic,
        &basic_alone,
        &shifted,
        &key.replacen("sk_", "%73k_", 1),
    ] {
        let text = format!("...\0\"path\":\"/a/{planted}/b\"\n");
        assert!(!needles.found_in(text.as_bytes()).is_empty(), "{planted}");
    }
    let harmless = "sk_live_4fzN8cQ2pLrT_...h1I2 4fzN8cQ2pLrT";
    assert_eq!(needles.found_in(harmless.as_bytes()), Vec::<&str>::new());
}

/// Of a client that records its trace.
const SOUND_TRACE: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A service that says nothing of what it was sent.
async fn discreet() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = Router::new().fallback(async || "ok");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn configuration(service: SocketAddr, gone: SocketAddr, collector: &Collector) -> String {
    let tracing = collector.configuration();
    format!(
        r#"
[credentials]
sources = ["bearer", "header:X-API-Key", "basic", "query:api_key", "cookie:session"]
[[upstreams]]
name = "service"
servers = ["{service}"]
[[upstreams]]
name = "gone"
servers = ["{gone}"]
[[routes]]
name = "all"
path = "/"
upstream = "service"
[[routes]]
name = "gone"
path = "/gone"
upstream = "gone"
[[routes]]
name = "scoped"
path = "/scoped"
upstream = "service"
scopes = ["orders:write"]
[[routes]]
name = "open"
path = "/open"
upstream = "service"
auth = "optional"
[[scopes]]
name = "orders:write"
[[scopes]]
name = "orders:read"
[log]
level = "debug"
access = "all"
{tracing}"#
    )
}

/// Requests that carry `key`: as a credential, and where it should not be. All end their
/// connection, so that everything that comes back can be read.
fn requests(key: &str) -> Vec<(String, String)> {
    let basic = |text: String| STANDARD.encode(text);
    let encoded = key.replacen("_live_", "%5flive%5F", 1);
    let last_encoded = format!("{}%{:02x}", &key[..74], key.as_bytes()[74]);
    let credentials = [
        format!("Authorization: Bearer {key}"),
        format!("X-API-Key: {key}"),
        format!("Authorization: Basic {}", basic(format!("{key}:"))),
        format!("Authorization: Basic {}", basic(format!("user:{key}"))),
        format!("Cookie: a=b; session={key}"),
        // Damaged on the way.
        format!("Authorization: Bearer {}", &key[..74]),
        format!("Authorization: Bearer {key}x"),
        format!("Authorization: {key}"),
        format!("Authorization: Token {key}"),
        format!("X-API-Key: \"{key}\""),
        format!("Cookie: session=\"{key}\""),
        format!("Authorization: Bearer {key}\r\nX-API-Key: {key}"),
        format!("Authorization: Bearer {key}\r\nAuthorization: Bearer {key}"),
        format!("Authorization: Bearer {key}\r\nX-Request-Id: {key}\r\nX-Forwarded-For: {key}"),
        format!("Authorization: Bearer {key}\r\nUser-Agent: {key}\r\nReferer: http://x/?{key}"),
        format!("Authorization: Bearer {key}\r\nX-Sidekey-Key-Id: {key}\r\n{key}: {key}"),
        format!("Authorization: Bearer {key}\r\ntraceparent: {key}\r\ntracestate: a={key}"),
        format!("Authorization: Bearer {key}\r\n{SOUND_TRACE}\r\ntracestate: a={key}"),
    ];
    let mut all = Vec::new();
    for path in ["/ok", "/gone", "/scoped", "/open", "/a//b"] {
        for line in &credentials {
            all.push(get(path, &[line, "Connection: close"]));
        }
    }
    let bearer = format!("Authorization: Bearer {key}");
    for path in [
        format!("/?api_key={key}"),
        format!("/gone?x=1&api_key={encoded}&y=2"),
        format!("/?api%5Fkey={last_encoded}"),
        format!("/?api_key={key}&api_key={key}"),
        format!("/?other={key}"),
        format!("/{key}"),
        format!("/a/{key}/b"),
        format!("/gone/{key}"),
        format!("/{key}/../x"),
        format!("//{key}"),
        format!("/{encoded}"),
        format!("/{last_encoded}"),
        format!("/%73{}", &key[1..]),
        format!("/%2573{}", &key[1..]),
        format!("/key={key}"),
        format!("/{key}.json"),
        format!("/{key};v=1"),
        format!("/api_key:{key}@host"),
        format!("/x{key}"),
        format!("/{}", &key[..70]),
        format!("http://{key}@test.example/a"),
        format!("http://test.example/{key}"),
    ] {
        all.push(get(&path, &["Connection: close"]));
        all.push(get(&path, &[&bearer, "Connection: close"]));
    }
    for text in [
        format!("GET / HTTP/1.1\r\nHost: x\r\n{bearer}\r\nno colon {key}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Length: {key}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {key}\r\n{bearer}\r\n\r\n"),
        format!("GET /{key} HTTP/9.9\r\nHost: x\r\n\r\n"),
        format!("GET /{key} {key} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("{key} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {key}\r\nConnection: close\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{bearer}\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{bearer}\r\nX: {}\r\n\r\n",
            "y".repeat(70_000)
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{bearer}\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n"
        ),
        format!("POST /gone HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Length: 500\r\n\r\n{key}"),
        format!("{bearer}\r\n\r\n"),
        key.to_owned(),
    ] {
        all.push(text);
    }
    all.push(request("POST", "/ok", &[&bearer, "Connection: close"], key));
    let named = |text: String| (text.lines().next().unwrap_or_default().to_owned(), text);
    all.into_iter().map(named).collect()
}

/// Requests to the admin port that carry `key` and don't put it on record.
fn admin_requests(key: &str, id: &str) -> Vec<(String, String)> {
    let bearer = format!("Authorization: Bearer {key}");
    let json = "Content-Type: application/json";
    let close = "Connection: close";
    let mut all = vec![
        get(KEYS, &[&bearer, close]),
        get(&format!("{KEYS}/{id}"), &[&bearer, close]),
        get(&format!("{KEYS}/{key}"), &[&bearer, close]),
        get(&format!("/{key}"), &[close]),
        get(&format!("{KEYS}?cursor={key}"), &[&bearer, close]),
        get(&format!("{KEYS}?q={key}"), &[&bearer, close]),
        get(&format!("{KEYS}?tenant_id={key}"), &[&bearer, close]),
        get(&format!("{KEYS}?status={key}"), &[&bearer, close]),
        get(&format!("{KEYS}?{key}=1"), &[&bearer, close]),
        get(KEYS, &[&bearer, &bearer, close]),
        get(KEYS, &[&format!("X-API-Key: {key}"), close]),
        get(KEYS, &[&format!("Authorization: Basic {key}"), close]),
        format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\nno colon {key}\r\n\r\n"),
    ];
    for body in [
        key.to_owned(),
        format!("{{\"{key}\": 1}}"),
        format!("{{\"name\": {key}}}"),
        json!({"scopes": [key], "allowed_ips": [key], "contact_email": key, "expires_at": key,
            "environment": key, "tenant_id": [key], "metadata": key, "rotation_days": key,
            "rate_limits": [{"name": format!("{key} "), "quota": 1, "window_seconds": 1, key: 2}]})
        .to_string(),
        json!({"scopes": [format!("{key}:*")], "rate_limits": [{"name": "p", "quota": key}]})
            .to_string(),
        json!({"scopes": [format!("a b {key}")], "rate_limits": [{"name": "p", key: 1}]})
            .to_string(),
    ] {
        all.push(request("POST", KEYS, &[&bearer, json, close], &body));
        let path = format!("{KEYS}/{id}");
        all.push(request("PATCH", &path, &[&bearer, json, close], &body));
    }
    let named = |text: String| (text.lines().next().unwrap_or_default().to_owned(), text);
    all.into_iter().map(named).collect()
}

/// Sends bytes and reads until the other side closes.
async fn exchange(address: SocketAddr, text: &str) -> Vec<u8> {
    let mut raw = raw::Raw::connect(address).await;
    raw.try_send(text).await;
    raw.finish().await;
    raw.read_to_end().await
}

/// Everything of the process that others can read: answers are checked as they come.
async fn assert_kept_everywhere(sidekey: &Sidekey, needles: &Needles) {
    needles.assert_absent("its output", sidekey.output().as_bytes());
    needles.assert_absent("/metrics", sidekey.metrics().await.as_bytes());
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{file}", sidekey.pid());
        let bytes = std::fs::read(&path).expect("a process");
        assert!(!bytes.is_empty(), "{path}");
        needles.assert_absent(&path, &bytes);
    }
    assert_not_in_store(sidekey, needles);
}

/// The audit log as it is shown and exported, and as it is stored.
async fn assert_not_audited(sidekey: &Sidekey, needles: &Needles) {
    let events = "/api/v1/platform/audit-events";
    // What was refused before this is noted before it.
    let refused = sidekey.ask_as(None, Method::GET, KEYS, None).await;
    let id = refused.header("x-request-id").expect("an id").to_owned();
    eventually("refused calls are noted", async || {
        let path = format!("{events}?action=admin.call_refused");
        let reply = sidekey.ask(Method::GET, &path, None).await;
        reply.text.contains(&id)
    })
    .await;
    for path in ["?limit=1000", "/export"] {
        let reply = sidekey
            .ask(Method::GET, &format!("{events}{path}"), None)
            .await;
        assert_eq!(reply.status, 200);
        assert!(reply.text.contains("key.created"), "{reply:?}");
        needles.assert_absent("the audit log", reply.text.as_bytes());
        assert!(!reply.text.contains("$2"), "a hash in the audit log");
    }
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let store = SqlStore::open(&url.into()).await.expect("the store");
    let rows = sqlx::query("SELECT details || action || actor AS text FROM audit_events")
        .fetch_all(store.readers())
        .await
        .expect("rows");
    assert!(rows.len() > 3);
    for row in rows {
        let text: String = row.try_get("text").expect("text");
        needles.assert_absent("a row of the audit log", text.as_bytes());
    }
    store.close().await;
}

fn assert_not_in_store(sidekey: &Sidekey, needles: &Needles) {
    let mut files = 0;
    for entry in std::fs::read_dir(sidekey.directory().join("data")).expect("the data") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|name| name == "key") {
            // The one place where the first admin key belongs.
            continue;
        }
        files += 1;
        let bytes = std::fs::read(&path).expect("a file");
        needles.assert_absent(&path.display().to_string(), &bytes);
    }
    assert!(files >= 1, "the store was looked at");
}

async fn start(collector: &Collector) -> Sidekey {
    let config = configuration(discreet().await, nobody(), collector);
    Sidekey::start(&config).await
}

async fn plant(sidekey: &Sidekey, key: &Key, needles: &Needles) {
    let through_proxy = requests(&key.text).into_iter().map(|r| (sidekey.proxy, r));
    let to_admin = admin_requests(&key.text, &key.id).into_iter();
    let to_admin = to_admin.map(|r| (sidekey.admin, r));
    for (address, (name, text)) in through_proxy.chain(to_admin) {
        let answer = exchange(address, &text).await;
        needles.assert_absent(&format!("the answer to {name}"), &answer);
        assert!(!contains(&answer, b"$2"), "a hash in the answer to {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_key_is_found_nowhere() {
    let collector = Collector::start().await;
    let mut sidekey = start(&collector).await;
    let fields = json!({
        "scopes": ["sidekey:admin", "orders:read"],
        "rate_limits": [{"name": "wide", "quota": 1_000_000, "window_seconds": 1}],
    });
    let key = sidekey.create_key(fields).await;
    let needles = Needles::of(&key.text);
    // The store can be searched: it does hold the key's id.
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(get("/ok", &[&format!("X-API-Key: {}", key.text)]))
        .await;
    assert_eq!(raw.read_answer().await.status, 200);
    plant(&sidekey, &key, &needles).await;
    // The log is written by a thread of its own: a last line marks that the rest is there.
    let marker = sidekey.create_key(json!({})).await.id;
    eventually("the log is written", async || {
        sidekey.output().contains(&marker)
    })
    .await;
    let output = sidekey.output();
    assert!(output.contains(&key.id), "the log names the key by its id");
    assert!(!output.contains("$2"), "a hash in the output");
    assert!(
        !sidekey.metrics().await.contains("$2"),
        "a hash in the metrics"
    );
    assert_kept_everywhere(&sidekey, &needles).await;

    assert_not_audited(&sidekey, &needles).await;

    // Regenerated and revoked: the same for its successor.
    let new = sidekey.regenerate_key(&key.id, 60).await;
    assert_eq!(sidekey.status("/ok", &new.text).await, 200);
    let list = sidekey.ask(Method::GET, KEYS, None).await;
    assert!(!list.text.contains("$2"), "a hash in a list");
    for needles in [&needles, &Needles::of(&new.text)] {
        needles.assert_absent("the list of keys", list.text.as_bytes());
        assert_kept_everywhere(&sidekey, needles).await;
    }
    sidekey.revoke_key(&key.id).await;
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    for needles in [&needles, &Needles::of(&new.text)] {
        needles.assert_absent("its last output", sidekey.output().as_bytes());
        needles.assert_absent("its spans", &collector.bytes());
        assert_not_in_store(&sidekey, needles);
    }
    let spans = collector.spans();
    assert!(spans.len() > 100, "the spans were looked at");
    let is_named = |key_id: &str| {
        let named = spans.iter().filter_map(|seen| seen.text("sidekey.key_id"));
        named.into_iter().any(|id| id == key_id)
    };
    assert!(is_named(&key.id), "spans name the key by its id");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_key_is_found_in_its_file_alone() {
    let collector = Collector::start().await;
    let sidekey = start(&collector).await;
    let text = sidekey.admin_key();
    let key = Key {
        id: text[8..20].to_owned(),
        text,
    };
    let needles = Needles::of(&key.text);
    plant(&sidekey, &key, &needles).await;
    let marker = sidekey.create_key(json!({})).await.id;
    eventually("the log is written", async || {
        sidekey.output().contains(&marker)
    })
    .await;
    assert_kept_everywhere(&sidekey, &needles).await;
    let file = std::fs::read(sidekey.directory().join("data/admin.key")).expect("the file");
    assert!(!needles.found_in(&file).is_empty(), "the search works");
}

/// A name is on record as it was written; the audit log, which is kept for ever, has no key in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_pasted_into_a_name_is_not_audited() {
    let collector = Collector::start().await;
    let sidekey = start(&collector).await;
    let key = sidekey.create_key(json!({})).await;
    let needles = Needles::of(&key.text);
    let fields = json!({"name": format!("({})", key.text), "metadata": {&key.text: [key.text]}});
    sidekey.change_key(&key.id, fields).await;
    let fields = json!({"name": "x", "metadata": {}});
    sidekey.change_key(&key.id, fields).await;
    for (name, text) in admin_requests(&key.text, &key.id) {
        let answer = exchange(sidekey.admin, &text).await;
        needles.assert_absent(&format!("the answer to {name}"), &answer);
    }
    assert_not_audited(&sidekey, &needles).await;
}
