//! While Vault is away (sealed, hanging, killed): warm keys are served, cold keys and changes are 503 at
//! once, and afterwards everything works as before.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::openbao::OpenBao;
use crate::harness::run::run;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

/// The limit of one call in these tests.
const TIMEOUT: Duration = Duration::from_secs(4);
/// What a request may take beside it, on a machine with other things to do.
const SLACK: Duration = Duration::from_secs(8);

async fn start(upstream: &Upstream, bao: &OpenBao) -> Sidekey {
    let role = bao.app_role(json!({}), None).await;
    let lines = format!("{}timeout_ms = {}\n", role.lines(), TIMEOUT.as_millis());
    Sidekey::start(&config(upstream.address, &bao.config(&lines))).await
}

async fn create(sidekey: &Sidekey) -> Reply {
    let body =
        json!({"name": "k", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]});
    sidekey.ask(Method::POST, KEYS, Some(&body)).await
}

/// A status, from a request that took no longer than a call of Vault may.
async fn prompt(sidekey: &Sidekey, key: &Key) -> u16 {
    let start = Instant::now();
    let answer = sidekey.get("/", &key.text).await;
    assert!(start.elapsed() < TIMEOUT + SLACK, "{:?}", start.elapsed());
    if answer.status() == 503 {
        assert!(answer.headers().contains_key("retry-after"));
    }
    answer.status().as_u16()
}

/// Requests with a warm key, one after the other, until `stop`; how many were not 200.
fn load(
    sidekey: &Sidekey,
    key: &Key,
) -> (
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<(usize, usize)>,
) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let (client, url, key) = (
        sidekey.client.clone(),
        format!("http://{}/", sidekey.proxy),
        key.text.clone(),
    );
    let task = tokio::spawn(async move {
        let (mut all, mut bad) = (0, 0);
        while stopped.try_recv().is_err() {
            let answer = client.get(&url).bearer_auth(&key).send().await;
            all += 1;
            bad += usize::from(answer.is_ok_and(|answer| answer.status() != 200));
        }
        (all, bad)
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_vault_is_away_warm_keys_are_served() {
    let upstream = Upstream::start().await;
    let mut bao = OpenBao::start_durable().await;
    let limits = "[limits]\ndefault = [{ name = \"default\", quota = 1000000, window_seconds = 1, burst = 1000000 }]\n";
    let role = bao.app_role(json!({}), None).await;
    let lines = format!("{}timeout_ms = {}\n", role.lines(), TIMEOUT.as_millis());
    let more = format!("{limits}{}", bao.config(&lines));
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let warm = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &warm.text).await, 200);
    for way in ["sealed", "hanging", "killed"] {
        let mut cold = Vec::new();
        for _ in 0..8 {
            cold.push(sidekey.create_key(json!({})).await);
        }
        let revoked = sidekey.create_key(json!({})).await;
        assert_eq!(sidekey.status("/", &revoked.text).await, 200);
        let (stop, requests) = load(&sidekey, &warm);
        match way {
            "sealed" => bao.seal().await,
            "hanging" => bao.signal("STOP"),
            _ => bao.kill(),
        }
        for key in &cold {
            assert_eq!(prompt(&sidekey, key).await, 503, "{way}");
        }
        assert_eq!(create(&sidekey).await.status, 503, "{way}");
        // The row alone makes a revocation hold.
        sidekey.revoke_key(&revoked.id).await;
        assert_eq!(prompt(&sidekey, &revoked).await, 401, "{way}");
        eventually("the metric tells", || async {
            sidekey.metric("sidekey_vault_up").await == 0.0
        })
        .await;
        let ready = sidekey.ask_as(None, Method::GET, "/readyz", None).await;
        assert_eq!(ready.status, 503, "{way}");
        assert_eq!(ready.json()["checks"]["secret_store"], "away");
        assert_eq!(ready.json()["checks"]["database"], "ok");
        match way {
            "sealed" => bao.unseal().await,
            "hanging" => bao.signal("CONT"),
            _ => {
                bao.launch().await;
                bao.unseal().await;
            }
        }
        for key in &cold {
            eventually("a cold key is verified", || async {
                prompt(&sidekey, key).await == 200
            })
            .await;
        }
        eventually("keys can be made", || async {
            create(&sidekey).await.status == 201
        })
        .await;
        assert_eq!(sidekey.metric("sidekey_vault_up").await, 1.0, "{way}");
        assert_eq!(prompt(&sidekey, &revoked).await, 401, "{way}");
        let _ = stop.send(());
        let (all, bad) = requests.await.unwrap();
        assert!(all > 0 && bad == 0, "{way}: {bad} of {all} warm requests");
    }
    for told in ["Vault is away", "Vault answers again", "it is sealed"] {
        eventually("the log tells", || async {
            sidekey.output().contains(told)
        })
        .await;
    }
}

/// When its breaker is open, an outage costs nobody any time.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_answered_at_once_after_a_few_failures() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let sidekey = start(&upstream, &bao).await;
    let mut cold = Vec::new();
    for _ in 0..12 {
        cold.push(sidekey.create_key(json!({})).await);
    }
    bao.signal("STOP");
    let start = Instant::now();
    for key in &cold {
        assert_eq!(sidekey.status("/", &key.text).await, 503);
    }
    // Three fail before it opens; of the rest only probes wait, half a second apart at least.
    let waits = 12 * TIMEOUT;
    assert!(start.elapsed() < waits - TIMEOUT, "{:?}", start.elapsed());
    bao.signal("CONT");
    eventually("a cold key is verified", || async {
        sidekey.status("/", &cold[0].text).await == 200
    })
    .await;
}

/// Without Vault there is no mint key: the start fails with one sentence, as it does without a database.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_vault_fails_with_a_sentence() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let directory = tempfile::tempdir().unwrap();
    let fails = |lines: String| {
        let file = directory.path().join("sidekey.toml");
        std::fs::write(file, config(upstream.address, &lines)).unwrap();
        let environment = [
            ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
            ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
        ];
        let arguments = ["serve", "--config", "sidekey.toml"];
        let ended = run(directory.path(), &arguments, &environment);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        assert!(!ended.stderr.contains(&role.secret_id), "{ended:?}");
        let last = ended
            .stderr
            .lines()
            .find(|line| line.starts_with("sidekey: "));
        last.unwrap_or_else(|| panic!("{ended:?}")).to_owned()
    };
    let good = bao.config(&role.lines());
    let port = nobody().port();
    let away = good.replace(&bao.url(), &format!("http://127.0.0.1:{port}"));
    assert!(fails(away).contains("refused"), "nobody listens");
    let wrong = good.replace(&role.role_id, "somebody-else");
    assert!(fails(wrong).contains("check role_id and secret_id"));
    let mount = good.replace("auth = ", "mount = \"other\"\nauth = ");
    assert!(fails(mount).contains("config/vault-policy.hcl"));
    let namespace = good.replace("auth = ", "namespace = \"nowhere\"\nauth = ");
    assert!(fails(namespace).contains("secrets.vault.namespace"));
    bao.seal().await;
    assert!(fails(good).contains("sealed"));
    bao.signal("STOP");
    let hurried = bao.config(&format!("{}timeout_ms = 2000\n", role.lines()));
    assert!(fails(hurried).contains("no answer within 2000 ms"));
    bao.signal("CONT");
}
