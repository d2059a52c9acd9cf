//! A flood of keys that nobody imported, where thousands of others were. They have no check that
//! could fail, and must cost no bcrypt and no look at the database all the same.
//!
//! Every request carries another key, or the negative cache would answer.

use super::forged::{CONNECTIONS, base62, expect_counter_to_work, flood_in_rounds};
use super::{BCRYPT_COST, Bench, PROXY_THREADS};
use crate::client::{Tally, closed_loop};
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{IN_MEMORY, Sidekey, SidekeyOptions, request_with};

/// Keys that were imported.
const IMPORTED: usize = 10_000;
/// bcrypt for making those: they are not what is measured.
const IMPORT_COST: u32 = 4;
/// Random characters of each key.
const KEY_LEN: usize = 40;
/// Floods are made of reproducible keys; each round and connection has its own sequence.
const SEED: u64 = 0x1337_ce11;

/// Runs the flood and looks at the counters around it.
pub fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Unknown)?;
    let start = |bcrypt_cost| {
        let options = SidekeyOptions {
            upstream: bench.upstream,
            threads: PROXY_THREADS,
            bcrypt_cost,
            cpus: &bench.cpus.proxy,
            limits: IN_MEMORY,
        };
        Sidekey::start(&bench.programs, folder.path(), &options)
    };
    let mut random = fastrand::Rng::with_seed(SEED);
    let keys: Vec<String> = (0..IMPORTED).map(|_| legacy_key(&mut random)).collect();
    start(IMPORT_COST)?.import_keys(&keys)?;
    let sidekey = start(BCRYPT_COST)?;
    expect_counter_to_work(&sidekey, &keys[0])?;
    let before = counters(&sidekey)?;
    let answers = flood_in_rounds(bench, &sidekey, |round| flood(bench, &sidekey, round))?;
    let after = counters(&sidekey)?;
    sidekey.warm(&keys[1])?;
    let (runs, lookups) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{answers} answers 401; bcrypt runs meanwhile: {runs}; looks at the database: {lookups}"
    );
    report.must_hold(
        "unknown: no bcrypt runs",
        runs == 0.0,
        format!("{runs} runs"),
    );
    // Once in a million the filter says "maybe".
    let most = 1.0 + answers as f64 / 100_000.0;
    report.must_hold(
        "unknown: no looks at the database",
        lookups <= most,
        format!("{lookups} looks"),
    );
    Ok(())
}

fn counters(sidekey: &Sidekey) -> Result<(f64, f64), String> {
    Ok((sidekey.bcrypt_runs()?, sidekey.import_lookups()?))
}

fn legacy_key(random: &mut fastrand::Rng) -> String {
    format!("legacy.{}", base62(random, KEY_LEN))
}

fn flood(bench: &Bench, sidekey: &Sidekey, round: usize) -> Tally {
    let run_for = bench.settings.measure_for;
    closed_loop(sidekey.proxy, CONNECTIONS, run_for, |connection| {
        let seed = SEED + 1 + (round * CONNECTIONS + connection) as u64;
        let mut random = fastrand::Rng::with_seed(seed);
        move |request| {
            request.extend_from_slice(&request_with(&legacy_key(&mut random)));
        }
    })
}
