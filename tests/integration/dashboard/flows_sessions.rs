//! Signing in, and the ends of a session.

use super::browser::{Browser, KEYS_PAGE};
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_out() {
    let world = World::start().await;
    let sidekey = &world.sidekey;
    let colleague = world.colleague(&["sidekey:keys:read"]).await;
    let useless = sidekey.create_key(serde_json::json!({})).await;
    let browser = Browser::open(sidekey).await;

    // Whoever follows a link is led back to it.
    browser.visit("/dashboard/audit?action=key.created").await;
    browser.is_at("/dashboard/sign-in?next=").await;
    browser.is_accessible("the sign-in page").await;
    browser.expect("status of 401");
    browser.expect("status of 403");
    for wrong in ["sk_live_nonsense", &useless.text] {
        browser.type_into("Admin key", wrong).await;
        browser.press("Sign in").await;
        // That of the try before holds what was typed.
        let script = "return document.querySelector('#key-error') !== null
            && document.querySelector('#key').value === ''";
        browser.until_script("the form is back", script, &[]).await;
        assert!(!browser.address().await.contains(wrong));
        assert_eq!(browser.value_of("Admin key").await, "");
    }
    browser.is_accessible("a refused sign-in").await;
    browser.type_into("Admin key", &sidekey.admin_key()).await;
    browser.press("Sign in").await;
    browser.is_at("/dashboard/audit?action=key.created").await;
    browser.sees("Audit log").await;

    browser.press("Sign out").await;
    browser.sees("You are signed out.").await;
    browser.hears("You are signed out.").await;
    browser.visit(KEYS_PAGE).await;
    browser.is_at("/dashboard/sign-in").await;

    // A session ends with its key.
    browser.sign_in(&colleague.text).await;
    sidekey.revoke_key(&colleague.id).await;
    browser
        .until("the session has ended", async || {
            browser.visit(KEYS_PAGE).await;
            browser.address().await.contains("/dashboard/sign-in")
        })
        .await;
    browser.close().await;
}
