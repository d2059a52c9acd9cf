//! The way to the API: lost answers, servers that ask for patience, redirections, TLS.

use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Cli;
use super::stand_in::{StandIn, answer, problem};
use crate::harness::eventually;
use crate::harness::run::Ended;
use crate::harness::upstream::{Scripted, nobody};
use crate::tls::make_certificates;

const CREATED: &str = "{\"api_key\":{\"id\":\"4fzN8cQ2pLrT\"},\"key\":\"the-new-key\"}";

/// Runs the command beside the test, which is the server.
fn beside(
    address: std::net::SocketAddr,
    arguments: &'static [&'static str],
) -> tokio::task::JoinHandle<Ended> {
    tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir().expect("a directory");
        Cli::at(directory.path())
            .with("SIDEKEY_ADMIN_KEY", "sesame")
            .with("SIDEKEY_ADMIN_URL", format!("http://{address}"))
            .run(arguments)
    })
}

/// Reads a request to the end of its body, which ends with `last`.
async fn request(connection: &mut TcpStream, last: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0u8; 4096];
    while !text.ends_with(last) {
        let length = connection.read(&mut buffer).await.expect("a request");
        assert!(length > 0, "the request ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

fn field<'a>(request: &'a str, name: &str) -> &'a str {
    let line = request.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {request}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_under_the_same_idempotency_key() {
    let server = Scripted::start().await;
    let command = beside(
        server.address,
        &["keys", "create", "--name", "x", "--tenant", "t", "-q"],
    );
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut connection = server.accept().await;
        seen.push(request(&mut connection, "}").await);
    }
    let mut connection = server.accept().await;
    seen.push(request(&mut connection, "}").await);
    let text = format!(
        "HTTP/1.1 201 Created\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{CREATED}",
        CREATED.len()
    );
    connection
        .write_all(text.as_bytes())
        .await
        .expect("an answer");
    let ended = command.await.expect("it ends");
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "the-new-key\n"),
        "{ended:?}"
    );
    let keys: Vec<&str> = seen
        .iter()
        .map(|text| field(text, "idempotency-key: "))
        .collect();
    assert!(
        keys[0].len() > 20 && keys.iter().all(|key| *key == keys[0]),
        "{keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_come_to_an_end() {
    let server = Scripted::start().await;
    let command = beside(
        server.address,
        &["keys", "create", "--name", "x", "--tenant", "t"],
    );
    for _ in 0..4 {
        request(&mut server.accept().await, "}").await;
    }
    let ended = command.await.expect("it ends");
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), ""),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("did not answer")
            && ended.stderr.contains("look before trying again"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regeneration_is_sent_once() {
    let server = Scripted::start().await;
    let command = beside(
        server.address,
        &["keys", "regenerate", "x", "--key-file", "new.key"],
    );
    request(&mut server.accept().await, "}").await;
    let ended = command.await.expect("it ends");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("look before trying again"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_ask_for_patience() {
    let server = StandIn::start(|seen| match seen.len() {
        1 | 2 => problem(503, "Try again in 1 s.").header("retry-after", "1"),
        _ => answer(200, "{\"data\":[],\"next_cursor\":null}"),
    })
    .await;
    let listed = server.cli().json(&["keys", "list"]);
    assert_eq!(listed["data"], serde_json::json!([]));
    assert_eq!(server.count(), 3);
    let server = StandIn::start(|_| problem(503, "Later.").header("retry-after", "3600")).await;
    assert_eq!(
        server.cli().refused(&["keys", "list"], 1),
        "sidekey: Later.\n"
    );
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_key_follows_no_redirection_and_uses_no_proxy() {
    let elsewhere = StandIn::start(|_| answer(200, "{\"data\":[]}")).await;
    let target = format!("http://{}/", elsewhere.address());
    let server = StandIn::start(move |_| answer(307, "").header("location", &target)).await;
    let told = server.cli().refused(&["keys", "list"], 1);
    assert!(told.contains("redirection"), "{told}");
    let proxy = format!("http://{}", elsewhere.address());
    server
        .cli()
        .with("http_proxy", &proxy)
        .with("HTTP_PROXY", &proxy)
        .with("ALL_PROXY", &proxy)
        .refused(&["keys", "list"], 1);
    assert_eq!((elsewhere.count(), server.count()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_api_is_said_to_be_none() {
    for body in ["<html>hello</html>", "{\"hello\":1}", "[1]", ""] {
        let server = StandIn::start(move |_| answer(200, body)).await;
        let told = server.cli().refused(&["keys", "list"], 1);
        assert!(told.contains("admin port"), "{body}: {told}");
        let server = StandIn::start(move |_| answer(500, body)).await;
        let told = server.cli().refused(&["keys", "show", "x"], 1);
        assert!(told.contains("admin port"), "{body}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_of_this_machine_is_sent_to_no_other() {
    let server = StandIn::start(|_| answer(200, "{\"data\":[],\"next_cursor\":null}")).await;
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("data")).expect("a directory");
    std::fs::write(directory.path().join("data/admin.key"), "sesame\n").expect("a file");
    let cli = Cli::at(directory.path());
    cli.ok(&[
        "keys",
        "list",
        "--admin-url",
        &format!("http://{}", server.address()),
    ]);
    assert_eq!(server.last().header("authorization"), Some("Bearer sesame"));
    let told = cli.refused(
        &["keys", "list", "--admin-url", "https://sidekey.invalid"],
        2,
    );
    assert!(told.contains("no admin key"), "{told}");
}

/// A TLS server of OpenSSL; ends with the test.
struct TlsServer(Child);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_given_authority() {
    let directory = tempfile::tempdir().expect("a directory");
    make_certificates(directory.path());
    let api = directory.path().join("api/v1/platform");
    std::fs::create_dir_all(&api).expect("directories");
    std::fs::write(api.join("api-keys"), "{\"data\":[],\"next_cursor\":null}").expect("a file");
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
        TcpStream::connect(address).await.is_ok()
    })
    .await;
    let cli = Cli::at(directory.path())
        .with("SIDEKEY_ADMIN_KEY", "sesame")
        .with(
            "SIDEKEY_ADMIN_URL",
            format!("https://localhost:{}", address.port()),
        );
    assert_eq!(
        cli.json(&["keys", "list", "--ca-file", "ca.pem"])["data"],
        serde_json::json!([])
    );
    let told = cli.refused(&["keys", "list"], 1);
    assert!(
        told.contains("can't be reached") && told.contains("ertificate"),
        "{told}"
    );
}
