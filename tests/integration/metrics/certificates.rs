//! When the certificates of configured files end.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use sidekey::telemetry::Metrics;
use sidekey::telemetry::certificates::{NamedFile, end_in, keep_watching};
use sidekey::telemetry::dependencies::Certificate;
use sidekey::telemetry::shown_certificates::{TlsServer, look};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::eventually;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

const EXPIRY: &str = "sidekey_certificate_expiry_timestamp_seconds";

/// A certificate that signs itself, for so many days; when it ends, as OpenSSL says.
fn make(directory: &Path, name: &str, days: u32) -> i64 {
    let run = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory)
            .output()
            .expect("openssl is installed: run `tools/setup test`");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&format!(
        "req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days {days} -subj /CN={name}"
    ));
    let told = run(&format!(
        "x509 -in {name}.pem -noout -enddate -dateopt iso_8601"
    ));
    // notAfter=2026-11-28 05:00:00Z
    let text = told.trim().strip_prefix("notAfter=").unwrap();
    let text = text.replace(' ', "T");
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(&text, format)
        .unwrap()
        .unix_timestamp()
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_files_have_series_and_others_have_none() {
    let upstream = Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let [authority, client, soon] = [("authority", 30), ("client", 20), ("soon", 3)]
        .map(|(name, days)| make(directory.path(), name, days));
    // Of authorities the last to end counts, of a chain the first, wherever it stands in the file.
    let read = |name| std::fs::read_to_string(at(name)).unwrap();
    let bundle = ["soon.pem", "authority.pem", "client.pem"].map(read);
    std::fs::write(at("bundle.pem"), bundle.concat()).unwrap();
    let chain = ["client.pem", "soon.pem", "authority.pem"].map(read);
    std::fs::write(at("chain.pem"), chain.concat()).unwrap();
    // Redis is away, and its certificates end all the same.
    let redis = format!(
        "[limits]\nbackend = \"redis\"\n[redis]\nurl = \"rediss://{}\"\nca_file = \"{}\"\n\
         client_cert_file = \"{}\"\nclient_key_file = \"{}\"\n",
        nobody(),
        at("bundle.pem"),
        at("chain.pem"),
        at("client.key"),
    );
    let sidekey = Sidekey::start(&config(upstream.address, &redis)).await;
    for (name, end) in [("redis_ca", authority), ("redis_client", soon)] {
        let series = format!("{EXPIRY}{{certificate=\"{name}\"}}");
        eventually(&format!("{series} is {end}"), || async {
            sidekey.metric(&series).await as i64 == end
        })
        .await;
    }
    assert!(soon < client && client < authority);
    let text = sidekey.metrics().await;
    let series = text.lines().filter(|line| line.starts_with(EXPIRY));
    assert_eq!(series.count(), 2, "{text}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_no_other_from_being_shown() {
    let directory = tempfile::tempdir().unwrap();
    let end = make(directory.path(), "there", 5);
    std::fs::write(directory.path().join("empty.pem"), "nothing\n").unwrap();
    let named = |certificate, name: &str| NamedFile {
        certificate,
        path: directory.path().join(name),
    };
    let files = vec![
        named(Certificate::VaultCa, "missing.pem"),
        named(Certificate::RedisCa, "empty.pem"),
        named(Certificate::DatabaseCa, "there.pem"),
    ];
    let metrics = Arc::new(Metrics::new().unwrap());
    let watching = tokio::spawn(keep_watching(files, metrics.clone()));
    let shown = format!("{EXPIRY}{{certificate=\"database_ca\"}} {end}\n");
    eventually("the last file is shown", || async {
        metrics.text().unwrap().contains(&shown)
    })
    .await;
    let text = metrics.text().unwrap();
    let series = text.lines().filter(|line| line.starts_with(EXPIRY));
    assert_eq!(series.count(), 1, "{text}");
    watching.abort();
}

/// What a server says instead of shaking hands.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_certificate_is_only_an_error() {
    let closing = [21, 3, 3, 0, 2, 1, 0];
    let closing_and_more = [&closing[..], &closing, b"more"].concat();
    let plain = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    for words in [Vec::new(), closing.to_vec(), closing_and_more, plain] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = TlsServer {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let speaking = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Once the greeting is there, so that the end of the connection is not its loss.
            let mut greeting = [0; 4096];
            let _ = stream.read(&mut greeting).await.unwrap();
            stream.write_all(&words).await.unwrap();
        });
        look(&server).await.unwrap_err();
        speaking.await.unwrap();
    }
}

/// A root that is shown beside it, and has ended long ago, is nobody's business.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_server_its_own_certificate_counts() {
    let directory = tempfile::tempdir().unwrap();
    let [end, _] =
        [("own", 9), ("surplus", 3)].map(|(name, days)| make(directory.path(), name, days));
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let shown =
        ["own.pem", "surplus.pem"].map(|name| CertificateDer::from_pem_slice(&read(name)).unwrap());
    let key = PrivateKeyDer::from_pem_slice(&read("own.key")).unwrap();
    let settings = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(shown.to_vec(), key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = TlsServer {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(Arc::new(settings)).unwrap();
        // It ends as soon as the certificate was seen.
        let _ = connection.complete_io(&mut stream);
    });
    assert_eq!(look(&server).await.unwrap(), end);
    serving.join().unwrap();
}

#[test]
fn a_file_is_read_as_far_as_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let late = make(directory.path(), "late", 9);
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let (certificate, key) = (read("late.pem"), read("late.key"));
    let end = |pem: &[u8]| end_in(pem, Certificate::RedisClient);
    assert_eq!(end(&certificate), Some(late));
    assert_eq!(
        end(&[key.clone(), certificate.clone()].concat()),
        Some(late)
    );
    assert_eq!(end(&key), None);
    assert_eq!(end(b""), None);
    let damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(end(&[&damaged[..], &certificate].concat()), Some(late));
    assert_eq!(end(&certificate[..certificate.len() / 2]), None);
    assert_eq!(
        end(&[&b"\xff\xfe\n"[..], &certificate].concat()),
        Some(late)
    );
}

proptest! {
    /// Whatever is in a file, reading it ends, and nothing panics.
    #[test]
    fn anything_can_be_in_a_file(lines in prop::collection::vec(prop_oneof![
        Just(b"-----BEGIN CERTIFICATE-----\n".to_vec()),
        Just(b"-----END CERTIFICATE-----\n".to_vec()),
        Just(b"MIIBszCCAVmgAwIBAgIUe\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..60),
    ], 0..12)) {
        let _ = end_in(&lines.concat(), Certificate::VaultCa);
    }
}
