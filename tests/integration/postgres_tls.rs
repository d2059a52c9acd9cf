//! PostgreSQL behind TLS: its certificate is checked as `sslmode` in store.url says.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use sqlx::{AnyPool, Row};

use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::run::{Ended, run};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::tls::make_certificates;

const PASSWORD: &str = "pass-in-the-url";

/// A server with a certificate for localhost, and the authority that it is from.
async fn server() -> (Postgres, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    make_certificates(&path);
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path.join("leaf.key"), private).unwrap();
    let authorities = tempfile::tempdir().unwrap().keep();
    let authority = authorities.join("ca.pem");
    std::fs::copy(path.join("ca.pem"), &authority).unwrap();
    let certificate = format!("ssl_cert_file={}", path.join("leaf.pem").display());
    let key = format!("ssl_key_file={}", path.join("leaf.key").display());
    let postgres = Postgres::start_in(directory, &["ssl=on", &certificate, &key]).await;
    (postgres, authority.display().to_string())
}

fn url(postgres: &Postgres, host: &str, more: &str) -> String {
    let port = postgres.port();
    format!("postgres://postgres:{PASSWORD}@{host}:{port}/postgres?sslmode=verify-full{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_known_authority_is_accepted() {
    let upstream = Upstream::start().await;
    let (postgres, authority) = server().await;
    let named = url(&postgres, "localhost", &format!("&sslrootcert={authority}"));
    let of_the_system = url(&postgres, "localhost", "");
    for (url, more) in [
        (&named, None),
        (&of_the_system, Some(("SSL_CERT_FILE", authority.as_str()))),
    ] {
        let mut environment = vec![("SIDEKEY__STORE__URL", url.as_str())];
        environment.extend(more);
        let sidekey = Sidekey::start_with(&config(upstream.address, ""), &environment).await;
        let expiry = "sidekey_certificate_expiry_timestamp_seconds{certificate=\"database_ca\"}";
        let is_named = more.is_none();
        eventually("the end of a named authority is shown", || async {
            (sidekey.metric(expiry).await > 0.0) == is_named
        })
        .await;
        if sidekey.directory().join("data/admin.key").exists() {
            let key = sidekey.create_key(json!({})).await;
            assert_eq!(sidekey.status("/", &key.text).await, 200);
        }
        assert!(!sidekey.output().contains(PASSWORD));
    }
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&named).await.unwrap();
    let row = sqlx::query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(row.get::<bool, _>("ssl"));
    pool.close().await;
    std::fs::remove_dir_all(std::path::Path::new(&authority).parent().unwrap()).unwrap();
}

fn refused(url: &str) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sidekey.toml");
    std::fs::write(&file, config("127.0.0.1:9".parse().unwrap(), "")).unwrap();
    run(
        directory.path(),
        &["serve", "--config", "sidekey.toml"],
        &[
            ("SIDEKEY__STORE__URL", url),
            ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
            ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_certificate_is_refused_with_a_sentence() {
    let (postgres, authority) = server().await;
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let stranger = other.path().join("ca.pem").display().to_string();
    for (host, authority, why) in [
        ("localhost", stranger.as_str(), "invalid peer certificate"),
        // The certificate is for another name.
        ("127.0.0.1", authority.as_str(), "not valid for name"),
        ("localhost", "/nonexistent/ca.pem", "No such file"),
    ] {
        let url = url(&postgres, host, &format!("&sslrootcert={authority}"));
        let ended = refused(&url);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for words in ["the store can't be opened", why, "sslrootcert"] {
            assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        }
        for output in [&ended.stderr, &ended.stdout] {
            assert!(!output.contains(PASSWORD), "{ended:?}");
            assert!(!output.contains("panicked"), "{ended:?}");
        }
    }
    std::fs::remove_dir_all(std::path::Path::new(&authority).parent().unwrap()).unwrap();
}
