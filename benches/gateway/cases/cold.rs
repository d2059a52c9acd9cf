//! Warm callers while keys arrive that are good and were never seen: each of them costs a bcrypt
//! check, and together more than the machine has time for.
//!
//! The warm load keeps to a rate (an open loop), since a closed loop would slow down together
//! with the gateway and hide what its callers wait. A key is cold once per process, so the
//! gateway is started anew before every round, the quiet ones too, and finds the same keys in
//! its store. Cold callers may be told 503 when the queue of checks is full: that is the bound
//! that protects the warm ones.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{BCRYPT_COST, Bench, PROXY_THREADS};
use crate::client::{Tally, each_once_evenly, paced, wait_until};
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{IN_MEMORY, Sidekey, SidekeyOptions, request_with};
use crate::stats::{median, percentile_us};

/// A flood may make the warm callers' p99 this much longer.
const P99_RATIO_MAX: f64 = 2.0;
const WARM_CONNECTIONS: usize = 8;
/// About a tenth of what one proxy thread can do.
const WARM_PER_SECOND: u32 = 4_000;
const WARM_UP: Duration = Duration::from_millis(500);
/// In this time the flood is ready to begin.
const FLOOD_START: Duration = Duration::from_millis(500);

/// What the warm callers saw in one round.
struct Round {
    median_us: f64,
    p99_us: f64,
    /// What the cold callers were answered.
    cold: Tally,
}

/// Compares rounds with and without the flood.
pub fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Cold)?;
    let (warm_key, cold_keys) = {
        let sidekey = start(bench, folder.path())?;
        (
            sidekey.create_one_key()?,
            sidekey.create_keys(bench.settings.cold_keys)?,
        )
    };
    let flood: Vec<Vec<u8>> = cold_keys.iter().map(|key| request_with(key)).collect();
    println!(
        "{:<7} {:<10} {:>12} {:>12}  cold answers",
        "round", "", "median us", "p99 us"
    );
    let mut ratios = Vec::new();
    for round in 1..=bench.settings.rounds {
        let quiet = measure(bench, folder.path(), &warm_key, &[])?;
        print_round(round, "quiet", &quiet);
        let flooded = measure(bench, folder.path(), &warm_key, &flood)?;
        print_round(round, "flooded", &flooded);
        ratios.push(flooded.p99_us / quiet.p99_us);
    }
    let ratio = median(&ratios);
    println!("ratio   flooded/quiet, p99: {ratio:.3}");
    report.at_most(
        "cold: warm callers' p99, flooded by quiet",
        ratio,
        P99_RATIO_MAX,
        "x",
    );
    Ok(())
}

fn start(bench: &Bench, folder: &Path) -> Result<Sidekey, String> {
    let options = SidekeyOptions {
        upstream: bench.upstream,
        threads: PROXY_THREADS,
        bcrypt_cost: BCRYPT_COST,
        cpus: &bench.cpus.proxy,
        limits: IN_MEMORY,
    };
    Sidekey::start(&bench.programs, folder, &options)
}

fn measure(
    bench: &Bench,
    folder: &Path,
    warm_key: &str,
    flood: &[Vec<u8>],
) -> Result<Round, String> {
    let sidekey = start(bench, folder)?;
    sidekey.warm(warm_key)?;
    let request = request_with(warm_key);
    let load = |run_for| {
        paced(
            sidekey.proxy,
            WARM_CONNECTIONS,
            WARM_PER_SECOND,
            run_for,
            &request,
        )
    };
    load(WARM_UP).expect_only(&[200])?;
    let run_for = bench.settings.measure_for;
    // The warm callers share a CPU with the flood: it must not be set up under them.
    let begin = Instant::now() + FLOOD_START;
    let (mut warm, cold) = thread::scope(|scope| {
        let cold = scope.spawn(|| each_once_evenly(sidekey.proxy, flood, begin, run_for));
        wait_until(begin);
        let warm = load(run_for);
        (warm, cold.join().expect("the flood does not panic"))
    });
    warm.expect_only(&[200])?;
    cold.expect_only(&[200, 503])?;
    Ok(Round {
        median_us: percentile_us(&mut warm.latencies, 50),
        p99_us: percentile_us(&mut warm.latencies, 99),
        cold,
    })
}

fn print_round(round: usize, name: &str, measured: &Round) {
    println!(
        "{round:<7} {name:<10} {:>12.1} {:>12.1}  {:?}",
        measured.median_us, measured.p99_us, measured.cold.statuses
    );
}
