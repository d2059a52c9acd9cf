//! `sidekey keys`: the life of keys, over the admin API.

mod change;
mod create;
mod fields;
mod handover;
mod list;
mod regenerate;
mod revoke;

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::access::AccessArguments;
use super::client::{self, Api, Call};
use super::failure::Failure;
use super::{import, outcome};

/// Where keys stand in the API.
pub const KEYS: &str = "api-keys";
/// What shows the keys that there are.
pub const SEE: &str = "sidekey keys list";

pub use change::clear;

const EXAMPLES: &str = "\
Examples:
  # Create a key, and store it where only you can read it
  sidekey keys create --name 'Nightly export' --tenant acme --scope 'orders:*' --key-file export.key
  # Replace its secret; the old one works for a day more
  sidekey keys regenerate 4fzN8cQ2pLrT --grace 24h --key-file export-new.key
  # The new one is in use everywhere: end the old one now
  sidekey keys end-overlap 4fzN8cQ2pLrT
  # Keys that nobody has used for 90 days, as JSON
  sidekey keys list --unused-since 90d --all --json
  # For good
  sidekey keys revoke 4fzN8cQ2pLrT --yes";

/// Create, see, change, regenerate, revoke and import keys
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Keys {
    #[command(flatten)]
    access: AccessArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Box<create::Create>),
    List(list::List),
    /// Show a key, without its secret
    Show(OneKey),
    Change(Box<change::Change>),
    /// Refuse a key's requests until it is enabled again
    Disable(OneKey),
    /// Let a disabled key work again
    Enable(OneKey),
    Regenerate(regenerate::Regenerate),
    /// End the time in which the old secret of a regenerated key still works
    EndOverlap(OneKey),
    Revoke(revoke::Revoke),
    Import(import::Import),
}

/// Which key.
#[derive(clap::Args)]
struct OneKey {
    /// The key's id: the 12 characters in its middle
    #[arg(value_name = "ID")]
    id: String,
}

pub fn run(keys: &Keys) -> ExitCode {
    client::run(&keys.access, async |api| match &keys.command {
        Command::Create(create) => create::run(api, create).await,
        Command::List(list) => list::run(api, list).await,
        Command::Show(key) => show(api, &key.id).await,
        Command::Change(change) => change::run(api, change).await,
        Command::Disable(key) => set_status(api, &key.id, "disabled").await,
        Command::Enable(key) => set_status(api, &key.id, "active").await,
        Command::Regenerate(regenerate) => regenerate::run(api, regenerate).await,
        Command::EndOverlap(key) => end_overlap(api, &key.id).await,
        Command::Revoke(revoke) => revoke::run(api, revoke).await,
        Command::Import(import) => import::run(api, import).await,
    })
}

/// A call about one key.
fn call(api: &Api, method: Method, id: &str) -> Call {
    api.call(method, &[KEYS, id]).see(SEE)
}

async fn show(api: &Api, id: &str) -> Result<(), Failure> {
    let answer = api.send(&call(api, Method::GET, id)).await?;
    outcome::show(api, &answer)
}

async fn set_status(api: &Api, id: &str, status: &str) -> Result<(), Failure> {
    let call = call(api, Method::PATCH, id).json(&json!({"status": status}));
    let answer = api.send(&call).await?;
    outcome::done(api, &answer, &format!("key {id} is {status}"))
}

async fn end_overlap(api: &Api, id: &str) -> Result<(), Failure> {
    let call = api
        .call(Method::DELETE, &[KEYS, id, "previous-secret"])
        .see(SEE);
    let answer = api.send(&call).await?;
    outcome::done(api, &answer, &format!("key {id} has one secret now"))
}
