//! The audit log: looked through, and verified.

use serde_json::json;

use super::browser::Browser;
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_looked_through_and_verified() {
    let world = World::start().await;
    let sidekey = &world.sidekey;
    let key = sidekey.create_key(json!({"name": "noted"})).await;
    let other = sidekey.create_key(json!({"tenant_id": "globex"})).await;
    sidekey
        .change_key(&key.id, json!({"name": "noted anew"}))
        .await;
    sidekey.revoke_key(&other.id).await;
    let browser = Browser::signed_in(sidekey).await;
    browser.press("Audit log").await;
    browser.sees("Is the log what was written?").await;
    browser.is_accessible("the audit log").await;
    assert!(browser.count_of(".event").await >= 5);

    browser.type_into("Key id", &key.id).await;
    browser
        .until("two events are left", async || {
            browser.count_of(".event").await == 2
        })
        .await;
    browser.hears("2 events shown.").await;
    browser.is_at(&format!("key_id={}", key.id)).await;
    browser.press("Details of entry").await;
    browser.sees("noted anew").await;
    browser.is_accessible("an event").await;
    browser.choose("What happened", "key.changed").await;
    browser
        .until("one is left", async || {
            browser.count_of(".event").await == 1
        })
        .await;
    browser.follow("Clear").await;
    browser.type_into("Tenant", "globex").await;
    browser
        .until("one tenant's are left", async || {
            browser.count_of(".event").await == 2
        })
        .await;
    browser.type_into("Key id", "not an id!").await;
    browser.sees("can’t be used").await;
    browser.is_accessible("filters that can’t be used").await;

    browser.visit("/dashboard/audit").await;
    browser.press("Verify the whole log").await;
    browser.hears("The log is verified.").await;
    browser.sees("Verified").await;
    browser.is_accessible("a verified log").await;
    browser.close().await;
}
