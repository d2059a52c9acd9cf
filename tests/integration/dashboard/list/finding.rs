//! Getting about in the list: filters, orders, pages.

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde_json::json;

use super::super::person::{KEYS_PAGE, Person};
use super::{ids, key, link, page, rows, start};
use crate::harness::sidekey::Sidekey;
use crate::lists::fill;

/// More than what one page looks at, and more keys with an end than are read by it.
const MANY: u64 = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_keys_out() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let test = key(&sidekey, "Alpha", json!({"environment": "test"})).await;
    let ends = json!({"expires_at": "2999-01-01T00:00:00Z", "tenant_id": "globex"});
    let other = key(&sidekey, "Alphabet & co", ends).await;
    let disabled = key(&sidekey, "Beta", json!({})).await;
    sidekey
        .change_key(&disabled.id, json!({"status": "disabled"}))
        .await;
    let found = async |query: &str| -> BTreeSet<String> {
        ids(&page(&person, query).await).into_iter().collect()
    };
    let of = |keys: &[&crate::harness::sidekey::Key]| -> BTreeSet<String> {
        keys.iter().map(|key| key.id.clone()).collect()
    };
    for (query, expected) in [
        ("?q=ALPHA".to_owned(), of(&[&test, &other])),
        ("?q=alphabet+%26+co".to_owned(), of(&[&other])),
        (format!("?q={}", disabled.id), of(&[&disabled])),
        ("?environment=test".to_owned(), of(&[&test])),
        ("?tenant_id=globex&status=".to_owned(), of(&[&other])),
        ("?status=disabled&q=".to_owned(), of(&[&disabled])),
        ("?status=disabled&tenant_id=globex".to_owned(), of(&[])),
        ("?expiring_within_days=90".to_owned(), of(&[])),
        ("?expiring_within_days=3650".to_owned(), of(&[])),
        // All of them are too young.
        ("?unused_for_days=30".to_owned(), of(&[])),
    ] {
        assert_eq!(found(&query).await, expected, "{query}");
    }
    // What was chosen stays chosen, and can be left out again.
    let page = page(
        &person,
        "?q=%26+co&environment=live&expiring_within_days=14&limit=50",
    )
    .await;
    for part in [
        "name=\"q\" value=\"&#38; co\"",
        "<option value=\"live\" selected>",
        "<option value=\"14\" selected>",
        "<option value=\"50\" selected>",
        "Environment: live",
        "Expires: within 14 days",
    ] {
        assert!(page.contains(part), "{part} {page}");
    }
    assert_eq!(link(&page, "Clear filters").as_deref(), Some("?limit=50"));
    let without = page
        .split("aria-label=\"Clear Environment\"")
        .next()
        .unwrap();
    let without = without.rsplit("href=\"").next().unwrap();
    let without = without.replace("&#38;", "&");
    assert!(
        without.starts_with("?q=%26+co&expiring_within_days=14&limit=50\""),
        "{without}"
    );
    assert!(
        page.contains("<datalist id=\"tenants\"><option value=\"acme\"><option value=\"globex\">")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_given_at_an_address_with_a_key_in_it() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let stranger = Person::new(&sidekey);
    let key = key(&sidekey, "pasted", json!({})).await;
    for (given, expected) in [
        (
            format!("{KEYS_PAGE}?q=+KEY&sort=name"),
            format!("{KEYS_PAGE}?q=ID&sort=name"),
        ),
        (format!("{KEYS_PAGE}/KEY"), format!("{KEYS_PAGE}/ID")),
        (
            "/dashboard/audit?key_id=KEY".to_owned(),
            "/dashboard/audit?key_id=ID".to_owned(),
        ),
        (
            "/dashboard/sign-in?next=/dashboard/audit?key_id=KEY".to_owned(),
            "/dashboard/sign-in?next=%2Fdashboard%2Faudit%3Fkey_id%3Dsk_live_ID_...".to_owned(),
        ),
    ] {
        let given = given.replace("KEY", &key.text);
        for somebody in [&person, &stranger] {
            let reply = somebody.get(&given).await;
            assert_eq!(reply.status, 303, "{reply:?}");
            let place = reply.header("location").expect("a place");
            assert_eq!(place, expected.replace("ID", &key.id));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
    }
    // It is found by what is left.
    let found = page(&person, &format!("?q={}", key.id)).await;
    assert_eq!(ids(&found), std::slice::from_ref(&key.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_named() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    for (query, label, field) in [
        ("status=lost", "Status", Some("status")),
        ("environment=prod", "Environment", Some("environment")),
        ("tenant_id=../x", "Tenant", Some("tenant_id")),
        (
            "expiring_within_days=-1",
            "Expires",
            Some("expiring_within_days"),
        ),
        ("unused_for_days=99999", "Last use", Some("unused_for_days")),
        ("limit=26", "Per page", Some("limit")),
        ("sort=hint", "Sorting", None),
        ("cursor=bm90aGluZw", "Place in the list", None),
        ("before=x", "Place in the list", None),
        ("q=a&q=b", "Search", Some("q")),
    ] {
        let reply = person.get(&format!("{KEYS_PAGE}?{query}&q=kept")).await;
        assert_eq!(reply.status, 422, "{query} {reply:?}");
        assert_eq!(
            reply.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let page = reply.text;
        assert!(
            page.contains(&format!("<li><strong>{label}</strong>")),
            "{query} {page}"
        );
        if let Some(field) = field {
            let parts = ["aria-invalid=\"true\" aria-describedby=\"e-", field, "\""].concat();
            assert!(page.contains(&parts), "{query} {page}");
            assert!(
                page.contains(&format!("id=\"e-{field}\"")),
                "{query} {page}"
            );
        }
        assert!(rows(&page).is_empty());
        assert_eq!(link(&page, "Show all keys").as_deref(), Some("api-keys"));
    }
    let both = person
        .get(&format!("{KEYS_PAGE}?status=x&limit=0"))
        .await
        .text;
    assert!(both.contains("<strong>Status</strong>") && both.contains("<strong>Per page</strong>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_sort() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    for (name, end) in [("b", "2997"), ("A", "2999"), ("c", "2998")] {
        let end = format!("{end}-01-01T00:00:00Z");
        key(&sidekey, name, json!({"expires_at": end})).await;
    }
    let names = |page: &str| -> String {
        let names = rows(page)
            .into_iter()
            .map(|row| super::text(row.split("</a>").next().unwrap()));
        names.filter(|name| name.len() == 1).collect()
    };
    let mut query = "?q=&status=active&limit=50".to_owned();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let page = page(&person, &query).await;
        let sorted = page.split("aria-sort=\"").nth(1);
        let sorted = sorted.map_or("", |rest| rest.split('"').next().unwrap());
        seen.push((names(&page), sorted.to_owned()));
        query = link(&page, "Name").expect("a link in the head");
        assert!(query.starts_with("?status=active&limit=50"), "{query}");
    }
    let of = |names: &str, sorted: &str| (names.to_owned(), sorted.to_owned());
    // Keys of the same millisecond may stand in either order.
    assert_eq!(seen[0].1, "");
    assert_eq!(seen[1], of("Abc", "ascending"));
    assert_eq!(seen[2], of("cbA", "descending"));
    assert_eq!(seen[3], seen[0]);
    let page = page(&person, &link(&page(&person, "").await, "Expires").unwrap()).await;
    assert_eq!(names(&page), "bcA");
    assert!(page.contains("next to expire first"), "{page}");
    assert!(
        page.contains(
            "<input type=\"hidden\" name=\"sort\" value=\"expires_at\" form=\"filters\">"
        )
    );
    assert_eq!(link(&page, "newest first").as_deref(), Some("?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_key_once_there_and_back() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let mut there = BTreeSet::new();
    for number in 0..60 {
        there.insert(key(&sidekey, &format!("Page {number}"), json!({})).await.id);
    }
    for start in [
        "?q=page",
        "?q=page&sort=name",
        "?q=page&sort=-last_used_at",
        "?tenant_id=acme",
    ] {
        let (mut pages, mut query) = (Vec::new(), start.to_owned());
        loop {
            let page = page(&person, &query).await;
            pages.push(ids(&page));
            assert!(pages.len() < 10, "the pages don't end");
            match link(&page, "Next") {
                Some(next) => query = next,
                None => break,
            }
        }
        let lens: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(lens, [25, 25, 10], "{start}");
        let all: BTreeSet<String> = pages.concat().into_iter().collect();
        assert_eq!(all, there, "{start}");
        // And back from the last one.
        for before in [1, 0] {
            let now = page(&person, &query).await;
            query = link(&now, "Previous").expect("a page before");
            assert_eq!(ids(&page(&person, &query).await), pages[before], "{start}");
        }
        let first = page(&person, start).await;
        assert!(link(&first, "Previous").is_none() && first.contains("25 keys on this page"));
    }
    let page = page(&person, "?limit=100").await;
    assert_eq!(rows(&page).len(), 61);
    assert!(!page.contains("Pages of the list") && page.contains("61 keys, newest first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_has_not_come_far_goes_on() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    fill_beside(&sidekey).await;
    let mut query = "?expiring_within_days=7".to_owned();
    let page = page(&person, &query).await;
    assert!(
        page.contains("No match so far") && rows(&page).is_empty(),
        "{page}"
    );
    let mut steps = 0;
    while rows(&super::page(&person, &query).await).is_empty() {
        let page = super::page(&person, &query).await;
        query = link(&page, "Go on looking").unwrap_or_else(|| panic!("{page}"));
        steps += 1;
        assert!(steps < 50, "nothing is found");
    }
    assert!(steps > 1);
}

/// Adds very many keys to the store of a program that runs.
async fn fill_beside(sidekey: &Sidekey) {
    let file = sidekey.directory().join("data/sidekey.db");
    let url = SecretString::from(format!("sqlite://{}", file.display()));
    sqlx::any::install_default_drivers();
    fill::fill(&url, MANY).await.unwrap().close().await;
}
