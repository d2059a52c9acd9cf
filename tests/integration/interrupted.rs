//! The admin port when its clients go away or take their time: an operation is carried out as a
//! whole or not at all, and what a key may do is asked for when the whole request is there.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sidekey::key::record::Standing;
use sidekey::store::KeyStore;
use sidekey::store::sql::SqlStore;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::api::forget_uses;
use crate::harness::eventually;
use crate::harness::fleet::HARDLY_EVER;
use crate::harness::noted;
use crate::harness::raw::{Answer, Raw};
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// How many calls of each kind are interrupted, and the time between the moments.
const INTERRUPTIONS: u32 = 60;
const STEP: Duration = Duration::from_micros(130);

async fn start() -> (Upstream, Sidekey) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    (upstream, sidekey)
}

/// A call that ends a key's secret.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Revoke,
    Disable,
    Replace,
}

impl Ending {
    /// Method, path and body of the call.
    fn call(self, id: &str) -> (Method, String, Option<Value>) {
        let path = format!("{KEYS}/{id}");
        match self {
            Ending::Revoke => (Method::DELETE, path, None),
            Ending::Disable => (Method::PATCH, path, Some(json!({"status": "disabled"}))),
            Ending::Replace => (Method::POST, format!("{path}/regenerate"), Some(json!({}))),
        }
    }
}

/// The head of an admin request by `key`; the body has `length` bytes.
fn head(method: &Method, path: &str, key: &str, length: usize, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

/// Sends the call, and resets the connection `after` that.
async fn interrupt(sidekey: &Sidekey, admin: &str, key: &Key, ending: Ending, after: Duration) {
    let (method, path, body) = ending.call(&key.id);
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = head(&method, &path, admin, body.len(), "") + body.as_str();
    let mut stream = TcpStream::connect(sidekey.admin).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_zero_linger().unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    // The timer's milliseconds are too coarse for a moment within a write.
    let start = Instant::now();
    while start.elapsed() < after {
        tokio::task::yield_now().await;
    }
}

/// Whether the store says that the secret of `key` is over.
async fn is_over(sidekey: &Sidekey, key: &Key) -> bool {
    let path = format!("{KEYS}/{}", key.id);
    let record = sidekey.ask(Method::GET, &path, None).await.json();
    let hint = record["hint"].as_str().unwrap();
    let is_same = key.text.ends_with(&hint[hint.len() - 4..]);
    record["status"] != "active" || !is_same
}

/// Whether the proxy says what the store says. The call may still be under way, so this is asked
/// for until it holds.
async fn agree(sidekey: &Sidekey, key: &Key) -> bool {
    let is_over = is_over(sidekey, key).await;
    let status = sidekey.status("/", &key.text).await;
    assert!(matches!(status, 200 | 401), "{status}");
    is_over == (status == 401)
}

async fn interrupted_calls(ending: Ending) {
    let (_upstream, sidekey) = start().await;
    let admin = sidekey.admin_key();
    let mut keys = Vec::new();
    for step in 0..INTERRUPTIONS {
        let key = sidekey.create_key(json!({"rate_limits": []})).await;
        assert_eq!(sidekey.status("/", &key.text).await, 200);
        interrupt(&sidekey, &admin, &key, ending, STEP * step).await;
        keys.push(key);
    }
    for key in &keys {
        let what = format!("store and proxy agree about {} ({ending:?})", key.id);
        eventually(&what, || agree(&sidekey, key)).await;
    }
    let over = join_all(keys.iter().map(|key| is_over(&sidekey, key))).await;
    // Otherwise no moment was late enough, and nothing was tested.
    assert!(over.contains(&true), "no call was carried out");
    // Whatever became of the first call, the second one holds.
    for key in &keys {
        let (method, path, body) = ending.call(&key.id);
        let reply = sidekey.ask(method, &path, body.as_ref()).await;
        assert!(matches!(reply.status, 200 | 204), "{reply:?}");
        assert_eq!(sidekey.status("/", &key.text).await, 401, "{ending:?}");
        assert!(is_over(&sidekey, key).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_whose_client_leaves_holds_for_the_proxy_if_it_is_written() {
    interrupted_calls(Ending::Revoke).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabling_whose_client_leaves_holds_for_the_proxy_if_it_is_written() {
    interrupted_calls(Ending::Disable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_whose_client_leaves_holds_for_the_proxy_if_it_is_written() {
    interrupted_calls(Ending::Replace).await;
}

/// A key whose revocation is written in the database; nobody was told.
async fn written_as_revoked(sidekey: &Sidekey, store: &SqlStore) -> Key {
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let id = key.id.parse().unwrap();
    let mut record = store.get(id).await.unwrap().expect("the key");
    record.standing = Standing::Revoked;
    record.revoked_at = Some(record.updated_at);
    record.revision += 1;
    store.update(&record, &noted()).await.unwrap();
    assert!(is_over(sidekey, &key).await);
    key
}

/// However a revocation came to be written and not announced, the next call makes up for it.
#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_key_again_makes_a_revocation_hold_that_was_only_written() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, HARDLY_EVER)).await;
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    let mut key = written_as_revoked(&sidekey, &store).await;
    let mut status = sidekey.status("/", &key.text).await;
    // The look that the creation of a key leads to may come so late that it finds the revocation.
    for _ in 0..4 {
        if status == 200 {
            break;
        }
        key = written_as_revoked(&sidekey, &store).await;
        status = sidekey.status("/", &key.text).await;
    }
    store.close().await;
    assert_eq!(status, 200, "the proxy was not told");
    sidekey.revoke_key(&key.id).await;
    assert_eq!(sidekey.status("/", &key.text).await, 401);
}

/// A write whose last byte is still to come. The program has asked for the body, so it has looked
/// at the credential.
struct Held {
    connection: Raw,
    last: String,
}

impl Held {
    async fn start(sidekey: &Sidekey, key: &Key, method: Method, path: &str, body: &Value) -> Self {
        let mut body = body.to_string();
        let head = head(
            &method,
            path,
            &key.text,
            body.len(),
            "Expect: 100-continue\r\n",
        );
        let last = body.split_off(body.len() - 1);
        let mut connection = Raw::connect(sidekey.admin).await;
        connection.send(head).await;
        assert_eq!(connection.read_head().await.status, 100);
        connection.send(body).await;
        Held { connection, last }
    }

    async fn finish(mut self) -> Answer {
        self.connection.send(&self.last).await;
        self.connection.read_answer().await
    }
}

async fn admin_key(sidekey: &Sidekey) -> Key {
    let scopes = json!({"scopes": ["sidekey:admin"], "name": "an administrator"});
    sidekey.create_key(scopes).await
}

/// What is stored of keys, but for their last uses: those come later, and are no changes.
async fn stored_keys(sidekey: &Sidekey, path: &str) -> Value {
    let mut list = sidekey.ask(Method::GET, path, None).await.json();
    forget_uses(&mut list);
    list
}

async fn all_keys(sidekey: &Sidekey) -> Value {
    stored_keys(sidekey, &format!("{KEYS}?tenant_id=target")).await
}

/// Holds back three writes by a new key, has `end` take the key's rights away, and lets the writes
/// go on: all are answered `status`, and nothing has changed.
async fn held_writes(
    sidekey: &Sidekey,
    target: &Key,
    what: &str,
    end: impl AsyncFnOnce(&Key),
    status: u16,
) {
    let actor = admin_key(sidekey).await;
    let one = format!("{KEYS}/{}", target.id);
    let new = json!({"name": "late", "tenant_id": "target", "environment": "live", "scopes": []});
    let mut held = Vec::new();
    for (method, path, body) in [
        (Method::POST, KEYS.to_owned(), new),
        (
            Method::PATCH,
            one.clone(),
            json!({"name": "late", "status": "disabled"}),
        ),
        (
            Method::POST,
            format!("{one}/regenerate"),
            json!({"grace_period_seconds": 0}),
        ),
    ] {
        let write = Held::start(sidekey, &actor, method.clone(), &path, &body).await;
        held.push((format!("{method} {path}, {what}"), write));
    }
    let before = all_keys(sidekey).await;
    end(&actor).await;
    for (shown, write) in held {
        let answer = write.finish().await;
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.json()["status"], status, "{shown}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("\"key\""));
    }
    assert_eq!(all_keys(sidekey).await, before, "{what}");
    assert_eq!(sidekey.status("/", &target.text).await, 200, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_body_ends_after_the_rights_of_its_key_changes_nothing() {
    let (_upstream, sidekey) = start().await;
    let target = sidekey.create_key(json!({"tenant_id": "target"})).await;
    let sidekey = &sidekey;
    let revoke = async |key: &Key| sidekey.revoke_key(&key.id).await;
    held_writes(sidekey, &target, "revoked", revoke, 401).await;
    let replace = async |key: &Key| drop(sidekey.regenerate_key(&key.id, 0).await);
    held_writes(sidekey, &target, "replaced", replace, 401).await;
    let grace = async |key: &Key| drop(sidekey.regenerate_key(&key.id, 3600).await);
    held_writes(
        sidekey,
        &target,
        "replaced, in its grace period",
        grace,
        401,
    )
    .await;
    for (change, status) in [
        (json!({"status": "disabled"}), 401),
        (json!({"expires_at": "2020-01-01T00:00:00Z"}), 401),
        (json!({"scopes": ["sidekey:keys:read"]}), 403),
        (json!({"allowed_ips": ["192.0.2.1"]}), 403),
    ] {
        let shown = change.to_string();
        let edit = async |key: &Key| drop(sidekey.change_key(&key.id, change).await);
        held_writes(sidekey, &target, &shown, edit, status).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_only_takes_its_time_is_carried_out() {
    let (_upstream, sidekey) = start().await;
    let actor = admin_key(&sidekey).await;
    let new = json!({"name": "slow", "tenant_id": "target", "environment": "live", "scopes": []});
    let write = Held::start(&sidekey, &actor, Method::POST, KEYS, &new).await;
    assert_eq!(write.finish().await.status, 201);
    assert_eq!(all_keys(&sidekey).await["data"][0]["name"], "slow");
}

/// Whoever got hold of an old secret must not be able to take the key over, or anything else.
#[tokio::test(flavor = "multi_thread")]
async fn in_its_grace_period_an_old_secret_reads_but_does_not_write() {
    let (_upstream, sidekey) = start().await;
    let target = sidekey.create_key(json!({})).await;
    for scopes in [
        json!(["sidekey:admin"]),
        json!(["sidekey:keys:read", "sidekey:keys:write"]),
    ] {
        let old = sidekey.create_key(json!({"scopes": scopes})).await;
        let new = sidekey.regenerate_key(&old.id, 3600).await;
        let (own, other) = (
            format!("{KEYS}/{}", old.id),
            format!("{KEYS}/{}", target.id),
        );
        let create = json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": []});
        for path in [KEYS, &own, &other] {
            let reply = sidekey
                .ask_as(Some(&old.text), Method::GET, path, None)
                .await;
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
        }
        let before = stored_keys(&sidekey, KEYS).await;
        let writes = [
            (Method::POST, KEYS.to_owned(), Some(create)),
            (Method::PATCH, other.clone(), Some(json!({"name": "mine"}))),
            (Method::POST, format!("{other}/regenerate"), None),
            (Method::POST, format!("{own}/regenerate"), None),
            (Method::DELETE, other.clone(), None),
            (Method::DELETE, own.clone(), None),
        ];
        for (method, path, body) in &writes {
            let reply = sidekey
                .ask_as(Some(&old.text), method.clone(), path, body.as_ref())
                .await;
            reply.problem(401);
            let challenge = reply.header("www-authenticate").unwrap_or_default();
            assert!(challenge.contains("error=\"invalid_token\""), "{reply:?}");
        }
        assert_eq!(stored_keys(&sidekey, KEYS).await, before);
        assert_eq!(
            sidekey.status("/", &old.text).await,
            200,
            "for the proxy it is sound"
        );
        for (method, path, body) in &writes[..2] {
            let reply = sidekey
                .ask_as(Some(&new.text), method.clone(), path, body.as_ref())
                .await;
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        }
    }
}
