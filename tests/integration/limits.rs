//! The rate-limit fields: on every answer to a valid key, whoever gave it, with the values that
//! the contract promises, and beside fields of the service's own.

use reqwest::{Method, Response};
use serde_json::json;

use crate::cases::{World, bearer};
use crate::harness::raw::{Answer, Raw, request};
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// A policy so slow that no token comes back while a test runs: `quota` an hour.
fn hourly(quota: u64) -> serde_json::Value {
    json!([{"name": "hourly", "quota": quota, "window_seconds": 3600}])
}

fn field<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

fn number(text: Option<&str>) -> u64 {
    text.expect("the field is there")
        .parse()
        .expect("a whole number")
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// All five fields, for a policy of 10 an hour of which `left` are left, in the answer to a request that was
/// sent at `sent`.
fn check_fields(name: &str, answer: &Answer, left: u64, sent: u64) {
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"hourly\";q=10;w=3600"),
        "{name}"
    );
    let expected = format!("\"hourly\";r={left};t={}", left * 360);
    assert_eq!(answer.header("ratelimit"), Some(&*expected), "{name}");
    assert_eq!(answer.header("x-ratelimit-limit"), Some("10"), "{name}");
    assert_eq!(
        number(answer.header("x-ratelimit-remaining")),
        left,
        "{name}"
    );
    let reset = number(answer.header("x-ratelimit-reset"));
    let expected = sent + left * 360 - 10..=unix_seconds() + left * 360 + 10;
    assert!(
        expected.contains(&reset),
        "{name}: {reset}, not {expected:?}"
    );
}

async fn call(
    world: &World,
    method: &str,
    path: &str,
    key: &Key,
    more: &str,
    body: &str,
) -> Answer {
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    raw.send(request(method, path, &[&bearer(key), more], body))
        .await;
    if method == "HEAD" || matches!(more, "X-Answer-Status: 204" | "X-Answer-Status: 304") {
        raw.read_head().await
    } else {
        raw.read_answer().await
    }
}

/// The service's answers of all kinds, and Sidekey's own. Only what passes takes a token.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_valid_key_carries_the_fields() {
    let world = World::start("enforce").await;
    let sidekey = &world.sidekey;
    let key = sidekey
        .create_key(json!({"rate_limits": hourly(10), "scopes": ["orders:read"]}))
        .await;
    for (method, path, more, body, status, left) in [
        ("GET", "/api", "X-A: 1", "", 200, 9),
        ("POST", "/api", "X-A: 1", "body", 200, 8),
        ("HEAD", "/api", "X-A: 1", "", 200, 7),
        ("GET", "/api", "X-Answer-Status: 204", "", 204, 6),
        ("GET", "/api", "X-Answer-Status: 304", "", 304, 5),
        ("GET", "/api", "X-Answer-Status: 404", "", 404, 4),
        ("GET", "/api", "X-Answer-Status: 500", "", 500, 3),
        ("GET", "/write", "X-A: 1", "", 403, 3),
        ("HEAD", "/write", "X-A: 1", "", 403, 3),
        ("POST", "/small", "X-A: 1", "more than ten bytes", 413, 3),
        ("GET", "/refused", "X-A: 1", "", 502, 2),
        ("GET", "/silent", "X-A: 1", "", 504, 1),
        ("GET", "/write", "X-A: 1", "", 403, 1),
    ] {
        let sent = unix_seconds();
        let answer = call(&world, method, path, &key, more, body).await;
        let name = format!("{method} {path} {more}");
        assert_eq!(answer.status, status, "{name}");
        check_fields(&name, &answer, left, sent);
    }
    let elsewhere = json!({"rate_limits": hourly(10), "allowed_ips": ["203.0.113.9"]});
    let elsewhere = sidekey.create_key(elsewhere).await;
    let sent = unix_seconds();
    let answer = call(&world, "GET", "/api", &elsewhere, "X-A: 1", "").await;
    assert_eq!(answer.status, 403);
    check_fields("from elsewhere", &answer, 10, sent);
}

/// Who proves nothing, or may not act at all, learns nothing about limits.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_valid_key_carry_no_fields() {
    let world = World::start("enforce").await;
    for case in world
        .cases
        .iter()
        .filter(|case| matches!(case.status, 400 | 401))
    {
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(case.request("GET", "")).await;
        let answer = raw.read_answer().await;
        let told = answer
            .headers
            .iter()
            .find(|(name, _)| name.contains("ratelimit"));
        assert_eq!(told, None, "{}", case.name);
    }
}

/// With nothing left, `t` is the wait for the next token, and so is Retry-After.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_how_long_to_wait_and_why() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(json!({"rate_limits": hourly(2)})).await;
    let begun = unix_seconds();
    for left in [1, 0] {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(number(field(&answer, "x-ratelimit-remaining")), left);
    }
    for _ in 0..3 {
        let sent = unix_seconds();
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 429);
        let now = unix_seconds();
        let wait = number(field(&answer, "retry-after"));
        let passed = now - begun;
        assert!((1770 - passed..=1800).contains(&wait), "{wait}");
        assert_eq!(
            field(&answer, "ratelimit"),
            Some(&*format!("\"hourly\";r=0;t={wait}"))
        );
        assert_eq!(field(&answer, "x-ratelimit-remaining"), Some("0"));
        let reset = number(field(&answer, "x-ratelimit-reset"));
        assert!((sent + wait - 10..=now + wait + 10).contains(&reset));
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["violated-policies"], json!(["hourly"]));
    }
    assert_eq!(upstream.count(), 2);
}

/// A wait of less than a second is still one second.
#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_at_least_one_second_and_waiting_it_is_enough() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let fast = json!([{"name": "fast", "quota": 4, "window_seconds": 1, "burst": 1}]);
    let key = sidekey.create_key(json!({"rate_limits": fast})).await;
    crate::harness::eventually("a request is refused", || async {
        let answer = sidekey.get("/", &key.text).await;
        if answer.status() == 200 {
            assert_eq!(field(&answer, "ratelimit"), Some("\"fast\";r=0;t=1"));
            return false;
        }
        assert_eq!(answer.status(), 429);
        assert_eq!(field(&answer, "retry-after"), Some("1"));
        true
    })
    .await;
    crate::harness::eventually("a token is back", || async {
        sidekey.status("/", &key.text).await == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn burst_and_the_contracts_example_come_from_the_defaults() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let key = sidekey.create_key(json!({})).await;
    let answer = sidekey.get("/", &key.text).await;
    assert_eq!(
        field(&answer, "ratelimit-policy"),
        Some("\"default\";q=600;w=60")
    );
    assert_eq!(field(&answer, "ratelimit"), Some("\"default\";r=99;t=10"));
    assert_eq!(field(&answer, "x-ratelimit-limit"), Some("600"));
    assert_eq!(field(&answer, "x-ratelimit-remaining"), Some("99"));
    let unlimited = sidekey.create_key(json!({"rate_limits": []})).await;
    for _ in 0..150 {
        let answer = sidekey.get("/", &unlimited.text).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(field(&answer, "ratelimit"), None);
        assert_eq!(field(&answer, "ratelimit-policy"), None);
        assert_eq!(field(&answer, "x-ratelimit-limit"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_can_be_left_out() {
    let upstream = Upstream::start().await;
    for (setting, ratelimit, x_ratelimit) in [
        ("[]", false, false),
        ("[\"ratelimit\"]", true, false),
        ("[\"x-ratelimit\"]", false, true),
    ] {
        let more = format!("[limits]\nheaders = {setting}\n");
        let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
        let key = sidekey.create_key(json!({"rate_limits": hourly(1)})).await;
        for status in [200, 429] {
            let answer = sidekey.get("/", &key.text).await;
            assert_eq!(answer.status(), status, "still limited with {setting}");
            assert_eq!(
                field(&answer, "ratelimit").is_some(),
                ratelimit,
                "{setting}"
            );
            assert_eq!(
                field(&answer, "ratelimit-policy").is_some(),
                ratelimit,
                "{setting}"
            );
            assert_eq!(
                field(&answer, "x-ratelimit-limit").is_some(),
                x_ratelimit,
                "{setting}"
            );
            assert_eq!(
                field(&answer, "x-ratelimit-remaining").is_some(),
                x_ratelimit,
                "{setting}"
            );
            assert_eq!(
                field(&answer, "x-ratelimit-reset").is_some(),
                x_ratelimit,
                "{setting}"
            );
            assert_eq!(
                field(&answer, "retry-after").is_some(),
                status == 429,
                "{setting}"
            );
        }
    }
}

/// The service may have limits of its own. The client must never read more than the stricter one.
#[tokio::test(flavor = "multi_thread")]
async fn the_services_own_fields_are_never_made_more_permissive() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let fresh = json!({"rate_limits": hourly(10)});
    // What the service says, and what the client reads, with 9 of 10 left here.
    for (theirs, limit, remaining) in [
        (Some("3"), "50", "3"),
        (Some("0"), "50", "0"),
        (Some("9"), "50", "9"),
        (Some("40"), "10", "9"),
        (Some("plenty"), "10", "9"),
        (None, "10", "9"),
    ] {
        let key = sidekey.create_key(fresh.clone()).await;
        let mut call = sidekey
            .request(Method::GET, "/")
            .bearer_auth(&key.text)
            .header("x-answer-ratelimit", "\"theirs\";r=3;t=7")
            .header("x-answer-ratelimit-policy", "\"theirs\";q=50;w=100")
            .header("x-answer-retry-after", "17")
            .header("x-answer-status", "429");
        if let Some(theirs) = theirs {
            call = call
                .header("x-answer-x-ratelimit-limit", "50")
                .header("x-answer-x-ratelimit-remaining", theirs)
                .header("x-answer-x-ratelimit-reset", "4000000000");
        }
        let answer = call.send().await.unwrap();
        let members = |name: &str| -> Vec<String> {
            let lines = answer.headers().get_all(name).iter();
            let mut members: Vec<String> = lines
                .map(|line| line.to_str().unwrap().to_owned())
                .collect();
            members.sort();
            members
        };
        assert_eq!(members("x-ratelimit-limit"), [limit], "{theirs:?}");
        assert_eq!(members("x-ratelimit-remaining"), [remaining], "{theirs:?}");
        let kept = members("x-ratelimit-reset") == ["4000000000"];
        assert_eq!(kept, limit == "50", "{theirs:?}");
        assert_eq!(members("retry-after"), ["17"]);
        assert_eq!(
            members("ratelimit"),
            ["\"hourly\";r=9;t=3240", "\"theirs\";r=3;t=7"]
        );
        assert_eq!(
            members("ratelimit-policy"),
            ["\"hourly\";q=10;w=3600", "\"theirs\";q=50;w=100"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_tells_the_limit_without_holding_anybody_to_it() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "[proxy]\nmode = \"shadow\"\n")).await;
    let key = sidekey.create_key(json!({"rate_limits": hourly(1)})).await;
    for _ in 0..3 {
        let answer = sidekey.get("/", &key.text).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(field(&answer, "x-ratelimit-remaining"), Some("0"));
        assert_eq!(field(&answer, "retry-after"), None);
    }
    assert_eq!(upstream.count(), 3);
}
