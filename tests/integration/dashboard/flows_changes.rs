//! What becomes of a key: edited, regenerated, disabled, enabled, revoked; what the page says of it, and
//! what the proxy does.

use reqwest::Method;
use serde_json::json;

use super::browser::{Browser, KEYS_PAGE};
use super::world::World;
use crate::harness::sidekey::{KEYS, Key};

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_key() {
    let world = World::start().await;
    let key = world
        .sidekey
        .create_key(json!({"name": "Orders", "scopes": ["orders:read"]}))
        .await;
    let browser = Browser::signed_in(&world.sidekey).await;
    let page = format!("{KEYS_PAGE}/{}", key.id);
    browser.visit(&page).await;
    browser.is_accessible("a key").await;
    edit(&browser, &world, &key).await;
    let newer = regenerate(&browser, &world, &key).await;
    browser.is_accessible("a key with two secrets").await;
    end_the_old(&browser, &world, &key, &newer).await;
    disable_and_enable(&browser, &world, &newer).await;
    revoke(&browser, &world, &newer).await;
    browser.is_accessible("a revoked key").await;

    // All of it is told on the key's page.
    for words in ["API key revoked", "Secret replaced", "API key created"] {
        browser.sees(words).await;
    }
    browser.close().await;
}

async fn edit(browser: &Browser, world: &World, key: &Key) {
    browser.press("Edit").await;
    browser.sees("Edit the key").await;
    browser.is_accessible("the form of a key").await;
    assert_eq!(browser.value_of("Name").await, "Orders");
    browser.type_into("Name", "Orders & more").await;
    browser.tick("orders:write").await;
    browser.press("Save the changes").await;
    browser.sees("The changes are saved.").await;
    browser.hears("The changes are saved.").await;
    browser.sees("Orders & more").await;
    let path = format!("{KEYS}/{}", key.id);
    let shown = world.sidekey.ask(Method::GET, &path, None).await.json();
    assert_eq!(shown["scopes"], json!(["orders:read", "orders:write"]));
    assert_eq!(shown["name"], "Orders & more");

    // Somebody else was faster.
    browser.press("Edit").await;
    browser.type_into("Name", "mine").await;
    world
        .sidekey
        .change_key(&key.id, json!({"name": "theirs"}))
        .await;
    browser.expect("status of 412");
    browser.press("Save the changes").await;
    browser.sees("The key was changed meanwhile").await;
    browser.is_focused_css("#dialog-title").await;
    browser.is_accessible("a change that came too late").await;
    browser.press("To the key").await;
    browser.sees_no_dialog().await;
    browser.sees("theirs").await;
}

async fn regenerate(browser: &Browser, world: &World, key: &Key) -> Key {
    browser.press("Regenerate").await;
    browser.sees("How long does the present secret work?").await;
    browser.is_accessible("the choice of a grace period").await;
    browser.tick("As long as I say").await;
    browser.type_into("Seconds", "1e9").await;
    browser.press("Regenerate the key").await;
    assert!(!browser.error_of("Seconds").await.is_empty());
    browser.tick("1 hour").await;
    browser.press("Regenerate the key").await;
    browser.sees("Save the key now.").await;
    browser.sees("The old secret works until").await;
    browser.is_accessible("a new secret").await;
    let newer = Key {
        text: browser.text_of("#new-key").await,
        ..key.clone()
    };
    browser.press("Done, I have saved it").await;
    browser.sees("Two secrets work").await;
    for key in [key, &newer] {
        assert_eq!(world.sidekey.status("/orders", &key.text).await, 200);
    }
    browser
        .until("the old secret's use is told", async || {
            browser.refresh().await;
            let told = browser.text_of("[aria-labelledby=overlap-title]").await;
            told.contains("old one in use") && told.contains("It was last used on")
        })
        .await;
    newer
}

async fn end_the_old(browser: &Browser, world: &World, old: &Key, newer: &Key) {
    browser.press("End now").await;
    browser.sees("End the old secret?").await;
    browser.press("End the old secret").await;
    browser.sees("The old secret is ended").await;
    browser.sees_no("Two secrets work").await;
    assert_eq!(world.sidekey.status("/orders", &old.text).await, 401);
    assert_eq!(world.sidekey.status("/orders", &newer.text).await, 200);
}

async fn disable_and_enable(browser: &Browser, world: &World, key: &Key) {
    browser.press("Disable").await;
    browser.sees("Disable the key?").await;
    browser.is_accessible("a question").await;
    browser.press("Cancel").await;
    browser.sees_no_dialog().await;
    browser.is_focused("Disable").await;
    browser.press("Disable").await;
    browser.press("Disable the key").await;
    browser.sees("The key is disabled").await;
    browser.hears("The key is disabled").await;
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 401);
    browser.press("Enable").await;
    browser.press("Enable the key").await;
    browser.sees("The key is enabled again.").await;
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 200);
}

async fn revoke(browser: &Browser, world: &World, key: &Key) {
    browser.press("Revoke").await;
    browser.sees("This can’t be undone.").await;
    browser.is_accessible("the revocation").await;
    browser.type_into("Write the key", "their").await;
    browser.press("Revoke the key, for good").await;
    assert!(!browser.error_of("Write the key").await.is_empty());
    browser.is_focused("Write the key").await;
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 200);
    browser.type_into("Write the key", "theirs").await;
    browser.press("Revoke the key, for good").await;
    browser.sees("The key is revoked, for good.").await;
    browser.sees_no_dialog().await;
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 401);
    assert_eq!(browser.count_of("a[data-dialog]").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_limits_are_offered_as_there_may_be() {
    let world = World::start().await;
    let limit =
        |number| json!({"name": format!("limit-{number}"), "quota": 9, "window_seconds": number});
    let limits = |count: u64| (1..=count).map(limit).collect::<Vec<_>>();
    let browser = Browser::signed_in(&world.sidekey).await;
    for count in [7, 8] {
        let fields = json!({"rate_limits": limits(count)});
        let key = world.sidekey.create_key(fields).await;
        browser.visit(&format!("{KEYS_PAGE}/{}/edit", key.id)).await;
        browser.wait_for("html[data-script]").await;
        if count < 8 {
            browser.press("Add a limit").await;
            browser.sees("Limit 8").await;
        }
        browser.sees_no("Add a limit").await;
    }
    browser.close().await;
}
