//! What a page weighs: itself, and all that it loads, as it goes over the wire to a browser that has nothing
//! yet.

use std::collections::BTreeSet;

use super::Browser;

/// The bytes of all bodies.
pub async fn of_page(browser: &Browser<'_>, path: &str) -> usize {
    let page = text_of(browser, path).await;
    let mut waiting: Vec<String> = addresses(&page);
    let mut seen = BTreeSet::new();
    let mut bytes = sent(browser, path).await;
    while let Some(address) = waiting.pop() {
        if !seen.insert(address.clone()) {
            continue;
        }
        bytes += sent(browser, &address).await;
        let text = text_of(browser, &address).await;
        let (folder, _) = address.rsplit_once('/').expect("a folder");
        waiting.extend(modules(&text).iter().map(|name| format!("{folder}/{name}")));
    }
    bytes
}

/// How much is sent to who takes it compressed.
async fn sent(browser: &Browser<'_>, path: &str) -> usize {
    let request = browser.get(path).header("accept-encoding", "gzip");
    let answer = request.send().await.expect("an answer");
    answer.bytes().await.expect("a body").len()
}

async fn text_of(browser: &Browser<'_>, path: &str) -> String {
    let answer = browser.get(path).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.expect("text")
}

/// The styles, scripts and pictures that a page names.
fn addresses(page: &str) -> Vec<String> {
    let parts = page.split('"');
    let assets = parts.filter(|part| part.starts_with("/dashboard/assets/"));
    assets.map(str::to_owned).collect()
}

/// The scripts that a script imports.
fn modules(script: &str) -> Vec<&str> {
    let imports = script.lines().filter(|line| line.starts_with("import "));
    imports
        .filter_map(|line| line.split("\"./").nth(1)?.split('"').next())
        .collect()
}
