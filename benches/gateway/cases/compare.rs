//! Two proxies, measured in turns: what a comparison says is the ratio within a round, so a
//! machine that is slower for a minute is slower for both.

use std::net::SocketAddr;
use std::time::Duration;

use super::Bench;
use crate::client::paced;
use crate::process::Running;
use crate::sidekey::{PATH, bearer, request_with};
use crate::stats::{median, percentile_us, range};
use crate::wrk;

/// Connections and rate of the second load: a few percent to a fifth of what one thread can do,
/// so a request finds the proxy idle and its time is the proxy's own, not its queue's.
const PACED_CONNECTIONS: usize = 8;
const PACED_PER_SECOND: u32 = 2_000;
/// Before the first round each side gets the load for so long: connections, caches, page faults.
const WARM_UP: Duration = Duration::from_secs(2);

/// One of the two.
pub struct Side<'a> {
    pub name: &'a str,
    pub running: &'a Running,
    pub address: SocketAddr,
}

/// What one measurement of one side gave.
struct Measured {
    cpu_us: f64,
    requests_per_second: f64,
    median_us: f64,
    p99_us: f64,
    paced_median_us: f64,
}

/// The medians of the ratios, second side by first.
pub struct Ratios {
    pub cpu: f64,
    pub median: f64,
    pub paced_median: f64,
}

/// A column of the table.
type Column = (&'static str, fn(&Measured) -> f64);

const COLUMNS: [Column; 5] = [
    ("CPU us/request", |m| m.cpu_us),
    ("requests/s", |m| m.requests_per_second),
    ("median us", |m| m.median_us),
    ("p99 us", |m| m.p99_us),
    ("paced median us", |m| m.paced_median_us),
];

/// Loads both sides with the same request, in turns, and prints what came of it.
pub fn compare(bench: &Bench, sides: [Side; 2], key: &str) -> Result<Ratios, String> {
    let settings = &bench.settings;
    for side in &sides {
        wrk::run(&bench.programs, side.address, PATH, &bearer(key), WARM_UP)?;
    }
    print_header();
    let mut rounds = Vec::with_capacity(settings.rounds);
    for round in 0..settings.rounds {
        let pair = measure_pair(bench, &sides, key, round)?;
        for (side, measured) in sides.iter().zip(&pair) {
            print_row(&(round + 1).to_string(), side.name, |column| {
                column.1(measured)
            });
        }
        rounds.push(pair);
    }
    Ok(print_summary(&sides, &rounds))
}

/// The first of a round is the second of the next one: a drift of the machine favours nobody.
fn measure_pair(
    bench: &Bench,
    sides: &[Side; 2],
    key: &str,
    round: usize,
) -> Result<[Measured; 2], String> {
    let [first, second] = sides;
    if round.is_multiple_of(2) {
        let measured = measure(bench, first, key)?;
        Ok([measured, measure(bench, second, key)?])
    } else {
        let measured = measure(bench, second, key)?;
        Ok([measure(bench, first, key)?, measured])
    }
}

fn measure(bench: &Bench, side: &Side, key: &str) -> Result<Measured, String> {
    let run_for = bench.settings.measure_for;
    let cpu_before = side.running.cpu_time()?;
    let full = wrk::run(&bench.programs, side.address, PATH, &bearer(key), run_for)?;
    let cpu = side.running.cpu_time()?.saturating_sub(cpu_before);
    let mut light = paced(
        side.address,
        PACED_CONNECTIONS,
        PACED_PER_SECOND,
        run_for,
        &request_with(key),
    );
    light.expect_only(&[200])?;
    let requests = full.requests as f64;
    Ok(Measured {
        cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        requests_per_second: requests / run_for.as_secs_f64(),
        median_us: full.median_us,
        p99_us: full.p99_us,
        paced_median_us: percentile_us(&mut light.latencies, 50),
    })
}

fn print_header() {
    print!("{:<7} {:<16}", "round", "");
    for (name, _) in COLUMNS {
        print!(" {name:>15}");
    }
    println!();
}

fn print_row(round: &str, name: &str, value: impl Fn(&Column) -> f64) {
    print!("{round:<7} {name:<16}");
    for column in &COLUMNS {
        print!(" {:>15.1}", value(column));
    }
    println!();
}

fn print_summary(sides: &[Side; 2], rounds: &[[Measured; 2]]) -> Ratios {
    for (index, side) in sides.iter().enumerate() {
        print_row("median", side.name, |column| {
            let values: Vec<f64> = rounds.iter().map(|pair| column.1(&pair[index])).collect();
            median(&values)
        });
    }
    let ratios_of = |value: fn(&Measured) -> f64| -> Vec<f64> {
        rounds.iter().map(|[a, b]| value(b) / value(a)).collect()
    };
    print_ratios("ratio", |column| median(&ratios_of(column.1)));
    print_ratios("least", |column| range(&ratios_of(column.1)).0);
    print_ratios("most", |column| range(&ratios_of(column.1)).1);
    Ratios {
        cpu: median(&ratios_of(|m| m.cpu_us)),
        median: median(&ratios_of(|m| m.median_us)),
        paced_median: median(&ratios_of(|m| m.paced_median_us)),
    }
}

fn print_ratios(name: &str, value: impl Fn(&Column) -> f64) {
    print!("{name:<7} {:<16}", "second/first");
    for column in &COLUMNS {
        print!(" {:>15.3}", value(column));
    }
    println!();
}
