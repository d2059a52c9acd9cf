//! The list of keys: looked through, narrowed down, sorted, paged.

use reqwest::Method;
use serde_json::json;

use super::browser::{Browser, KEYS_PAGE};
use super::world::World;
use crate::harness::eventually;
use crate::harness::sidekey::{KEYS as KEYS_API, Key};

/// More than a page, less than two.
const KEYS: usize = 31;

#[tokio::test(flavor = "multi_thread")]
async fn people_find_their_key() {
    let world = World::start().await;
    let sidekey = &world.sidekey;
    let mut keys = Vec::new();
    for number in 0..KEYS {
        let fields = json!({
            "name": format!("client {number:02}"),
            "tenant_id": if number % 10 == 0 { "globex" } else { "acme" },
            "environment": if number % 2 == 0 { "live" } else { "test" },
            "expires_at": (number == 7).then_some("2100-01-01T00:00:00Z"),
        });
        keys.push(sidekey.create_key(fields).await);
    }
    let newest = keys[KEYS - 1].clone();
    world.use_key(&newest, &[200, 200, 404]).await;
    eventually("our own use is stored, and is the last", || async {
        let path = format!("{KEYS_API}?sort=-last_used_at");
        let list = sidekey.ask(Method::GET, &path, None).await.json();
        list["data"][0]["name"] == "Bootstrap admin key"
    })
    .await;
    let browser = Browser::signed_in(sidekey).await;
    browser.is_accessible("the list").await;
    let first = browser.names().await;
    assert_eq!(first[0], "client 30", "newest first: {first:?}");
    let row = &browser.rows_of("table.keys").await[0];
    for part in ["globex", "orders:*", "Active", "3"] {
        assert!(
            row.iter()
                .any(|cell| cell.to_lowercase().contains(&part.to_lowercase())),
            "{part} in {row:?}"
        );
    }

    // Pages.
    browser.press("Next").await;
    browser
        .until("the second page", async || {
            browser.names().await[0] != first[0]
        })
        .await;
    browser.is_at("cursor=").await;
    let second = browser.names().await;
    assert_eq!(first.len() + second.len(), KEYS + 1, "{first:?} {second:?}");
    assert!(second.contains(&"client 00".to_owned()), "{second:?}");
    browser.press("Previous").await;
    browser
        .until("the first page", async || browser.names().await == first)
        .await;
    // Neither the first nor the last page leads on: the focus stays with the list.
    browser.is_focused_css("#keys").await;
    browser.press("Next").await;
    browser
        .until("the last page", async || browser.names().await == second)
        .await;
    browser.is_focused_css("#keys").await;

    // Sorting, there and back, as screen readers are told.
    browser.press("Name").await;
    browser
        .until("the names are sorted", async || {
            browser.names().await[1] == "client 00"
        })
        .await;
    browser.wait_for("th[aria-sort=ascending]").await;
    browser.hears("keys").await;
    browser.is_focused("Name").await;
    browser.press("Name").await;
    browser.wait_for("th[aria-sort=descending]").await;
    browser.is_at("sort=").await;
    browser.press("Last used").await;
    browser
        .until("the one that was used is behind our own", async || {
            browser.names().await[..2] == ["Bootstrap admin key", "client 30"]
        })
        .await;
    browser.press("Expires").await;
    browser
        .until("the one that expires is first", async || {
            browser.names().await[0] == "client 07"
        })
        .await;

    // Filters apply as they are typed, and stand in the address.
    browser.visit(KEYS_PAGE).await;
    browser.type_into("Search", "client 2").await;
    browser
        .until("ten are left", async || browser.names().await.len() == 10)
        .await;
    browser.is_at("q=client+2").await;
    browser.hears("10").await;
    browser.choose("Environment", "test").await;
    browser
        .until("five are left", async || browser.names().await.len() == 5)
        .await;
    browser.refresh().await;
    assert_eq!(browser.names().await.len(), 5);
    assert_eq!(browser.value_of("Search").await, "client 2");
    browser.follow("Clear filters").await;
    browser
        .until("all are back", async || {
            browser.names().await.len() == first.len()
        })
        .await;
    browser.type_into("Tenant", "globex").await;
    browser
        .until("one tenant's are left", async || {
            browser.names().await.len() == 4
        })
        .await;
    browser.type_into("Search", &keys[1].id).await;
    browser.sees("No key matches").await;
    browser.hears("No keys").await;
    browser.is_accessible("a list without a match").await;
    browser.type_into("Tenant", "").await;
    browser.visit(&format!("{KEYS_PAGE}?q={}", newest.id)).await;
    assert_eq!(browser.names().await, ["client 30"]);
    browser.visit(&format!("{KEYS_PAGE}?status=nonsense")).await;
    browser.is_accessible("a filter that can’t be used").await;

    a_pasted_key_leaves_no_secret(&browser, &newest).await;
    a_click_arrives_after_typing(&browser, &newest).await;

    // From a row to what can be done with it.
    browser.visit(&format!("{KEYS_PAGE}?q={}", newest.id)).await;
    browser.press("Actions for client 30").await;
    browser.press("Disable").await;
    browser.press("Disable the key").await;
    browser.sees("The key is disabled").await;
    browser.close().await;
}

/// It is found, by its id; also where no script looks at what is sent.
async fn a_pasted_key_leaves_no_secret(browser: &Browser, key: &Key) {
    browser.visit(KEYS_PAGE).await;
    browser.paste_into("Search", &key.text).await;
    browser.is_at(&format!("q={}", key.id)).await;
    assert_eq!(browser.names().await, ["client 30"]);
    assert_eq!(browser.value_of("Search").await, key.id);
    browser.visit(&format!("{KEYS_PAGE}?q={}", key.text)).await;
    let address = browser.address().await;
    assert_eq!(address, format!("{KEYS_PAGE}?q={}", key.id));
    assert_eq!(browser.names().await, ["client 30"]);
}

/// What is pressed while the answer for what was typed is on its way stays until it is let go.
async fn a_click_arrives_after_typing(browser: &Browser, key: &Key) {
    browser.visit(KEYS_PAGE).await;
    browser.wait_for("table.keys tbody th a").await;
    browser.type_into("Search", "client 30").await;
    browser.hold("table.keys tbody th a").await;
    let script = "return performance.getEntriesByType('resource')
        .some((entry) => entry.name.includes('q=client+30') && entry.responseEnd > 0)";
    browser
        .until_script("the answer has come", script, &[])
        .await;
    browser.let_go().await;
    browser.is_at(&format!("{KEYS_PAGE}/{}", key.id)).await;
    browser.sees("Usage").await;
}

impl Browser {
    /// The keys' names, as they are listed.
    async fn names(&self) -> Vec<String> {
        self.texts_of("table.keys tbody th a").await
    }
}
