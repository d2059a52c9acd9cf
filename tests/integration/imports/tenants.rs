//! Who may import what.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{
    SETTINGS, import, jsonl, line, plain, refused_fields, send, send_as, start, statuses, strong,
};
use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

async fn send_line(sidekey: &Sidekey, key: &str, fields: serde_json::Value) -> Reply {
    let list = jsonl(&[line(fields)]);
    send_as(sidekey, key, "", "application/jsonl", &list).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_administrator_imports_into_its_own_tenant_only() {
    let (sidekey, _upstream) = start().await;
    let scopes = json!({"scopes": ["sidekey:keys:write", "sidekey:keys:read"]});
    let writer = sidekey.create_key(scopes).await.text;
    let own = send_line(&sidekey, &writer, json!({"key": strong(1)})).await;
    assert_eq!(statuses(&own), ["created"]);
    let mut silent = line(json!({"key": strong(2)}));
    silent.as_object_mut().unwrap().remove("tenant_id");
    let list = jsonl(&[silent]);
    let silent = send_as(&sidekey, &writer, "", "application/jsonl", &list).await;
    assert_eq!(statuses(&silent), ["created"]);

    let other = send_line(
        &sidekey,
        &writer,
        json!({"key": strong(3), "tenant_id": "other"}),
    )
    .await;
    assert_eq!(statuses(&other), ["refused"]);
    assert_eq!(refused_fields(&other, 0), ["tenant_id"]);
    assert_eq!(sidekey.status("/", &strong(3)).await, 401);
    let powerful = json!({"key": strong(4), "scopes": ["sidekey:admin"]});
    let powerful = send_line(&sidekey, &writer, powerful).await;
    assert_eq!(refused_fields(&powerful, 0), ["scopes"]);
    assert_eq!(sidekey.status("/", &strong(4)).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_import_is_not_named() {
    let (sidekey, _upstream) = start().await;
    let theirs = line(json!({"key": strong(1), "tenant_id": "other"}));
    let id = import(&sidekey, &[theirs]).await.remove(0);
    let writer = json!({"scopes": ["sidekey:keys:write"]});
    let writer = sidekey.create_key(writer).await.text;
    // A dry run is no place to try out which keys others have.
    for (query, status) in [("?dry_run=true", "would_create"), ("", "refused")] {
        let list = jsonl(&[plain(&strong(1))]);
        let reply = send_as(&sidekey, &writer, query, "application/jsonl", &list).await;
        assert_eq!(statuses(&reply), [status], "{query}");
        assert!(!reply.text.contains(&id));
    }
}

/// What may be easy to guess does not come to administrate by a detour.
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_secret_gets_no_scopes_of_sidekey_later() {
    let (sidekey, _upstream) = start().await;
    let reply = send(&sidekey, "?allow_weak=true", &[plain("password")]).await;
    assert_eq!(statuses(&reply), ["created"]);
    let id = reply.json()["results"][0]["key_id"].clone();
    let one = format!("{KEYS}/{}", id.as_str().unwrap());
    let body = json!({"scopes": ["sidekey:admin"]});
    let change = || sidekey.ask(Method::PATCH, &one, Some(&body));
    assert_eq!(change().await.bad_fields(), ["scopes"]);
    // In its grace period it would still work.
    let id = id.as_str().unwrap();
    sidekey.regenerate_key(id, 3600).await;
    assert_eq!(change().await.bad_fields(), ["scopes"]);
    let minted = sidekey.regenerate_key(id, 0).await;
    assert_eq!(change().await.status, 200);
    let weak = sidekey.ask_as(Some("password"), Method::GET, KEYS, None);
    weak.await.problem(401);
    let strong = sidekey.ask_as(Some(&minted.text), Method::GET, KEYS, None);
    assert_eq!(strong.await.status, 200);
}

/// What is noted of an import can be found by the id in its answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_noted_with_the_id_of_its_request() {
    let (sidekey, _upstream) = start().await;
    let reply = send(&sidekey, "", &[plain(&strong(1)), plain(&strong(2))]).await;
    let events = crate::audit::events(&sidekey, "action=key.imported").await;
    let ids: Vec<_> = events
        .iter()
        .map(|event| event["request_id"].as_str())
        .collect();
    assert_eq!(ids, [reply.header("x-request-id"); 2]);
}

/// Everybody who makes a key waits for the hashes of those who import.
#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_import_at_once() {
    let upstream = nobody();
    let slow = format!("{SETTINGS}[bcrypt]\ncost = 10\n");
    let sidekey = Sidekey::start(&config(upstream, &slow)).await;
    let writer = json!({"scopes": ["sidekey:keys:write"]});
    let writer = sidekey.create_key(writer).await.text;
    let mut busy: Vec<Reply> = Vec::new();
    // On a busy machine the first may be through before the last is sent.
    for round in 0..5 {
        let lists: Vec<String> = (9 * round..9 * (round + 1))
            .map(|list| jsonl(&[0, 1, 2].map(|number| plain(&strong(3 * list + number)))))
            .collect();
        let sending = lists
            .iter()
            .map(|list| send_as(&sidekey, &writer, "", "application/jsonl", list));
        let replies = join_all(sending).await;
        busy = replies
            .into_iter()
            .filter(|reply| reply.status == 503)
            .collect();
        if busy.len() >= 2 {
            break;
        }
    }
    assert!(busy.len() >= 2, "{busy:?}");
    for reply in &busy {
        reply.problem(503);
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    let list = jsonl(&[plain(&strong(1000))]);
    let reply = send_as(&sidekey, &writer, "", "application/jsonl", &list).await;
    assert_eq!(statuses(&reply), ["created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_may_not_import() {
    let (sidekey, _upstream) = start().await;
    let list = jsonl(&[plain(&strong(1))]);
    for (scopes, status) in [
        (json!(["sidekey:keys:read"]), 403),
        (json!(["orders:*"]), 403),
        (json!(["sidekey:keys:write"]), 200),
    ] {
        let key = sidekey.create_key(json!({"scopes": scopes})).await.text;
        let query = "?dry_run=true";
        let reply = send_as(&sidekey, &key, query, "application/jsonl", &list).await;
        assert_eq!(reply.status, status, "{scopes}");
    }
    let reply = send_as(&sidekey, "nonsense", "", "application/jsonl", &list).await;
    reply.problem(401);
    // A secret in its grace period only reads.
    let writer = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:write"]}))
        .await;
    sidekey.regenerate_key(&writer.id, 3600).await;
    let reply = send_as(&sidekey, &writer.text, "", "application/jsonl", &list).await;
    reply.problem(401);
    assert_eq!(sidekey.status("/", &strong(1)).await, 401);
}
