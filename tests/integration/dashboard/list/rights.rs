//! Who sees what of the list.

use serde_json::json;

use super::super::person::{KEYS_PAGE, Person, SIGN_IN};
use super::{ids, key, page, row_of, rows, start};
use crate::harness::sidekey::{Key, Sidekey};

/// Somebody with these scopes, in tenant `acme`.
async fn holder(sidekey: &Sidekey, scopes: &[&str]) -> Key {
    key(sidekey, "Somebody", json!({"scopes": scopes})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_it_without_signing_in() {
    let sidekey = start().await;
    let reply = Person::new(&sidekey).get(&format!("{KEYS_PAGE}?q=a")).await;
    assert_eq!(reply.status, 303, "{reply:?}");
    let location = reply.header("location").unwrap();
    assert!(
        location.starts_with(&format!("{SIGN_IN}?next=")),
        "{location}"
    );
    assert!(reply.text.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_keys() {
    let sidekey = start().await;
    let scopes = [
        "sidekey:keys:read",
        "sidekey:keys:write",
        "sidekey:usage:read",
    ];
    let somebody = holder(&sidekey, &scopes).await;
    let person = Person::signed_in(&sidekey, &somebody.text).await;
    let own = key(&sidekey, "Own", json!({})).await;
    let foreign = key(&sidekey, "Foreign", json!({"tenant_id": "globex"})).await;
    let all = page(&person, "").await;
    assert_eq!(ids(&all), [own.id.as_str(), somebody.id.as_str()]);
    for part in [
        "data-label=\"Tenant\"",
        "name=\"tenant_id\"",
        "globex",
        "Foreign",
    ] {
        assert!(!all.contains(part), "{part} {all}");
    }
    for query in [
        "?tenant_id=globex".to_owned(),
        "?q=Foreign".to_owned(),
        format!("?q={}", foreign.id),
        "?q=Foreign&sort=name".to_owned(),
    ] {
        let page = page(&person, &query).await;
        assert!(rows(&page).is_empty(), "{query} {page}");
        assert!(
            !page.contains(&format!("api-keys/{}", foreign.id)),
            "{query}"
        );
    }
    assert_eq!(
        ids(&page(&person, "?tenant_id=acme&q=own").await),
        [own.id.as_str()]
    );
    // A cursor of somebody who sees more shows nothing more.
    let admin = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    for number in 0..30 {
        key(
            &sidekey,
            &format!("Foreign {number}"),
            json!({"tenant_id": "globex"}),
        )
        .await;
    }
    let first = page(&admin, "").await;
    let next = super::link(&first, "Next").expect("a next page");
    let seen = page(&person, &next).await;
    assert_eq!(ids(&seen).len(), 2, "{seen}");
    assert!(!seen.contains("Foreign"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_is_offered_no_change() {
    let sidekey = start().await;
    let other = key(&sidekey, "Other", json!({})).await;
    for (scopes, has_usage) in [
        (vec!["sidekey:keys:read"], false),
        (vec!["sidekey:keys:read", "sidekey:usage:read"], true),
    ] {
        let somebody = holder(&sidekey, &scopes).await;
        let person = Person::signed_in(&sidekey, &somebody.text).await;
        let page = page(&person, "").await;
        row_of(&page, &other);
        for part in [
            "data-dialog",
            "class=\"menu\"",
            "Create",
            "/revoke",
            "Actions",
        ] {
            assert!(!page.contains(part), "{part} {page}");
        }
        assert_eq!(
            page.contains("Requests, 24 h"),
            has_usage,
            "{scopes:?} {page}"
        );
    }
}

/// What only an administrator may change is not offered to others, but for their own key's end.
#[tokio::test(flavor = "multi_thread")]
async fn actions_are_those_that_would_be_allowed() {
    let sidekey = start().await;
    let scopes = ["sidekey:keys:read", "sidekey:keys:write"];
    let somebody = holder(&sidekey, &scopes).await;
    let same = holder(&sidekey, &scopes).await;
    let plain = key(&sidekey, "Plain", json!({})).await;
    let person = Person::signed_in(&sidekey, &somebody.text).await;
    let page = page(&person, "").await;
    let offers = |key: &Key| {
        let row = row_of(&page, key);
        ["regenerate", "disable", "revoke"]
            .map(|tail| row.contains(&format!("api-keys/{}/{tail}\"", key.id)))
    };
    assert_eq!(offers(&plain), [true; 3]);
    assert_eq!(offers(&somebody), [true, false, true]);
    assert_eq!(offers(&same), [false; 3]);
    assert!(page.contains("href=\"api-keys/new\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_keys_is_told_so() {
    let sidekey = start().await;
    let somebody = holder(&sidekey, &["sidekey:audit:read"]).await;
    let person = Person::signed_in(&sidekey, &somebody.text).await;
    let reply = person.get(KEYS_PAGE).await;
    assert_eq!(reply.status, 403, "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(reply.text.contains("sidekey:keys:read"), "{reply:?}");
    assert!(rows(&reply.text).is_empty());
}
