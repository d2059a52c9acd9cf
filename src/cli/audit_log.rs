//! `sidekey audit`: who has done what, over the admin API.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Response;

use super::access::AccessArguments;
use super::audit_verify;
use super::client::{self, Api, Call, cause};
use super::failure::Failure;
use super::interrupt::unless_interrupted;
use super::new_file::{self, NewFile};
use super::pages::{self, Paging};
use super::parse::{self, Moment};
use super::progress::Progress;
use super::render::{self, Column, cell};

const EVENTS: &str = "audit-events";

const EXAMPLES: &str = "\
Examples:
  # What was done with a key
  sidekey audit list --key 4fzN8cQ2pLrT
  # What an admin key has done in the last day
  sidekey audit list --actor Zk31mWq8aPbn --from 24h --all
  # Last month, oldest first, one JSON object a line
  sidekey audit export --from 2026-10-01 --to 2026-11-01 -o october.jsonl
  # Whether all of it is what was written
  sidekey audit verify";

/// See, export and verify who has done what
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditLog {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List events, newest first
    List(List),
    /// Write events as JSON lines, oldest first
    Export(Export),
    Verify(audit_verify::Verify),
}

#[derive(clap::Args)]
struct Filters {
    /// About this key
    #[arg(long, value_name = "KEY_ID")]
    key: Option<String>,
    /// About this tenant's things
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Done with this admin key; or system, or unknown
    #[arg(long, value_name = "KEY_ID")]
    actor: Option<String>,
    /// Only this, such as key.created
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// From this time on, or this span before now
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse::moment)]
    from: Option<Moment>,
    /// Up to this time, or this span before now
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse::moment)]
    to: Option<Moment>,
}

impl Filters {
    fn apply(&self, api: &Api, call: Call) -> Call {
        let now = api.now();
        call.query("key_id", self.key.as_ref())
            .query("tenant_id", self.tenant.as_ref())
            .query("actor", self.actor.as_ref())
            .query("action", self.action.as_ref())
            .query("from", self.from.map(|moment| moment.before(now)))
            .query("to", self.to.map(|moment| moment.before(now)))
    }
}

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
struct List {
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    paging: Paging,
}

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
struct Export {
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    filters: Filters,
    /// The new file to write to [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { title: "SEQ", value: |event| cell(&event["seq"]) },
    Column { title: "AT", value: |event| cell(&event["at"]) },
    Column { title: "ACTION", value: |event| cell(&event["action"]) },
    Column { title: "ACTOR", value: actor },
    Column { title: "KEY", value: |event| cell(&event["key_id"]) },
    Column { title: "TENANT", value: |event| cell(&event["tenant_id"]) },
    Column { title: "ADDRESS", value: |event| cell(&event["address"]) },
    Column { title: "DETAILS", value: |event| cell(&event["details"]) },
];

/// The admin key, or what else it was.
fn actor(event: &serde_json::Value) -> String {
    let actor = &event["actor"];
    match actor["key_id"].as_str() {
        Some(id) => id.to_owned(),
        None => cell(&actor["type"]),
    }
}

pub fn run(audit: &AuditLog) -> ExitCode {
    match &audit.command {
        Command::List(list) => client::run(&list.access, async |api| {
            let call = list.filters.apply(api, api.get(&[EVENTS]));
            pages::show(api, call, &list.paging, COLUMNS).await
        }),
        Command::Verify(verify) => audit_verify::run(verify),
        Command::Export(export) => {
            client::run(&export.access, async |api| self::export(api, export).await)
        }
    }
}

async fn export(api: &Api, export: &Export) -> Result<(), Failure> {
    let call = export.filters.apply(api, api.get(&[EVENTS, "export"]));
    let Some(path) = &export.output else {
        let response = api.download(&call).await?;
        return copy(response, render::out_json_lines()).await;
    };
    let progress = Progress::of_bytes(api.json, None);
    let work = async {
        let mut file = NewFile::create(path, new_file::SHARED)?;
        let write = |bytes: &[u8]| {
            progress.advance(bytes.len() as u64);
            file.write(bytes)
        };
        copy(api.download(&call).await?, write).await?;
        file.keep()
    };
    // Half of the events would look like all of them, so the file goes with the work.
    let done = unless_interrupted(work, "export the events again").await;
    progress.end();
    done
}

async fn copy(
    mut response: Response,
    mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) => write(&bytes)?,
            Ok(None) => return Ok(()),
            Err(error) => {
                return Err(Failure::Failed(format!(
                    "the events ended too early ({}): export them again",
                    cause(&error)
                )));
            }
        }
    }
}
