//! Lists of keys: order, pages, filters.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::{assert_is_key, millis};
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

/// One page: its keys and the cursor behind it.
async fn page(sidekey: &Sidekey, query: &str) -> (Vec<Value>, Option<String>) {
    let reply = sidekey
        .ask(Method::GET, &format!("{KEYS}{query}"), None)
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let body = reply.json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    let data = body["data"].as_array().expect("data").clone();
    data.iter().for_each(assert_is_key);
    let cursor = &body["next_cursor"];
    assert!(cursor.is_string() || cursor.is_null(), "{cursor}");
    (data, cursor.as_str().map(str::to_owned))
}

fn ids(keys: &[Value]) -> Vec<String> {
    keys.iter()
        .map(|key| key["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn ids_of(sidekey: &Sidekey, query: &str) -> HashSet<String> {
    let (keys, cursor) = page(sidekey, query).await;
    assert_eq!(cursor, None);
    ids(&keys).into_iter().collect()
}

async fn create(sidekey: &Sidekey, fields: Value) -> String {
    sidekey.create_key(fields).await.id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_key_comes_first() {
    let sidekey = start().await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(create(&sidekey, json!({})).await);
    }
    let (keys, cursor) = page(&sidekey, "").await;
    assert_eq!(cursor, None);
    assert_eq!(keys.len(), 6, "with the bootstrap key");
    let times: Vec<i64> = keys.iter().map(|key| millis(&key["created_at"])).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    // Keys of the same millisecond may stand in either order.
    if times.iter().collect::<HashSet<_>>().len() == times.len() {
        created.reverse();
        assert_eq!(ids(&keys)[..5], created);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_key_once_while_keys_are_created_and_revoked() {
    let sidekey = start().await;
    let mut there = HashSet::new();
    for _ in 0..7 {
        there.insert(create(&sidekey, json!({})).await);
    }
    let mut seen: Vec<String> = Vec::new();
    let mut query = "?tenant_id=acme&limit=2".to_owned();
    let mut pages = 0;
    loop {
        let (keys, cursor) = page(&sidekey, &query).await;
        pages += 1;
        assert!(keys.len() <= 2);
        seen.extend(ids(&keys));
        // Newer than everything that is still to come, so it must not push anything around.
        create(&sidekey, json!({})).await;
        if let Some(last) = seen.last() {
            sidekey.revoke_key(last).await;
        }
        match cursor {
            Some(cursor) => query = format!("?tenant_id=acme&limit=2&cursor={cursor}"),
            None => break,
        }
        assert!(pages < 20, "the pages don't end");
    }
    assert_eq!(pages, 4);
    assert_eq!(seen.len(), 7, "none twice: {seen:?}");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), there);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_page_has_no_cursor_also_when_it_is_full() {
    let sidekey = start().await;
    for _ in 0..4 {
        create(&sidekey, json!({})).await;
    }
    let (first, cursor) = page(&sidekey, "?tenant_id=acme&limit=2").await;
    let cursor = cursor.expect("a cursor");
    let (second, end) = page(
        &sidekey,
        &format!("?tenant_id=acme&limit=2&cursor={cursor}"),
    )
    .await;
    assert_eq!((first.len(), second.len(), end), (2, 2, None));
    let (all, end) = page(&sidekey, "?tenant_id=acme&limit=4").await;
    assert_eq!((all.len(), end), (4, None));
    assert_eq!(page(&sidekey, "?tenant_id=nobody").await, (vec![], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_never_longer_than_it_may_be() {
    let sidekey = start().await;
    for (query, bad) in [
        ("?limit=1", None),
        ("?limit=0", Some("limit")),
        ("?limit=-1", Some("limit")),
        ("?limit=many", Some("limit")),
        ("?limit=100000", Some("limit")),
        ("?cursor=", Some("cursor")),
        ("?cursor=bm90aGluZw", Some("cursor")),
        ("?sort=name", None),
        ("?sort=hint", Some("sort")),
    ] {
        let reply = sidekey
            .ask(Method::GET, &format!("{KEYS}{query}"), None)
            .await;
        match bad {
            None => assert_eq!(reply.status, 200, "{query}"),
            Some(field) => assert_eq!(reply.bad_fields(), [field], "{query}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_in_the_order_that_was_asked_for() {
    let sidekey = start().await;
    let b = create(&sidekey, json!({"name": "b", "rotation_days": 3})).await;
    let a = create(&sidekey, json!({"name": "A", "rotation_days": 2})).await;
    let c = create(&sidekey, json!({"name": "c", "rotation_days": 1})).await;
    for (id, day) in [(&c, 1), (&a, 2)] {
        let expires = format!("2199-01-0{day}T00:00:00Z");
        sidekey
            .change_key(id, json!({ "expires_at": expires }))
            .await;
    }
    for (sort, expected) in [
        ("name", [&a, &b, &c]),
        ("-name", [&c, &b, &a]),
        ("expires_at", [&c, &a, &b]),
        ("-expires_at", [&a, &c, &b]),
        ("rotation_due_at", [&c, &a, &b]),
        ("-rotation_due_at", [&b, &a, &c]),
    ] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let query = format!("?tenant_id=acme&limit=2&sort={sort}{cursor}");
            let (keys, next) = page(&sidekey, &query).await;
            seen.extend(ids(&keys));
            let Some(next) = next else { break };
            cursor = format!("&cursor={next}");
            let other = format!("{KEYS}?tenant_id=acme&sort=created_at{cursor}");
            let reply = sidekey.ask(Method::GET, &other, None).await;
            assert_eq!(reply.bad_fields(), ["cursor"]);
        }
        assert_eq!(seen, expected.map(String::clone), "{sort}");
    }
    for sort in ["created_at", "last_used_at", "-last_used_at"] {
        let query = format!("?tenant_id=acme&sort={sort}");
        assert_eq!(ids_of(&sidekey, &query).await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_tenant_status_and_text() {
    let sidekey = start().await;
    let active = create(&sidekey, json!({"name": "Billing Robot"})).await;
    let disabled = create(&sidekey, json!({"name": "100%_sure!"})).await;
    let expired = create(&sidekey, json!({"name": "billing old"})).await;
    let revoked = create(&sidekey, json!({"name": "gone, ÖRTLICH"})).await;
    let other = create(&sidekey, json!({"name": "billing", "tenant_id": "other"})).await;
    sidekey
        .change_key(&disabled, json!({"status": "disabled"}))
        .await;
    sidekey
        .change_key(&expired, json!({"expires_at": "2001-01-01T00:00:00Z"}))
        .await;
    sidekey.revoke_key(&revoked).await;
    // A disabled or revoked key whose time is over as well stays disabled or revoked.
    sidekey
        .change_key(&disabled, json!({"expires_at": "2001-01-01T00:00:00Z"}))
        .await;
    let middle: String = active[3..9].to_lowercase();
    let id_text = format!("q={middle}");
    for (query, expected) in [
        (
            "tenant_id=acme",
            vec![&active, &disabled, &expired, &revoked],
        ),
        ("tenant_id=other", vec![&other]),
        ("tenant_id=ACME", vec![]),
        ("tenant_id=acme&status=active", vec![&active]),
        ("status=disabled", vec![&disabled]),
        ("status=expired", vec![&expired]),
        ("status=revoked", vec![&revoked]),
        ("q=billing", vec![&active, &expired, &other]),
        ("q=BILLING%20r", vec![&active]),
        ("q=billing&tenant_id=acme&status=expired", vec![&expired]),
        // Wildcards of SQL are plain characters.
        ("q=%25_sure%21", vec![&disabled]),
        ("q=b%25g", vec![]),
        ("q=b_lling", vec![]),
        ("q=%C3%96RTLICH", vec![&revoked]),
        ("q=GONE,%20%C3%96rtlich", vec![&revoked]),
        ("q='", vec![]),
        (id_text.as_str(), vec![&active]),
    ] {
        let expected: HashSet<String> = expected.into_iter().cloned().collect();
        let found = ids_of(&sidekey, &format!("?{query}")).await;
        assert_eq!(found, expected, "{query}");
    }
    let (all, _) = page(&sidekey, "").await;
    for key in &all {
        let status = key["status"].as_str().unwrap();
        let same = ids_of(&sidekey, &format!("?status={status}")).await;
        assert!(same.contains(key["id"].as_str().unwrap()), "{key}");
    }
}
