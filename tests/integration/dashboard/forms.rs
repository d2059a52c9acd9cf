//! Whatever form the dashboard has: it is believed from its own page and from who is signed in, and from
//! nobody else. The routes are taken from the router itself, so that none can be forgotten.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::person::{Person, SIGN_IN, SIGN_OUT};
use crate::harness::api::{Reply, forget_uses};
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::nobody;

/// Answered to anybody.
const OPEN: [&str; 4] = [
    "/dashboard",
    "/dashboard/",
    SIGN_IN,
    "/dashboard/assets/{version}/{name}",
];
/// More than a form may have.
const BODY_TOO_LONG: usize = (64 << 10) + 1;
const FIELDS_TOO_MANY: usize = 501;

/// The paths that the router answers `method` at, as it describes itself.
fn routed(method: &str) -> Vec<String> {
    let text = format!("{:?}", sidekey::admin::dashboard::router());
    let (text, _) = text.split_once("fallback_router").expect("a router");
    let parts = || {
        text.split("RouteId(").skip(1).map(|part| {
            let (id, rest) = part.split_once(')').expect("an id");
            (id, rest)
        })
    };
    let mut paths = BTreeSet::new();
    for (id, rest) in parts() {
        let Some(path) = rest.strip_prefix(": \"") else {
            continue;
        };
        let (path, _) = path.split_once('"').expect("a path");
        let (_, route) = parts()
            .find(|(other, rest)| *other == id && !rest.contains(": \"/"))
            .expect("what it leads to");
        let (_, allowed) = route
            .split_once("allow_header: Bytes(b\"")
            .expect("methods");
        let (allowed, _) = allowed.split_once('"').expect("their end");
        if allowed.split(',').any(|one| one == method) && !path.contains("{*") {
            paths.insert(path.to_owned());
        }
    }
    let paths = paths.into_iter();
    paths.filter(|path| !OPEN.contains(&&**path)).collect()
}

struct World {
    sidekey: Sidekey,
    /// What somebody would like to do something to.
    victim: Key,
    /// The paths of all forms, for that key.
    forms: Vec<String>,
}

impl World {
    async fn start(dashboard: &str) -> Self {
        let more = format!("[dashboard]\n{dashboard}\n");
        let sidekey = Sidekey::start(&config(nobody(), &more)).await;
        let victim = sidekey.create_key(json!({"name": "victim"})).await;
        let forms = routed("POST");
        let forms = forms.iter().map(|path| path.replace("{id}", &victim.id));
        World {
            forms: forms.collect(),
            victim,
            sidekey,
        }
    }

    /// All that could have been changed.
    async fn state(&self) -> Value {
        let keys = self.sidekey.ask(Method::GET, KEYS, None).await;
        assert_eq!(keys.status, 200, "{keys:?}");
        let mut keys = keys.json();
        // The only thing that changes by looking.
        forget_uses(&mut keys);
        keys
    }

    /// What a form might send that does as much as possible, without its proof.
    fn fields(&self) -> Vec<(&str, &str)> {
        vec![
            ("name", "victim"),
            ("confirmation", "victim"),
            ("tenant_id", "acme"),
            ("environment", "live"),
            ("scopes", "orders:read"),
            ("id", &self.victim.id),
        ]
    }
}

#[test]
fn the_routes_are_found() {
    let forms = routed("POST");
    assert!(forms.contains(&SIGN_OUT.to_owned()), "{forms:?}");
    let pages = routed("GET");
    assert!(
        pages.contains(&"/dashboard/session".to_owned()),
        "{pages:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_believed_from_its_own_page_alone() {
    let world = World::start("").await;
    let sidekey = &world.sidekey;
    let key = sidekey.admin_key();
    let person = Person::signed_in(sidekey, &key).await;
    let csrf = person.csrf().await;
    let of_another = Person::signed_in(sidekey, &key).await.csrf().await;
    let here = format!("http://{}", sidekey.admin);
    let before = world.state().await;
    for path in &world.forms {
        for (proof, fields) in [
            // Without the proof, or with a wrong one, from our own page.
            (
                None,
                &[("origin", &*here), ("sec-fetch-site", "same-origin")][..],
            ),
            (Some(""), &[]),
            (Some("wrong"), &[("origin", &here)]),
            (Some(&*of_another), &[("origin", &here)]),
            (Some(&csrf[1..]), &[("origin", &here)]),
            // With it, from another site.
            (Some(&*csrf), &[("origin", "https://evil.example")]),
            (Some(&csrf), &[("origin", "null")]),
            (Some(&csrf), &[("sec-fetch-site", "cross-site")]),
            (Some(&csrf), &[("sec-fetch-site", "same-site")]),
            (
                Some(&csrf),
                &[("origin", &here), ("sec-fetch-site", "cross-site")],
            ),
            (
                Some(&csrf),
                &[
                    ("origin", "https://evil.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
            ),
        ] {
            let mut sent = world.fields();
            sent.extend(proof.map(|proof| ("csrf", proof)));
            let mut request = person.form(path, &sent);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let reply = Reply::to(request).await;
            let case = format!("{path} {proof:?} {fields:?}: {reply:?}");
            assert_eq!(reply.status, 403, "{case}");
            assert_eq!(
                reply.header("content-type"),
                Some("text/html; charset=utf-8"),
                "{case}"
            );
            assert!(reply.text.contains("can&#39;t be trusted"), "{case}");
            assert_eq!(reply.header("set-cookie"), None, "{case}");
        }
        // The proof in the address is none.
        let reply = person
            .post(&format!("{path}?csrf={csrf}"), &world.fields())
            .await;
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
    }
    assert_eq!(world.state().await, before);
    assert!(person.is_signed_in().await);
    // So it was only that.
    let request = person
        .form(SIGN_OUT, &[("csrf", &csrf)])
        .header("origin", &here)
        .header("sec-fetch-site", "same-origin");
    assert_eq!(Reply::to(request).await.status, 303);
    assert!(!person.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_people_come_from_can_be_told() {
    let world = World::start("url = \"https://keys.example.com\"").await;
    let sidekey = &world.sidekey;
    let person = Person::signed_in(sidekey, &sidekey.admin_key()).await;
    let csrf = person.csrf().await;
    let called = format!("http://{}", sidekey.admin);
    for origin in [
        &*called,
        "http://keys.example.com",
        "https://keys.example.com:444",
    ] {
        let request = person.form(SIGN_OUT, &[("csrf", &csrf)]);
        let reply = Reply::to(request.header("origin", origin)).await;
        assert_eq!(reply.status, 403, "{origin}: {reply:?}");
        assert!(reply.text.contains("https://keys.example.com"), "{reply:?}");
    }
    let request = person.form(SIGN_OUT, &[("csrf", &csrf)]);
    let reply = Reply::to(request.header("origin", "https://keys.example.com")).await;
    assert_eq!(reply.status, 303, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_by_another_site() {
    let world = World::start("").await;
    let sidekey = &world.sidekey;
    let key = sidekey.admin_key();
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let request = Person::new(sidekey).form(SIGN_IN, &[("key", &key)]);
        let reply = Reply::to(request.header(name, value)).await;
        assert_eq!(reply.status, 403, "{name}: {value}: {reply:?}");
        assert_eq!(reply.header("set-cookie"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_nothing_is_shown_or_done() {
    let world = World::start("").await;
    let sidekey = &world.sidekey;
    let ended = Person::signed_in(sidekey, &sidekey.admin_key()).await;
    let csrf = ended.csrf().await;
    let out = ended.post(SIGN_OUT, &[("csrf", &csrf)]).await;
    assert_eq!(out.status, 303);
    let before = world.state().await;
    for person in [Person::new(sidekey), ended] {
        for path in &world.forms {
            let mut sent = world.fields();
            sent.push(("csrf", &csrf));
            let reply = person.post(path, &sent).await;
            expect_sign_in(path, &reply);
            let fragment = person
                .form(path, &sent)
                .header("sidekey-fragment", "dialog");
            let reply = Reply::to(fragment).await;
            assert_eq!(reply.status, 401, "{path}: {reply:?}");
            let place = reply.header("sidekey-go").expect("a place");
            assert!(place.starts_with(SIGN_IN), "{path}: {place}");
        }
        for path in routed("GET") {
            let path = path.replace("{id}", &world.victim.id);
            let reply = person.get(&path).await;
            expect_sign_in(&path, &reply);
        }
    }
    assert_eq!(world.state().await, before);
}

fn expect_sign_in(path: &str, reply: &Reply) {
    assert_eq!(reply.status, 303, "{path}: {reply:?}");
    let place = reply.header("location").expect("a place");
    assert!(place.starts_with(SIGN_IN), "{path}: {place}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    assert_eq!(reply.text, "", "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_a_form_of_bounded_size() {
    let world = World::start("").await;
    let sidekey = &world.sidekey;
    let person = Person::signed_in(sidekey, &sidekey.admin_key()).await;
    let csrf = person.csrf().await;
    let long = "a".repeat(BODY_TOO_LONG);
    let many: Vec<(&str, &str)> = (0..FIELDS_TOO_MANY).map(|_| ("a", "b")).collect();
    for path in &world.forms {
        let reply = person.post(path, &[("csrf", &csrf), ("name", &long)]).await;
        assert_eq!(reply.status, 413, "{path}: {reply:?}");
        let reply = person.post(path, &many).await;
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
        for media_type in ["application/json", "text/plain", "multipart/form-data"] {
            let request = person.request(Method::POST, path);
            let request = request.header("content-type", media_type);
            let reply = Reply::to(request.body(format!("csrf={csrf}"))).await;
            assert_eq!(reply.status, 415, "{path}: {reply:?}");
        }
    }
    assert!(person.is_signed_in().await);
    let reply = person.get(SIGN_OUT).await;
    assert_eq!(reply.status, 405, "{reply:?}");
    assert!(reply.text.contains("<html"), "{reply:?}");
}
