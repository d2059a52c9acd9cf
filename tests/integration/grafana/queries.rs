//! Every query of every dashboard finds something, after a load in which everything happens that can be
//! made to happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;
use serde_json::json;

use super::files::{Board, Query};
use super::load::{Load, is_answered_well};
use super::prometheus::{Found, Prometheus, RATE_INTERVAL};
use super::world::{World, age};
use crate::harness::sidekey::KEYS;
use crate::harness::{HEAVY, eventually};

/// How long the last metrics may take to arrive, at the pace of the slowest of them.
const PATIENCE: Duration = Duration::from_secs(180);

/// Queries that find only zeros: what they count is never meant to happen, or not within a test.
const QUIET: &[(&str, &str)] = &[
    ("overview: Instances down (A)", "all are up"),
    ("overview: Alerts firing (A)", "no rules are loaded"),
    ("overview: Alerts firing (B)", "no rules are loaded"),
    ("overview: Connections refused (A)", NEVER_SO_MANY),
    ("overview: bcrypt pool (A)", TOO_SHORT),
    ("overview: bcrypt pool (B)", TOO_SHORT),
    ("overview: Log lines (B)", "the log is read"),
    ("overview: Traces (A)", NEVER_SO_MANY),
    (
        "keys-and-tenants: Keys that can't work (A)",
        "nobody damages the stores",
    ),
    (
        "limits-and-dependencies: Breakers open (A)",
        "asked when all is well again",
    ),
    (
        "limits-and-dependencies: Failed calls (D)",
        "no login ends so soon",
    ),
    ("limits-and-dependencies: In the pool (A)", TOO_SHORT),
    ("limits-and-dependencies: In the pool (B)", TOO_SHORT),
    (
        "limits-and-dependencies: Hashes and refusals (B)",
        NEVER_SO_MANY,
    ),
    (
        "limits-and-dependencies: Usage: stored, failed, lost (C)",
        NEVER_SO_MANY,
    ),
    (
        "limits-and-dependencies: Audit entries (B)",
        "the chain can be continued",
    ),
    ("limits-and-dependencies: Audit entries (C)", NEVER_SO_MANY),
    (
        "limits-and-dependencies: Comparison of database and secret store (C)",
        "no crash leaves anything behind",
    ),
    (
        "limits-and-dependencies: Comparison of database and secret store (D)",
        "no crash leaves anything behind",
    ),
    ("security: Filter of imports (B)", NEVER_SO_MANY),
    ("security: bcrypt (B)", NEVER_SO_MANY),
    ("security: Audit log (B)", "the chain can be continued"),
    ("security: Audit log (C)", NEVER_SO_MANY),
];
const NEVER_SO_MANY: &str = "a test does not make so many";
const TOO_SHORT: &str = "cheap hashes are done between two scrapes";

/// A query with its variables replaced, as Grafana does where everything is chosen.
fn interpolated(text: &str, range: Duration) -> String {
    let range = format!("{}s", range.as_secs().max(1));
    let text = [
        ("$__rate_interval", RATE_INTERVAL),
        ("$__range", &range),
        // Without a value for "all" Grafana joins the values with bars: there is one.
        ("$job", "sidekey"),
        ("$instance", ".*"),
        ("$route", ".*"),
        ("$tenant", ".*"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (name, value)| {
        text.replace(name, value)
    });
    assert!(!text.contains('$'), "an unknown variable in {text}");
    text
}

fn epoch_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("a time after 1970").as_secs()
}

/// Queries that are not content yet, with what they found.
struct Questions {
    open: Vec<Query>,
    found: BTreeMap<String, Found>,
    begin: u64,
}

impl Questions {
    fn of(boards: &[Board]) -> Self {
        let open: Vec<Query> = boards.iter().flat_map(Board::queries).collect();
        let places: BTreeSet<&str> = open.iter().map(|query| &*query.place).collect();
        for (place, why) in QUIET {
            assert!(places.contains(place), "no query is at {place} ({why})");
        }
        Questions {
            open,
            found: BTreeMap::new(),
            begin: epoch_seconds(),
        }
    }

    /// Asks what is open once more; whether nothing is afterwards.
    async fn ask(&mut self, prometheus: &Prometheus) -> bool {
        let end = epoch_seconds();
        let range = Duration::from_secs(end - self.begin);
        let mut open = Vec::new();
        for query in std::mem::take(&mut self.open) {
            let text = interpolated(&query.text, range);
            let found = if query.is_instant {
                prometheus.now(&text).await
            } else {
                prometheus.since(self.begin, end, &text).await
            };
            let is_quiet = QUIET.iter().any(|(place, _)| *place == query.place);
            let enough = if is_quiet {
                Found::Zero
            } else {
                Found::Something
            };
            if found < enough {
                self.found.insert(query.place.clone(), found);
                open.push(query);
            } else {
                self.found.remove(&query.place);
            }
        }
        self.open = open;
        self.open.is_empty()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_finds_data_after_a_mixed_load() {
    let _turn = HEAVY.acquire().await.expect("a turn");
    let boards = Board::all();
    let mut questions = Questions::of(&boards);
    let mut world = World::start().await;
    is_answered_well(&world.one, &world.keys).await;
    let busy = json!({"rate_limits": [{"name": "plenty", "quota": 100_000, "window_seconds": 1}]});
    let busy = world.one.create_key(busy).await;
    let load = Load::start(&world, busy);
    let forwarded = "sum(rate(sidekey_requests_total{outcome=\"forwarded\"}[4s])) > 0";
    eventually("there is load", || world.prometheus.holds(forwarded)).await;

    // Somebody is to be reminded of it, now that the counter was seen at zero.
    age(&world.postgres, &world.keys.good[1]);
    everything_goes_away_in_turn(&mut world).await;

    let start = Instant::now();
    while !questions.ask(&world.prometheus).await && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    load.end().await;
    assert!(
        questions.open.is_empty(),
        "queries without what they ask for: {:#?}",
        questions.found
    );
    what_can_be_chosen_is_there(&boards, &world).await;
}

/// Redis, Vault, the database and an instance, one after the other; each comes back.
async fn everything_goes_away_in_turn(world: &mut World) {
    let prometheus = &world.prometheus;
    let is_open = |name: &str, state: u8| {
        format!("max(sidekey_breaker_open{{dependency=\"{name}\"}}) == {state}")
    };
    let reaches = async |what: &str, query: &str| {
        eventually(what, || prometheus.holds(query)).await;
    };

    world.redis.kill();
    reaches(
        "limits are decided without Redis",
        "sum(rate(sidekey_limit_outage_decisions_total[4s])) > 0",
    )
    .await;
    let failed = "sum(rate(sidekey_events_failed_total[4s])) > 0";
    reaches("changes are not announced", failed).await;
    world.redis.launch().await;
    reaches("Redis is back", "min(sidekey_redis_up > 0) == 1").await;

    world.bao.seal().await;
    reaches("Vault is away", "max(sidekey_vault_up) == 0").await;
    reaches("its breaker opens", &is_open("vault", 1)).await;
    world.bao.unseal().await;
    reaches("its breaker closes", &is_open("vault", 0)).await;

    world.postgres.kill();
    reaches("the database is away", &is_open("database", 1)).await;
    let failures = "sum(increase(sidekey_usage_flush_failures_total[4s])) > 0";
    reaches("usage can't be stored", failures).await;
    world.postgres.launch().await;
    reaches("the database is back", &is_open("database", 0)).await;

    let unconfirmed = "sum(increase(sidekey_propagation_unconfirmed_total[4s])) > 0";
    eventually("a change is not confirmed", || async {
        world.two.signal("STOP");
        let key = &world.keys.good[0].id;
        let name = json!({"name": "one that only one knows"});
        let change = world.one.admin(Method::PATCH, &format!("{KEYS}/{key}"));
        let _ = change.json(&name).send().await;
        world.two.signal("CONT");
        prometheus.holds(unconfirmed).await
    })
    .await;
}

/// The lists above the dashboards have the values that there are.
async fn what_can_be_chosen_is_there(boards: &[Board], world: &World) {
    for board in boards {
        for (name, query) in board.variables() {
            let query = interpolated(query, Duration::from_secs(1));
            let arguments = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (matcher, label) = arguments
                .and_then(|arguments| arguments.rsplit_once(", "))
                .unwrap_or_else(|| panic!("{name} is not asked for by label: {query}"));
            let values = world.prometheus.label_values(matcher, label).await;
            let values = values.unwrap_or_else(|error| panic!("{name}: {error}"));
            let expected = match name {
                "job" => vec!["sidekey".to_owned()],
                "instance" => vec![world.one.admin.to_string(), world.two.admin.to_string()],
                "route" => vec!["orders-read".to_owned(), "public".to_owned()],
                "tenant" => vec!["acme".to_owned(), "globex".to_owned()],
                other => panic!("{other}: what should it have?"),
            };
            for value in expected {
                assert!(values.contains(&value), "{name} has no {value}: {values:?}");
            }
        }
    }
}
