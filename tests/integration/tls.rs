//! A service behind TLS: its certificate is checked against the system's authorities, or those of
//! SSL_CERT_FILE.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::Method;

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

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl is installed: run `tools/setup test`");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An authority (`ca.pem`) and a certificate of it for localhost (`leaf.pem`).
pub fn make_certificates(directory: &Path) {
    std::fs::write(
        directory.join("leaf.ext"),
        "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
    )
    .expect("a file");
    openssl(
        directory,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=Test-CA",
    );
    openssl(
        directory,
        "req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=localhost",
    );
    openssl(
        directory,
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 2 -extfile leaf.ext",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_behind_tls_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    std::fs::write(directory.path().join("page"), "behind TLS").unwrap();
    let address = nobody().await;
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
    let config = config(address, "").replace(
        &format!("servers = [\"{address}\"]"),
        &format!("servers = [\"https://localhost:{}\"]", address.port()),
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
