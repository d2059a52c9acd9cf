//! What the creation of a key takes, beside one hash by the bcrypt library on a thread of its own: all
//! else (two writes that reach the disk, the record of the deed) should be small against it.

use std::time::{Duration, Instant};

use super::{BCRYPT_COST, Bench, PROXY_THREADS};
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{IN_MEMORY, Sidekey, SidekeyOptions};
use crate::stats::{median, percentile_us};

/// Keys and hashes in each round, one after the other in turns.
const CREATES: usize = 10;
/// As long as a key's secret.
const SECRET: [u8; 43] = [b'a'; 43];

pub fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Create)?;
    let options = SidekeyOptions {
        upstream: bench.upstream,
        threads: PROXY_THREADS,
        bcrypt_cost: BCRYPT_COST,
        cpus: &bench.cpus.proxy,
        limits: IN_MEMORY,
    };
    let sidekey = Sidekey::start(&bench.programs, folder.path(), &options)?;
    sidekey.create_one_key()?;
    let mut ratios = Vec::new();
    let (hashed_before, runs_before) = (sidekey.bcrypt_seconds()?, sidekey.bcrypt_runs()?);
    let mut all = Vec::new();
    println!("{:<7} {:>12} {:>12}", "round", "create us", "hash us");
    for round in 0..bench.settings.rounds {
        let (mut creates, mut hashes) = (Vec::new(), Vec::new());
        for _ in 0..CREATES {
            creates.push(timed(|| sidekey.create_one_key().map(drop))?);
            hashes.push(timed(hash)?);
        }
        all.extend_from_slice(&creates);
        let (create, hash) = (
            percentile_us(&mut creates, 50),
            percentile_us(&mut hashes, 50),
        );
        println!("{:<7} {create:>12.0} {hash:>12.0}", round + 1);
        ratios.push(create / hash);
    }
    let runs = sidekey.bcrypt_runs()? - runs_before;
    let hashed_us = (sidekey.bcrypt_seconds()? - hashed_before) * 1e6 / runs;
    let create = percentile_us(&mut all, 50);
    report.at_most("create: / one bcrypt hash", median(&ratios), 1.2, "");
    report.note("create: / its own hash in the pool", create / hashed_us, "");
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn hash() -> Result<(), String> {
    let hash = bcrypt::non_truncating_hash_bytes(SECRET, BCRYPT_COST);
    hash.map(drop).map_err(|error| format!("bcrypt: {error}"))
}
