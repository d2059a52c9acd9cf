//! Users and passwords from a file as `htpasswd -B` writes it, presented as HTTP Basic.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use super::{import, line, log_in, plain, refused_fields, send, start, statuses, strong, work};
use crate::harness::sidekey::{KEYS, Sidekey};

/// A line as `htpasswd -nbB -C 5` prints it, which cuts off at 72 bytes.
#[allow(clippy::disallowed_methods)]
fn htpasswd(user: &str, password: &str) -> String {
    let hash = bcrypt::hash(password, 5).expect("a hash");
    format!("{user}:{}", hash.replacen("$2b$", "$2y$", 1))
}

fn login(user: &str, password: &str) -> Value {
    line(json!({"htpasswd": htpasswd(user, password)}))
}

/// What curl gets that is told `--user`.
fn curl(sidekey: &Sidekey, pair: &str) -> String {
    let url = format!("http://{}/", sidekey.proxy);
    let arguments = [
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ];
    let output = Command::new("curl")
        .args(arguments)
        .args(["--user", pair, &url])
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_works_with_the_password_that_it_had() {
    let (sidekey, upstream) = start().await;
    let logins = [
        ("alice", "wonderland"),
        ("bob", "pass:with:colons"),
        ("carol", "pässwörd ✓ with spaces"),
        ("dave@example.com", "x"),
    ];
    let lines: Vec<Value> = logins.iter().map(|(u, p)| login(u, p)).collect();
    let ids = import(&sidekey, &lines).await;
    let (runs, _) = work(&sidekey).await;
    for ((user, password), id) in logins.iter().zip(&ids) {
        assert_eq!(
            curl(&sidekey, &format!("{user}:{password}")),
            "200",
            "{user}"
        );
        let seen = upstream.last();
        assert_eq!(seen.header("x-sidekey-key-id"), Some(id.as_str()));
        assert!(seen.header("authorization").is_none());
        for _ in 0..3 {
            assert_eq!(log_in(&sidekey, user, password).await, 200);
        }
    }
    assert_eq!(
        work(&sidekey).await,
        (runs + 4.0, 4.0),
        "warm ones cost nothing"
    );
    for (user, password, costs) in [
        ("alice", "Wonderland", 1.0),
        ("alice", "", 0.0),
        ("mallory", "wonderland", 0.0),
        ("ALICE", "wonderland", 0.0),
        ("", "wonderland", 0.0),
        ("alice", "pass:with:colons", 1.0),
    ] {
        let (before, _) = work(&sidekey).await;
        assert_eq!(
            log_in(&sidekey, user, password).await,
            401,
            "{user}:{password}"
        );
        let (after, _) = work(&sidekey).await;
        assert_eq!(after - before, costs, "{user}:{password}");
    }
    for text in ["wonderland", "alice", "alice:wonderland"] {
        assert_eq!(sidekey.status("/", text).await, 401, "{text} is no key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_shown_by_its_user_and_goes_no_further() {
    let (sidekey, upstream) = start().await;
    let ids = import(&sidekey, &[login("alice", "wonderland")]).await;
    let shown = sidekey
        .ask(Method::GET, &format!("{KEYS}/{}", ids[0]), None)
        .await;
    assert_eq!(shown.json()["credential"], "basic");
    assert_eq!(shown.json()["origin"], "imported");
    assert_eq!(shown.json()["hint"], "alice:...");
    assert!(!shown.text.contains("$2"));
    for (user, is_hidden) in [("alice", true), ("somebody", false)] {
        let request = sidekey.request(Method::GET, "/open");
        let answer = request.basic_auth(user, Some("wonderland")).send().await;
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(upstream.last().header("authorization").is_none(), is_hidden);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regenerated_login_becomes_a_key() {
    let (sidekey, _upstream) = start().await;
    let id = import(&sidekey, &[login("alice", "wonderland")])
        .await
        .remove(0);
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 200);
    let new = sidekey.regenerate_key(&id, 3600).await;
    assert_eq!(
        log_in(&sidekey, "alice", "wonderland").await,
        200,
        "in its grace period"
    );
    assert_eq!(log_in(&sidekey, "alice", &new.text).await, 200);
    assert_eq!(sidekey.status("/", &new.text).await, 200);
    let shown = sidekey
        .ask(Method::GET, &format!("{KEYS}/{id}"), None)
        .await;
    assert_eq!(shown.json()["credential"], "key");
    sidekey.regenerate_key(&id, 0).await;
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 401);
    let sidekey = sidekey.restart().await;
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 401);
}

/// As Apache has it: of a longer password the first 72 bytes count.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_password_the_beginning_counts() {
    let (sidekey, _upstream) = start().await;
    let password = strong(1).repeat(2);
    import(&sidekey, &[login("alice", &password)]).await;
    assert_eq!(log_in(&sidekey, "alice", &password).await, 200);
    assert_eq!(log_in(&sidekey, "alice", &password[..72]).await, 200);
    assert_eq!(log_in(&sidekey, "alice", &password[..71]).await, 401);
    // No limit but the one of all passwords.
    assert_eq!(log_in(&sidekey, "alice", &"x".repeat(1000)).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_one_password() {
    let (sidekey, _upstream) = start().await;
    let ids = import(&sidekey, &[login("alice", "wonderland")]).await;
    let again = send(&sidekey, "", &[login("alice", "another")]).await;
    assert_eq!(statuses(&again), ["existing"]);
    assert_eq!(again.json()["results"][0]["key_id"], ids[0].as_str());
    assert_eq!(log_in(&sidekey, "alice", "another").await, 401);
    assert_eq!(log_in(&sidekey, "alice", "wonderland").await, 200);
    // A key that reads like the user is another thing.
    let reply = send(&sidekey, "?allow_weak=true", &[plain("wonderland")]).await;
    assert_eq!(statuses(&reply), ["created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_that_can_not_be_checked_are_refused() {
    let (sidekey, _upstream) = start().await;
    let dear = htpasswd("u", "p").replacen("$05$", "$15$", 1);
    let lines = [
        line(json!({"htpasswd": "u:$apr1$Q5V1zKq2$RkBdqxkVpGkWXhAmUcFqS0"})),
        line(json!({"htpasswd": "u:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="})),
        line(json!({"htpasswd": dear})),
        line(json!({"user": "u", "hash": "plain"})),
    ];
    let reply = send(&sidekey, "", &lines).await;
    assert_eq!(statuses(&reply), ["refused"; 4]);
    for (index, field) in ["htpasswd", "htpasswd", "htpasswd", "hash"]
        .iter()
        .enumerate()
    {
        assert_eq!(refused_fields(&reply, index), [*field]);
    }
}
