//! `sidekey audit verify`: whether the audit chain is what was written. With the configuration of the
//! instances it reads the stores itself, and changes nothing; otherwise it asks a running instance.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::EXIT_CONFIG;
use crate::audit::chain::Anchor;
use crate::audit::seal::Sealer;
use crate::audit::verify::{Verdict, verify};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, Settings};
use crate::secrets;
use crate::store::SqlStore;
use crate::telemetry::Metrics;

const ADMIN_URL_DEFAULT: &str = "http://127.0.0.1:8081";
const VERIFICATION_PATH: &str = "/api/v1/platform/audit-events/verification";
/// How long a connection to the admin port may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the admin port may be silent: it gives signs of life while it works.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// A key's file has at most this many bytes.
const KEY_FILE_LEN_MAX: u64 = 4096;

#[derive(Subcommand)]
pub enum Audit {
    /// Verify the chain; fails with the first entry that does not hold
    Verify(Verify),
}

#[derive(clap::Args)]
pub struct Verify {
    /// Read the stores of this configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["admin_url", "admin_key_file"])]
    config: Option<PathBuf>,
    /// Ask the instance with this admin port [env: SIDEKEY_ADMIN_URL] [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// A file with an admin key; otherwise SIDEKEY_ADMIN_KEY has it [env: SIDEKEY_ADMIN_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    /// What an earlier verification has printed: that entry has to be the same still
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,
}

/// Where the chain is read.
enum Source {
    Stores(PathBuf),
    Api { url: String, key: SecretString },
}

/// What was found, in words.
struct Report {
    is_intact: bool,
    text: String,
}

pub fn run(command: &Audit) -> ExitCode {
    let Audit::Verify(arguments) = command;
    let source = match arguments.source() {
        Ok(source) => source,
        Err(error) => {
            eprintln!("sidekey: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let anchor = arguments.anchor.clone();
    match source {
        Source::Stores(path) => match super::load(&path) {
            Ok(settings) => super::block_on(async { tell(read(&settings, anchor).await?) }),
            Err(code) => code,
        },
        Source::Api { url, key } => {
            super::block_on(async { tell(ask(&url, &key, anchor.as_ref()).await?) })
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

impl Verify {
    /// A configuration that is named, or an admin port that is named or for which there is a key; without
    /// any of them the configuration in its usual place.
    fn source(&self) -> Result<Source, String> {
        if let Some(path) = &self.config {
            return Ok(Source::Stores(path.clone()));
        }
        let url = self
            .admin_url
            .clone()
            .or_else(|| variable("SIDEKEY_ADMIN_URL"));
        let file = variable("SIDEKEY_ADMIN_KEY_FILE").map(PathBuf::from);
        let key = match self.admin_key_file.clone() {
            Some(file) => Some(read_key(&file)?),
            None => match (variable("SIDEKEY_ADMIN_KEY"), file) {
                (Some(key), _) => Some(key.trim().into()),
                (None, Some(file)) => Some(read_key(&file)?),
                (None, None) => None,
            },
        };
        match (url, key) {
            (None, None) => Ok(Source::Stores(config::DEFAULT_PATH.into())),
            (url, Some(key)) => Ok(Source::Api {
                url: url.unwrap_or_else(|| ADMIN_URL_DEFAULT.to_owned()),
                key,
            }),
            (Some(_), None) => Err(
                "give an admin key in SIDEKEY_ADMIN_KEY, or the path of its file with --admin-key-file"
                    .to_owned(),
            ),
        }
    }
}

fn read_key(file: &Path) -> Result<SecretString, String> {
    let too_long = std::fs::metadata(file).is_ok_and(|file| file.len() > KEY_FILE_LEN_MAX);
    let text = if too_long {
        Err(std::io::Error::other("it is too long for a key"))
    } else {
        std::fs::read_to_string(file)
    };
    text.map(|text| text.trim().into())
        .map_err(|error| format!("{} can't be read: {error}", file.display()))
}

/// Prints the report; an error of the process where the chain does not hold.
fn tell(report: Report) -> Result<ExitCode, String> {
    println!("{}", report.text);
    Ok(if report.is_intact {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn intact(entries: i64, head: &Anchor) -> Report {
    Report {
        is_intact: true,
        text: format!("the audit chain is intact: {entries} entries, anchor {head}"),
    }
}

fn broken(seq: i64, problem: &str, detail: &str) -> Report {
    Report {
        is_intact: false,
        text: format!("the audit chain is broken at entry {seq}: {problem}: {detail}"),
    }
}

impl From<Verdict> for Report {
    fn from(verdict: Verdict) -> Self {
        match verdict.broken {
            None => intact(verdict.entries, &verdict.head),
            Some(at) => broken(at.seq, at.fault.as_str(), at.fault.explanation()),
        }
    }
}

/// Verifies what the stores of a configuration have.
async fn read(settings: &Settings, anchor: Option<Anchor>) -> Result<Report, String> {
    let store = SqlStore::open_to_read(&settings.store.url).await;
    let store = store.map_err(|error| format!("the store can't be opened: {error}"))?;
    let verdict = read_from(&store, settings, anchor).await;
    store.close().await;
    Ok(verdict?.into())
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

/// Asks a running instance.
async fn ask(url: &str, key: &SecretString, anchor: Option<&Anchor>) -> Result<Report, String> {
    let mut path = VERIFICATION_PATH.to_owned();
    if let Some(anchor) = anchor {
        path.push_str(&format!("?anchor={anchor}"));
    }
    let answer = get_json(url, &path, key).await?;
    let unreadable = || "the admin port's answer is none to a verification".to_owned();
    let number = |value: &Value| value.as_i64().ok_or_else(unreadable);
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(unreadable);
    match answer["intact"].as_bool() {
        Some(true) => {
            let head = &answer["head"];
            let head = Anchor {
                seq: number(&head["seq"])?,
                hash: text(&head["hash"])?,
            };
            Ok(intact(number(&answer["entries"])?, &head))
        }
        Some(false) => {
            let at = &answer["broken"];
            let (problem, detail) = (text(&at["problem"])?, text(&at["detail"])?);
            Ok(broken(number(&at["seq"])?, &problem, &detail))
        }
        None => Err(unreadable()),
    }
}

/// What the admin port says to a GET of `path`.
async fn get_json(url: &str, path: &str, key: &SecretString) -> Result<Value, String> {
    crate::tls::use_ring();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let failed = |error: reqwest::Error| format!("{url} can't be asked: {}", error.without_url());
    let answer = client
        .get(format!("{}{path}", url.trim_end_matches('/')))
        .bearer_auth(key.expose_secret())
        .send()
        .await
        .map_err(failed)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(failed)?;
    if !status.is_success() {
        let detail = body["detail"].as_str().unwrap_or_default();
        return Err(format!("{url} answers {}: {detail}", status.as_u16()));
    }
    Ok(body)
}
