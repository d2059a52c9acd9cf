//! How long the dashboard's first page takes among very many keys, and how much of it goes over the wire,
//! on both engines: the real program, and a client that has signed in and asks as a browser does.
//!
//! Targets: a median of at most 20 ms until the page is there, and at most 100 kB for the page with all its
//! styles and scripts. `cargo bench --bench dashboard` prints the figures; it exits 0 whether or not the
//! targets are met. `SIDEKEY_BENCH_KEYS` sets how many keys there are (100,000), `SIDEKEY_BENCH_ENGINE`
//! names one engine (`sqlite` or `postgres`).

// A bench measures real time; it serves nobody.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used
)]

#[allow(dead_code)]
#[path = "../store/fill.rs"]
mod fill;
#[allow(dead_code, unused_imports)]
#[path = "../../tests/integration/harness/mod.rs"]
mod harness;
mod weight;

use std::time::{Duration, Instant, SystemTime};

use reqwest::{Client, Method, RequestBuilder};
use secrecy::SecretString;
use sqlx::{AnyPool, AssertSqlSafe};

use harness::postgres::Postgres;
use harness::sidekey::{Sidekey, config};
use harness::upstream::nobody;

const KEYS: u64 = 100_000;
const PAGE: &str = "/dashboard/settings/developers/api-keys";
/// What people look at, the page that the target is for first.
const VIEWS: [(&str, &str); 5] = [
    ("first page", ""),
    ("first page, 100 keys", "?limit=100"),
    ("by name", "?sort=name"),
    ("last used first", "?sort=-last_used_at"),
    ("search", "?q=service+99"),
];
const REQUESTS: usize = 200;
/// Requests before it is measured.
const WARM_UP: usize = 10;
const MS_MAX: f64 = 20.0;
const BYTES_MAX: usize = 100_000;
/// Keys with traffic in every hour of the last day: the newest ones.
const USED: u64 = 1_000;
const HOUR_MS: u64 = 3_600_000;

#[tokio::main]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benches too, without this flag.
        println!("nothing measured: run `cargo bench --bench dashboard`");
        return;
    }
    sqlx::any::install_default_drivers();
    let keys = std::env::var("SIDEKEY_BENCH_KEYS");
    let keys = keys.map_or(KEYS, |text| {
        text.parse().expect("SIDEKEY_BENCH_KEYS is a number")
    });
    let engine = std::env::var("SIDEKEY_BENCH_ENGINE").unwrap_or_default();
    if engine != "postgres" {
        let sidekey = Sidekey::start(&config(nobody(), "")).await;
        let file = sidekey.directory().join("data/sidekey.db");
        let url = format!("sqlite://{}", file.display());
        measure("SQLite", &sidekey, url, keys).await;
    }
    if engine != "sqlite" {
        let postgres = Postgres::start().await;
        let store = format!("[store]\nurl = \"{}\"\n", postgres.url());
        let sidekey = Sidekey::start(&config(nobody(), &store)).await;
        measure("PostgreSQL", &sidekey, postgres.url(), keys).await;
    }
}

async fn measure(engine: &str, sidekey: &Sidekey, url: String, keys: u64) {
    let pool = fill::fill(&SecretString::from(url), keys).await;
    let pool = pool.expect("keys");
    use_newest(&pool, keys).await.expect("usage");
    pool.close().await;
    let browser = Browser::sign_in(sidekey).await;
    println!("\n== {engine}: {keys} keys ==");
    println!(
        "{:<24} {:>8} {:>8} {:>8} {:>9}",
        "view", "median", "p99", "max", "bytes"
    );
    for (number, (name, query)) in VIEWS.into_iter().enumerate() {
        let figures = browser.read(query).await;
        println!("{name:<24} {figures}");
        if number == 0 {
            let median = figures.at(0.5);
            println!(
                "  target {MS_MAX} ms in the median: {}",
                verdict(median <= MS_MAX)
            );
        }
    }
    let bytes = weight::of_page(&browser, PAGE).await;
    println!(
        "the first page with all that it loads: {bytes} bytes; target {BYTES_MAX}: {}",
        verdict(bytes <= BYTES_MAX)
    );
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

/// Traffic of the last day for the newest keys.
async fn use_newest(pool: &AnyPool, keys: u64) -> Result<(), sqlx::Error> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or_default();
    let hour = now - now % HOUR_MS;
    let first = keys.saturating_sub(USED);
    let newest = "SELECT id FROM api_keys WHERE created_at >";
    let hours = format!(
        "INSERT INTO usage_hours (subject, start, requests, errors_4xx, errors_5xx, denied, \
           rate_limited, bytes_in, bytes_out, latency_us_sum, latency_us_max) \
         WITH RECURSIVE hours (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM hours WHERE n < 47) \
         SELECT 'key/' || id, {hour} - n * {HOUR_MS}, 1000 + 37 * n, 0, 0, 0, 0, 0, 0, 0, 0 \
         FROM ({newest} {}) AS newest CROSS JOIN hours",
        first * fill::STEP_MS as u64
    );
    let uses = format!(
        "INSERT INTO key_uses (key_id, generation, last_used_at, last_used_ip) \
         SELECT id, 1, {now}, '192.0.2.1' FROM ({newest} {}) AS newest",
        first * fill::STEP_MS as u64
    );
    for statement in [hours, uses] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Somebody who has signed in.
struct Browser<'a> {
    sidekey: &'a Sidekey,
    client: Client,
    cookie: String,
}

impl<'a> Browser<'a> {
    async fn sign_in(sidekey: &'a Sidekey) -> Self {
        let url = format!("http://{}/dashboard/sign-in", sidekey.admin);
        let answer = sidekey
            .client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("key={}", sidekey.admin_key()))
            .send()
            .await
            .expect("an answer");
        let cookie = answer.headers().get("set-cookie").expect("a session");
        let cookie = cookie.to_str().expect("text").split(';').next();
        Browser {
            sidekey,
            client: sidekey.client.clone(),
            cookie: cookie.expect("a pair").to_owned(),
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.sidekey.admin);
        let request = self.client.request(Method::GET, url);
        request.header("cookie", &self.cookie)
    }

    /// Asks for a view again and again.
    async fn read(&self, query: &str) -> Figures {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for number in 0..WARM_UP + REQUESTS {
            let request = self.get(&format!("{PAGE}{query}"));
            let start = Instant::now();
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let page = answer.bytes().await.expect("a page");
            if number >= WARM_UP {
                times.push(start.elapsed());
            }
            bytes = page.len();
        }
        times.sort_unstable();
        Figures { times, bytes }
    }
}

struct Figures {
    times: Vec<Duration>,
    bytes: usize,
}

impl Figures {
    /// Milliseconds that this share of all requests took at most.
    fn at(&self, share: f64) -> f64 {
        let last = self.times.len() - 1;
        self.times[(last as f64 * share).ceil() as usize].as_secs_f64() * 1000.0
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (median, p99, max) = (self.at(0.5), self.at(0.99), self.at(1.0));
        write!(f, "{median:>8.2} {p99:>8.2} {max:>8.2} {:>9}", self.bytes)
    }
}
