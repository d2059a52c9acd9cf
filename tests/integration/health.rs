//! `sidekey health`, and what the probes of orchestrators are answered: alive, ready, ready but for its
//! stores, and about to stop.

use std::net::TcpListener;
use std::path::Path;

use reqwest::Method;
use serde_json::json;

use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::postgres::Postgres;
use crate::harness::run::{Ended, run, run_health};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

/// Asks `address`.
fn ask(address: impl ToString, more: &[&str]) -> Ended {
    let address = address.to_string();
    let arguments = [&["--address", &address], more].concat();
    run_health(Path::new("/"), &arguments, &[])
}

#[track_caller]
fn assert_well(ended: &Ended, word: &str) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((ended.stdout.trim_end(), &*ended.stderr), (word, ""));
}

/// One sentence on stderr that contains `part`.
#[track_caller]
fn assert_told(ended: &Ended, code: i32, part: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains(part), "{ended:?}");
}

async fn status(sidekey: &Sidekey, path: &str) -> u16 {
    sidekey.ask_as(None, Method::GET, path, None).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_one_is_alive_and_ready_and_a_stopped_one_is_not() {
    // Nobody else gets it when the program has ended.
    let admin = format!("127.0.0.1:{}", free_port());
    let environment = [("SIDEKEY__ADMIN__LISTEN", admin.as_str())];
    let mut sidekey = Sidekey::start_with(&config(nobody(), ""), &environment).await;
    assert_well(&ask(sidekey.admin, &[]), "alive");
    assert_well(&ask(sidekey.admin, &["--ready"]), "ready");
    let told = "not alive: the answer is 401; is this Sidekey's admin port?";
    assert_told(&ask(sidekey.proxy, &[]), 1, told);
    sidekey.kill();
    assert_told(&ask(sidekey.admin, &[]), 1, "does not answer: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_names_the_port_whatever_else_it_says() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let directory = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        std::fs::write(directory.path().join("sidekey.toml"), text).unwrap();
        run_health(directory.path(), &["--config", "sidekey.toml"], &[])
    };
    let port = sidekey.admin.port();
    // The process runs with what the file said at its start.
    let listen = format!("[proxy]\nmode = \"nonsense\"\n[admin]\nlisten = \"0.0.0.0:{port}\"");
    assert_well(&file(&listen), "alive");
    let twin = run_health(
        directory.path(),
        &["--config", "sidekey.toml", "--ready"],
        &[("SIDEKEY__ADMIN__LISTEN", &sidekey.admin.to_string())],
    );
    assert_well(&twin, "ready");
    assert_told(&file("[admin]\nlisten = \"127.0.0.1:0\""), 2, "--address");
    assert_told(&file("[admin]\nlisten = 8081"), 2, "admin.listen: ");
    assert_told(&file("admin = "), 2, "not TOML");
    let missing = run_health(directory.path(), &["--config", "nowhere"], &[]);
    assert_told(&missing, 2, "nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_connection_and_says_nothing_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let ended = run(Path::new("/"), &["health", "--address", &address], &[]);
    assert_told(&ended, 1, "no answer within 3 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_are_away_count_only_for_who_asks_for_them() {
    let mut postgres = Postgres::start().await;
    let store = format!("[store]\nurl = \"{}\"", postgres.url());
    let sidekey = Sidekey::start(&config(nobody(), &store)).await;
    assert_eq!(status(&sidekey, "/readyz").await, 200);
    postgres.kill();
    // On a busy machine the answer may take longer than is waited for it.
    let told = "not ready: the database and the secret store are away";
    eventually("it is not ready", || async {
        let ended = ask(sidekey.admin, &["--ready"]);
        ended.code == Some(1) && ended.stderr.contains(told)
    })
    .await;
    assert_eq!(status(&sidekey, "/readyz").await, 503);
    assert_well(&ask(sidekey.admin, &[]), "alive");
    let alone = sidekey
        .ask_as(None, Method::GET, "/readyz?stores=false", None)
        .await;
    assert_eq!((alone.status, alone.json()), (200, json!({"status": "ok"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_says_not_ready_while_everything_goes_on() {
    let upstream = Upstream::start().await;
    let more = "[proxy]\nshutdown_notice_seconds = 3600";
    let mut sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(status(&sidekey, "/readyz?stores=false").await, 200);
    sidekey.signal("TERM");
    for path in ["/readyz", "/readyz?stores=false"] {
        eventually("it is not ready", || async {
            status(&sidekey, path).await == 503
        })
        .await;
        let reply = sidekey.ask_as(None, Method::GET, path, None).await;
        assert_eq!(reply.json()["status"], "stopping");
    }
    assert_told(
        &ask(sidekey.admin, &["--ready"]),
        1,
        "not ready: it is stopping",
    );
    assert_well(&ask(sidekey.admin, &[]), "alive");
    // A connection of its own each.
    for _ in 0..3 {
        let client = reqwest::Client::new();
        let url = format!("http://{}/", sidekey.proxy);
        let answer = client.get(url).bearer_auth(&key.text).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    // Who is in a hurry says it again.
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
}
