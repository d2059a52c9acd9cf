//! From where people and programs call the admin port, also behind a proxy of its own.

use reqwest::Method;
use serde_json::json;

use super::person::{Person, SIGN_IN};
use crate::audit::events;
use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::nobody;

/// Three wrong keys from an address, for a day.
const FEW_SIGN_INS: &str = "[dashboard]\nsign_in = { name = \"sign-in\", quota = 1, \
                            window_seconds = 86400, burst = 3 }\n";
const TRUSTING: &str = "[admin]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

async fn start(more: &str) -> Sidekey {
    Sidekey::start(&config(nobody(), more)).await
}

/// A key that has never been presented.
async fn reader(sidekey: &Sidekey) -> Key {
    let fields = json!({"name": "a reader's key", "scopes": ["sidekey:keys:read"]});
    sidekey.create_key(fields).await
}

/// What comes of signing in with `key` through a proxy that says so of the client.
async fn sign_in(sidekey: &Sidekey, key: &str, forwarded_for: &str) -> Reply {
    let person = Person::new(sidekey);
    let form = person.form(SIGN_IN, &[("key", key)]);
    Reply::to(form.header("x-forwarded-for", forwarded_for)).await
}

async fn call(sidekey: &Sidekey, key: &str, forwarded_for: &str) -> Reply {
    let url = format!("http://{}{KEYS}", sidekey.admin);
    let call = sidekey.client.request(Method::GET, url).bearer_auth(key);
    Reply::to(call.header("x-forwarded-for", forwarded_for)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_everybody_has_an_address_of_their_own() {
    let sidekey = start(&format!("{TRUSTING}{FEW_SIGN_INS}")).await;
    for number in 0..3 {
        let reply = sign_in(&sidekey, &format!("guess {number}"), "203.0.113.9").await;
        assert_eq!(reply.status, 401, "{reply:?}");
    }
    let key = reader(&sidekey).await;
    // What stands left of the address that the proxy has written, anybody could have written.
    for held_up in ["203.0.113.9", "198.51.100.1, 203.0.113.9"] {
        let reply = sign_in(&sidekey, &key.text, held_up).await;
        assert_eq!(reply.status, 429, "{held_up}: {reply:?}");
    }
    let reply = sign_in(&sidekey, &key.text, "198.51.100.1").await;
    assert_eq!(reply.status, 303, "somebody else: {reply:?}");

    let noted = async |query: &str| events(&sidekey, query).await;
    eventually("it is noted from where", || async {
        noted("action=admin.call_refused").await.len() > 3
    })
    .await;
    for event in noted("action=admin.call_refused").await {
        assert_eq!(event["address"], "203.0.113.9", "{event}");
    }
    let from_there = format!("action=admin.signed_in&actor={}", key.id);
    eventually("the sign-in is noted", || async {
        !noted(&from_there).await.is_empty()
    })
    .await;
    assert_eq!(noted(&from_there).await[0]["address"], "198.51.100.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_addresses_are_those_of_the_client_behind_a_trusted_proxy() {
    let fields = json!({"scopes": ["sidekey:keys:read"], "allowed_ips": ["203.0.113.0/24"]});
    for (more, forwarded_for, may) in [
        (TRUSTING, "203.0.113.7", true),
        (TRUSTING, "198.51.100.1, 203.0.113.7", true),
        (TRUSTING, "203.0.113.7, 198.51.100.1", false),
        ("", "203.0.113.7", false),
    ] {
        let sidekey = start(more).await;
        let key = sidekey.create_key(fields.clone()).await;
        let reply = sign_in(&sidekey, &key.text, forwarded_for).await;
        let expected = if may { 303 } else { 403 };
        assert_eq!(reply.status, expected, "{more} {forwarded_for}: {reply:?}");
        let reply = call(&sidekey, &key.text, forwarded_for).await;
        let expected = if may { 200 } else { 403 };
        assert_eq!(reply.status, expected, "{more} {forwarded_for}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_at_the_form_keeps_no_program_from_the_api() {
    let few = "[limits]\nfailed_auth = { name = \"failed-auth\", quota = 1, window_seconds = 86400, \
               burst = 2 }\n";
    let sidekey = start(&format!("{few}{FEW_SIGN_INS}")).await;
    for number in 0..3 {
        let reply = sign_in(&sidekey, &format!("guess {number}"), "").await;
        assert_eq!(reply.status, 401, "{reply:?}");
    }
    let key = reader(&sidekey).await;
    assert_eq!(sign_in(&sidekey, &key.text, "").await.status, 429);
    assert_eq!(call(&sidekey, &key.text, "").await.status, 200);
    // Who has guessed at the API gets no more guesses by the form.
    let sidekey = start(&format!("{few}{FEW_SIGN_INS}")).await;
    for number in 0..2 {
        let reply = call(&sidekey, &format!("guess-{number}"), "").await;
        assert_eq!(reply.status, 401, "{reply:?}");
    }
    assert_eq!(sign_in(&sidekey, "guess", "").await.status, 429);
}
