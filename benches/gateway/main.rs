//! What the gateway costs, shown as ratios against baselines that run beside it.
//!
//! `cargo bench --bench gateway` starts nginx as the upstream, a bare Pingora proxy (this
//! executable again, see `bare.rs`) and the release binary, loads them in turns, and prints
//! figures and targets. It exits 0 whether or not a target is met: a busy machine must not fail
//! a build. It exits 1 where it can't measure at all.
//!
//! `SIDEKEY_BENCH_CASES` chooses from noise, lean, warm, forged, unknown, cold, memory, leased, unleased
//! and create; `SIDEKEY_BENCH_ROUNDS`, `_SECONDS`, `_COLD_KEYS` and `_MEMORY_KEYS` set how much of each.

// A bench measures real time and waits in it; it serves nobody.
#![allow(clippy::disallowed_methods)]

mod bare;
mod cases;
mod client;
mod lua_gate;
mod process;
mod redis;
mod report;
mod settings;
mod sidekey;
mod stats;
mod upstream;
mod wrk;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use bare::BareArguments;
use cases::{Bench, cold, create, forged, memory, shared, unknown, warm};
use process::Programs;
use report::Report;
use settings::{Case, Settings};

/// The gateway's allocator, for the baseline too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--role") {
        return match BareArguments::parse(&arguments) {
            Ok(arguments) => bare::run(&arguments),
            Err(error) => fail(&error),
        };
    }
    if !has("--bench") {
        // `cargo test --all-targets` runs benches too, without this flag.
        println!("nothing measured: run `cargo bench --bench gateway`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn run() -> Result<(), String> {
    let settings = Settings::from_environment()?;
    let bench = Bench::prepare(settings, Programs::find()?)?;
    print_conditions(&bench);
    let mut report = Report::default();
    for &case in &bench.settings.cases {
        println!("\n== {} ==", case.name());
        let begin = Instant::now();
        if let Err(error) = run_case(&bench, case, &mut report) {
            println!("void: {error}");
            report.void(case.name(), &error);
        }
        println!("({} s)", begin.elapsed().as_secs());
    }
    report.print();
    Ok(())
}

fn run_case(bench: &Bench, case: Case, report: &mut Report) -> Result<(), String> {
    match case {
        Case::Noise => warm::run_bare_against_bare(bench, case, false, report),
        Case::Lean => warm::run_bare_against_bare(bench, case, true, report),
        Case::Warm => warm::run(bench, report),
        Case::Forged => forged::run(bench, report),
        Case::Unknown => unknown::run(bench, report),
        Case::Cold => cold::run(bench, report),
        Case::Memory => memory::run(bench, report),
        Case::Leased => shared::run_leased(bench, report),
        Case::Unleased => shared::run_unleased(bench, report),
        Case::Create => create::run(bench, report),
    }
}

fn print_conditions(bench: &Bench) {
    let settings = &bench.settings;
    println!(
        "{} rounds of {} s a side; each proxy has 1 thread and mimalloc; upstream nginx on {}",
        settings.rounds,
        settings.measure_for.as_secs(),
        bench.upstream
    );
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "load average before the run (best below 0.5): {}",
        load.trim()
    );
    if bench.cpus.apart {
        println!(
            "the proxy runs on CPU {} alone, load and upstream on the others of {}",
            bench.cpus.proxy, bench.cpus.all
        );
    } else {
        println!("there is one CPU for proxy, load and upstream: latencies mean little");
    }
}
