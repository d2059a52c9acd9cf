//! Two proxies, measured in turns: what a comparison says is the ratio within a round, so a
//! machine that is slower for a minute is slower for both.

use std::net::SocketAddr;
use std::time::Duration;

use super::Bench;
use crate::process::Running;
use crate::sidekey::{PATH, bearer};
use crate::stats::{median, range};
use crate::wrk::{self, WrkReport};

/// Connections of the load that keeps the proxy's CPU busy: the one CPU time is taken from.
/// Its latency is mostly a place in the queue, and so another view of the same cost.
const CONNECTIONS_FULL: usize = 32;
/// One caller who waits for each answer: its latency is what the proxy adds to a lone request.
/// Wake-ups take most of it, for both sides alike.
const CONNECTIONS_SERIAL: usize = 1;
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
    serial_median_us: f64,
}

/// The medians of the ratios, second side by first.
pub struct Ratios {
    pub cpu: f64,
    pub median: f64,
    pub serial_median: f64,
}

/// A column of the table.
type Column = (&'static str, fn(&Measured) -> f64);

const COLUMNS: [Column; 5] = [
    ("CPU us/request", |m| m.cpu_us),
    ("requests/s", |m| m.requests_per_second),
    ("median us", |m| m.median_us),
    ("p99 us", |m| m.p99_us),
    ("serial med. us", |m| m.serial_median_us),
];

/// Loads both sides with the same request, in turns, and prints what came of it.
pub fn compare(bench: &Bench, sides: [Side; 2], key: &str) -> Result<Ratios, String> {
    let settings = &bench.settings;
    for side in &sides {
        load(bench, side, key, CONNECTIONS_FULL, WARM_UP)?;
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
    let full = load(bench, side, key, CONNECTIONS_FULL, run_for)?;
    let cpu = side.running.cpu_time()?.saturating_sub(cpu_before);
    let serial = load(bench, side, key, CONNECTIONS_SERIAL, run_for)?;
    Ok(Measured {
        cpu_us: cpu.as_secs_f64() * 1e6 / full.requests as f64,
        requests_per_second: full.requests_per_second,
        median_us: full.median_us,
        p99_us: full.p99_us,
        serial_median_us: serial.median_us,
    })
}

fn load(
    bench: &Bench,
    side: &Side,
    key: &str,
    connections: usize,
    run_for: Duration,
) -> Result<WrkReport, String> {
    wrk::run(
        &bench.programs,
        side.address,
        PATH,
        &bearer(key),
        connections,
        run_for,
    )
    .map_err(|error| format!("{}: {error}", side.name))
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
        serial_median: median(&ratios_of(|m| m.serial_median_us)),
    }
}

fn print_ratios(name: &str, value: impl Fn(&Column) -> f64) {
    print!("{name:<7} {:<16}", "second/first");
    for column in &COLUMNS {
        print!(" {:>15.3}", value(column));
    }
    println!();
}
