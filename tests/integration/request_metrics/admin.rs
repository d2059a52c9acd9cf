//! Of the admin port: what it answers, whom it refuses, who signs in.

use reqwest::Method;
use serde_json::json;

use super::expect;
use crate::dashboard::person::{Person, SIGN_IN};
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

fn refusals(reason: &str) -> String {
    format!("sidekey_admin_refusals_total{{reason=\"{reason}\"}}")
}

fn sign_ins(result: &str) -> String {
    format!("sidekey_sign_ins_total{{result=\"{result}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_answer_and_refusals_by_reason() {
    let more =
        "[limits]\nfailed_auth = { name = \"failed-auth\", quota = 1, window_seconds = 3600 }";
    let sidekey = Sidekey::start(&config(nobody(), more)).await;
    let reader = json!({"scopes": ["sidekey:usage:read"]});
    let reader = sidekey.create_key(reader).await;
    let responses = async |code| {
        let series = format!("sidekey_admin_responses_total{{code=\"{code}\"}}");
        sidekey.metric(&series).await
    };
    let (well, refused) = (responses("2xx").await, responses("4xx").await);
    for (key, status, reason) in [
        (None, 401, "no_credential"),
        (Some(&*reader.text), 403, "forbidden"),
        (Some("wrong"), 401, "invalid_key"),
        (Some("wrong"), 429, "limited"),
    ] {
        let reply = sidekey.ask_as(key, Method::GET, KEYS, None).await;
        assert_eq!(reply.status, status, "{reason}");
        expect(&sidekey, &refusals(reason), 1.0).await;
    }
    let twice = sidekey.admin(Method::GET, KEYS).bearer_auth("another");
    assert_eq!(twice.send().await.expect("an answer").status(), 400);
    expect(&sidekey, &refusals("ambiguous_credential"), 1.0).await;
    // What is not there is no refusal.
    let reply = sidekey.ask(Method::GET, "/nowhere", None).await;
    assert_eq!(reply.status, 404);
    assert_eq!(responses("4xx").await, refused + 6.0);
    assert!(
        responses("2xx").await > well,
        "looks at the metrics are answers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_are_counted() {
    let more = "[dashboard]\nsign_in = { name = \"sign-in\", quota = 1, window_seconds = 3600 }";
    let sidekey = Sidekey::start(&config(nobody(), more)).await;
    let mut person = Person::new(&sidekey);
    assert_eq!(person.sign_in(&sidekey.admin_key()).await.status, 303);
    expect(&sidekey, &sign_ins("ok"), 1.0).await;
    let mut stranger = Person::new(&sidekey);
    assert_eq!(stranger.sign_in("wrong").await.status, 401);
    expect(&sidekey, &sign_ins("refused"), 1.0).await;
    assert_eq!(stranger.sign_in("wrong").await.status, 429);
    expect(&sidekey, &sign_ins("limited"), 1.0).await;
    let form = stranger.form(SIGN_IN, &[("key", "wrong")]);
    let form = form.header("origin", "https://evil.example");
    assert_eq!(form.send().await.expect("an answer").status(), 403);
    expect(&sidekey, &sign_ins("refused"), 2.0).await;
    expect(&sidekey, &refusals("origin"), 1.0).await;
    expect(&sidekey, &refusals("invalid_key"), 1.0).await;
    expect(&sidekey, &refusals("limited"), 1.0).await;
}
