//! The browser of these tests can fail: what it is asked to notice, it notices.

use serde_json::json;

use super::browser::{Browser, Scheme};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::nobody;

/// Makes the page wrong in as many ways as there are checks.
const SPOIL: &str = "
    const picture = document.createElement('img');
    picture.src = 'http://127.0.0.1:1/elsewhere.png';
    const wide = document.createElement('div');
    wide.style.width = '5000px';
    wide.textContent = 'wide';
    document.body.append(picture, wide);
    setTimeout(() => { throw new Error('a planted error') }, 0);";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_page_is_noticed() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let browser = Browser::open(&sidekey).await;
    browser.visit("/dashboard/sign-in").await;
    browser.sees("Sign in").await;
    assert_eq!(browser.too_wide().await, None);
    assert!(browser.complaints().await.is_empty());
    assert!(browser.axe().await.is_empty());
    browser.run(SPOIL, &[]).await;
    let violations = browser.axe().await;
    assert!(
        violations.iter().any(|one| one.contains("image-alt")),
        "{violations:?}"
    );
    assert!(browser.too_wide().await.is_some());
    for part in ["a planted error", "Content Security Policy"] {
        let what = format!("the browser complains of {part}");
        browser
            .until(&what, async || {
                let complaints = browser.complaints().await;
                complaints.iter().any(|one| one.contains(part))
            })
            .await;
        browser.expect(part);
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_what_a_test_makes_it() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let browser = Browser::open(&sidekey).await;
    browser.zone("Asia/Kolkata").await;
    browser.size(360, 740).await;
    browser.scheme(Scheme::Dark).await;
    browser.visit("/dashboard/sign-in").await;
    browser.type_into("Admin key", "sk_live_x").await;
    assert_eq!(browser.value_of("Admin key").await, "sk_live_x");
    browser.press("Show").await;
    browser.sees("Hide").await;
    browser.tab_to("Sign in").await;
    let seen = "return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches,
        new Date(0).getHours(), new Date(0).getMinutes()]";
    assert_eq!(browser.run(seen, &[]).await, json!([360, true, 5, 30]));
    browser
        .run("navigator.clipboard.writeText('a text')", &[])
        .await;
    let copied = browser.copied("a text", |text| !text.is_empty()).await;
    assert_eq!(copied, "a text");
    let save = "Object.assign(document.createElement('a'), { download: 'x.txt',
        href: URL.createObjectURL(new Blob(['saved'])) }).click()";
    browser.run(save, &[]).await;
    assert_eq!(browser.saved("x.txt").await, "saved");
    // Without scripts, what the tests themselves run still works.
    browser.scripts(false).await;
    browser.visit("/dashboard/sign-in").await;
    browser.sees("Admin key").await;
    // Its button needs a script.
    browser.sees_no("Show").await;
    browser.close().await;
}
