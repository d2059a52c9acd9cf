//! `sidekey audit verify`: where it looks, what it says and how it ends; with the mint keys in Vault too.

use secrecy::SecretString;
use serde_json::json;
use sidekey::store::SqlStore;
use sqlx::Executor;

use super::{in_background, verify_over_api, verify_stores};
use crate::harness::openbao::OpenBao;
use crate::harness::run::Ended;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

async fn verify(sidekey: &Sidekey, more: &[&str], environment: &[(&str, &str)]) -> Ended {
    let arguments = [&["audit", "verify"], more].concat();
    in_background(sidekey, &arguments, environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_looks_where_it_is_told_to() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let (admin, url) = (sidekey.admin_key(), format!("http://{}/", sidekey.admin));
    let file = sidekey.directory().join("data/admin.key");
    let file = file.display().to_string();
    let with_key = ("SIDEKEY_ADMIN_KEY", admin.as_str());
    let with_url = ("SIDEKEY_ADMIN_URL", url.as_str());
    for (more, environment) in [
        (&["--admin-url", &url][..], &[with_key][..]),
        (&["--admin-url", &url, "--admin-key-file", &file], &[]),
        (&["--admin-key-file", &file], &[with_url]),
        (&[], &[with_key, with_url]),
        (&[], &[("SIDEKEY_ADMIN_KEY_FILE", &*file), with_url]),
        (&["--config", "sidekey.toml"], &[with_key]),
    ] {
        let ended = verify(&sidekey, more, environment).await;
        assert_eq!(ended.code, Some(0), "{more:?}: {ended:?}");
        assert!(ended.stdout.starts_with("the audit chain is intact: "));
        assert_eq!(ended.stdout.lines().count(), 1);
    }
    // The configuration in its usual place, where nothing else is said.
    std::fs::create_dir_all(sidekey.directory().join("config")).unwrap();
    let usual = sidekey.directory().join("config/sidekey.toml");
    std::fs::copy(sidekey.directory().join("sidekey.toml"), usual).unwrap();
    let ended = verify(&sidekey, &[], &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_why_it_can_not_look() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let (admin, url) = (sidekey.admin_key(), format!("http://{}", sidekey.admin));
    let reader = sidekey
        .create_key(json!({"scopes": ["sidekey:audit:read"]}))
        .await;
    let with_key = ("SIDEKEY_ADMIN_KEY", admin.as_str());
    let nowhere = "http://127.0.0.1:1";
    let long = "a".repeat(64);
    for (more, environment, code, said) in [
        (&["--anchor", "1:x"][..], &[][..], 2, "SEQ:HASH"),
        (
            &["--config", "x", "--admin-url", &url],
            &[],
            2,
            "cannot be used with",
        ),
        (
            &["--admin-key-file", "missing"],
            &[],
            2,
            "missing can't be read",
        ),
        (&["--config", "missing.toml"], &[], 2, "missing.toml"),
        (
            &["--admin-url", nowhere],
            &[with_key],
            1,
            "can't be reached",
        ),
        (
            &["--admin-url", &url],
            &[("SIDEKEY_ADMIN_KEY", &*reader.text)],
            1,
            "sidekey:admin",
        ),
        (
            &["--admin-url", &url],
            &[("SIDEKEY_ADMIN_KEY", &*long)],
            1,
            "SIDEKEY_ADMIN_KEY",
        ),
        (&["--admin-url", "x y"], &[with_key], 2, "can't be read"),
    ] {
        let ended = verify(&sidekey, more, environment).await;
        assert_eq!(ended.code, Some(code), "{more:?}: {ended:?}");
        assert!(ended.stderr.contains(said), "{more:?}: {ended:?}");
        for secret in [&admin, &reader.text, &long] {
            assert!(!ended.stderr.contains(secret.as_str()), "{more:?}");
        }
    }
    // A store that is not there is not made.
    let away = format!("sqlite://{}/none.db", sidekey.directory().display());
    let ended = verify_stores(&sidekey, &away, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!sidekey.directory().join("none.db").exists());
}

/// Whoever can write the database, and all of it, can't make seals.
#[tokio::test(flavor = "multi_thread")]
async fn seals_are_made_with_the_mint_key_in_vault() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start().await;
    let token = bao.token(json!({})).await;
    let lines = format!("auth = \"token\"\ntoken = \"{token}\"");
    let config = config(upstream.address, &bao.config(&lines));
    let sidekey = Sidekey::start(&config).await;
    sidekey.create_key(json!({})).await;
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    for ended in [
        verify_stores(&sidekey, &url, &[]).await,
        verify_over_api(&sidekey, &[]).await,
    ] {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    // A rotated mint key still vouches for what it has sealed.
    let rotate = ["secrets", "rotate-mint-key", "--config", "sidekey.toml"];
    assert_eq!(in_background(&sidekey, &rotate, &[]).await.code, Some(0));
    let sidekey = sidekey.restart().await;
    sidekey.create_key(json!({})).await;
    let ended = verify_stores(&sidekey, &url, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let database = SqlStore::open(&SecretString::from(url.clone()))
        .await
        .unwrap();
    let forged = "UPDATE audit_events SET seal = (SELECT seal FROM audit_events WHERE seq = 1) WHERE seq = 2";
    database.writer().execute(forged).await.unwrap();
    database.close().await;
    let ended = verify_stores(&sidekey, &url, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("entry 2: unsealed: "), "{ended:?}");
}
