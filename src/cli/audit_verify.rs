//! `sidekey audit verify`: whether the audit chain is what was written. With the configuration of the
//! instances it reads the stores itself, and changes nothing; otherwise it asks a running instance.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;

use super::access::AccessArguments;
use super::client::{self, Api};
use super::failure::{self, Failure};
use super::progress::Progress;
use super::render;
use crate::audit::chain::Anchor;
use crate::audit::seal::Sealer;
use crate::audit::verify::{Verdict, verify};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, ProcessEnvironment, Settings};
use crate::secrets;
use crate::store::SqlStore;
use crate::telemetry::Metrics;

/// Verify the chain; fails with the first entry that does not hold
///
/// Reads the stores of a configuration where --config names one, or where nothing says which admin API to
/// ask; otherwise a running instance looks.
#[derive(clap::Args)]
pub struct Verify {
    /// Read the stores of this configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["admin_url", "admin_key_file"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArguments,
    /// What an earlier verification has printed: that entry has to be the same still
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,
}

pub fn run(arguments: &Verify) -> ExitCode {
    let path = match &arguments.config {
        Some(path) => path.clone(),
        None if arguments.access.is_named(&ProcessEnvironment) => {
            return client::run(&arguments.access, async |api| {
                tell(&ask(api, arguments.anchor.as_ref()).await?, api.json)
            });
        }
        None => config::DEFAULT_PATH.into(),
    };
    match super::load(&path) {
        Ok(settings) => super::block_on(async {
            let is_json = arguments.access.json;
            let verdict = read(&settings, arguments.anchor.clone(), is_json).await?;
            Ok(failure::end(tell(&verdict.json(), is_json)))
        }),
        Err(code) => code,
    }
}

/// Prints what was found; a failure where the chain does not hold.
fn tell(report: &Value, is_json: bool) -> Result<(), Failure> {
    let is_intact = report["intact"].as_bool();
    let is_intact = is_intact.ok_or_else(unreadable)?;
    if is_json {
        render::json(&report.to_string())?;
    } else {
        render::line(&sentence(report, is_intact)?)?;
    }
    if is_intact {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

fn sentence(report: &Value, is_intact: bool) -> Result<String, Failure> {
    let number = |value: &Value| value.as_i64().ok_or_else(unreadable);
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(unreadable);
    if is_intact {
        let (head, entries) = (&report["head"], number(&report["entries"])?);
        let anchor = Anchor {
            seq: number(&head["seq"])?,
            hash: text(&head["hash"])?,
        };
        return Ok(format!(
            "the audit chain is intact: {entries} entries, anchor {anchor}"
        ));
    }
    let at = &report["broken"];
    let (seq, problem, detail) = (
        number(&at["seq"])?,
        text(&at["problem"])?,
        text(&at["detail"])?,
    );
    Ok(format!(
        "the audit chain is broken at entry {seq}: {problem}: {detail}"
    ))
}

fn unreadable() -> Failure {
    Failure::failed("the answer is none to a verification: check --admin-url")
}

/// Verifies what the stores of a configuration have.
async fn read(
    settings: &Settings,
    anchor: Option<Anchor>,
    is_json: bool,
) -> Result<Verdict, String> {
    let store = SqlStore::open_to_read(&settings.store.url).await;
    let store = store.map_err(|error| format!("the store can't be opened: {error}"))?;
    let verdict = read_from(&store, settings, anchor, is_json).await;
    store.close().await;
    verdict
}

async fn read_from(
    store: &SqlStore,
    settings: &Settings,
    anchor: Option<Anchor>,
    is_json: bool,
) -> Result<Verdict, String> {
    let clock: SharedClock = Arc::new(SystemClock::new());
    let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
    let mint_keys = secrets::known_mint_keys(&settings.secrets, store, clock, metrics)
        .await
        .map_err(|error| format!("the mint keys can't be read: {error}"))?;
    let sealer = mint_keys.as_ref().map(Sealer::from).unwrap_or_default();
    let progress = Progress::of_entries(is_json);
    let verdict = verify(store, &sealer, anchor, |done, all| {
        progress.reach_of(done.unsigned_abs(), all.unsigned_abs());
    })
    .await;
    progress.end();
    verdict.map_err(|error| format!("the audit chain can't be read: {error}"))
}

/// Asks a running instance, which gives signs of life while it looks.
async fn ask(api: &Api, anchor: Option<&Anchor>) -> Result<Value, Failure> {
    let call = api
        .get(&["audit-events", "verification"])
        .query("anchor", anchor);
    api.wait_for(&call).await?.json()
}
