//! Hashes and mint keys in Vault: the same store as the embedded one, with the rights of the shipped
//! policy; what lies there, and what happens where it is not as it was written.

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sidekey::clock::SystemClock;
use sidekey::key::hash::{COST_MIN, SecretHash};
use sidekey::key::{Environment, Generation, KeyId, Presented, TenantId};
use sidekey::secrets::{
    EmbeddedSecrets, Holder, SecretError, SecretStore, StoredHash, VaultSecrets,
};
use sidekey::store::SqlStore;
use sidekey::telemetry::Metrics;

use crate::harness::eventually;
use crate::harness::openbao::OpenBao;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// A store in this process, that may do everything.
pub async fn open(bao: &OpenBao) -> VaultSecrets {
    let metrics = Arc::new(Metrics::new().unwrap());
    let opened = VaultSecrets::open(bao.settings(), Arc::new(SystemClock::new()), metrics);
    opened.await.unwrap()
}

pub fn stored(generation: i64) -> StoredHash {
    let secret = format!("a secret of generation {generation}");
    StoredHash {
        generation: Generation(generation),
        hash: SecretHash::create(&secret, COST_MIN, &mut || ()).unwrap(),
    }
}

async fn generations(store: &dyn SecretStore, tenant: &TenantId, key: KeyId) -> Vec<i64> {
    let hashes = store.hashes(tenant, key).await.unwrap();
    hashes.iter().map(|hash| hash.generation.0).collect()
}

/// What every secret store has to do in the same way.
async fn exercise(store: Arc<dyn SecretStore>) {
    let store = store.as_ref();
    store.ping().await.unwrap();
    let (tenant, other): (TenantId, TenantId) = ("a..b.".parse().unwrap(), "a.b".parse().unwrap());
    let key: KeyId = "4fzN8cQ2pLrT".parse().unwrap();
    assert!(store.holders().await.unwrap().is_empty());
    assert!(store.hashes(&tenant, key).await.unwrap().is_empty());
    store
        .remove_hashes(&tenant, key, &[Generation(1)])
        .await
        .unwrap();

    // One hash a generation, which nothing writes over.
    let hashes: Vec<StoredHash> = (1..=12).map(stored).collect();
    for hash in &hashes {
        store.add_hash(&tenant, key, hash).await.unwrap();
        let again = store
            .add_hash(&tenant, key, &stored(hash.generation.0))
            .await;
        assert!(matches!(again, Err(SecretError::Conflict)), "{again:?}");
    }
    let found = store.hashes(&tenant, key).await.unwrap();
    assert_eq!(found.len(), hashes.len());
    for (found, written) in found.iter().zip(hashes.iter().rev()) {
        assert_eq!(found.generation, written.generation);
        assert!(found.hash == written.hash, "hashes come back as they were");
    }

    // Another tenant's path is another.
    assert!(store.hashes(&other, key).await.unwrap().is_empty());
    let all: Vec<Generation> = hashes.iter().map(|hash| hash.generation).collect();
    store.remove_hashes(&other, key, &all).await.unwrap();
    assert_eq!(generations(store, &tenant, key).await.len(), 12);

    store.remove_hashes(&tenant, key, &[]).await.unwrap();
    store.remove_hashes(&tenant, key, &all[..9]).await.unwrap();
    assert_eq!(generations(store, &tenant, key).await, [12, 11, 10]);
    let second: KeyId = "000000000000".parse().unwrap();
    store.add_hash(&other, second, &stored(7)).await.unwrap();
    let holders = |pairs: &[(&TenantId, KeyId)]| -> BTreeSet<(TenantId, KeyId)> {
        pairs.iter().map(|(t, k)| ((*t).clone(), *k)).collect()
    };
    let listed = async || -> BTreeSet<(TenantId, KeyId)> {
        let list = store.holders().await.unwrap();
        list.into_iter()
            .map(|Holder { tenant, key }| (tenant, key))
            .collect()
    };
    assert_eq!(listed().await, holders(&[(&tenant, key), (&other, second)]));
    store.remove_hashes(&tenant, key, &all).await.unwrap();
    assert_eq!(listed().await, holders(&[(&other, second)]));

    // A key that is empty can be filled again.
    store.add_hash(&tenant, key, &stored(13)).await.unwrap();
    assert_eq!(generations(store, &tenant, key).await, [13]);
}

/// Nobody's hash is lost where several add and remove at the same time.
async fn crowd(store: Arc<dyn SecretStore>) {
    let tenant: TenantId = "crowd".parse().unwrap();
    let key: KeyId = "4fzN8cQ2pLrT".parse().unwrap();
    store.add_hash(&tenant, key, &stored(9)).await.unwrap();
    let adding = (1..=8).map(|generation| {
        let (store, tenant) = (store.clone(), tenant.clone());
        tokio::spawn(async move {
            let hash = stored(generation);
            store.add_hash(&tenant, key, &hash).await.unwrap();
            if generation % 2 == 0 {
                let gone = [hash.generation];
                store.remove_hashes(&tenant, key, &gone).await.unwrap();
            }
        })
    });
    for task in adding.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(
        generations(store.as_ref(), &tenant, key).await,
        [9, 7, 5, 3, 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secret_stores_do_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let database = SqlStore::open(&SecretString::from(url)).await.unwrap();
    let embedded = EmbeddedSecrets::new(database.pools().clone(), Arc::new(SystemClock::new()));
    let bao = OpenBao::start().await;
    let stores: [Arc<dyn SecretStore>; 2] = [Arc::new(embedded), Arc::new(open(&bao).await)];
    for store in stores {
        let (a, b) = tokio::join!(store.mint_keys(), store.mint_keys());
        let minted = a.unwrap().mint(&"sk".parse().unwrap(), Environment::Live);
        let minted = minted.unwrap();
        let presented = Presented::parse(minted.text.expose_secret()).unwrap();
        assert!(b.unwrap().minted(&presented), "one mint key");
        exercise(store.clone()).await;
        crowd(store).await;
    }
    // What somebody else keeps in the same folders is left out.
    bao.put("api_keys/note", json!({"a": 1})).await;
    bao.put("api_keys/acme/not-a-key", json!({"a": 1})).await;
    bao.put("api_keys/.hidden/4fzN8cQ2pLrT", json!({"a": 1}))
        .await;
    let holders = open(&bao).await.holders().await.unwrap();
    assert_eq!(holders.len(), 3, "{holders:?}");
}

/// The versions of a path that still hold something.
async fn versions(bao: &OpenBao, path: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for version in 1..=10 {
        let path = format!("secret/data/{path}?version={version}");
        let (_, answer) = bao.ask(Method::GET, &path, None).await;
        if answer["data"]["data"].is_object() {
            found.push(answer["data"]["data"].clone());
        }
    }
    found
}

/// Whether anything in `text` looks like a token of OpenBao: `s.` and 24 letters and digits.
fn shows_token(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .filter_map(|word| word.strip_prefix("s."))
        .any(|rest| rest.len() >= 24)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_in_vault_with_the_rights_of_the_shipped_policy() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let often = [("SIDEKEY__SECRETS__RECONCILE_INTERVAL_SECONDS", "1")];
    let config = config(upstream.address, &bao.config(&role.lines()));
    let sidekey = Sidekey::start_with(&config, &often).await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let ready = sidekey.ask_as(None, Method::GET, "/readyz", None).await;
    assert_eq!(ready.status, 200, "{ready:?}");
    let path = format!("api_keys/acme/{}", key.id);
    let value = bao.value(&path).await;
    let first = value["hashes"]["1"].as_str().unwrap().to_owned();
    assert!(first.starts_with("$2b$04$") && first.len() == 60);
    assert_eq!(
        value,
        json!({"hashes": {"1": first}}),
        "a hash and nothing else"
    );

    // Everything can be looked through.
    eventually("the stores have been compared", || async {
        sidekey.metric("sidekey_reconcile_runs_total").await >= 2.0
    })
    .await;
    assert_eq!(sidekey.metric("sidekey_reconcile_errors_total").await, 0.0);

    // A replaced hash stays for its grace period, and then goes from the history too.
    let second = sidekey.regenerate_key(&key.id, 3600).await;
    assert_eq!(
        bao.value(&path).await["hashes"].as_object().unwrap().len(),
        2
    );
    assert_eq!(sidekey.status("/", &second.text).await, 200);
    let third = sidekey.regenerate_key(&key.id, 0).await;
    assert_eq!(sidekey.status("/", &third.text).await, 200);
    assert_eq!(sidekey.status("/", &second.text).await, 401);
    let kept = versions(&bao, &path).await;
    assert_eq!(
        kept.len(),
        1,
        "no old version holds a removed hash: {kept:?}"
    );
    assert!(!kept[0].to_string().contains(&first));
    assert_eq!(kept[0]["hashes"].as_object().unwrap().len(), 1, "{kept:?}");

    sidekey.revoke_key(&key.id).await;
    assert_eq!(sidekey.status("/", &third.text).await, 401);
    assert!(versions(&bao, &path).await.is_empty());
    let metadata = format!("secret/metadata/{path}");
    assert_eq!(bao.ask(Method::GET, &metadata, None).await.0, 404);

    // The same after a start: the mint key and the hashes are there.
    let kept = sidekey.create_key(json!({})).await;
    let sidekey = sidekey.restart().await;
    assert_eq!(sidekey.status("/", &kept.text).await, 200);
    assert_eq!(sidekey.metric("sidekey_vault_up").await, 1.0);

    let hash = bao.value(&format!("api_keys/acme/{}", kept.id)).await["hashes"]["1"].clone();
    let mint_key = bao.value("mint_keys").await["keys"][0].clone();
    let shown = sidekey.output() + sidekey.metrics().await.as_str();
    for secret in [
        role.secret_id,
        hash.as_str().unwrap().to_owned(),
        mint_key.as_str().unwrap().to_owned(),
    ] {
        assert!(!shown.contains(&secret), "a secret is shown");
    }
    assert!(!shows_token(&shown), "a token is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_that_start_at_once_share_one_mint_key() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let postgres = Postgres::start().await;
    let role = bao.app_role(json!({}), None).await;
    let config = config(upstream.address, &bao.config(&role.lines()));
    let url = postgres.url();
    let environment = [("SIDEKEY__STORE__URL", url.as_str())];
    let (a, b) = tokio::join!(
        Sidekey::start_with(&config, &environment),
        Sidekey::start_with(&config, &environment)
    );
    let (a, b) = if a.directory().join("data/admin.key").exists() {
        (a, b)
    } else {
        (b, a)
    };
    let key = a.create_key(json!({})).await;
    assert_eq!(a.status("/", &key.text).await, 200);
    assert_eq!(b.status("/", &key.text).await, 200);
    assert_eq!(
        bao.value("mint_keys").await["keys"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

async fn create(sidekey: &Sidekey) -> u16 {
    let body =
        json!({"name": "k", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]});
    sidekey.ask(Method::POST, KEYS, Some(&body)).await.status
}

/// A value that was changed by hand fails for its key alone, and the log says which.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_ours_fails_for_its_key_alone() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&role.lines()))).await;
    let good = sidekey.create_key(json!({})).await;
    let mut damaged: Vec<Key> = Vec::new();
    for value in [
        json!({"hashes": {"1": "hunter2"}}),
        json!({"hashes": {"one": "hunter2"}}),
        json!({"password": "hunter2"}),
        json!({"hashes": "hunter2"}),
    ] {
        let key = sidekey.create_key(json!({})).await;
        bao.put(&format!("api_keys/acme/{}", key.id), value).await;
        damaged.push(key);
    }
    for key in &damaged {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        eventually("the log names the key", || async {
            let output = sidekey.output();
            output
                .lines()
                .any(|line| line.contains(&key.id) && line.contains("kv rollback"))
        })
        .await;
    }
    // Deleted, with its history and without: the key has no hash, and a new one can be made.
    for method in ["data", "metadata"] {
        let key = sidekey.create_key(json!({})).await;
        let path = format!("secret/{method}/api_keys/acme/{}", key.id);
        assert_eq!(bao.ask(Method::DELETE, &path, None).await.0, 204);
        assert_eq!(sidekey.status("/", &key.text).await, 503, "{method}");
        let new = sidekey.regenerate_key(&key.id, 0).await;
        assert_eq!(sidekey.status("/", &new.text).await, 200, "{method}");
    }
    assert_eq!(sidekey.status("/", &good.text).await, 200);
    assert_eq!(create(&sidekey).await, 201);
    assert_eq!(
        sidekey.metric("sidekey_vault_up").await,
        1.0,
        "Vault itself is well"
    );
    assert!(
        !sidekey.output().contains("hunter2"),
        "the value is not shown"
    );

    // As the log says: deleted with its history, and regenerated.
    let key = &damaged[0];
    let path = format!("secret/metadata/api_keys/acme/{}", key.id);
    assert_eq!(bao.ask(Method::DELETE, &path, None).await.0, 204);
    let new = sidekey.regenerate_key(&key.id, 0).await;
    assert_eq!(sidekey.status("/", &new.text).await, 200);
}

/// Rights that are missing are named, and don't make an outage of it.
#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_said_clearly() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&role.lines()))).await;
    let (warm, cold) = (
        sidekey.create_key(json!({})).await,
        sidekey.create_key(json!({})).await,
    );
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
    bao.policy_of(
        "path \"auth/token/*\" { capabilities = [\"read\", \"update\"] }",
        None,
    )
    .await;
    assert_eq!(sidekey.status("/", &cold.text).await, 503);
    assert_eq!(create(&sidekey).await, 503);
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
    eventually("the log says what to do", || async {
        let output = sidekey.output();
        let path = format!("secret/api_keys/acme/{}", cold.id);
        output
            .lines()
            .any(|line| line.contains(&path) && line.contains("config/vault-policy.hcl"))
    })
    .await;
    bao.policy(None).await;
    assert_eq!(sidekey.status("/", &cold.text).await, 200);
}
