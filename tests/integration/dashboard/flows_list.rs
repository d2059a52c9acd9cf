//! The list of keys: looked through, narrowed down, sorted, paged.

use serde_json::json;

use super::browser::{Browser, KEYS_PAGE};
use super::world::World;

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
    browser.press("Clear filters").await;
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
    browser.hears("0 keys").await;
    browser.is_accessible("a list without a match").await;
    browser.type_into("Tenant", "").await;
    browser.visit(&format!("{KEYS_PAGE}?q={}", newest.id)).await;
    assert_eq!(browser.names().await, ["client 30"]);
    browser.visit(&format!("{KEYS_PAGE}?status=nonsense")).await;
    browser.is_accessible("a filter that can’t be used").await;

    // From a row to what can be done with it.
    browser.visit(&format!("{KEYS_PAGE}?q={}", newest.id)).await;
    browser.press("Actions for client 30").await;
    browser.press("Disable").await;
    browser.press("Disable the key").await;
    browser.sees("The key is disabled").await;
    browser.close().await;
}

impl Browser {
    /// The keys' names, as they are listed.
    async fn names(&self) -> Vec<String> {
        self.texts_of("table.keys tbody th a").await
    }
}
