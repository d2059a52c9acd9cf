//! The contract's table "Requests through the proxy", row by row, in mode `enforce` (who is
//! refused, with which words, and that the service never hears of it) and in mode `shadow` (nobody
//! is refused, and each refusal that would have been is counted and logged).
//!
//! The rows that need a setting of their own stand in `capacity`; the form that all own answers
//! share is tested in `own_answers`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cases::{Case, World};
use crate::harness::eventually;
use crate::harness::raw::{Answer, Raw, get};
use crate::harness::sidekey::Sidekey;
use crate::harness::upstream::Upstream;

/// Checks what `case` says about an answer.
pub fn check(case: &Case, answer: &Answer) {
    assert_eq!(answer.status, case.status, "{}", case.name);
    let problem = answer.json();
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.ends_with(case.problem), "{}: {kind}", case.name);
    let challenges: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "www-authenticate")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(challenges, Vec::from_iter(case.challenge), "{}", case.name);
}

/// Waits until the series `name` of `route` and `outcome` stands at `value`.
pub async fn counts(sidekey: &Sidekey, name: &str, route: &str, outcome: &str, value: f64) {
    let series = format!("{name}{{outcome=\"{outcome}\",route=\"{route}\"}}");
    eventually(&format!("{series} is {value}"), || async {
        sidekey.metric(&series).await == value
    })
    .await;
}

/// The access log's line about a request.
pub async fn log_line(sidekey: &Sidekey, request_id: &str) -> Value {
    let needle = format!("\"request_id\":\"{request_id}\"");
    eventually("the request is logged", || async {
        sidekey.output().contains(&needle)
    })
    .await;
    let output = sidekey.output();
    let line = output.lines().find(|line| line.contains(&needle)).unwrap();
    serde_json::from_str(line).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn enforce_refuses_each_row_and_the_service_never_hears_of_it() {
    let world = World::start("enforce").await;
    let before = world.upstream.count();
    for case in &world.cases {
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(case.request("POST", case.body)).await;
        let answer = raw.read_answer().await;
        check(case, &answer);
        let line = log_line(&world.sidekey, answer.header("x-request-id").unwrap()).await;
        assert_eq!(line["outcome"], case.outcome, "{}", case.name);
        // A path that can be read in two ways leads nowhere.
        let route = if case.problem == "ambiguous-path" {
            "(none)"
        } else {
            case.route
        };
        assert_eq!(line["route"], route, "{}", case.name);
        assert_eq!(line["shadow"], Value::Null, "{}", case.name);
    }
    assert_eq!(world.upstream.count(), before);
    let refused = |outcome| {
        world
            .cases
            .iter()
            .filter(|case| case.outcome == outcome)
            .count()
    };
    let invalid = refused("invalid_key") as f64;
    counts(
        &world.sidekey,
        "sidekey_requests_total",
        "api",
        "invalid_key",
        invalid,
    )
    .await;
    counts(
        &world.sidekey,
        "sidekey_requests_total",
        "api",
        "rate_limited",
        1.0,
    )
    .await;
    counts(
        &world.sidekey,
        "sidekey_shadow_refusals_total",
        "api",
        "invalid_key",
        0.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_refuses_nobody_and_reports_each_row() {
    let world = World::start("shadow").await;
    let mut counted: Vec<(&str, &str)> = Vec::new();
    for case in &world.cases {
        let before = world.upstream.count();
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        let body = if case.body.is_empty() {
            "a body"
        } else {
            case.body
        };
        raw.send(case.request("POST", body)).await;
        let answer = raw.read_answer().await;
        assert_eq!(answer.status, 200, "{}", case.name);
        assert_eq!(world.upstream.count(), before + 1, "{}", case.name);
        let seen = world.upstream.last();
        assert_eq!(seen.target, case.path, "{}", case.name);
        assert_eq!(seen.body, body, "{}", case.name);
        if case.problem != "ambiguous-credential" {
            let key = &world.good.text;
            let told = seen.headers.values().any(|value| {
                value
                    .to_str()
                    .is_ok_and(|value| value.contains(key.as_str()))
            });
            assert!(!told, "{}: the service sees the key", case.name);
        }
        counted.push((case.route, case.outcome));
        let times = counted
            .iter()
            .filter(|known| *known == counted.last().unwrap())
            .count();
        counts(
            &world.sidekey,
            "sidekey_shadow_refusals_total",
            case.route,
            case.outcome,
            times as f64,
        )
        .await;
        let line = log_line(&world.sidekey, answer.header("x-request-id").unwrap()).await;
        assert_eq!(line["shadow"], case.outcome, "{}", case.name);
        assert_eq!(line["outcome"], "forwarded", "{}", case.name);
        assert_eq!(line["status"], 200, "{}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_leaves_credentials_alone_that_are_not_ours() {
    let world = World::start("shadow").await;
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    for line in [
        "Authorization: Bearer theirs",
        "Authorization: Basic dTpw",
        "X-API-Key: theirs",
    ] {
        raw.send(get("/api/x?a=1&a=2", &[line, "X-Other: kept"]))
            .await;
        assert_eq!(raw.read_answer().await.status, 200);
        let seen = world.upstream.last();
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(seen.header(name), Some(value));
        assert_eq!(seen.header("x-other"), Some("kept"));
        assert_eq!(seen.target, "/api/x?a=1&a=2");
    }
}

/// What can't be forwarded, or was and failed, ends the same way in both modes.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_and_failing_services_are_told_apart_in_both_modes() {
    for mode in ["enforce", "shadow"] {
        let world = World::start(mode).await;
        let before = world.upstream.count();
        for (path, status, problem, route, outcome) in [
            ("/", 404, "no-route", "(none)", "no_route"),
            ("/apix", 404, "no-route", "(none)", "no_route"),
            (
                "/refused",
                502,
                "upstream-failed",
                "refused",
                "upstream_failed",
            ),
            (
                "/silent",
                504,
                "upstream-timed-out",
                "silent",
                "upstream_timed_out",
            ),
        ] {
            let case = Case::new(path, path, status, problem)
                .counted(route, outcome)
                .key(&world.good);
            let mut raw = Raw::connect(world.sidekey.proxy).await;
            raw.send(case.request("GET", "")).await;
            let answer = raw.read_answer().await;
            check(&case, &answer);
            let line = log_line(&world.sidekey, answer.header("x-request-id").unwrap()).await;
            assert_eq!(line["outcome"], outcome, "{mode} {path}");
            assert_eq!(line["shadow"], Value::Null, "{mode} {path}");
        }
        counts(
            &world.sidekey,
            "sidekey_requests_total",
            "(none)",
            "no_route",
            2.0,
        )
        .await;
        assert_eq!(world.upstream.count(), before, "{mode}");
    }
}

/// One wording for all keys that prove nothing: whoever tries them learns nothing from it.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_can_not_be_told_apart() {
    let world = World::start("enforce").await;
    let mut answers = Vec::new();
    for case in world
        .cases
        .iter()
        .filter(|case| case.problem == "invalid-key")
    {
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(case.request("GET", "")).await;
        let mut answer = raw.read_answer().await;
        answer
            .headers
            .retain(|(name, _)| name != "x-request-id" && name != "date");
        let mut body = answer.json();
        body.as_object_mut().unwrap().remove("request_id").unwrap();
        answers.push((case.name, answer.status, answer.headers, body.to_string()));
    }
    assert!(answers.len() >= 7);
    let (_, status, headers, body) = &answers[0];
    for (name, other_status, other_headers, other_body) in &answers {
        assert_eq!(
            (status, headers, body),
            (other_status, other_headers, other_body),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_disabled_say_so_in_words_too() {
    let world = World::start("enforce").await;
    for (problem, word) in [("expired-key", "expired"), ("disabled-key", "disabled")] {
        let case = world
            .cases
            .iter()
            .find(|case| case.problem == problem)
            .unwrap();
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(case.request("GET", "")).await;
        let title = raw.read_answer().await.json()["title"].to_string();
        assert!(title.contains(word), "{title}");
    }
}

/// The client behind a proxy that is trusted counts, and nobody else's word for it.
#[tokio::test(flavor = "multi_thread")]
async fn allowed_addresses_hold_for_the_client_behind_trusted_proxies() {
    let upstream = Upstream::start().await;
    let config = |trusted: &str| {
        let trusted = format!("[proxy]\ntrusted_proxies = {trusted}\n");
        crate::harness::sidekey::config(upstream.address, &trusted)
    };
    for (trusted, forwarded_for, status) in [
        ("[\"127.0.0.0/8\"]", Some("203.0.113.7"), 200),
        ("[\"127.0.0.0/8\"]", Some("198.51.100.1, 203.0.113.7"), 200),
        ("[\"127.0.0.0/8\"]", Some("203.0.113.7, 198.51.100.1"), 403),
        ("[\"127.0.0.0/8\"]", Some("198.51.100.1"), 403),
        ("[\"127.0.0.0/8\"]", None, 403),
        ("[]", Some("203.0.113.7"), 403),
        ("[\"192.0.2.1/32\"]", Some("203.0.113.7"), 403),
    ] {
        let sidekey = Sidekey::start(&config(trusted)).await;
        let key = sidekey
            .create_key(json!({"allowed_ips": ["203.0.113.0/24"]}))
            .await;
        let mut call = sidekey.request(Method::GET, "/").bearer_auth(&key.text);
        if let Some(value) = forwarded_for {
            call = call.header("x-forwarded-for", value);
        }
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), status, "{trusted} {forwarded_for:?}");
    }
}
