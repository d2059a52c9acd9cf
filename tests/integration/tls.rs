//! A service behind TLS: its certificate is checked against the system's authorities, or those of
//! SSL_CERT_FILE.

use std::process::{Child, Command, Stdio};

use reqwest::Method;

pub use crate::harness::certificates::make_certificates;
use crate::harness::eventually;
use crate::harness::run::run;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::nobody;

/// A TLS server of OpenSSL; ends with the test.
struct TlsServer(Child);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_behind_tls_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    std::fs::write(directory.path().join("page"), "behind TLS").unwrap();
    let address = nobody();
    let server = Command::new("openssl")
        .args([
            "s_server", "-quiet", "-WWW", "-cert", "leaf.pem", "-key", "leaf.key", "-accept",
        ])
        .arg(address.port().to_string())
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed: run `tools/setup test`");
    let _server = TlsServer(server);
    eventually("the TLS server listens", || async {
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
    // It serves one connection after the other, and this is a busy machine.
    let config = config(address, "").replace(
        &format!("servers = [\"{address}\"]"),
        &format!(
            "servers = [\"https://localhost:{}\"]\nconnect_timeout_ms = 60000",
            address.port()
        ),
    );
    let config = config.replace(
        "upstream = \"service\"",
        "upstream = \"service\"\nauth = \"off\"",
    );
    let authority = directory.path().join("ca.pem");
    let trusting =
        Sidekey::start_with(&config, &[("SSL_CERT_FILE", authority.to_str().unwrap())]).await;
    let page = trusting.request(Method::GET, "/page").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.text().await.unwrap(), "behind TLS");
    let expiry = "sidekey_certificate_expiry_timestamp_seconds{certificate=\"upstream\"}";
    eventually("the end of its certificate is shown", || async {
        trusting.metric(expiry).await > 0.0
    })
    .await;
    let strict = Sidekey::start(&config).await;
    assert_eq!(
        strict
            .request(Method::GET, "/page")
            .send()
            .await
            .unwrap()
            .status(),
        502
    );
    eventually("the log says why", || async {
        strict.output().contains("UnknownIssuer")
    })
    .await;
}

#[test]
fn without_certificate_authorities_the_start_fails_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sidekey.toml");
    std::fs::write(&file, config("127.0.0.1:9".parse().unwrap(), "")).unwrap();
    let ended = run(
        directory.path(),
        &["serve", "--config", "sidekey.toml"],
        &[
            ("SSL_CERT_FILE", "/nonexistent"),
            ("SSL_CERT_DIR", "/nonexistent"),
            ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
            ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
        ],
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("SSL_CERT_FILE"), "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}
