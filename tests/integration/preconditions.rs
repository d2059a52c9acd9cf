//! ETag and If-Match: nobody's edit is lost to somebody who has not seen it.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

async fn call(sidekey: &Sidekey, method: Method, path: &str, tags: &[&str]) -> Reply {
    let mut request = sidekey.admin(method.clone(), path);
    for tag in tags {
        request = request.header("if-match", *tag);
    }
    if method == Method::PATCH {
        request = request.json(&json!({"name": "changed"}));
    }
    Reply::to(request).await
}

fn tag(reply: &Reply) -> String {
    reply.header("etag").expect("an ETag").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_with_a_key_has_its_tag() {
    let sidekey = start().await;
    let body =
        json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]});
    let created = sidekey.ask(Method::POST, KEYS, Some(&body)).await;
    let location = created.header("location").unwrap().to_owned();
    let shown = sidekey.ask(Method::GET, &location, None).await;
    assert_eq!(tag(&created), "\"r1\"");
    assert_eq!(tag(&shown), "\"r1\"");
    let head = sidekey.ask(Method::HEAD, &location, None).await;
    assert_eq!((head.status, tag(&head)), (200, "\"r1\"".to_owned()));
    let changed = call(&sidekey, Method::PATCH, &location, &["\"r1\""]).await;
    assert_eq!((changed.status, tag(&changed)), (200, "\"r2\"".to_owned()));
    let path = format!("{location}/regenerate");
    let regenerated = call(&sidekey, Method::POST, &path, &["\"r2\""]).await;
    assert_eq!(regenerated.status, 200);
    assert_eq!(tag(&regenerated), "\"r3\"");
    let shown = sidekey.ask(Method::GET, &location, None).await;
    assert_eq!(tag(&shown), "\"r3\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_is_not_touched() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let one = format!("{KEYS}/{}", key.id);
    sidekey.change_key(&key.id, json!({"name": "second"})).await;
    let before = sidekey.ask(Method::GET, &one, None).await;
    let calls = [
        (Method::PATCH, one.clone()),
        (Method::POST, format!("{one}/regenerate")),
        (Method::DELETE, one.clone()),
    ];
    for (method, path) in &calls {
        for tags in [
            &["\"r1\""][..],
            &["W/\"r2\""],
            &["\"r1\", \"r3\""],
            &["\"other\""],
        ] {
            let reply = call(&sidekey, method.clone(), path, tags).await;
            let problem = reply.problem(412);
            let kind = "urn:sidekey:problem:precondition-failed";
            assert_eq!(problem["type"], kind, "{method} {tags:?}");
        }
        let reply = call(&sidekey, method.clone(), path, &["r2"]).await;
        reply.problem(400);
    }
    let after = sidekey.ask(Method::GET, &one, None).await;
    assert_eq!(after.json(), before.json());
    // Who may not know of the key learns nothing from a tag either.
    let missing = format!("{KEYS}/000000000000");
    let reply = call(&sidekey, Method::PATCH, &missing, &["\"r1\""]).await;
    reply.problem(404);
    for (tags, (method, path)) in [
        (&["\"r1\", \"r2\""][..], &calls[0]),
        (&["\"r9\"", "\"r3\""], &calls[1]),
        (&["*"], &calls[2]),
    ] {
        let reply = call(&sidekey, method.clone(), path, tags).await;
        assert!(reply.status < 300, "{method} {tags:?}: {reply:?}");
    }
}

/// Many who have seen the same version: one of them writes, also where all come at once.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_editors_wins() {
    let sidekey = start().await;
    for round in 1..=8 {
        let key = sidekey.create_key(json!({})).await;
        let one = format!("{KEYS}/{}", key.id);
        let regenerate = format!("{one}/regenerate");
        let calls = (0..12).map(|n| {
            let (method, path) = match (round % 2, n % 3) {
                (0, 0) => (Method::POST, regenerate.as_str()),
                _ => (Method::PATCH, one.as_str()),
            };
            call(&sidekey, method, path, &["\"r1\""])
        });
        let mut statuses: Vec<u16> = join_all(calls).await.iter().map(|r| r.status).collect();
        statuses.sort_unstable();
        let mut expected = vec![200];
        expected.extend([412; 11]);
        assert_eq!(statuses, expected);
        let shown = sidekey.ask(Method::GET, &one, None).await;
        assert_eq!(tag(&shown), "\"r2\"");
    }
}
