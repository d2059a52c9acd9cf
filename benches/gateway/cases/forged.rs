//! A flood of keys that look right and that nobody minted. They must cost no bcrypt, and little
//! of anything else.
//!
//! Every request carries another key, or the negative cache would answer for the keyed check.
//! Half of them name the id of a key that exists: an attacker can know ids, they are in logs.

use std::time::Duration;

use super::{BCRYPT_COST, Bench, PROXY_THREADS};
use crate::client::{Tally, closed_loop};
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{IN_MEMORY, Sidekey, SidekeyOptions, request_with};
use crate::stats::{median, percentile_us};

pub(super) const CONNECTIONS: usize = 32;
const KEY_ID_LEN: usize = 12;
/// Secret and check.
const KEY_TAIL_LEN: usize = 54;
/// Floods are made of reproducible keys; each round and connection has its own sequence.
const SEED: u64 = 0x51de_ce11;

/// Runs the flood and looks at the counter of bcrypt runs around it.
pub fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Forged)?;
    let options = SidekeyOptions {
        upstream: bench.upstream,
        threads: PROXY_THREADS,
        bcrypt_cost: BCRYPT_COST,
        cpus: &bench.cpus.proxy,
        limits: IN_MEMORY,
    };
    let start = || Sidekey::start(&bench.programs, folder.path(), &options);
    let key = start()?.create_one_key()?;
    let sidekey = start()?;
    expect_counter_to_work(&sidekey, &key)?;
    let (runs_before, forged_before) = (sidekey.bcrypt_runs()?, sidekey.forged_keys()?);
    let answers = flood_in_rounds(bench, &sidekey, |round| {
        flood(&sidekey, &key, round, bench.settings.measure_for)
    })?;
    let runs = sidekey.bcrypt_runs()? - runs_before;
    let forged = sidekey.forged_keys()? - forged_before;
    sidekey.warm(&key)?;
    println!("{answers} answers 401; counted as forged: {forged}; bcrypt runs meanwhile: {runs}");
    report.must_hold(
        "forged: no bcrypt runs",
        runs == 0.0,
        format!("{runs} runs"),
    );
    Ok(())
}

/// A good key that this process has not seen must move the counter: one that never moves would
/// pass for a flood without bcrypt.
pub(super) fn expect_counter_to_work(sidekey: &Sidekey, key: &str) -> Result<(), String> {
    let before = sidekey.bcrypt_runs()?;
    sidekey.warm(key)?;
    if sidekey.bcrypt_runs()? > before {
        Ok(())
    } else {
        Err("the counter of bcrypt runs did not move for a good cold key".to_owned())
    }
}

/// Lets `flood` have each round, prints what it cost, and counts its answers.
pub(super) fn flood_in_rounds(
    bench: &Bench,
    sidekey: &Sidekey,
    flood: impl Fn(usize) -> Tally,
) -> Result<u64, String> {
    println!(
        "{:<7} {:>15} {:>15} {:>15}",
        "round", "CPU us/request", "requests/s", "median us"
    );
    let mut answers = 0;
    let mut costs = Vec::new();
    for round in 0..bench.settings.rounds {
        let run_for = bench.settings.measure_for;
        let cpu_before = sidekey.running.cpu_time()?;
        let mut tally = flood(round);
        let cpu = sidekey.running.cpu_time()?.saturating_sub(cpu_before);
        // 429 once the address has failed too often, which the case's limit is too large for.
        tally.expect_only(&[401])?;
        let count = tally.answers() as f64;
        let cpu_us = cpu.as_secs_f64() * 1e6 / count;
        println!(
            "{:<7} {cpu_us:>15.1} {:>15.1} {:>15.1}",
            round + 1,
            count / run_for.as_secs_f64(),
            percentile_us(&mut tally.latencies, 50),
        );
        answers += tally.answers();
        costs.push(cpu_us);
    }
    println!("median  {:>15.1}", median(&costs));
    Ok(answers)
}

fn flood(sidekey: &Sidekey, key: &str, round: usize, run_for: Duration) -> Tally {
    let real_start = &key[..key.len() - KEY_TAIL_LEN];
    closed_loop(sidekey.proxy, CONNECTIONS, run_for, |connection| {
        let mut random = fastrand::Rng::with_seed(SEED + (round * CONNECTIONS + connection) as u64);
        move |request| {
            let mut forged = if random.bool() {
                real_start.to_owned()
            } else {
                format!("sk_live_{}_", base62(&mut random, KEY_ID_LEN))
            };
            forged.push_str(&base62(&mut random, KEY_TAIL_LEN));
            request.extend_from_slice(&request_with(&forged));
        }
    })
}

pub(super) fn base62(random: &mut fastrand::Rng, len: usize) -> String {
    std::iter::repeat_with(|| random.alphanumeric())
        .take(len)
        .collect()
}
