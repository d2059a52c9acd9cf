//! `sidekey check`: the configuration, with `--stores` what is stored, and with `--mail-to` whether mail is taken.
//! Changes nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lettre::Address;

use crate::clock::{Clock, SharedClock, SystemClock};
use crate::config::Settings;
use crate::limit;
use crate::reconcile::{Finding, Overview, Pair, ReconcileError};
use crate::redis_link::{RedisLink, explain};
use crate::reminders::mail;
use crate::reminders::send::Mailer;
use crate::stores::Stores;
use crate::telemetry::Metrics;

/// What is found is looked for once more after this time: a key may have been in the making.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How long Redis may take to answer, connecting included.
const REDIS_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: super::ConfigArgument,
    /// Also look whether the database and the secret store agree
    #[arg(long)]
    stores: bool,
    /// Also send a test mail there, the way reminders are sent
    #[arg(long, value_name = "ADDRESS")]
    mail_to: Option<Address>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let path = arguments.config.path();
    let settings = match super::load(path) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    print_summary(path, &settings);
    super::block_on(async {
        let mut is_well = true;
        if let Some(to) = &arguments.mail_to {
            is_well &= check_mail(&settings, to).await;
        }
        if arguments.stores {
            is_well &= check_stores(&settings).await?;
        }
        Ok(if is_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

fn print_summary(path: &Path, settings: &Settings) {
    println!(
        "{} is sound: {} routes to {} upstreams",
        path.display(),
        settings.routes.len(),
        settings.upstreams.len()
    );
}

/// Whether the mail server takes a mail to that address.
async fn check_mail(settings: &Settings, to: &Address) -> bool {
    match send_mail(settings, to).await {
        Ok(server) => {
            println!("{server} has taken a mail to {to}; look whether it arrives");
            true
        }
        Err(reason) => {
            eprintln!("sidekey: no mail to {to} was sent: {reason}");
            false
        }
    }
}

/// Sends one, and says which server has it.
async fn send_mail(settings: &Settings, to: &Address) -> Result<String, String> {
    let Some(smtp) = &settings.smtp else {
        return Err("there is no mail server; set smtp.host".to_owned());
    };
    let mailer = Mailer::new(smtp)?;
    let mail = mail::compose_test(&mailer.letterhead(to.clone()), SystemClock::new().now())?;
    let mut session = mailer.session();
    let delivered = session.deliver(to, &mail).await;
    session.close().await;
    match delivered {
        Ok(()) => Ok(format!("{}:{}", smtp.host, smtp.port)),
        Err(undelivered) => Err(undelivered.reason().to_owned()),
    }
}

/// Prints what is wrong, and says whether nothing is.
async fn check_stores(settings: &Settings) -> Result<bool, String> {
    let redis_decides = check_redis(settings).await;
    let clock: SharedClock = Arc::new(SystemClock::new());
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let stores = Stores::open_to_read(settings, &clock, &Arc::new(metrics))
        .await
        .map_err(|error| error.to_string())?;
    let pair = Pair {
        store: stores.keys,
        secrets: stores.secrets,
        clock,
        pace: Duration::ZERO,
    };
    let seen = look_twice(&pair).await;
    stores.sql.close().await;
    let seen = seen.map_err(|error| format!("the stores can't be compared: {error}"))?;
    print_findings(&seen);
    Ok(redis_decides && seen.is_sound())
}

/// Only what is found twice is wrong.
async fn look_twice(pair: &Pair) -> Result<Overview, ReconcileError> {
    let seen = pair.look().await?;
    if seen.is_sound() {
        return Ok(seen);
    }
    tokio::time::sleep(SECOND_LOOK).await;
    pair.look_again(seen).await
}

fn print_findings(seen: &Overview) {
    for finding in &seen.findings {
        match finding {
            Finding::Leftovers {
                holder,
                generations,
            } => {
                for (generation, reason) in generations {
                    println!(
                        "left-over hash: key {} of tenant {}, generation {}: {}",
                        holder.key,
                        holder.tenant,
                        generation.0,
                        reason.as_str()
                    );
                }
            }
            Finding::LacksHash { holder, generation } => println!(
                "key without a hash: key {} of tenant {}, generation {}: it can't work; regenerate or revoke it",
                holder.key, holder.tenant, generation.0
            ),
            Finding::Unreadable { key } => {
                println!("damaged: what is stored of key {key} can't be read");
            }
        }
    }
    if seen.omitted > 0 {
        println!("and {} more", seen.omitted);
    }
    let (rows, holders) = (seen.rows, seen.holders);
    if seen.is_sound() {
        println!("the stores agree: {rows} keys, {holders} of them with hashes");
    } else {
        println!(
            "the stores do not agree: of {rows} keys in the database and {holders} in the secret store, \
             {} have left-over hashes and {} can't work; a running Sidekey removes left-over hashes by itself",
            seen.with_leftovers, seen.lacking
        );
    }
}

/// Whether Redis decides, where it is used.
async fn check_redis(settings: &Settings) -> bool {
    let Some(redis) = &settings.limits.redis else {
        return true;
    };
    let ask = async {
        let link = RedisLink::new(&redis.target);
        limit::redis::check(&link).await
    };
    let problem = match tokio::time::timeout(REDIS_TIMEOUT, ask).await {
        Ok(Ok(_)) => {
            println!("Redis answers, and can decide about limits");
            return true;
        }
        Ok(Err(error)) => explain(&error),
        Err(_) => format!("no answer within {} s", REDIS_TIMEOUT.as_secs()),
    };
    eprintln!("sidekey: Redis can't be used: {problem}; check redis.url");
    false
}
