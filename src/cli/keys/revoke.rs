//! `sidekey keys revoke`

use std::io::{BufRead, IsTerminal, Read, Write};

use http::Method;

use super::call;
use crate::cli::client::Api;
use crate::cli::failure::Failure;
use crate::cli::outcome;
use crate::cli::render::{cell, harmless};

/// An answer to a question has at most this many bytes.
const ANSWER_BYTES_MAX: u64 = 64;

/// Revoke a key for good
#[derive(clap::Args)]
pub struct Revoke {
    /// The key's id: the 12 characters in its middle
    #[arg(value_name = "ID")]
    id: String,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(api: &Api, revoke: &Revoke) -> Result<(), Failure> {
    let id = &revoke.id;
    if !revoke.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::arguments(
                "there is no terminal to ask on: use --yes to revoke the key for good",
            ));
        }
        let key = api.send(&call(api, Method::GET, id)).await?.json()?;
        let question = format!(
            "Revoke key {id} ({}, of tenant {}) for good? [y/N] ",
            cell(&key["name"]),
            cell(&key["tenant_id"])
        );
        if !agrees(&question)? {
            return Err(Failure::failed(
                "nothing was revoked: answer y to revoke the key",
            ));
        }
    }
    let answer = api.send(&call(api, Method::DELETE, id)).await?;
    outcome::done(api, &answer, &format!("key {id} is revoked"))
}

/// Asks on the terminal.
fn agrees(question: &str) -> Result<bool, Failure> {
    let failed =
        |error: std::io::Error| Failure::failed(format!("the terminal can't be asked: {error}"));
    let mut stderr = std::io::stderr();
    stderr
        .write_all(harmless(question).as_bytes())
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .take(ANSWER_BYTES_MAX)
        .read_line(&mut answer)
        .map_err(failed)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
