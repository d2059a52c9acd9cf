//! Who may import what.

use serde_json::json;

use super::{import, jsonl, line, plain, refused_fields, send_as, start, statuses, strong};
use crate::harness::sidekey::Sidekey;

async fn send_line(
    sidekey: &Sidekey,
    key: &str,
    fields: serde_json::Value,
) -> crate::harness::api::Reply {
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
    for query in ["", "?dry_run=true"] {
        let list = jsonl(&[plain(&strong(1))]);
        let reply = send_as(&sidekey, &writer, query, "application/jsonl", &list).await;
        assert_eq!(statuses(&reply), ["refused"], "{query}");
        assert!(!reply.text.contains(&id));
    }
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
