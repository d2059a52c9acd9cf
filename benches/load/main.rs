//! Holds a mixed load on the release binary and judges every single answer: valid keys, keys over their
//! limit, without the scope, forged, expired and never used before, all at once.
//!
//! `make load` (`cargo bench --bench load`) prints throughput, latencies by kind, and the program's memory at
//! start and end, and ends with 1 where anything was wrong. `LOAD_SECONDS` (120), `LOAD_CONNECTIONS` (16) and
//! `LOAD_BCRYPT_COST` (10) change the run. Callers, program and service share the machine's CPUs.

// A load measures real time; it serves nobody.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used
)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/integration/harness/mod.rs"]
mod harness;
// Its tests run with the integration tests.
#[allow(dead_code, unused_imports)]
mod mixed;

use std::process::ExitCode;
use std::time::Duration;

use mixed::{Extent, Plan};

const SECONDS: u64 = 120;
const SECONDS_MAX: u64 = 900;
const CONNECTIONS: u64 = 16;
/// Each has a thread.
const CONNECTIONS_MAX: u64 = 256;
const BCRYPT_COST: u64 = 10;
const BCRYPT_COST_MAX: u64 = 14;
/// Keys that are used for the first time, each second: a tenth of what one CPU can hash.
const COLD_PER_SECOND: u64 = 2;
/// What the bucket of each limited key gains.
const LIMITED_PER_SECOND: u32 = 10;

#[tokio::main]
async fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benches too, without this flag.
        println!("nothing measured: run `make load`");
        return ExitCode::SUCCESS;
    }
    let plan = match plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "making {} keys, then a load of {}",
        plan.cold_keys, plan.extent
    );
    let report = mixed::run(&plan).await;
    println!("{report}");
    if report.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn plan() -> Result<Plan, String> {
    let seconds = number("LOAD_SECONDS", SECONDS, 1, SECONDS_MAX)?;
    let connections = number("LOAD_CONNECTIONS", CONNECTIONS, 1, CONNECTIONS_MAX)?;
    let cost = number("LOAD_BCRYPT_COST", BCRYPT_COST, 4, BCRYPT_COST_MAX)?;
    Ok(Plan {
        extent: Extent::Time(Duration::from_secs(seconds)),
        connections: connections as usize,
        cold_keys: (seconds * COLD_PER_SECOND) as usize,
        limited_per_second: LIMITED_PER_SECOND,
        bcrypt_cost: cost as u32,
        more: "",
    })
}

fn number(name: &str, default: u64, least: u64, most: u64) -> Result<u64, String> {
    let Ok(text) = std::env::var(name) else {
        return Ok(default);
    };
    match text.trim().parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!(
            "{name}={text} is not a whole number from {least} to {most}"
        )),
    }
}
