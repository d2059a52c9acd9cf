//! Lists that come in pages: one page, or all of them by their cursors.

use clap::value_parser;
use serde_json::Value;

use super::client::{Api, Call};
use super::failure::{Failure, tell};
use super::render::{self, Column};

/// Items that are asked for at once where all are wanted: the API's limit.
const PAGE_LEN_MAX: u16 = 1000;

/// How much of a list is shown.
#[derive(clap::Args)]
pub struct Paging {
    /// Show at most this many, 1 to 1000 [default: what the API gives, 50]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
    limit: Option<u16>,
    /// Go on where an earlier page ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Show all, page by page; with --json as one array
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Shows the list that `call` asks for.
pub async fn show(
    api: &Api,
    mut call: Call,
    paging: &Paging,
    columns: &[Column],
) -> Result<(), Failure> {
    let limit = paging.limit.or(paging.all.then_some(PAGE_LEN_MAX));
    call = call
        .query("limit", limit)
        .query("cursor", paging.cursor.as_ref());
    if paging.all {
        return show_all(api, call, columns).await;
    }
    let answer = api.send(&call).await?;
    if api.json {
        return render::json(&answer.text);
    }
    let (items, next) = page(&answer.json()?)?;
    render::out(&render::rows(columns, &items))?;
    if let Some(next) = next {
        tell(&format!(
            "there are more: go on with --cursor {next}, or use --all"
        ));
    }
    Ok(())
}

async fn show_all(api: &Api, mut call: Call, columns: &[Column]) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    let mut is_first = true;
    if api.json {
        render::out("[")?;
    }
    loop {
        let (items, next) = page(&api.send(&call).await?.json()?)?;
        if api.json {
            for item in &items {
                let separator = if is_first { "\n" } else { ",\n" };
                is_first = false;
                render::out(separator)?;
                render::json_part(&item.to_string())?;
            }
        } else if is_first || !items.is_empty() {
            render::out(&render::rows(columns, &items))?;
            is_first = false;
        }
        let Some(next) = next else {
            break;
        };
        if cursor.as_ref() == Some(&next) {
            return Err(Failure::failed(
                "the API gives the same page again and again: tell its operator",
            ));
        }
        call.set_query("cursor", &next);
        cursor = Some(next);
    }
    if api.json {
        render::out("\n]\n")?;
    }
    Ok(())
}

/// The items of a page, and where it goes on.
fn page(answer: &Value) -> Result<(Vec<Value>, Option<String>), Failure> {
    let Some(items) = answer["data"].as_array() else {
        return Err(Failure::failed(
            "the answer is not a list: give the URL of the admin port with --admin-url",
        ));
    };
    let next = answer["next_cursor"].as_str().map(str::to_owned);
    Ok((items.clone(), next))
}
