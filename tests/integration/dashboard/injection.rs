//! Whatever is written into keys, tenants, addresses and calls is text on every page, and nothing else.

use reqwest::Method;
use serde_json::{Value, json};

use super::browser::{Browser, KEYS_PAGE};
use super::world::World;
use crate::harness::sidekey::Key;
use crate::tenancy::put;

/// Each would set `window.hacked` where it is taken for more than text.
const PLANTED: &[&str] = &[
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror=\"window.hacked=2\">",
    "' onmouseover='window.hacked=3' autofocus onfocus='window.hacked=4",
    "</textarea></title></style></script><svg onload=\"window.hacked=5\">",
    "javascript:window.hacked=6",
    "{{7*7}}{% raw %}${window.hacked=7}<%= 7*7 %>",
    "<iframe srcdoc=\"<script>parent.hacked=8</script>\"></iframe>",
    "<form action=https://elsewhere.example><input name=csrf><button>Sign in</button></form>",
    "<style>*{display:none}</style><base href=https://elsewhere.example/>",
    "&lt;script&gt;window.hacked=9&lt;/script&gt;",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_text() {
    let world = World::start().await;
    let sidekey = &world.sidekey;
    let mut keys = Vec::new();
    for text in PLANTED {
        keys.push(plant(&world, text).await);
    }
    let settings = json!({"display_name": PLANTED[0]});
    assert!(put(sidekey, "acme", settings).await.status < 300);
    refused_calls(&world).await;

    let browser = Browser::signed_in(sidekey).await;
    // A time that is none, in the address of the audit log.
    browser.expect("does not conform to the required format");
    // A tenant that is none, in that of the overview.
    browser.expect("status of 404");
    harmless(&browser, "the list", PLANTED).await;
    for (key, text) in keys.iter().zip(PLANTED) {
        let one = format!("{KEYS_PAGE}/{}", key.id);
        browser.visit(&one).await;
        harmless(&browser, "a key", &[text]).await;
    }
    let one = format!("{KEYS_PAGE}/{}", keys[1].id);
    for action in ["edit", "regenerate", "revoke", "disable"] {
        browser.visit(&format!("{one}/{action}")).await;
        harmless(&browser, action, &[]).await;
    }
    browser.visit(&one).await;
    for (name, heading) in [("Edit", "Edit the key"), ("Revoke", "Revoke the key")] {
        browser.press(name).await;
        browser.sees(heading).await;
        harmless(&browser, heading, &[]).await;
        browser.press("Cancel").await;
        browser.sees_no_dialog().await;
    }
    browser.visit("/dashboard/audit").await;
    browser
        .run(
            "document.querySelectorAll('details').forEach((one) => (one.open = true))",
            &[],
        )
        .await;
    harmless(&browser, "the audit log", &PLANTED[..3]).await;
    browser.visit("/dashboard/overview?range=24h").await;
    harmless(&browser, "the overview", &[]).await;
    in_addresses(&browser).await;
    in_forms(&browser).await;
    browser.close().await;
}

/// A key with `text` wherever one can be written, used from a client that calls itself so.
async fn plant(world: &World, text: &str) -> Key {
    let fields = json!({
        "name": text,
        "metadata": {text: text, "nested": {text: [text]}},
        "contact_email": format!("\"{}\"@example.com", text.replace([' ', '<', '>', ',', ';'], "")),
    });
    let key = world.sidekey.create_key(fields).await;
    let request = world
        .sidekey
        .request(Method::GET, "/orders")
        .bearer_auth(&key.text);
    let answer = request
        .header("user-agent", text)
        .header("referer", text)
        .send()
        .await;
    assert_eq!(answer.expect("an answer").status(), 200);
    key
}

/// Calls of the API that are refused and noted, with texts in all that a client can choose.
async fn refused_calls(world: &World) {
    for text in PLANTED {
        let path = format!("/api/v1/platform/api-keys/{}", percent_encoded(text));
        let request = world.sidekey.admin_as(text, Method::GET, &path);
        let request = request
            .header("user-agent", *text)
            .header("x-request-id", *text);
        request.send().await.expect("an answer");
        let reader = world
            .sidekey
            .admin(Method::GET, &path)
            .header("x-request-id", *text);
        reader.send().await.expect("an answer");
    }
}

fn percent_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Texts in addresses: what is filled in again, and what is led to.
async fn in_addresses(browser: &Browser) {
    for text in PLANTED {
        let text = percent_encoded(text);
        for path in [
            format!(
                "{KEYS_PAGE}?q={text}&tenant_id={text}&status={text}&sort={text}&cursor={text}"
            ),
            format!("{KEYS_PAGE}?done={text}"),
            format!("/dashboard/audit?key_id={text}&actor={text}&action={text}&from={text}"),
            format!("/dashboard/overview?range={text}&tenant_id={text}"),
        ] {
            browser.visit(&path).await;
            harmless(browser, &path, &[]).await;
        }
    }
    browser.press("Sign out").await;
    browser.sees("You are signed out.").await;
    for next in [
        "javascript:window.hacked=1",
        "//elsewhere.example/",
        "https://elsewhere.example/",
        "/\\elsewhere.example",
    ] {
        browser
            .visit(&format!(
                "/dashboard/sign-in?next={}",
                percent_encoded(next)
            ))
            .await;
        let next: Value = browser
            .run("return document.querySelector('[name=next]').value", &[])
            .await;
        assert!(
            next.as_str().expect("a text").starts_with("/dashboard"),
            "{next}"
        );
    }
}

/// Texts in a form that comes back with errors.
async fn in_forms(browser: &Browser) {
    browser.visit("/dashboard/sign-in").await;
    browser.expect("status of 401");
    browser.type_into("Admin key", PLANTED[1]).await;
    browser.press("Sign in").await;
    browser.wait_for("#key-error").await;
    harmless(browser, "a refused sign-in", &[]).await;
}

/// Fails where a page has run something, or shows less than what was written.
async fn harmless(browser: &Browser, what: &str, texts: &[&str]) {
    assert!(!browser.is_hacked().await, "a script ran in {what}");
    let script = "return [...document.querySelectorAll(`iframe, base, style, form[action*=elsewhere], [onerror],
        [onload], [onfocus], [onmouseover], [href^='javascript:' i], script:not([src])`)]
        .map((found) => found.outerHTML)";
    assert_eq!(browser.run(script, &[]).await, json!([]), "{what}");
    let text = browser.run("return document.body.textContent", &[]).await;
    let text = text.as_str().expect("a text");
    for planted in texts {
        assert!(text.contains(planted), "{planted} is not shown in {what}");
    }
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{what}: {complaints:?}");
}
