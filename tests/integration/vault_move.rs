//! `sidekey secrets move` and `rotate-mint-key`: nothing is lost, wherever they are interrupted.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use secrecy::SecretString;
use serde_json::json;
use sidekey::clock::SystemClock;
use sidekey::key::hash::SecretHash;
use sidekey::key::{Generation, KeyId, TenantId};
use sidekey::secrets::{EmbeddedSecrets, SecretStore, StoredHash};
use sidekey::store::SqlStore;
use sqlx::AssertSqlSafe;

use crate::harness::openbao::OpenBao;
use crate::harness::run::{Ended, run};
use crate::harness::sidekey::{Key, Sidekey, config, program};
use crate::harness::upstream::Upstream;
use crate::harness::{client_builder, eventually};
use crate::vault::stored;

/// Keys that only have a hash, so that a move takes a while.
const FILLING: usize = 600;
/// Keys that get to Vault before the first move is killed.
const PART: usize = 20;

async fn database(directory: &Path) -> (SqlStore, EmbeddedSecrets) {
    let url = format!("sqlite://{}/data/sidekey.db", directory.display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    let secrets = EmbeddedSecrets::new(store.pools().clone(), Arc::new(SystemClock::new()));
    (store, secrets)
}

async fn fill(secrets: &EmbeddedSecrets) {
    let hash = stored(1);
    for number in 0..FILLING {
        let tenant: TenantId = format!("tenant-{}", number % 7).parse().unwrap();
        let key: KeyId = format!("{number:012}").parse().unwrap();
        secrets.add_hash(&tenant, key, &hash).await.unwrap();
    }
}

fn secrets_command(directory: &Path, arguments: &[&str]) -> Ended {
    let all = [&["secrets"], arguments, &["--config", "vault.toml"]].concat();
    run(directory, &all, &[])
}

/// A way to `bao` on which no key's hash gets through after the first ones.
async fn narrow_way(bao: &OpenBao) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (client, to) = (client_builder().build().unwrap(), bao.url());
    let written = Arc::new(AtomicUsize::new(0));
    let pass = move |request: Request| pass(client.clone(), to.clone(), written.clone(), request);
    let router = Router::new().fallback(pass);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn pass(
    client: reqwest::Client,
    to: String,
    written: Arc<AtomicUsize>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let is_write = parts.method == reqwest::Method::POST && path.contains("/data/api_keys/");
    if is_write && written.fetch_add(1, Ordering::SeqCst) >= PART {
        return std::future::pending().await;
    }
    // The client writes these itself.
    for name in ["host", "content-length"] {
        parts.headers.remove(name);
    }
    let request = client.request(parts.method, format!("{to}{path}"));
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let answer = request.headers(parts.headers).body(body).send().await;
    let answer = answer.unwrap();
    let status = answer.status();
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    *response.status_mut() = status;
    response
}

/// Holds whoever removes hashes once there are no more than `FILLING` left.
const HELD: &str = "CREATE VIEW endless AS WITH RECURSIVE numbers (n) AS \
    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers; \
    CREATE TRIGGER held BEFORE DELETE ON key_hashes \
    WHEN (SELECT count(*) FROM key_hashes) <= {filling} BEGIN SELECT count(n) FROM endless; END";
const NOT_HELD: &str = "DROP TRIGGER held; DROP VIEW endless";

async fn run_sql(store: &SqlStore, sql: &str) {
    let sql = sql.replace("{filling}", &FILLING.to_string());
    let running = sqlx::raw_sql(AssertSqlSafe(sql)).execute(store.writer());
    running.await.unwrap();
}

fn start_move(directory: &Path, config: &str) -> Child {
    Command::new(program())
        .current_dir(directory)
        .args(["secrets", "move", "--config", config])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn moved_keys(bao: &OpenBao) -> usize {
    let mut count = 0;
    for folder in bao.list("api_keys").await {
        count += bao.list(&format!("api_keys/{folder}")).await.len();
    }
    count
}

/// A Sidekey with keys in its database, ended, and the configuration with Vault beside it.
async fn embedded(upstream: &Upstream, bao: &OpenBao) -> (Sidekey, Vec<Key>) {
    let role = bao.app_role(json!({}), None).await;
    let mut sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(sidekey.create_key(json!({})).await);
    }
    let second = sidekey.regenerate_key(&keys[0].id, 3600).await;
    keys.push(second);
    sidekey.kill();
    let text = config(upstream.address, &bao.config(&role.lines()));
    std::fs::write(sidekey.directory().join("vault.toml"), &text).unwrap();
    sidekey.reconfigure(text);
    (sidekey, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_killed_is_finished_by_the_next() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let (sidekey, keys) = embedded(&upstream, &bao).await;
    let (store, secrets) = database(sidekey.directory()).await;
    fill(&secrets).await;
    let all = secrets.holders().await.unwrap().len();
    assert_eq!(all, FILLING + 4, "with the first admin key");

    // Killed while it copies: nothing was removed.
    let text = std::fs::read_to_string(sidekey.directory().join("vault.toml")).unwrap();
    let text = text.replace(&bao.url(), &narrow_way(&bao).await);
    std::fs::write(sidekey.directory().join("narrow.toml"), text).unwrap();
    let child = start_move(sidekey.directory(), "narrow.toml");
    eventually("a part is in Vault", || async {
        moved_keys(&bao).await >= PART
    })
    .await;
    kill(child);
    let copied = moved_keys(&bao).await;
    assert!(copied < all, "it was killed too late: {copied}");
    assert_eq!(secrets.holders().await.unwrap().len(), all);
    // Killed while it removes: what is gone here is in Vault.
    run_sql(&store, HELD).await;
    let child = start_move(sidekey.directory(), "vault.toml");
    eventually("a part is removed", || async {
        secrets.holders().await.unwrap().len() < all
    })
    .await;
    kill(child);
    run_sql(&store, NOT_HELD).await;
    assert_eq!(moved_keys(&bao).await, all);
    assert_eq!(
        secrets.mint_material().await.unwrap().len(),
        1,
        "removed at the very end"
    );

    let ended = secrets_command(sidekey.directory(), &["move"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("Vault has 1 mint keys"), "{ended:?}");
    assert!(secrets.holders().await.unwrap().is_empty());
    assert!(secrets.mint_material().await.unwrap().is_empty());
    let again = secrets_command(sidekey.directory(), &["move"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("0 keys with 0 hashes"), "{again:?}");
    store.close().await;

    let sidekey = sidekey.restart().await;
    for key in &keys {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
    let new = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &new.text).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_leaves_everything_and_other_mint_keys_are_refused() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let (mut sidekey, keys) = embedded(&upstream, &bao).await;
    let directory = sidekey.directory().to_owned();

    // Started too early: that would make every key a forged one.
    let environment = [
        ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
        ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
    ];
    let early = run(
        &directory,
        &["serve", "--config", "vault.toml"],
        &environment,
    );
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.stderr.contains("sidekey secrets move"), "{early:?}");
    // So would a rotation that makes the first one.
    let early = secrets_command(&directory, &["rotate-mint-key"]);
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.stderr.contains("sidekey secrets move"), "{early:?}");
    assert_eq!(bao.value("mint_keys").await, json!(null));

    bao.put("mint_keys", json!({"keys": ["ab".repeat(32)]}))
        .await;
    let refused = secrets_command(&directory, &["move"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("other mint keys"), "{refused:?}");
    assert_eq!(moved_keys(&bao).await, 0);
    bao.ask(reqwest::Method::DELETE, "secret/metadata/mint_keys", None)
        .await;

    // A damaged hash is named, and not copied.
    let (store, secrets) = database(&directory).await;
    let (tenant, key): (TenantId, KeyId) =
        ("acme".parse().unwrap(), "4fzN8cQ2pLrT".parse().unwrap());
    let damaged = StoredHash {
        generation: Generation(7),
        hash: SecretHash::from_stored("$2b$not-to-be-shown".to_owned()),
    };
    secrets.add_hash(&tenant, key, &damaged).await.unwrap();
    let refused = secrets_command(&directory, &["move"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("key 4fzN8cQ2pLrT, generation 7")
            && !refused.stderr.contains("not-to-be-shown"),
        "{refused:?}"
    );
    assert!(!bao.list("api_keys/acme").await.contains(&key.to_string()));
    let gone = [damaged.generation];
    secrets.remove_hashes(&tenant, key, &gone).await.unwrap();
    store.close().await;
    // What else was copied meanwhile is not asked about here.
    for folder in bao.list("api_keys").await {
        for name in bao.list(&format!("api_keys/{folder}")).await {
            let path = format!("secret/metadata/api_keys/{folder}{name}");
            bao.ask(reqwest::Method::DELETE, &path, None).await;
        }
    }

    let kept = secrets_command(&directory, &["move", "--keep"]);
    assert_eq!(kept.code, Some(0), "{kept:?}");
    assert!(
        kept.stdout.contains(
            "4 keys with 5 hashes were in the database, 5 of them were copied, 0 removed"
        ),
        "{kept:?}"
    );
    let (store, secrets) = database(&directory).await;
    assert_eq!(secrets.holders().await.unwrap().len(), 4);

    // Another hash for the same generation of a key is nobody's to decide.
    let path = format!("api_keys/acme/{}", keys[1].id);
    let good = bao.value(&path).await;
    let other = bao.value(&format!("api_keys/acme/{}", keys[2].id)).await;
    bao.put(&path, other).await;
    let refused = secrets_command(&directory, &["move"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains(&keys[1].id) && !refused.stderr.contains("$2b$"),
        "{refused:?}"
    );
    assert_eq!(
        secrets.holders().await.unwrap().len(),
        4,
        "nothing was removed"
    );
    bao.put(&path, good).await;

    // A rotated mint key still holds the old one.
    let rotated = secrets_command(&directory, &["rotate-mint-key"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let done = secrets_command(&directory, &["move"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("Vault has 2 mint keys"), "{done:?}");
    store.close().await;

    // With the embedded backend again there would be a new mint key.
    sidekey.reconfigure(config(upstream.address, ""));
    let text = config(upstream.address, "");
    std::fs::write(directory.join("embedded.toml"), text).unwrap();
    let back = run(
        &directory,
        &["serve", "--config", "embedded.toml"],
        &environment,
    );
    assert_eq!(back.code, Some(1), "{back:?}");
    assert!(back.stderr.contains("secrets.backend"), "{back:?}");

    let text = std::fs::read_to_string(directory.join("vault.toml")).unwrap();
    sidekey.reconfigure(text);
    let sidekey = sidekey.restart().await;
    let new = sidekey.create_key(json!({})).await;
    for key in keys.iter().chain([&new]) {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_mint_key_is_rotated_too() {
    let upstream = Upstream::start().await;
    let mut sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let old = sidekey.create_key(json!({})).await;
    sidekey.kill();
    let directory = sidekey.directory().to_owned();
    std::fs::write(directory.join("vault.toml"), config(upstream.address, "")).unwrap();
    let refused = secrets_command(&directory, &["move"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("secrets.backend = \"vault\""),
        "{refused:?}"
    );
    let rotated = secrets_command(&directory, &["rotate-mint-key"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    assert!(rotated.stdout.contains("2 mint keys"), "{rotated:?}");
    let sidekey = sidekey.restart().await;
    let new = sidekey.create_key(json!({})).await;
    for key in [&old, &new] {
        assert_eq!(sidekey.status("/", &key.text).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_beside_hashes_in_vault_is_refused() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let vault = crate::vault::open(&bao).await;
    vault.mint_keys().await.unwrap();
    let hash = stored(1);
    let tenant: TenantId = "acme".parse().unwrap();
    for number in 0..20 {
        let key: KeyId = format!("{number:012}").parse().unwrap();
        vault.add_hash(&tenant, key, &hash).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let text = config(upstream.address, &bao.config(&role.lines()));
    std::fs::write(directory.path().join("sidekey.toml"), text).unwrap();
    let environment = [
        ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
        ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
    ];
    let serve = ["serve", "--config", "sidekey.toml"];
    let refused = run(directory.path(), &serve, &environment);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("check store.url"), "{refused:?}");
    assert_eq!(moved_keys(&bao).await, 20, "nothing was removed");
}
