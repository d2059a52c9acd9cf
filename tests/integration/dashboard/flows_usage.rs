//! What a key was used for, as charts, as tables, as a file; and what the deployment is used for.

use serde_json::{Value, json};
use thirtyfour::Key;

use super::browser::{Browser, KEYS_PAGE};
use super::world::{World, early_in_an_hour};

#[tokio::test(flavor = "multi_thread")]
async fn charts_tell_what_the_api_tells() {
    let world = World::start().await;
    let limits = json!([{"name": "few", "quota": 8, "window_seconds": 86_400}]);
    let key = world
        .sidekey
        .create_key(json!({"name": "Busy", "rate_limits": limits}))
        .await;
    let browser = Browser::signed_in(&world.sidekey).await;
    early_in_an_hour().await;
    // The last one is over the limit.
    world
        .use_key(&key, &[200, 200, 200, 200, 404, 404, 500, 200, 429])
        .await;
    let page = format!("{KEYS_PAGE}/{}", key.id);
    browser.visit(&format!("{page}?range=24h")).await;
    browser.sees("Usage").await;
    let usage = world.usage_of(&key.id, "hour").await;
    let row = usage["data"]
        .as_array()
        .expect("rows")
        .last()
        .expect("a row")
        .clone();
    let sum = |field: &str| row[field].as_u64().expect("a number");
    assert_eq!(
        (
            sum("requests"),
            sum("errors_4xx"),
            sum("errors_5xx"),
            sum("rate_limited")
        ),
        (9, 2, 1, 1),
        "{row}"
    );

    // The table, whose last row is the hour that goes on.
    let tables = browser.rows_of("#requests").await;
    let table = tables.last().expect("a row");
    let all = sum("requests").to_string();
    assert!(table.contains(&all), "{table:?} of {row}");
    // By the pointer and by the keyboard.
    browser.hover_at("#requests .chart-area", 0.999).await;
    let tip = browser.text_of("#requests .chart-tip:not([hidden])").await;
    for cell in &table[1..] {
        assert!(tip.contains(cell.as_str()), "{cell} in {tip}");
    }
    browser.hover("h1").await;
    browser
        .run(
            "document.querySelector('#requests input[type=range]').focus()",
            &[],
        )
        .await;
    browser.key(Key::Home).await;
    let first = browser.told_by_chart().await;
    browser.key(Key::End).await;
    browser
        .until("another hour is told", async || {
            browser.told_by_chart().await != first
        })
        .await;
    let told = browser.told_by_chart().await;
    assert!(told.contains(&all), "{all} in {told}");
    browser.key(Key::Left).await;
    browser
        .until("the hour before is told", async || {
            browser.told_by_chart().await != told
        })
        .await;
    browser.is_accessible("a key's usage").await;

    // Other spans of time, announced.
    for (range, words) in [("7d", "7 days"), ("90d", "90 days"), ("30d", "30 days")] {
        browser.press(range).await;
        browser.hears(words).await;
        browser.is_at(&format!("range={range}")).await;
    }
    let day = browser.rows_of("#requests").await;
    assert!(day.last().expect("a day").contains(&all), "{day:?}");
    browser.press("Show as a table").await;
    browser.is_accessible("usage as a table").await;

    // The same as a file.
    browser.press("Download CSV").await;
    let file = browser.saved(&format!("usage-{}-30d.csv", key.id)).await;
    let mut lines = file.lines();
    let head: Vec<&str> = lines.next().expect("a head").split(',').collect();
    let last: Vec<&str> = lines.last().expect("a row").split(',').collect();
    let by_day = world.usage_of(&key.id, "day").await;
    let today: &Value = by_day["data"]
        .as_array()
        .expect("rows")
        .last()
        .expect("a row");
    for field in [
        "requests",
        "errors_4xx",
        "errors_5xx",
        "denied",
        "rate_limited",
    ] {
        let at = head.iter().position(|name| *name == field).expect(field);
        assert_eq!(last[at], today[field].to_string(), "{field} in {file}");
    }

    overview(&browser, &world, &key.id).await;
    browser.close().await;
}

async fn overview(browser: &Browser, world: &World, id: &str) {
    for _ in 0..3 {
        assert_eq!(
            world.sidekey.status("/orders", "sk_live_nonsense").await,
            401
        );
    }
    browser.visit("/dashboard/overview?range=24h").await;
    browser
        .until("the requests are counted", async || {
            browser.refresh().await;
            let text = browser.text_of("#overview").await;
            text.contains("Busy") && text.contains("Over a limit")
        })
        .await;
    browser.sees(id).await;
    browser.is_accessible("the overview").await;
    browser.press("7d").await;
    browser.is_at("range=7d").await;
    browser.hears("7 days").await;
    browser.type_into("Tenant", "acme").await;
    browser.press("Show").await;
    browser.is_at("tenant_id=acme").await;
    browser.sees("Busy").await;
}

impl Browser {
    /// What screen readers are told of the place in the first chart.
    async fn told_by_chart(&self) -> String {
        let script = "return document.querySelector('#requests input[type=range]')
            .getAttribute('aria-valuetext')";
        let told = self.run(script, &[]).await;
        told.as_str().expect("a text").to_owned()
    }
}
