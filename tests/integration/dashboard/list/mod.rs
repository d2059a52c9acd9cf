//! The list of keys, as it is sent: what stands in it, for whom, and how people get about in it.

mod finding;
mod looks;
mod rights;

use serde_json::{Value, json};

use super::person::{KEYS_PAGE, Person};
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::nobody;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

/// The page with `query`, which has to be there.
async fn page(person: &Person<'_>, query: &str) -> String {
    let reply = person.get(&format!("{KEYS_PAGE}{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text
}

/// The rows of a page.
fn rows(page: &str) -> Vec<&str> {
    let rows = page.split("<tr><th scope=\"row\">").skip(1);
    rows.map(|row| row.split("</tr>").next().unwrap()).collect()
}

/// The ids of the keys on a page.
fn ids(page: &str) -> Vec<String> {
    let id = |row: &&str| {
        let link = row.split("href=\"api-keys/").nth(1).expect("a link");
        link.split('"').next().unwrap().to_owned()
    };
    rows(page).iter().map(id).collect()
}

/// The row of a key.
fn row_of<'a>(page: &'a str, key: &Key) -> &'a str {
    let link = format!("href=\"api-keys/{}\"", key.id);
    let rows = rows(page);
    let row = rows.iter().find(|row| row.contains(&link));
    row.unwrap_or_else(|| panic!("no row of {}: {page}", key.id))
}

/// The cell of a row under that label, without its markup.
fn cell(row: &str, label: &str) -> String {
    let start = format!("data-label=\"{label}\">");
    let cell = row.split(&start).nth(1);
    let cell = cell.unwrap_or_else(|| panic!("no {label} in {row}"));
    text(cell.split("</td>").next().unwrap())
}

/// What is left of HTML where its tags are taken out.
fn text(html: &str) -> String {
    let parts = html.split('<').enumerate();
    let texts = parts.map(|(number, part)| match number {
        0 => part,
        _ => part.split_once('>').map_or("", |(_, text)| text),
    });
    texts.collect::<Vec<_>>().join("").trim().to_owned()
}

/// Where the link with this text leads; nowhere if there is none.
fn link(page: &str, words: &str) -> Option<String> {
    let end = format!(">{words}</a>");
    let before = page
        .split(&end)
        .next()
        .filter(|before| before.len() < page.len())?;
    let tag = &before[before.rfind("<a ").expect("a link")..];
    let href = tag.split("href=\"").nth(1)?.split('"').next()?;
    Some(href.replace("&#38;", "&").replace("&amp;", "&"))
}

/// Creates a key with a name and more.
async fn key(sidekey: &Sidekey, name: &str, mut more: Value) -> Key {
    more["name"] = json!(name);
    sidekey.create_key(more).await
}
