//! Of requests through the proxy: where their time went, what clients got, and who was not let in.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{NO_LIMITS, expect};
use crate::harness::raw::Raw;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::{Scripted, Upstream, nobody};
use crate::tenancy;

fn responses(code: &str) -> String {
    format!("sidekey_responses_total{{code=\"{code}\",route=\"all\"}}")
}

fn asking(key: &Key) -> String {
    format!(
        "GET /x HTTP/1.1\r\nHost: test.example\r\nAuthorization: Bearer {}\r\n\r\n",
        key.text
    )
}

/// Sum and count of a histogram of the route `all`.
async fn times(sidekey: &Sidekey, name: &str) -> (f64, f64) {
    let value = async |part| {
        let series = format!("sidekey_{name}_duration_seconds_{part}{{route=\"all\"}}");
        sidekey.metric(&series).await
    };
    (value("sum").await, value("count").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_told_apart() {
    /// Of the service.
    const SLOW: Duration = Duration::from_millis(300);
    let upstream = Scripted::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, NO_LIMITS)).await;
    let key = sidekey.create_key(json!({})).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(asking(&key)).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    tokio::time::sleep(SLOW).await;
    // What says that more will come is no answer.
    service.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 103);
    tokio::time::sleep(SLOW).await;
    service
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
        .await;
    assert_eq!(client.read_head().await.status, 200);
    tokio::time::sleep(SLOW).await;
    service.send("x").await;
    client.read_exact(1).await;
    expect(&sidekey, &responses("2xx"), 1.0).await;

    let slow = SLOW.as_secs_f64();
    let (all, _) = times(&sidekey, "request").await;
    let (upstream_took, answers) = times(&sidekey, "upstream").await;
    let (added, requests) = times(&sidekey, "added").await;
    assert_eq!((answers, requests), (1.0, 1.0));
    assert!(upstream_took >= 2.0 * slow, "{upstream_took}");
    // The body is the client's time as well, and in neither of the others.
    assert!(all >= upstream_took + added + slow, "{all}");
    assert!(added > 0.0);

    // What is refused is Sidekey's time alone.
    client
        .send("GET /x HTTP/1.1\r\nHost: test.example\r\n\r\n")
        .await;
    assert_eq!(client.read_answer().await.status, 401);
    expect(&sidekey, &responses("4xx"), 1.0).await;
    assert_eq!(times(&sidekey, "added").await.1, 2.0);
    assert_eq!(times(&sidekey, "upstream").await.1, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_counted_by_what_the_client_got() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, NO_LIMITS)).await;
    let key = sidekey.create_key(json!({})).await;
    for (status, code) in [
        ("200", "2xx"),
        ("302", "3xx"),
        ("404", "4xx"),
        ("503", "5xx"),
        ("799", "other"),
    ] {
        let request = sidekey.request(Method::GET, "/").bearer_auth(&key.text);
        let request = request.header("x-answer-status", status);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_str(), status);
        expect(&sidekey, &responses(code), 1.0).await;
    }
    // What Sidekey says counts like what the service says.
    assert_eq!(sidekey.status("/", "nonsense").await, 401);
    expect(&sidekey, &responses("4xx"), 2.0).await;
    // What can't be read, and what has no route.
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send("GET / HTTP/1.1\r\nno field\r\n\r\n").await;
    assert_eq!(raw.read_answer().await.status, 400);
    let of_none = "sidekey_responses_total{code=\"4xx\",route=\"(none)\"}";
    expect(&sidekey, of_none, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_and_lost_clients_have_classes_of_their_own() {
    let upstream = Scripted::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, NO_LIMITS)).await;
    let key = sidekey.create_key(json!({})).await;
    let mut client = Raw::connect(sidekey.proxy).await;
    let upgrade = asking(&key).replace(
        "\r\n\r\n",
        "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    client.send(upgrade).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    service
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
    assert_eq!(client.read_head().await.status, 101);
    drop((service, client));
    expect(&sidekey, &responses("1xx"), 1.0).await;

    let mut client = Raw::connect(sidekey.proxy).await;
    client.send(asking(&key)).await;
    let mut service = Raw::from(upstream.accept().await);
    service.read_until(b"\r\n\r\n").await;
    drop(client);
    expect(&sidekey, &responses("none"), 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_has_no_time() {
    let sidekey = Sidekey::start(&config(nobody(), NO_LIMITS)).await;
    let key = sidekey.create_key(json!({})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 502);
    expect(&sidekey, &responses("5xx"), 1.0).await;
    assert_eq!(times(&sidekey, "upstream").await.1, 0.0);
    assert_eq!(times(&sidekey, "added").await.1, 1.0);
}

/// GET with `key`, as from `address`.
async fn status_from(sidekey: &Sidekey, address: &str, key: Option<&str>) -> u16 {
    let request = sidekey.request(Method::GET, "/");
    let request = request.header("x-forwarded-for", address);
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    request.send().await.expect("an answer").status().as_u16()
}

fn failed(reason: &str, source: &str) -> String {
    format!("sidekey_failed_authentications_total{{reason=\"{reason}\",source=\"{source}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_let_in_is_counted_by_reason_and_kind_of_address() {
    let more = "[proxy]\ntrusted_proxies = [\"127.0.0.1\"]\n\
        [limits]\nfailed_auth = { name = \"failed-auth\", quota = 2, window_seconds = 3600 }";
    let sidekey = Sidekey::start(&config(nobody(), more)).await;
    let make = |fields| sidekey.create_key(fields);
    let disabled = make(json!({})).await;
    let is_off = json!({"status": "disabled"});
    sidekey.change_key(&disabled.id, is_off).await;
    let bound = make(json!({"allowed_ips": ["192.0.2.0/24"]})).await;
    let gone = make(json!({"tenant_id": "gone"})).await;
    tenancy::set(&sidekey, "gone", "suspend").await;
    let expired = make(json!({})).await;
    let is_over = json!({"expires_at": "2020-01-01T00:00:00Z"});
    sidekey.change_key(&expired.id, is_over).await;
    for (key, reason, status) in [
        (None, "no_credential", 401),
        (Some(&*disabled.text), "disabled_key", 401),
        (Some(&*bound.text), "address_not_allowed", 403),
        (Some(&*gone.text), "suspended_tenant", 401),
        (Some(&*expired.text), "expired_key", 401),
    ] {
        for (address, source) in [
            ("127.0.0.1", "loopback"),
            ("10.1.2.3", "private"),
            ("198.51.100.7", "public"),
        ] {
            assert_eq!(
                status_from(&sidekey, address, key).await,
                status,
                "{reason}"
            );
            expect(&sidekey, &failed(reason, source), 1.0).await;
        }
    }
    let twice = sidekey.request(Method::GET, "/").bearer_auth(&bound.text);
    let twice = twice.header("x-api-key", &bound.text).send().await;
    assert_eq!(twice.expect("an answer").status(), 400);
    expect(&sidekey, &failed("ambiguous_credential", "loopback"), 1.0).await;
    // None of them has guessed.
    let addresses = "sidekey_failed_authentication_addresses";
    assert_eq!(sidekey.metric(addresses).await, 0.0);

    for round in 0..3 {
        let expected = if round < 2 { 401 } else { 429 };
        let status = status_from(&sidekey, "198.51.100.7", Some("wrong")).await;
        assert_eq!(status, expected, "{round}");
    }
    expect(&sidekey, &failed("invalid_key", "public"), 2.0).await;
    expect(&sidekey, &failed("failed_auth_limited", "public"), 1.0).await;
    assert_eq!(sidekey.metric(addresses).await, 1.0);
    for host in 0..3 {
        // All of them in one network of 64 bits.
        let address = format!("2001:db8::{host}");
        status_from(&sidekey, &address, Some("wrong")).await;
        // Each in one of its own.
        let address = format!("2001:db8:{host}:1::1");
        status_from(&sidekey, &address, Some("wrong")).await;
    }
    expect(&sidekey, &failed("invalid_key", "public"), 7.0).await;
    expect(&sidekey, addresses, 5.0).await;
    // The key that the admin port refuses is a wrong key as well, here from the machine itself.
    let reply = sidekey.admin_as("wrong", Method::GET, "/api/v1/platform/api-keys");
    assert_eq!(reply.send().await.expect("an answer").status(), 401);
    expect(&sidekey, addresses, 6.0).await;
}
