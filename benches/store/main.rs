//! How long a page of a list takes among very many keys, on both engines, at any depth and with the
//! filters that are hard: those that few keys or none pass, or only the oldest.
//!
//! And how long it takes to store the usage of many active keys (`flush`).
//!
//! Targets: at most 10 ms a page of 50, and 500 ms for the usage of 10,000 keys. `cargo bench --bench
//! store` fills a database of each engine and prints median, 99th percentile and maximum of each case.
//! It exits 0 whether or not the targets are met. `SIDEKEY_BENCH_KEYS` sets how many keys there are
//! (1,000,000); `SIDEKEY_BENCH_ENGINE` names one engine (`sqlite` or `postgres`), `SIDEKEY_BENCH_CASE`
//! one case (`flush` or `lists`). The flush needs no release build: with `--profile dev` it takes seconds.

// A bench measures real time; it serves nobody.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used
)]

mod fill;
mod flush;
#[allow(dead_code, unused_imports)]
#[path = "../../tests/integration/harness/mod.rs"]
mod harness;

use std::time::{Duration, Instant};

use secrecy::SecretString;
use sidekey::clock::Timestamp;
use sidekey::key::{Environment, Status};
use sidekey::store::{KeyFilter, KeyOrder, KeyStore, PAGE_LEN_MAX, PageFrom, Position, SqlStore};

use fill::{STEP_MS, fill, fill_uses, now};
use harness::postgres::Postgres;

const KEYS: u64 = 1_000_000;
const PAGE_LEN: usize = 50;
const PAGE_MS_MAX: f64 = 10.0;
/// Active keys whose usage is stored, how often, and how long it may take.
const FLUSH_KEYS: usize = 10_000;
const FLUSHES: usize = 7;
const FLUSH_MS_MAX: f64 = 500.0;
/// Where reading starts: at the newest key, and behind so many thousandths of all.
const DEPTHS: [u64; 6] = [0, 1, 100, 500, 900, 999];
/// The cases that are read in every order.
const SORTED_CASES: [&str; 6] = [
    "none",
    "tenant big",
    "tenant old",
    "tenant big, active",
    "\"service\" (all have it)",
    "\"99999\" (few)",
];
/// Pages that are read from each depth on.
const PAGES: usize = 50;

#[tokio::main]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benches too, without this flag.
        println!("nothing measured: run `cargo bench --bench store`");
        return;
    }
    let keys = std::env::var("SIDEKEY_BENCH_KEYS");
    let keys = keys.map_or(KEYS, |text| {
        text.parse().expect("SIDEKEY_BENCH_KEYS is a number")
    });
    let engine = std::env::var("SIDEKEY_BENCH_ENGINE").unwrap_or_default();
    let case = std::env::var("SIDEKEY_BENCH_CASE").unwrap_or_default();
    if engine != "postgres" {
        let directory = tempfile::tempdir().expect("a directory");
        let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
        measure_all("SQLite", sqlite, keys, &case).await;
    }
    if engine != "sqlite" {
        let postgres = Postgres::start().await;
        measure_all("PostgreSQL", postgres.url(), keys, &case).await;
    }
}

async fn measure_all(engine: &str, url: String, keys: u64, case: &str) {
    if case != "lists" {
        measure_flush(engine, &url).await;
    }
    if case != "flush" {
        measure(engine, url, keys).await;
    }
}

async fn measure_flush(engine: &str, url: &str) {
    let store = SqlStore::open(&SecretString::from(url)).await;
    let store = store.expect("a store");
    println!("\n== {engine}: usage of {FLUSH_KEYS} active keys, stored {FLUSHES} times ==");
    let times = flush::flush(&store, FLUSH_KEYS, FLUSHES).await;
    let millis: Vec<String> = times
        .iter()
        .map(|time| format!("{:.0}", time.as_secs_f64() * 1000.0))
        .collect();
    let worst = times.into_iter().max().unwrap_or_default().as_secs_f64() * 1000.0;
    let verdict = if worst <= FLUSH_MS_MAX {
        "met"
    } else {
        "MISSED"
    };
    println!("{} ms", millis.join(", "));
    println!("the longest: {worst:.0} ms; target {FLUSH_MS_MAX} ms: {verdict}");
    store.close().await;
}

async fn measure(engine: &str, url: String, keys: u64) {
    let url = SecretString::from(url);
    let store = SqlStore::open(&url).await.expect("a store");
    let start = Instant::now();
    let pool = fill(&url, keys).await.expect("keys");
    fill_uses(&pool, keys).await.expect("uses");
    pool.close().await;
    println!(
        "\n== {engine}: {keys} keys ({} s to fill) ==",
        start.elapsed().as_secs()
    );
    println!(
        "{:<44} {:>6} {:>7} {:>8} {:>8} {:>8}",
        "filter", "pages", "keys", "median", "p99", "max"
    );
    let mut worst: f64 = 0.0;
    for (name, filter, limit) in cases() {
        let figures = read(&store, &filter, limit, keys).await;
        println!("{name:<44} {figures}");
        if limit == PAGE_LEN {
            worst = worst.max(figures.p99());
        }
    }
    for (name, filter, _) in cases() {
        if !SORTED_CASES.contains(&name.as_str()) {
            continue;
        }
        for order in KeyOrder::ALL {
            let figures = read_sorted(&store, &filter, order).await;
            let name = format!("{name}, {}", order.as_str());
            println!("{name:<44} {figures}");
            worst = worst.max(figures.p99());
        }
    }
    let verdict = if worst <= PAGE_MS_MAX {
        "met"
    } else {
        "MISSED"
    };
    println!(
        "worst 99th percentile of a page of {PAGE_LEN}: {worst:.1} ms; target {PAGE_MS_MAX} ms: {verdict}"
    );
    store.close().await;
}

fn cases() -> Vec<(String, KeyFilter, usize)> {
    let all = KeyFilter::default();
    let tenant = |tenant: &str| KeyFilter {
        tenant_id: Some(tenant.parse().expect("a tenant")),
        ..KeyFilter::default()
    };
    let status = |filter: KeyFilter, status| KeyFilter {
        status: Some((status, now())),
        ..filter
    };
    let text = |filter: KeyFilter, text: &str| KeyFilter {
        text: Some(text.to_owned()),
        ..filter
    };
    let mut cases = vec![
        ("none".to_owned(), all.clone(), PAGE_LEN),
        ("none, pages of 100".to_owned(), all.clone(), 100),
        ("none, pages of 1000".to_owned(), all.clone(), PAGE_LEN_MAX),
        (
            "test (one key)".to_owned(),
            KeyFilter {
                environment: Some(Environment::Test),
                ..all.clone()
            },
            PAGE_LEN,
        ),
    ];
    for name in ["big", "old", "t17", "nobody"] {
        cases.push((format!("tenant {name}"), tenant(name), PAGE_LEN));
    }
    for wanted in Status::ALL {
        let word = wanted.as_str();
        cases.push((word.to_owned(), status(all.clone(), wanted), PAGE_LEN));
        for name in ["big", "old"] {
            cases.push((
                format!("tenant {name}, {word}"),
                status(tenant(name), wanted),
                PAGE_LEN,
            ));
        }
    }
    for (what, words) in [
        ("all have it", "service"),
        ("a quarter has it", "PARTNER"),
        ("one, the oldest", "needle"),
        ("one", "service 123456"),
        ("few", "99999"),
        ("none, unknown characters", "zzz"),
        ("none, but all its parts are frequent", "314159265358"),
        ("short", "9 "),
    ] {
        cases.push((
            format!("\"{words}\" ({what})"),
            text(all.clone(), words),
            PAGE_LEN,
        ));
        cases.push((
            format!("\"{words}\", tenant big, expired"),
            text(status(tenant("big"), Status::Expired), words),
            PAGE_LEN,
        ));
        cases.push((
            format!("\"{words}\", tenant t17"),
            text(tenant("t17"), words),
            PAGE_LEN,
        ));
    }
    cases
}

struct Figures {
    times: Vec<Duration>,
    keys: usize,
}

impl Figures {
    fn at(&self, share: f64) -> f64 {
        let last = self.times.len() - 1;
        self.times[(last as f64 * share).ceil() as usize].as_secs_f64() * 1000.0
    }

    fn p99(&self) -> f64 {
        self.at(0.99)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (pages, keys) = (self.times.len(), self.keys);
        let (median, p99, max) = (self.at(0.5), self.p99(), self.at(1.0));
        write!(
            f,
            "{pages:>6} {keys:>7} {median:>8.2} {p99:>8.2} {max:>8.2}"
        )
    }
}

/// Reads from the beginning on, and as many pages back.
async fn read_sorted(store: &SqlStore, filter: &KeyFilter, order: KeyOrder) -> Figures {
    let (mut times, mut keys) = (Vec::new(), 0);
    let mut from = PageFrom::Start;
    for page in 0..2 * PAGES {
        let start = Instant::now();
        let found = store.page(filter, order, &from, PAGE_LEN);
        let found = found.await.expect("a page");
        times.push(start.elapsed());
        keys += found.keys.len();
        let next = found.next.filter(|_| page < PAGES).map(PageFrom::After);
        match next.or(found.previous.map(PageFrom::Before)) {
            Some(place) => from = place,
            None => break,
        }
    }
    times.sort_unstable();
    Figures { times, keys }
}

/// Reads on from every depth, until there are no more pages or enough were read.
async fn read(store: &SqlStore, filter: &KeyFilter, limit: usize, keys: u64) -> Figures {
    let mut figures = Figures {
        times: Vec::new(),
        keys: 0,
    };
    for depth in DEPTHS {
        let newest = i64::try_from(keys - keys * depth / 1000).expect("a number");
        let mut from = PageFrom::Start;
        if depth > 0 {
            let moment = Timestamp::from_millis(newest * STEP_MS);
            let last = "zzzzzzzzzzzz".parse().expect("an id");
            from = PageFrom::After(Position::behind(moment, last));
        }
        for _ in 0..PAGES {
            let start = Instant::now();
            let page = store.page(filter, KeyOrder::NEWEST_FIRST, &from, limit);
            let page = page.await.expect("a page");
            figures.times.push(start.elapsed());
            figures.keys += page.keys.len();
            match page.next {
                Some(next) => from = PageFrom::After(next),
                None => break,
            }
        }
    }
    figures.times.sort_unstable();
    figures
}
