//! What limits cost that several instances share through a real Redis: with leases by the bare
//! proxy, without them by nginx with Lua, which asks as often. One bucket a key.

use super::compare::{Ratios, Side, compare};
use super::{BCRYPT_COST, Bench, PROXY_THREADS};
use crate::lua_gate;
use crate::process::Running;
use crate::redis::Redis;
use crate::report::Report;
use crate::settings::Case;
use crate::sidekey::{Sidekey, SidekeyOptions};

/// The target for a leased request's CPU time, by the bare proxy's.
const LEASED_RATIO_MAX: f64 = 1.15;
/// The target for an unleased request's CPU time, by nginx with Lua's.
const UNLEASED_RATIO_MAX: f64 = 1.0;
/// The targets for calls of Redis for each 1,000 requests.
const LEASED_CALLS_MAX: f64 = 20.0;
const UNLEASED_CALLS: f64 = 1000.0;

fn start(
    bench: &Bench,
    case: Case,
    redis: &Redis,
    max_lease_ms: u64,
) -> Result<(tempfile::TempDir, Sidekey, String), String> {
    let folder = bench.folder_for(case)?;
    let more = format!(
        "[redis]\nurl = \"{}\"\ntimeout_ms = 1000\n\n[limits]\nbackend = \"redis\"\non_outage = \"closed\"\nmax_lease_ms = {max_lease_ms}\n",
        redis.url()
    );
    let options = SidekeyOptions {
        upstream: bench.upstream,
        threads: PROXY_THREADS,
        bcrypt_cost: BCRYPT_COST,
        cpus: &bench.cpus.proxy,
        limits: &more,
    };
    let sidekey = Sidekey::start(&bench.programs, folder.path(), &options)?;
    let key = sidekey.create_key_with_one_bucket()?;
    sidekey.warm(&key)?;
    Ok((folder, sidekey, key))
}

/// Compares, and counts Redis's calls for each 1,000 of Sidekey's requests meanwhile; `by_other` of
/// them are the other side's.
fn compare_and_count(
    bench: &Bench,
    (name, running, address): (&'static str, &Running, std::net::SocketAddr),
    sidekey: &Sidekey,
    redis: &Redis,
    key: &str,
) -> Result<(Ratios, f64), String> {
    let sides = [
        Side {
            name,
            running,
            address,
        },
        Side {
            name: "sidekey",
            running: &sidekey.running,
            address: sidekey.proxy,
        },
    ];
    let ratios = compare(bench, sides, key)?;
    let (calls, requests) = (redis.scripts_run()?, sidekey.forwarded()?);
    sidekey.load(bench, key)?;
    let (calls, requests) = (
        redis.scripts_run()? - calls,
        sidekey.forwarded()? - requests,
    );
    Ok((ratios, calls as f64 * 1000.0 / requests))
}

/// The bare proxy against Sidekey with leases.
pub fn run_leased(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Leased)?;
    let redis = Redis::start(&bench.programs, folder.path())?;
    let (_own, sidekey, key) = start(bench, Case::Leased, &redis, 50)?;
    let (bare, bare_address) = bench.start_bare(false, folder.path())?;
    let other = ("bare", &bare, bare_address);
    let (ratios, calls) = compare_and_count(bench, other, &sidekey, &redis, &key)?;
    let what = "leased: CPU time per request, by the bare proxy's";
    report.at_most(what, ratios.cpu, LEASED_RATIO_MAX, "x");
    report.note(
        "leased: median latency at full load, by bare",
        ratios.median,
        "x",
    );
    let what = "leased: calls of Redis for 1,000 requests of a hot key";
    report.at_most(what, calls, LEASED_CALLS_MAX, "");
    Ok(())
}

/// nginx with Lua against Sidekey without leases.
pub fn run_unleased(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = bench.folder_for(Case::Unleased)?;
    let redis = Redis::start(&bench.programs, folder.path())?;
    let (_own, sidekey, key) = start(bench, Case::Unleased, &redis, 0)?;
    let (gate, gate_address) = lua_gate::start(
        &bench.programs,
        &bench.cpus,
        folder.path(),
        bench.upstream,
        &redis,
        &key,
    )?;
    let other = ("nginx with Lua", &gate, gate_address);
    let (ratios, calls) = compare_and_count(bench, other, &sidekey, &redis, &key)?;
    let what = "unleased: CPU time per request, by nginx with Lua's";
    report.at_most(what, ratios.cpu, UNLEASED_RATIO_MAX, "x");
    report.note(
        "unleased: median latency at full load, by nginx with Lua",
        ratios.median,
        "x",
    );
    let what = "unleased: calls of Redis for 1,000 requests";
    let holds = (calls - UNLEASED_CALLS).abs() <= 1.0;
    report.must_hold(what, holds, format!("{calls:.1}"));
    Ok(())
}
