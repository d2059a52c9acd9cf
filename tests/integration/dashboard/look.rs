//! Every page and dialog at the widths of a telephone and of a wall, and times in the viewer's zone.

use serde_json::json;

use super::browser::{Browser, KEYS_PAGE, Scheme};
use super::world::World;

const WIDTHS: [(u32, u32); 3] = [(360, 740), (1280, 900), (2560, 1440)];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_every_window() {
    let world = World::start().await;
    let sidekey = &world.sidekey;
    let long = "a-name-that-is-never-broken-by-anything-such-as-a-space-".repeat(3);
    let fields = json!({
        "name": long, "metadata": {long.clone(): long}, "scopes": ["orders:read", "orders:write"],
        "contact_email": format!("{}@example.com", "x".repeat(200)),
        "allowed_ips": ["127.0.0.1", "2001:db8:1234:5678:9abc:def0:1234:5678"],
        "expires_at": "2100-01-01T00:00:00Z",
    });
    let key = sidekey.create_key(fields).await;
    world.use_key(&key, &[200, 404, 500]).await;
    let browser = Browser::open(sidekey).await;
    browser.visit("/dashboard/sign-in").await;
    fits(&browser, "sign-in").await;
    browser.sign_in(&sidekey.admin_key()).await;
    let one = format!("{KEYS_PAGE}/{}", key.id);
    let pages = [
        ("list", KEYS_PAGE.to_owned()),
        ("details", one.clone()),
        ("overview", "/dashboard/overview".to_owned()),
        ("audit", "/dashboard/audit".to_owned()),
        ("create", format!("{KEYS_PAGE}/new")),
        ("edit", format!("{one}/edit")),
        ("regenerate", format!("{one}/regenerate")),
        ("revoke", format!("{one}/revoke")),
        ("disable", format!("{one}/disable")),
    ];
    for (name, path) in &pages {
        browser.visit(path).await;
        fits(&browser, name).await;
    }
    browser.expect("status of 404");
    browser.visit("/dashboard/nothing").await;
    browser.is_accessible("a page that is not there").await;
    fits(&browser, "nothing").await;
    for name in ["Regenerate", "Revoke", "Edit"] {
        browser.visit(&one).await;
        browser.press(name).await;
        browser.wait_for("#dialog-title").await;
        fits(&browser, &format!("dialog-{}", name.to_lowercase())).await;
    }
    browser.close().await;
}

/// Looks at the page in all widths, and takes pictures.
async fn fits(browser: &Browser, name: &str) {
    for (width, height) in WIDTHS {
        browser.size(width, height).await;
        browser
            .fits_the_window(&format!("{name} at {width} px"))
            .await;
        browser.screenshot(&format!("{name}-{width}")).await;
    }
    browser.size(1280, 900).await;
    browser.scheme(Scheme::Dark).await;
    browser.screenshot(&format!("{name}-dark")).await;
    browser.scheme(Scheme::Light).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_those_of_the_viewer() {
    let world = World::start().await;
    let fields = json!({"name": "dated", "expires_at": "2100-01-01T22:30:00Z"});
    let key = world.sidekey.create_key(fields).await;
    let browser = Browser::open(&world.sidekey).await;
    // Where it is the next day by then.
    browser.zone("Asia/Kolkata").await;
    browser.sign_in(&world.sidekey.admin_key()).await;
    browser.visit(&format!("{KEYS_PAGE}/{}", key.id)).await;
    browser.sees("Jan 2, 2100").await;
    let script = "const time = [...document.querySelectorAll('time')].find((time) =>
        time.dateTime.startsWith('2100-01-01'));
        return [time.textContent, time.title];";
    let time = browser.run(script, &[]).await;
    let (text, title) = (
        time[0].as_str().expect("a text"),
        time[1].as_str().expect("a title"),
    );
    assert!(
        text.contains("Jan 2, 2100") && text.contains("4:00"),
        "{text}"
    );
    assert!(
        title.contains("2100-01-01") && title.contains("22:30"),
        "{title}"
    );
    // What is written in a form is meant so as well.
    browser.press("Edit").await;
    assert_eq!(browser.value_of("Date and time").await, "2100-01-02T04:00");
    browser.set("Date and time", "2100-03-01T00:00").await;
    browser.press("Save the changes").await;
    browser.sees("The changes are saved.").await;
    browser.sees("Mar 1, 2100").await;
    let path = format!("{}/{}", crate::harness::sidekey::KEYS, key.id);
    let shown = world
        .sidekey
        .ask(reqwest::Method::GET, &path, None)
        .await
        .json();
    assert_eq!(
        shown["expires_at"].as_str().map(|time| &time[..16]),
        Some("2100-02-28T18:30")
    );
    browser.close().await;
}
