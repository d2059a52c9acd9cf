//! `sidekey keys import`: keys that exist elsewhere become keys here, and go on working. Whatever
//! form the file has, JSON lines go to the API, a batch a call; a line that is there already is not
//! made again, so an import that was interrupted is run again.

mod batch;
mod csv_lines;
mod lines;
mod report;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use http::Method;

use self::batch::Batch;
use self::lines::{Defaults, Format};
use self::report::Report;
use super::client::{Answer, Api};
use super::failure::{Failure, tell};
use super::interrupt::unless_interrupted;
use super::keys::KEYS;
use super::outcome::warn_of_unconfirmed;
use super::progress::Progress;
use crate::clock::Clock;

/// The name that stands for stdin.
const STDIN: &str = "-";

const EXAMPLES: &str = "\
Forms of FILE:
  .jsonl   one object a line: name, tenant_id, environment, scopes, rate_limits, expires_at, allowed_ips,
           contact_email, rotation_days, metadata, external_id, and key (its text), or user and hash
           (bcrypt), or htpasswd (USER:HASH)
  .csv     a first line with these names; scopes and allowed_ips are separated by spaces, rate_limits and
           metadata are JSON
  htpasswd USER:HASH lines with bcrypt hashes; USER becomes the name

Nothing is imported twice: run it again after an interruption, or after correcting what was refused.

Examples:
  sidekey keys import keys.csv --tenant acme --dry-run
  sidekey keys import /etc/nginx/.htpasswd --tenant acme --scope orders:read
  vault kv get -field=keys secret/old | sidekey keys import - --format jsonl --json > report.json";

/// Import keys that exist elsewhere from a file
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Import {
    /// The file, or - for stdin
    #[arg(value_name = "FILE")]
    file: String,
    /// The file's form [default: what its name says]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Whose the keys are of lines that don't say
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The environment of lines that don't say
    #[arg(long, value_parser = ["live", "test"], default_value = "live")]
    environment: String,
    /// A scope for lines that name none; may stand there several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Only say what would become of each line
    #[arg(long)]
    dry_run: bool,
    /// Also take keys and hashes that are too easy to guess
    #[arg(long)]
    allow_weak: bool,
}

pub async fn run(api: &Api, import: &Import) -> Result<(), Failure> {
    let Some(format) = import.format.or_else(|| Format::of_name(&import.file)) else {
        return Err(Failure::arguments(format!(
            "the name {} does not say what is in it: use --format jsonl, csv or htpasswd",
            import.file
        )));
    };
    let (input, length) = open(&import.file)?;
    let defaults = Defaults {
        tenant_id: import.tenant.clone(),
        environment: Some(import.environment.clone()),
        scopes: import.scopes.clone(),
    };
    let mut batches = batch::read(format, input, defaults);
    let start = api.clock.monotonic_us();
    let progress = Progress::of_bytes(api.json, length);
    let mut report = Report::start(&import.file, import.dry_run, api.json)?;
    let done = unless_interrupted(
        send_all(api, import, &mut batches, &mut report, &progress),
        "run it again to go on, nothing is imported twice",
    )
    .await;
    progress.end();
    let ended = report.end(api.clock.monotonic_us().saturating_sub(start) / 1000);
    warn_of_unconfirmed(report.unconfirmed.as_deref());
    done.and(ended).map_err(unread)?;
    if report.totals.refused > 0 {
        tell("some lines were refused: correct them, and run it again; nothing is imported twice");
        return Err(Failure::Told);
    }
    Ok(())
}

/// Half an import is no success, also where nobody reads its report.
fn unread(failure: Failure) -> Failure {
    match failure {
        Failure::ClosedPipe => Failure::failed(
            "nobody reads the report, so the import stopped: run it again to go on, nothing is imported twice",
        ),
        other => other,
    }
}

/// The file, and how long it is where that is known.
fn open(name: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if name == STDIN {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let opened = File::open(Path::new(name)).and_then(|file| {
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        Ok((file, about.is_file().then_some(about.len())))
    });
    match opened {
        Ok((file, length)) => Ok((Box::new(file), length)),
        Err(error) => Err(Failure::arguments(format!("{name} can't be read: {error}"))),
    }
}

async fn send_all(
    api: &Api,
    import: &Import,
    batches: &mut tokio::sync::mpsc::Receiver<Result<Batch, String>>,
    report: &mut Report,
    progress: &Progress,
) -> Result<(), Failure> {
    while let Some(batch) = batches.recv().await {
        let mut batch =
            batch.map_err(|problem| Failure::Arguments(format!("{}: {problem}", import.file)))?;
        while !batch.is_empty() {
            let answer = send(api, import, &batch).await?;
            report.add(&mut batch, answer.as_ref(), progress)?;
        }
        let totals = report.totals;
        progress.reach(
            batch.bytes_read,
            format!("{} lines, {} refused", totals.lines(), totals.refused),
        );
    }
    Ok(())
}

/// What the API says of a batch; it is not asked where no line of it is an object.
async fn send(api: &Api, import: &Import, batch: &Batch) -> Result<Option<Answer>, Failure> {
    if batch.numbers.is_empty() {
        return Ok(None);
    }
    let call = api
        .call(Method::POST, &[KEYS, "import"])
        .query("dry_run", Some(import.dry_run))
        .query("allow_weak", Some(import.allow_weak))
        .body("application/jsonl", batch.body());
    api.send(&call).await.map(Some)
}
