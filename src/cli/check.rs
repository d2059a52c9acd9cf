//! `sidekey check`: the configuration, and with `--stores` what is stored. Changes nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{SharedClock, SystemClock};
use crate::config::Settings;
use crate::limit;
use crate::reconcile::{Finding, Overview, Pair, ReconcileError};
use crate::redis_link::{RedisLink, explain};
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
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let path = arguments.config.path();
    let settings = match super::load(path) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    print_summary(path, &settings);
    if !arguments.stores {
        return ExitCode::SUCCESS;
    }
    super::block_on(check_stores(&settings))
}

fn print_summary(path: &Path, settings: &Settings) {
    println!(
        "{} is sound: {} routes to {} upstreams",
        path.display(),
        settings.routes.len(),
        settings.upstreams.len()
    );
}

/// Prints what is wrong; fails where anything is.
async fn check_stores(settings: &Settings) -> Result<ExitCode, String> {
    let redis_answers = check_redis(settings).await;
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
    Ok(if redis_answers && seen.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
