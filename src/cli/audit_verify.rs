//! `sidekey audit verify`: whether the audit chain is what was written. With the configuration of the
//! instances it reads the stores itself, and changes nothing; otherwise it asks a running instance.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Response;
use serde_json::{Value, json};

use super::access::AccessArguments;
use super::client::{self, Api, cause};
use super::failure::{self, Failure};
use super::render;
use crate::audit::chain::Anchor;
use crate::audit::seal::Sealer;
use crate::audit::verify::{Verdict, verify};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, ProcessEnvironment, Settings};
use crate::secrets;
use crate::store::SqlStore;
use crate::telemetry::Metrics;

/// The answer has at most this many bytes, signs of life included.
const ANSWER_BYTES_MAX: usize = 1 << 20;

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
            let verdict = read(&settings, arguments.anchor.clone()).await?;
            Ok(failure::end(tell(&report(&verdict), arguments.access.json)))
        }),
        Err(code) => code,
    }
}

/// The API's words for what was found.
fn report(verdict: &Verdict) -> Value {
    match &verdict.broken {
        None => json!({
            "intact": true,
            "entries": verdict.entries,
            "head": {"seq": verdict.head.seq, "hash": verdict.head.hash},
        }),
        Some(at) => json!({
            "intact": false,
            "entries": verdict.entries,
            "broken": {
                "seq": at.seq,
                "problem": at.fault.as_str(),
                "detail": at.fault.explanation(),
            },
        }),
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
async fn read(settings: &Settings, anchor: Option<Anchor>) -> Result<Verdict, String> {
    let store = SqlStore::open_to_read(&settings.store.url).await;
    let store = store.map_err(|error| format!("the store can't be opened: {error}"))?;
    let verdict = read_from(&store, settings, anchor).await;
    store.close().await;
    verdict
}

async fn read_from(
    store: &SqlStore,
    settings: &Settings,
    anchor: Option<Anchor>,
) -> Result<Verdict, String> {
    let clock: SharedClock = Arc::new(SystemClock::new());
    let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
    let mint_keys = secrets::known_mint_keys(&settings.secrets, store, clock, metrics)
        .await
        .map_err(|error| format!("the mint keys can't be read: {error}"))?;
    let sealer = mint_keys.as_ref().map(Sealer::from).unwrap_or_default();
    let bar = progress_bar();
    let verdict = verify(store, &sealer, anchor, |done, all| {
        bar.set_length(all.unsigned_abs());
        bar.set_position(done.unsigned_abs());
    })
    .await;
    bar.finish_and_clear();
    verdict.map_err(|error| format!("the audit chain can't be read: {error}"))
}

/// For people who watch; nothing where nobody does.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} entries, {eta} left");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Asks a running instance, which gives signs of life while it looks.
async fn ask(api: &Api, anchor: Option<&Anchor>) -> Result<Value, Failure> {
    let call = api
        .get(&["audit-events", "verification"])
        .query("anchor", anchor);
    let answer = all_of(api.download(&call).await?).await?;
    serde_json::from_slice(&answer).map_err(|_| unreadable())
}

async fn all_of(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) if all.len() + bytes.len() <= ANSWER_BYTES_MAX => all.extend(bytes),
            Ok(Some(_)) => return Err(unreadable()),
            Ok(None) => return Ok(all),
            Err(error) => {
                return Err(Failure::Failed(format!(
                    "the verification ended too early ({}): try it again",
                    cause(&error)
                )));
            }
        }
    }
}
