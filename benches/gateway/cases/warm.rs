//! What the gateway costs a warm caller: the bare proxy against Sidekey with everything on (a
//! key, two scopes, two buckets, all header fields, metrics). Both get the same request. And the
//! same comparison of the bare proxy with itself, whose ratio is this machine's noise.

use super::compare::{Side, compare};
use super::{BCRYPT_COST, Bench, PROXY_THREADS};
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{IN_MEMORY, Sidekey, SidekeyOptions};

/// The target for CPU time per request and for the median latency.
const RATIO_MAX: f64 = 1.10;
/// What the bare proxies get for an Authorization header: as long as a real key.
const NO_KEY: &str = "sk_live_000000000000_000000000000000000000000000000000000000000000000000000";

/// The bare proxy against the bare proxy, or against one without Pingora's default modules.
pub fn run_bare_against_bare(
    bench: &Bench,
    case: Case,
    lean: bool,
    report: &mut Report,
) -> Result<(), String> {
    let folder = bench.folder_for(case)?;
    let (first, first_address) = bench.start_bare(false, folder.path())?;
    let (second, second_address) = bench.start_bare(lean, folder.path())?;
    let sides = [
        Side {
            name: "bare",
            running: &first,
            address: first_address,
        },
        Side {
            name: if lean { "bare, lean" } else { "bare, again" },
            running: &second,
            address: second_address,
        },
    ];
    let ratios = compare(bench, sides, NO_KEY)?;
    let mut note = |what, ratio| report.note(&format!("{}: {what}", case.name()), ratio, "x");
    note("CPU time per request, second by first", ratios.cpu);
    note(
        "median latency at full load, second by first",
        ratios.median,
    );
    note("median latency of a lone caller", ratios.serial_median);
    Ok(())
}

/// The bare proxy against Sidekey.
pub fn run(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Warm)?;
    let (bare, bare_address) = bench.start_bare(false, folder.path())?;
    let options = SidekeyOptions {
        upstream: bench.upstream,
        threads: PROXY_THREADS,
        bcrypt_cost: BCRYPT_COST,
        cpus: &bench.cpus.proxy,
        limits: IN_MEMORY,
    };
    let sidekey = Sidekey::start(&bench.programs, folder.path(), &options)?;
    let key = sidekey.create_one_key()?;
    sidekey.warm(&key)?;
    let sides = [
        Side {
            name: "bare",
            running: &bare,
            address: bare_address,
        },
        Side {
            name: "sidekey",
            running: &sidekey.running,
            address: sidekey.proxy,
        },
    ];
    let ratios = compare(bench, sides, &key)?;
    let mut judge = |what, ratio| report.at_most(what, ratio, RATIO_MAX, "x");
    judge(
        "warm: CPU time per request, by the bare proxy's",
        ratios.cpu,
    );
    judge("warm: median latency at full load, by bare", ratios.median);
    judge(
        "warm: median latency of a lone caller, by bare",
        ratios.serial_median,
    );
    Ok(())
}
