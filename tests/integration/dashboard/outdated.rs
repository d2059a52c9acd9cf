//! What people see who may not see everything, or have signed in with a secret that was replaced.

use reqwest::Method;
use serde_json::json;

use super::person::{HOME, KEYS_PAGE, Person, SIGN_IN};
use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_starts_where_they_may_look() {
    let sidekey = start().await;
    let stranger = Person::new(&sidekey).get(HOME).await;
    let form = Some("/dashboard/sign-in?next=%2Fdashboard");
    assert_eq!(stranger.header("location"), form, "{stranger:?}");
    let new = format!("{KEYS_PAGE}/new");
    for (scopes, start, may_see_keys) in [
        (&["sidekey:admin"][..], KEYS_PAGE, true),
        (
            &["sidekey:audit:read", "sidekey:keys:read"],
            KEYS_PAGE,
            true,
        ),
        (
            &["sidekey:audit:read", "sidekey:usage:read"],
            "/dashboard/overview",
            false,
        ),
        (&["sidekey:audit:read"], "/dashboard/audit", false),
        (&["sidekey:keys:write"], &new, false),
    ] {
        let key = json!({"name": "somebody's key", "scopes": scopes});
        let key = sidekey.create_key(key).await;
        let mut person = Person::new(&sidekey);
        let reply = person.sign_in(&key.text).await;
        assert_eq!(reply.header("location"), Some(HOME), "{reply:?}");
        let home = person.get(HOME).await;
        assert_eq!(home.status, 303, "{home:?}");
        assert_eq!(home.header("location"), Some(start), "{scopes:?}");
        let page = person.get(start).await;
        assert_eq!(page.status, 200, "{scopes:?}: {page:?}");
        assert!(page.text.contains("somebody's key") || page.text.contains("somebody&#39;s key"));
        let offers_keys = page.text.contains(&format!("href=\"{KEYS_PAGE}\""));
        let offers_itself = page
            .text
            .contains(&format!("href=\"{KEYS_PAGE}/{}\"", key.id));
        assert_eq!(offers_itself, may_see_keys, "{scopes:?}");
        // The form of a new key leads back to the list.
        assert!(
            offers_keys == may_see_keys || start == new,
            "{scopes:?}: {}",
            page.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_is_offered_no_changes_and_led_to_the_new_one() {
    let sidekey = start().await;
    let scopes = json!(["sidekey:keys:read", "sidekey:keys:write"]);
    let own = json!({"name": "own", "scopes": scopes});
    let own = sidekey.create_key(own).await;
    let other = sidekey.create_key(json!({"name": "other"})).await;
    let mut person = Person::signed_in(&sidekey, &own.text).await;
    let csrf = person.csrf().await;
    let pages = [KEYS_PAGE.to_owned(), format!("{KEYS_PAGE}/{}", other.id)];
    let disable = format!("{KEYS_PAGE}/{}/disable", other.id);
    let offered = format!("{}/disable\"", other.id);
    const NOTICE: &str = "id=\"outdated\"";
    for path in &pages {
        let page = person.get(path).await;
        assert!(page.text.contains(&offered), "{path}: {page:?}");
        assert!(!page.text.contains(NOTICE), "{path}");
    }
    let new = sidekey.regenerate_key(&own.id, 3600).await;
    for path in &pages {
        let page = person.get(path).await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        for change in [&*offered, "/new\"", "/edit\"", "/regenerate\""] {
            assert!(!page.text.contains(change), "{path}: {change}");
        }
        assert!(page.text.contains(NOTICE), "{path}: {page:?}");
    }
    // Who had a form open already is told what to do.
    let sent = person.post(&disable, &[("csrf", &csrf)]).await;
    let dialog = person.request(Method::GET, &disable);
    let dialog = Reply::to(dialog.header("sidekey-fragment", "dialog")).await;
    for refused in [sent, dialog] {
        assert_eq!(refused.status, 401, "{refused:?}");
        let link = format!("href=\"{SIGN_IN}\">Sign in again with the new key");
        assert!(refused.text.contains(&link), "{refused:?}");
        assert!(!refused.text.contains("is not valid"), "{refused:?}");
    }
    // The API tells the same.
    let path = format!("{KEYS}/{}", other.id);
    let reply = sidekey.ask_as(Some(&own.text), Method::DELETE, &path, None);
    let problem = reply.await.problem(401);
    assert!(
        problem["detail"].to_string().contains("was replaced"),
        "{problem}"
    );

    let form = person.get(SIGN_IN).await;
    assert_eq!(form.status, 200, "the form, not back to the page: {form:?}");
    assert!(!form.text.contains("data-ask"), "{form:?}");
    assert_eq!(person.sign_in(&new.text).await.status, 303);
    let page = person.get(&pages[1]).await;
    assert!(page.text.contains(&disable), "{page:?}");
    assert!(!page.text.contains(NOTICE), "{page:?}");
}

/// An address can be written by anybody; what it says was done is told where it is so.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_be_done_that_is_not_so() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({"name": "k"})).await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let told = async |done: &str| {
        let path = format!("{KEYS_PAGE}/{}?done={done}", key.id);
        person.get(&path).await.text.contains("id=\"done\"")
    };
    for done in ["saved", "disabled", "revoked", "signed-out", "nonsense"] {
        assert!(!told(done).await, "{done}");
    }
    assert!(told("enabled").await);
    sidekey
        .change_key(&key.id, json!({"status": "disabled"}))
        .await;
    assert!(told("disabled").await && told("saved").await);
    assert!(!told("enabled").await && !told("revoked").await);
    sidekey
        .change_key(&key.id, json!({"status": "active"}))
        .await;
    sidekey.regenerate_key(&key.id, 3600).await;
    assert!(!told("overlap-ended").await && !told("disabled").await);
    sidekey.revoke_key(&key.id).await;
    assert!(told("revoked").await);
    for page in [KEYS_PAGE, "/dashboard/audit"] {
        let page = person.get(&format!("{page}?done=revoked")).await;
        assert!(!page.text.contains("id=\"done\""), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_can_not_be_read_is_no_key_of_a_page() {
    let sidekey = start().await;
    let person = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let csrf = person.csrf().await;
    let one = format!("{KEYS_PAGE}/%FF");
    let is_page = |reply: &Reply| {
        assert_eq!(reply.status, 404, "{reply:?}");
        let media_type = reply.header("content-type");
        assert_eq!(media_type, Some("text/html; charset=utf-8"), "{reply:?}");
        assert!(reply.text.contains("Back to the start"), "{reply:?}");
    };
    is_page(&person.get(&one).await);
    is_page(&person.get(&format!("{one}/usage.csv")).await);
    for action in [
        "edit",
        "regenerate",
        "revoke",
        "disable",
        "enable",
        "end-overlap",
    ] {
        let path = format!("{one}/{action}");
        is_page(&person.get(&path).await);
        is_page(&person.post(&path, &[("csrf", &csrf)]).await);
    }
}
