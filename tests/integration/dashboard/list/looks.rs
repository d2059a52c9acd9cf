//! What stands in the list: columns, escaped texts, empty states.

use serde_json::json;
use sidekey::clock::Timestamp;

use super::super::person::{KEYS_PAGE, Person};
use super::{cell, key, link, page, row_of, rows, start, text};
use crate::harness::eventually;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

/// Often, so that tests need not wait.
const OFTEN: &str = "[usage]\nflush_interval_seconds = 1\n";
/// A page of 25 keys has at most this many bytes.
const PAGE_BYTES_MAX: usize = 60_000;

/// A moment in so many days, to the second.
fn in_days(days: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seconds = i64::try_from(now.as_secs()).unwrap() + days * 86_400;
    Timestamp::from_millis(seconds * 1000).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_says_what_a_key_is() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let end = in_days(3);
    let full = json!({"environment": "test", "scopes": ["orders:read", "orders:write", "orders:*"],
        "expires_at": end, "rotation_days": 1, "tenant_id": "globex"});
    let full = key(&sidekey, "Full of facts", full).await;
    let plain = key(&sidekey, "Plain", json!({"scopes": []})).await;
    sidekey
        .change_key(&plain.id, json!({"status": "disabled"}))
        .await;
    let revoked = key(&sidekey, "Gone", json!({"rotation_days": 1})).await;
    sidekey.revoke_key(&revoked.id).await;

    let page = page(&person, "").await;
    let row = row_of(&page, &full);
    let hint = format!("<code>sk_test_{}_...", full.id);
    assert!(
        row.contains(">Full of facts</a>") && row.contains(&hint),
        "{row}"
    );
    for (label, expected) in [
        ("Tenant", "globex"),
        ("Environment", "test"),
        ("Scopes", "orders:read orders:write +1 more scopesorders:*"),
        ("Status", "active"),
        ("Last used", "never"),
        ("Requests, 24 h", "0"),
    ] {
        assert_eq!(cell(row, label), expected, "{label}");
    }
    let expires = cell(row, "Expires");
    let shown = end.replace('T', " ").replace('Z', " UTC");
    assert_eq!(expires, format!("{shown} soon"));
    assert!(
        row.contains(&format!("<time data-day datetime=\"{end}\">")),
        "{row}"
    );
    assert!(cell(row, "Rotation due").ends_with(" UTC soon"), "{row}");

    let row = row_of(&page, &plain);
    for (label, expected) in [
        ("Scopes", "none"),
        ("Status", "disabled"),
        ("Expires", "never"),
    ] {
        assert_eq!(cell(row, label), expected, "{label}");
    }
    let row = row_of(&page, &revoked);
    assert_eq!(cell(row, "Status"), "revoked");
    assert_eq!(cell(row, "Rotation due"), "not due");
    assert!(page.contains("4 keys, newest first"), "{page}");
    assert!(!page.contains("Create the first key"));

    // What can be done with each.
    let paths = |row: &str| -> Vec<String> {
        let links = row.split("<a data-dialog href=\"api-keys/").skip(1);
        let tail = |link: &str| link.split(['/', '"']).nth(1).unwrap().to_owned();
        links.map(tail).collect()
    };
    assert_eq!(
        paths(row_of(&page, &full)),
        ["regenerate", "disable", "revoke"]
    );
    assert_eq!(
        paths(row_of(&page, &plain)),
        ["regenerate", "enable", "revoke"]
    );
    assert!(paths(row_of(&page, &revoked)).is_empty());
    assert_eq!(
        link(&page, "Create API key").as_deref(),
        Some("api-keys/new")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_last_uses_are_those_of_the_key() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OFTEN)).await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let used = key(&sidekey, "Used", json!({})).await;
    let other = key(&sidekey, "Other", json!({})).await;
    for _ in 0..3 {
        assert_eq!(sidekey.status("/", &used.text).await, 200);
    }
    eventually("the requests are shown", || async {
        let page = page(&person, "").await;
        let row = row_of(&page, &used).to_owned();
        cell(&row, "Requests, 24 h") == "3" && cell(&row, "Last used") != "never"
    })
    .await;
    let page = page(&person, "").await;
    let row = row_of(&page, &used);
    let label = "role=\"img\" aria-label=\"By hour: at most 3, 3 in the current one\"";
    // Where an hour ended meanwhile, it is another sentence.
    let later = "role=\"img\" aria-label=\"By hour: at most";
    assert!(row.contains(label) || row.contains(later), "{row}");
    assert!(row.contains("<path d=\"M0 19l4 0"), "{row}");
    assert!(row.contains("<time data-relative datetime=\""), "{row}");
    let row = row_of(&page, &other);
    assert_eq!(cell(row, "Requests, 24 h"), "0");
    assert!(!row.contains("<svg"), "{row}");
}

/// What people typed is text, wherever it stands.
#[tokio::test(flavor = "multi_thread")]
async fn texts_from_outside_are_texts() {
    const NASTY: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;";
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let made = key(&sidekey, NASTY, json!({})).await;
    let typed: String = form_urlencoded::byte_serialize(NASTY.as_bytes()).collect();
    let queries = [
        String::new(),
        format!("?q={typed}"),
        format!("?q=script&sort={typed}"),
        format!("?status={typed}&environment={typed}&tenant_id={typed}"),
        format!("?expiring_within_days={typed}&unused_for_days={typed}&limit={typed}"),
        format!("?cursor={typed}&before={typed}&{typed}={typed}&done={typed}"),
        "?sort=name&status=active&environment=live&unused_for_days=30&q=x".to_owned(),
    ];
    for query in queries {
        let reply = person.get(&format!("{KEYS_PAGE}{query}")).await;
        assert!([200, 422].contains(&reply.status), "{query} {reply:?}");
        let html = &reply.text;
        for part in ["<script>", "<img src=x", "\"'>", "&amp;\"", "&amp;<"] {
            assert!(!html.contains(part), "{part} {query} {html}");
        }
        // Nothing runs or styles from within a page.
        for tag in html
            .split('<')
            .skip(1)
            .map(|rest| rest.split('>').next().unwrap())
        {
            let is_script = tag.starts_with("script") && !tag.contains("src=\"/dashboard/assets/");
            // Without what stands between quotation marks.
            let bare: String = tag.split('"').step_by(2).collect();
            let attributes = bare.split(' ').skip(1);
            let mut names = attributes.map(|one| one.split('=').next().unwrap());
            let is_inline = names.any(|name| name.starts_with("on") || name == "style");
            let is_style = tag.starts_with("style");
            assert!(!is_script && !is_inline && !is_style, "{tag} {query}");
        }
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let page = page(&person, "").await;
    let row = row_of(&page, &made);
    let name = text(row.split("</a>").next().unwrap());
    assert!(
        name.starts_with("&#60;script&#62;alert(1)&#60;/script&#62;"),
        "{name}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_keys_is_light() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    for number in 0..25 {
        let name = format!("Partner: Lagerhaus Nord GmbH, shop number {number}");
        let scopes = ["orders:read", "orders:write", "orders:*"];
        let more = json!({"scopes": scopes, "expires_at": in_days(3), "rotation_days": 1});
        key(&sidekey, &name, more).await;
    }
    let page = page(&person, "").await;
    assert_eq!(rows(&page).len(), 25);
    assert!(page.len() < PAGE_BYTES_MAX, "{} bytes", page.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_for_clients_is_led_to_the_first() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let new = page(&person, "").await;
    assert!(
        new.contains("A key tells your services who is calling"),
        "{new}"
    );
    assert_eq!(
        link(&new, "Create the first key").as_deref(),
        Some("api-keys/new")
    );
    // The key of who is signed in is one for Sidekey itself.
    assert_eq!(rows(&new).len(), 1);
    let nothing = page(&person, "?q=nothing+like+it").await;
    assert!(
        nothing.contains("No key matches") && rows(&nothing).is_empty(),
        "{nothing}"
    );
    assert!(!nothing.contains("first key"), "{nothing}");
    assert_eq!(link(&nothing, "Clear filters").as_deref(), Some("?"));

    key(&sidekey, "The first", json!({})).await;
    let page = page(&person, "").await;
    assert!(!page.contains("Create the first key") && rows(&page).len() == 2);
}
