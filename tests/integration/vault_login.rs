//! Tokens of Vault: they are renewed, and where that is not possible there is a new login, while keys
//! that nobody has seen before go on to work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::openbao::OpenBao;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::tls::make_certificates;

/// Creates and uses new keys for `time`: each of them needs a token that holds.
async fn use_new_keys(sidekey: &Sidekey, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        let key = sidekey.create_key(json!({})).await;
        assert_eq!(sidekey.status("/", &key.text).await, 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn logins(sidekey: &Sidekey) -> usize {
    sidekey.output().matches("logged in at Vault").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_token_is_renewed_for_as_long_as_it_may_be() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    // A third of it is left when it is renewed: a machine may stand still for as long.
    let role = bao.app_role(json!({"token_ttl": "20s"}), None).await;
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&role.lines()))).await;
    use_new_keys(&sidekey, Duration::from_secs(25)).await;
    assert_eq!(logins(&sidekey).await, 1, "renewed, not logged in again");
    assert_eq!(
        sidekey.metric("sidekey_vault_login_errors_total").await,
        0.0
    );
    assert!(sidekey.metric("sidekey_vault_token_ttl_seconds").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_would_end_for_good_is_replaced() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let fields = json!({"token_ttl": "3s", "token_max_ttl": "4s"});
    let role = bao.app_role(fields, None).await;
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&role.lines()))).await;
    use_new_keys(&sidekey, Duration::from_secs(9)).await;
    eventually("there were new logins", || async {
        logins(&sidekey).await >= 3
    })
    .await;
    // Batch tokens can't be renewed at all.
    let batch = json!({"token_type": "batch", "token_ttl": "3s", "token_policies": ["sidekey"], "token_max_ttl": "0s"});
    bao.must(None, "auth/approle/role/sidekey", batch).await;
    let sidekey = sidekey.restart().await;
    use_new_keys(&sidekey, Duration::from_secs(6)).await;
}

/// Somebody revokes the token: the next call logs in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_is_replaced_at_once() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let role = bao.app_role(json!({}), None).await;
    let file = bao_file(&role.secret_id);
    let lines = format!(
        "auth = \"approle\"\nrole_id = \"{}\"\nsecret_id_file = \"{}\"\n",
        role.role_id,
        file.path().display()
    );
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
    let key = sidekey.create_key(json!({})).await;
    let all = json!({"sync": true});
    let revoke = "sys/leases/revoke-prefix/auth/approle/login";
    bao.ask(Method::PUT, revoke, Some(&all)).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    eventually("the log tells", || async { logins(&sidekey).await >= 2 }).await;
    assert_eq!(logins(&sidekey).await, 2, "{}", sidekey.output());

    // A secret id that does not hold any more is said clearly, and a new one in its file is taken.
    let old = json!({"secret_id": role.secret_id});
    bao.must(None, "auth/approle/role/sidekey/secret-id/destroy", old)
        .await;
    bao.ask(Method::PUT, revoke, Some(&all)).await;
    let cold = sidekey.create_key_later().await;
    assert_eq!(cold, 503);
    eventually("the log says why", || async {
        sidekey.output().contains("check role_id and secret_id")
    })
    .await;
    assert!(sidekey.metric("sidekey_vault_login_errors_total").await >= 1.0);
    std::fs::write(file.path(), bao.secret_id(None).await + "\n").unwrap();
    eventually("the new secret id is used", || async {
        sidekey.create_key_later().await == 201
    })
    .await;
    assert!(!sidekey.output().contains(&role.secret_id));
}

fn bao_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{text}\n")).unwrap();
    file
}

impl Sidekey {
    /// The status of creating a key.
    async fn create_key_later(&self) -> u16 {
        let body = json!({"name": "k", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]});
        self.ask(Method::POST, crate::harness::sidekey::KEYS, Some(&body))
            .await
            .status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_token_is_renewed_and_one_that_ends_is_warned_about() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let renewable = bao.token(json!({"ttl": "20s", "renewable": true})).await;
    let lines = format!("auth = \"token\"\ntoken = \"{renewable}\"\n");
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
    use_new_keys(&sidekey, Duration::from_secs(25)).await;
    assert!(!sidekey.output().contains(&renewable));
    drop(sidekey);

    let file = bao_file("");
    for (line, can_be_replaced) in [
        ("token = \"{ending}\"\n".to_owned(), false),
        (
            format!("token_file = \"{}\"\n", file.path().display()),
            true,
        ),
    ] {
        // Not beside the hashes of another database.
        let bao = OpenBao::start().await;
        let token = bao.token(json!({"ttl": "20s", "renewable": false})).await;
        std::fs::write(file.path(), &token).unwrap();
        let line = line.replace("{ending}", &token);
        let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&line))).await;
        if can_be_replaced {
            // As an agent beside Sidekey does.
            let next = bao.token(json!({"ttl": "1h"})).await;
            std::fs::write(file.path(), next).unwrap();
            use_new_keys(&sidekey, Duration::from_secs(21)).await;
        } else {
            eventually("the log warns", || async {
                sidekey
                    .output()
                    .contains("secrets.vault.token_file, or a login")
            })
            .await;
            assert_eq!(sidekey.create_key_later().await, 201, "before it ends");
        }
        assert!(!sidekey.output().contains(&token));
    }
}

/// A service account's token, as far as OpenBao looks at it itself: who it is for. Whether it is genuine
/// is the question that it asks Kubernetes.
fn account_token(nonce: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let account = json!({"name": "sidekey", "uid": "7d2c4e4b-0000-4000-8000-000000000001"});
    let claims = json!({
        "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:prod:sidekey",
        "exp": 4_000_000_000_u64, "iat": 1_700_000_000, "nbf": 1_700_000_000, "jti": nonce,
        "aud": ["https://kubernetes.default.svc"],
        "kubernetes.io": {"namespace": "prod", "serviceaccount": account},
    });
    let head = part(json!({"alg": "RS256", "typ": "JWT"}));
    format!(
        "{head}.{}.{}",
        part(claims),
        URL_SAFE_NO_PAD.encode([7; 256])
    )
}

/// The one call of Kubernetes that OpenBao makes: it believes the token in `genuine`.
async fn kubernetes(genuine: Arc<parking_lot::Mutex<String>>) -> String {
    let review = move |Json(asked): Json<Value>| {
        let is_genuine = asked["spec"]["token"] == *genuine.lock();
        async move {
            let user = json!({
                "username": "system:serviceaccount:prod:sidekey",
                "uid": "7d2c4e4b-0000-4000-8000-000000000001",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            });
            let mut status = json!({"authenticated": is_genuine});
            if is_genuine {
                status["user"] = user;
                status["audiences"] = json!(["https://kubernetes.default.svc"]);
            }
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
            (axum::http::StatusCode::CREATED, Json(review))
        }
    };
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let router = Router::new().route(path, post(review));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_logs_in() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    bao.policy(None).await;
    let first = account_token("first");
    let genuine = Arc::new(parking_lot::Mutex::new(first.clone()));
    let host = kubernetes(genuine.clone()).await;
    bao.must(None, "sys/auth/cluster", json!({"type": "kubernetes"}))
        .await;
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let authority = std::fs::read_to_string(directory.path().join("ca.pem")).unwrap();
    let cluster = json!({
        "kubernetes_host": host, "kubernetes_ca_cert": authority, "disable_local_ca_jwt": true, "token_reviewer_jwt": account_token("reviewer"),
    });
    bao.must(None, "auth/cluster/config", cluster).await;
    let role = json!({
        "bound_service_account_names": ["sidekey"], "bound_service_account_namespaces": ["prod"],
        "token_policies": ["sidekey"], "token_ttl": "5s", "token_max_ttl": "8s", "token_no_default_policy": true,
    });
    bao.must(None, "auth/cluster/role/gateway", role).await;
    let file = bao_file(&first);
    let lines = format!(
        "auth = \"kubernetes\"\nrole = \"gateway\"\nauth_mount = \"cluster\"\njwt_file = \"{}\"\n",
        file.path().display()
    );
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
    use_new_keys(&sidekey, Duration::from_secs(9)).await;
    // Kubernetes replaces the token in its file from time to time.
    let second = account_token("second");
    std::fs::write(file.path(), &second).unwrap();
    genuine.lock().clone_from(&second);
    let before = logins(&sidekey).await;
    eventually("it logged in with the new token", || async {
        logins(&sidekey).await >= before + 2
    })
    .await;
    use_new_keys(&sidekey, Duration::from_secs(1)).await;
    for token in [&first, &second] {
        assert!(!sidekey.output().contains(token.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_its_own() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    bao.must(None, "sys/namespaces/team-a", json!({})).await;
    let space = Some("team-a");
    bao.mount("secret", space).await;
    let role = bao.app_role(json!({}), space).await;
    let lines = format!("{}namespace = \"team-a\"\n", role.lines());
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let path = format!("secret/data/api_keys/acme/{}", key.id);
    assert_eq!(bao.ask_in(space, Method::GET, &path, None).await.0, 200);
    assert_eq!(bao.ask(Method::GET, &path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let authority = directory.path().join("ca.pem");
    let upstream = Upstream::start().await;
    let bao = OpenBao::start_tls(directory).await;
    let role = bao.app_role(json!({}), None).await;
    let lines = format!("{}ca_file = \"{}\"\n", role.lines(), authority.display());
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let expiry = "sidekey_certificate_expiry_timestamp_seconds{certificate=\"vault_ca\"}";
    eventually("its end is shown", || async {
        sidekey.metric(expiry).await > 0.0
    })
    .await;

    let directory = tempfile::tempdir().unwrap();
    let text = config(upstream.address, &bao.config(&role.lines()));
    std::fs::write(directory.path().join("sidekey.toml"), text).unwrap();
    let arguments = ["serve", "--config", "sidekey.toml"];
    let environment = [
        ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
        ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
    ];
    let ended = crate::harness::run::run(directory.path(), &arguments, &environment);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("UnknownIssuer"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_that_nobody_can_replace_shows_in_the_metrics() {
    let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
    let token = bao.token(json!({"ttl": "1h"})).await;
    let lines = format!("auth = \"token\"\ntoken = \"{token}\"\n");
    let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
    let ttl = "sidekey_vault_token_ttl_seconds";
    assert!(sidekey.metric(ttl).await > 3000.0);
    bao.must(None, "auth/token/revoke", json!({"token": token}))
        .await;
    let errors = "sidekey_vault_login_errors_total";
    eventually("it is noticed", || async {
        sidekey.metric(errors).await >= 1.0
    })
    .await;
    assert_eq!(sidekey.metric(ttl).await, -1.0);
    assert!(!sidekey.output().contains(&token));
}
