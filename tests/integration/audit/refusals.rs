//! Sign-ins and refused calls: noted beside the answer, and kept while the database is away.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{EVENTS, events, events_as};
use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

const REFUSED: &str = "action=admin.call_refused";
/// Less than a call of the database may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The event of a refused call, once it is written.
async fn event_of(sidekey: &Sidekey, reply: &Reply) -> Value {
    let id = reply.header("x-request-id").expect("an id");
    let found = async || {
        let refused = events(sidekey, REFUSED).await;
        refused.into_iter().find(|event| event["request_id"] == *id)
    };
    eventually("the refusal is noted", || async { found().await.is_some() }).await;
    found().await.expect("an event")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_call_is_noted() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let reader = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:read"]}))
        .await;
    let disabled = sidekey
        .create_key(json!({"scopes": ["sidekey:admin"]}))
        .await;
    sidekey
        .change_key(&disabled.id, json!({"status": "disabled"}))
        .await;
    let revoked = sidekey
        .create_key(json!({"scopes": ["sidekey:admin"]}))
        .await;
    sidekey.revoke_key(&revoked.id).await;
    let elsewhere = sidekey.create_key(json!({"tenant_id": "globex"})).await;
    let forged = format!("sk_live_000000000000_{}", "f".repeat(54));
    let theirs = format!("{KEYS}/{}", elsewhere.id);
    let missing = format!("{KEYS}/000000000000");
    let pasted = format!("{KEYS}/{}", reader.text);
    for (key, method, path, status, actor, presented, shown) in [
        (None, Method::GET, KEYS, 401, None, None, KEYS),
        (Some("nonsense"), Method::GET, KEYS, 401, None, None, KEYS),
        (
            Some(&*forged),
            Method::POST,
            KEYS,
            401,
            None,
            Some("000000000000"),
            KEYS,
        ),
        (
            Some(&*revoked.text),
            Method::GET,
            KEYS,
            401,
            None,
            Some(&*revoked.id),
            KEYS,
        ),
        (
            Some(&*disabled.text),
            Method::GET,
            KEYS,
            401,
            Some(&*disabled.id),
            None,
            KEYS,
        ),
        (
            Some(&*reader.text),
            Method::DELETE,
            &theirs,
            403,
            Some(&*reader.id),
            None,
            &theirs,
        ),
        (
            Some(&*reader.text),
            Method::GET,
            &theirs,
            404,
            Some(&*reader.id),
            None,
            &theirs,
        ),
        (
            Some(&*reader.text),
            Method::GET,
            &missing,
            404,
            Some(&*reader.id),
            None,
            &missing,
        ),
        (
            Some(&*reader.text),
            Method::GET,
            &pasted,
            404,
            Some(&*reader.id),
            None,
            &format!("{KEYS}/..."),
        ),
    ] {
        // Calls of one thing take no query.
        let query = match path == KEYS {
            true => format!("{path}?q={}", reader.text),
            false => path.to_owned(),
        };
        let reply = sidekey.ask_as(key, method.clone(), &query, None).await;
        let problem = reply.problem(status);
        let event = event_of(&sidekey, &reply).await;
        let details = &event["details"];
        assert_eq!(details["method"], method.as_str(), "{event}");
        assert_eq!(details["path"], shown, "{event}");
        assert_eq!(details["status"], status, "{event}");
        assert_eq!(details["problem"], problem["type"], "{event}");
        assert_eq!(
            details.get("presented_key_id"),
            presented.map(|id| json!(id)).as_ref()
        );
        let kind = if actor.is_some() { "key" } else { "unknown" };
        assert_eq!(event["actor"], json!({"type": kind, "key_id": actor}));
        let tenant = actor.map(|_| "acme");
        assert_eq!(event["tenant_id"], json!(tenant), "{event}");
        assert_eq!(event["address"], "127.0.0.1");
    }
    // An administrator sees everything, so nothing was kept from them.
    let missing = sidekey.ask(Method::GET, &missing, None).await;
    missing.problem(404);
    let nowhere = sidekey.ask_as(None, Method::GET, "/nowhere", None).await;
    nowhere.problem(404);
    let last = sidekey.ask_as(None, Method::GET, KEYS, None).await;
    event_of(&sidekey, &last).await;
    let noted = events(&sidekey, REFUSED).await;
    for reply in [&missing, &nowhere] {
        let id = reply.header("x-request-id").unwrap();
        assert!(!noted.iter().any(|event| event["request_id"] == *id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_noted_once() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let reader = json!({"scopes": ["sidekey:keys:read", "sidekey:audit:read"]});
    let reader = sidekey.create_key(reader).await;
    for _ in 0..5 {
        let reply = sidekey
            .ask_as(Some(&reader.text), Method::GET, KEYS, None)
            .await;
        assert_eq!(reply.status, 200);
    }
    let query = format!("action=admin.signed_in&actor={}", reader.id);
    eventually("the sign-in is noted", || async {
        !events_as(&sidekey, &reader.text, &query).await.is_empty()
    })
    .await;
    // Whatever was noted before this is there as well.
    let refused = sidekey.ask_as(None, Method::GET, KEYS, None).await;
    event_of(&sidekey, &refused).await;
    let signed_in = events(&sidekey, &query).await;
    assert_eq!(signed_in.len(), 1, "{signed_in:?}");
    assert_eq!(signed_in[0]["key_id"], *reader.id);
    assert_eq!(signed_in[0]["tenant_id"], "acme");
    assert_eq!(signed_in[0]["address"], "127.0.0.1");
}

/// A flood of refused calls is a few entries, and what is counted is all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_fill_the_chain() {
    const CALLS: usize = 300;
    let mut sidekey = Sidekey::start(&config(nobody(), "")).await;
    for _ in 0..CALLS {
        sidekey
            .ask_as(None, Method::GET, KEYS, None)
            .await
            .problem(401);
    }
    // The end ends the minute too.
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    let sidekey = sidekey.restart().await;
    let noted = events(&sidekey, REFUSED).await;
    assert!(noted.len() <= CALLS / 2, "{} entries", noted.len());
    let counted: u64 = noted
        .iter()
        .map(|event| event["details"]["count"].as_u64().unwrap_or(1))
        .sum();
    assert_eq!(counted, CALLS as u64);
}

/// Too many wrong keys of one address: the first answer 429 has an entry, the rest a number.
#[tokio::test(flavor = "multi_thread")]
async fn answers_429_of_one_address_are_two_entries() {
    let limit =
        "[limits.failed_auth]\nname = \"wrong\"\nquota = 1\nwindow_seconds = 3600\nburst = 3\n";
    let mut sidekey = Sidekey::start(&config(nobody(), limit)).await;
    // All at once, so within one minute.
    let calls = (0..20).map(async |n| {
        let forged = format!("sk_live_{n:012}_{}", "f".repeat(54));
        sidekey.ask_as(Some(&forged), Method::GET, KEYS, None).await
    });
    let replies = join_all(calls).await;
    let limited = replies.iter().filter(|reply| reply.status == 429).count() as u64;
    assert!(limited > 10);
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    let sidekey = sidekey.restart().await;
    let noted = events(&sidekey, REFUSED).await;
    let counts: Vec<_> = noted
        .iter()
        .filter(|event| event["details"]["status"] == 429)
        .map(|event| event["details"]["count"].as_u64().unwrap_or(1))
        .collect();
    assert_eq!(counts, [limited - 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_refusals_wait() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    let sidekey =
        Sidekey::start_with(&config(nobody(), ""), &[("SIDEKEY__STORE__URL", &url)]).await;
    sidekey.create_key(json!({})).await;
    postgres.kill();
    let mut replies = Vec::new();
    for _ in 0..10 {
        // No answer waits for the database, whose calls have 5 s. A machine that stands still may try three times.
        let mut times = Vec::new();
        while times.len() < 3 && times.iter().all(|time| *time >= ANSWER_MAX) {
            let start = Instant::now();
            let reply = sidekey.ask_as(None, Method::GET, EVENTS, None).await;
            times.push(start.elapsed());
            reply.problem(401);
            replies.push(reply);
        }
        assert!(times.iter().any(|time| *time < ANSWER_MAX), "{times:?}");
    }
    postgres.launch().await;
    eventually("the database is back", || async {
        let path = format!("{EVENTS}?{REFUSED}");
        sidekey.ask(Method::GET, &path, None).await.status == 200
    })
    .await;
    for reply in &replies {
        event_of(&sidekey, reply).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_end_can_not_write_is_told() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    let mut sidekey =
        Sidekey::start_with(&config(nobody(), ""), &[("SIDEKEY__STORE__URL", &url)]).await;
    postgres.kill();
    for _ in 0..3 {
        let reply = sidekey.ask_as(None, Method::GET, EVENTS, None).await;
        reply.problem(401);
    }
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    eventually("the log says so", || async {
        let output = sidekey.output();
        output.contains("could not be noted, and are lost") && output.contains("\"lost\":3")
    })
    .await;
}
