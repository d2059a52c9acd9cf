//! Resident memory of many warm keys, each with two scopes and two buckets of its own.
//!
//! The gateway is started anew between creating the keys and calling with them: the target is
//! about warm keys, not about what an allocator keeps after so many creations. Nothing is timed
//! here, so the gateway has all CPUs and its default number of threads.

use super::Bench;
use crate::client::fan_out;
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{IN_MEMORY, Sidekey, SidekeyOptions, request_with};

/// The least that bcrypt knows. The cost of a hash does not change what a proof of it takes.
const BCRYPT_COST: u32 = 4;
/// The target for 100,000 keys.
const RESIDENT_MIB_MAX: f64 = 150.0;
/// Fewer than the default `bcrypt.max_queue`: no cold caller is told 503.
const CALL_CONNECTIONS: usize = 16;
/// So many keys are called again, to see that they did stay warm.
const SAMPLE: usize = 1_000;

/// Creates the keys, starts anew, calls each once, and reads what is resident.
pub fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Memory)?;
    let options = SidekeyOptions {
        upstream: bench.upstream,
        threads: 0,
        bcrypt_cost: BCRYPT_COST,
        cpus: &bench.cpus.all,
        limits: IN_MEMORY,
    };
    let count = bench.settings.memory_keys;
    let keys = {
        let sidekey = Sidekey::start(&bench.programs, folder.path(), &options)?;
        print_memory(&sidekey, "empty store")?;
        let keys = sidekey.create_keys(count)?;
        print_memory(&sidekey, "all keys created, none called")?;
        keys
    };
    let sidekey = Sidekey::start(&bench.programs, folder.path(), &options)?;
    let before = print_memory(&sidekey, "started anew")?;
    call_all(&sidekey, &keys, "keys called")?;
    let warm = print_memory(&sidekey, "all keys warm")?;
    let bytes_a_key = (warm - before) * 1024.0 * 1024.0 / count as f64;
    println!("  a warm key takes {bytes_a_key:.0} bytes");
    expect_still_warm(&sidekey, &keys)?;
    report.at_most(
        &format!("memory: resident with {count} warm keys"),
        warm,
        RESIDENT_MIB_MAX,
        " MiB",
    );
    Ok(())
}

fn call_all(sidekey: &Sidekey, keys: &[String], label: &str) -> Result<(), String> {
    fan_out(
        sidekey.proxy,
        CALL_CONNECTIONS,
        keys.len(),
        label,
        |connection, number| {
            let answer = connection
                .exchange(&request_with(&keys[number]))
                .map_err(|error| format!("calling key {number}: {error}"))?;
            match answer.status {
                200 => Ok(()),
                status => Err(format!("calling key {number}: answer {status}")),
            }
        },
    )
    .map(drop)
}

/// A cache that evicts keeps memory low and keys cold: such a figure would mean nothing.
fn expect_still_warm(sidekey: &Sidekey, keys: &[String]) -> Result<(), String> {
    let stride = keys.len().div_ceil(SAMPLE);
    let sample: Vec<String> = keys.iter().step_by(stride).cloned().collect();
    let before = sidekey.bcrypt_runs()?;
    call_all(sidekey, &sample, "called again")?;
    let runs = sidekey.bcrypt_runs()? - before;
    if runs == 0.0 {
        Ok(())
    } else {
        Err(format!(
            "{runs} of {} keys were no longer warm",
            sample.len()
        ))
    }
}

/// Prints and returns what is resident, in MiB.
fn print_memory(sidekey: &Sidekey, when: &str) -> Result<f64, String> {
    let mib =
        |field| -> Result<f64, String> { Ok(sidekey.running.memory_kib(field)? as f64 / 1024.0) };
    let (resident, peak) = (mib("VmRSS")?, mib("VmHWM")?);
    println!("  {when}: {resident:.1} MiB resident, peak {peak:.1} MiB");
    Ok(resident)
}
