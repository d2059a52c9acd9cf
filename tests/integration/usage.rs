//! What keys were used for: what clients count is what the API tells, over several instances, their
//! restarts and outages of the database; and who may ask for it.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sidekey::usage::counts::{DAY_MS, HOUR_MS};

use crate::admin::millis;
use crate::harness::eventually;
use crate::harness::fleet::Fleet;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

const USAGE: &str = "/api/v1/platform/usage";
/// Often, so that tests need not wait.
const OFTEN: &str = "[usage]\nflush_interval_seconds = 1\n";

/// Counters, as clients see them and as the API tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    requests: u64,
    errors_4xx: u64,
    errors_5xx: u64,
    denied: u64,
    rate_limited: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Tally {
    fn of(value: &Value) -> Self {
        let count = |name: &str| {
            let count = value[name].as_u64();
            count.unwrap_or_else(|| panic!("{name} of {value}"))
        };
        Tally {
            requests: count("requests"),
            errors_4xx: count("errors_4xx"),
            errors_5xx: count("errors_5xx"),
            denied: count("denied"),
            rate_limited: count("rate_limited"),
            bytes_in: count("bytes_in"),
            bytes_out: count("bytes_out"),
        }
    }

    fn plus(mut self, other: Tally) -> Self {
        self.requests += other.requests;
        self.errors_4xx += other.errors_4xx;
        self.errors_5xx += other.errors_5xx;
        self.denied += other.denied;
        self.rate_limited += other.rate_limited;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self
    }
}

/// What a client asks for, and how it ends.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Well,
    Upload,
    ServiceSays(u16),
    Denied,
    Limited,
}

/// Sends one request and adds it to `tally` as the client sees it.
async fn send(sidekey: &Sidekey, key: &Key, ask: Ask, tally: &mut Tally) {
    let (method, path) = match ask {
        Ask::Upload => (Method::POST, "/things"),
        Ask::Denied => (Method::GET, "/write"),
        Ask::Well | Ask::ServiceSays(_) | Ask::Limited => (Method::GET, "/things"),
    };
    let mut request = sidekey.request(method, path).bearer_auth(&key.text);
    if let Ask::ServiceSays(status) = ask {
        request = request.header("x-answer-status", status.to_string());
    }
    if let Ask::Upload = ask {
        request = request.body("x".repeat(1000));
        tally.bytes_in += 1000;
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    tally.requests += 1;
    match ask {
        Ask::Well | Ask::Upload => assert_eq!(status, 200),
        Ask::Denied => {
            assert_eq!(status, 403);
            tally.denied += 1;
        }
        Ask::Limited => {
            assert_eq!(status, 429);
            tally.rate_limited += 1;
        }
        Ask::ServiceSays(says) => {
            assert_eq!(status, says);
            if says < 500 {
                tally.errors_4xx += 1;
            } else {
                tally.errors_5xx += 1;
            }
        }
    }
    tally.bytes_out += answer.bytes().await.expect("a body").len() as u64;
}

/// A known mixture.
const MIXTURE: [Ask; 8] = [
    Ask::Well,
    Ask::Upload,
    Ask::ServiceSays(404),
    Ask::ServiceSays(429),
    Ask::ServiceSays(500),
    Ask::Denied,
    Ask::Denied,
    Ask::Well,
];

/// A route that needs a scope which the tests' keys don't have.
fn scoped(more: &str) -> String {
    format!(
        "[[routes]]\nname = \"write\"\npath = \"/write\"\nupstream = \"service\"\n\
         scopes = [\"orders:write\"]\n{more}"
    )
}

async fn key_of(sidekey: &Sidekey, tenant: &str) -> Key {
    let fields = json!({"tenant_id": tenant, "scopes": ["orders:read"], "rate_limits": []});
    sidekey.create_key(fields).await
}

async fn shown(sidekey: &Sidekey, key: &Key) -> Value {
    let path = format!("{KEYS}/{}", key.id);
    sidekey.ask(Method::GET, &path, None).await.json()
}

async fn usage(sidekey: &Sidekey, path: &str) -> Value {
    let reply = sidekey.ask(Method::GET, path, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.json()
}

fn of_key(key: &Key) -> String {
    format!("{KEYS}/{}/usage", key.id)
}

fn of_tenant(tenant: &str) -> String {
    format!("{USAGE}?tenant_id={tenant}")
}

async fn total(sidekey: &Sidekey, path: &str) -> Tally {
    Tally::of(&usage(sidekey, path).await["totals"])
}

/// Waits until the API tells `expected` of `path`.
async fn comes_to(sidekey: &Sidekey, path: &str, expected: Tally) {
    let mut last = Tally::default();
    let start = std::time::Instant::now();
    while start.elapsed() < crate::harness::DEADLINE {
        last = total(sidekey, path).await;
        if last == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last, expected, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_count_is_what_is_told() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, &scoped(OFTEN))).await;
    let key = key_of(&sidekey, "red").await;
    let before = shown(&sidekey, &key).await;
    assert_eq!(before["last_used_at"], Value::Null);
    assert_eq!(before["usage"]["requests"], 0);
    let mut tally = Tally::default();
    for ask in MIXTURE {
        send(&sidekey, &key, ask, &mut tally).await;
    }
    // Who only has a wrong key is nobody's request.
    let mut wrong = key.text.clone();
    wrong.replace_range(wrong.len() - 20..wrong.len() - 19, "x");
    assert_eq!(sidekey.status("/things", &wrong).await, 401);
    // A limit is one of Sidekey's, and the service's 429 is not.
    let limits = json!({"rate_limits": [{"name": "n", "quota": 1, "window_seconds": 3600}]});
    sidekey.change_key(&key.id, limits).await;
    send(&sidekey, &key, Ask::Well, &mut tally).await;
    for _ in 0..3 {
        send(&sidekey, &key, Ask::Limited, &mut tally).await;
    }
    // What is refused whoever sends it is a request of the key all the same.
    let long = sidekey.request(Method::GET, "/a//b").bearer_auth(&key.text);
    let answer = long.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    tally.requests += 1;
    tally.errors_4xx += 1;
    tally.bytes_out += answer.bytes().await.unwrap().len() as u64;
    // Denied before scopes and limits are looked at.
    for change in [
        json!({"status": "disabled"}),
        json!({"status": "active", "expires_at": "2001-01-01T00:00:00Z"}),
        json!({"expires_at": null, "allowed_ips": ["192.0.2.1"]}),
    ] {
        sidekey.change_key(&key.id, change).await;
        let answer = sidekey.get("/things", &key.text).await;
        assert!(matches!(answer.status().as_u16(), 401 | 403));
        tally.requests += 1;
        tally.denied += 1;
        tally.bytes_out += answer.bytes().await.unwrap().len() as u64;
    }
    for path in [of_key(&key), of_tenant("red"), USAGE.to_owned()] {
        comes_to(&sidekey, &path, tally).await;
    }
    assert_eq!(
        total(&sidekey, &of_tenant("nobody")).await,
        Tally::default()
    );

    let after = shown(&sidekey, &key).await;
    assert_eq!(Tally::of(&after["usage"]), tally);
    assert_eq!(after["last_used_ip"], "127.0.0.1");
    assert!(millis(&after["last_used_at"]) >= millis(&after["created_at"]));
    assert_eq!(after["previous_secret"], Value::Null);
    let list = sidekey.ask(Method::GET, KEYS, None).await.json();
    let listed = &list["data"][0];
    assert_eq!(listed["id"], key.id);
    assert_eq!(listed["last_used_at"], after["last_used_at"]);
    assert!(listed.get("usage").is_none());
    // The admin key of these calls is in use as well.
    eventually("the admin key is in use", || async {
        let list = sidekey.ask(Method::GET, KEYS, None).await.json();
        list["data"][1]["last_used_ip"] == "127.0.0.1"
    })
    .await;

    // By the hour; what was counted may be of two of them.
    let hours = usage(&sidekey, &format!("{}?interval=hour", of_key(&key))).await;
    let rows = hours["data"].as_array().unwrap();
    assert!(matches!(rows.len(), 24 | 25), "{}", rows.len());
    assert_eq!(hours["interval"], "hour");
    assert_eq!(hours["from"], rows[0]["start"]);
    assert_eq!(Tally::of(&hours["totals"]), tally);
    let mut sum = Tally::default();
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(
            millis(&row["start"]) - millis(&rows[0]["start"]),
            n as i64 * HOUR_MS
        );
        let of_row = Tally::of(row);
        sum = sum.plus(of_row);
        let (mean, max) = (&row["latency_ms_mean"], &row["latency_ms_max"]);
        let (mean, max) = (mean.as_f64().unwrap(), max.as_f64().unwrap());
        assert_eq!(mean > 0.0, of_row.requests > 0, "{row}");
        assert!(max >= mean, "{row}");
    }
    assert_eq!(sum, tally);
    let days = usage(&sidekey, &of_key(&key)).await;
    let rows = days["data"].as_array().unwrap();
    assert_eq!(days["interval"], "day");
    assert!(matches!(rows.len(), 30 | 31), "{}", rows.len());
    assert_eq!(
        millis(&rows[1]["start"]) - millis(&rows[0]["start"]),
        DAY_MS
    );
    assert_eq!(
        millis(&days["to"]) - millis(&days["from"]),
        rows.len() as i64 * DAY_MS
    );
}

/// Nobody is refused, so nothing is denied.
#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_mode_what_happened_is_counted() {
    let upstream = Upstream::start().await;
    let more = scoped(&format!("[proxy]\nmode = \"shadow\"\n{OFTEN}"));
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let key = key_of(&sidekey, "red").await;
    assert_eq!(sidekey.status("/write", &key.text).await, 200);
    sidekey
        .change_key(&key.id, json!({"status": "disabled"}))
        .await;
    assert_eq!(sidekey.status("/write", &key.text).await, 200);
    let body = "answer to GET /write".len() as u64;
    let tally = Tally {
        requests: 2,
        bytes_out: 2 * body,
        ..Tally::default()
    };
    comes_to(&sidekey, &of_key(&key), tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_uses_the_old_secret_is_seen() {
    let upstream = Upstream::start().await;
    let more = format!("[proxy]\ntrusted_proxies = [\"127.0.0.1\"]\n{OFTEN}");
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let old = key_of(&sidekey, "red").await;
    let call = async |key: &Key, from: &str| {
        let request = sidekey.request(Method::GET, "/").bearer_auth(&key.text);
        let answer = request.header("x-forwarded-for", from).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    };
    call(&old, "192.0.2.1").await;
    let new = sidekey.regenerate_key(&old.id, 3600).await;
    // The use before the regeneration is one of what is the old secret now.
    eventually("the old secret's use is known", || async {
        shown(&sidekey, &old).await["previous_secret"]["last_used_ip"] == "192.0.2.1"
    })
    .await;
    call(&new, "192.0.2.2").await;
    eventually("the new secret's use is known", || async {
        shown(&sidekey, &old).await["last_used_ip"] == "192.0.2.2"
    })
    .await;
    let key = shown(&sidekey, &old).await;
    let previous = &key["previous_secret"];
    assert_eq!(previous["last_used_ip"], "192.0.2.1");
    assert!(millis(&previous["last_used_at"]) < millis(&key["last_used_at"]));
    let grace = millis(&previous["valid_until"]) - millis(&key["updated_at"]);
    assert_eq!(grace, 3_600_000);
    call(&old, "2001:db8::3").await;
    eventually("the old secret is seen again", || async {
        let key = shown(&sidekey, &old).await;
        key["previous_secret"]["last_used_ip"] == "2001:db8::3"
            && key["last_used_ip"] == "2001:db8::3"
    })
    .await;
    // Other answers about the key say the same.
    let key = shown(&sidekey, &old).await;
    let changed = sidekey.change_key(&old.id, json!({"name": "n"})).await;
    let listed = sidekey.ask(Method::GET, KEYS, None).await.json();
    for other in [&changed, &listed["data"][0]] {
        assert_eq!(other["previous_secret"], key["previous_secret"]);
        assert_eq!(other["last_used_at"], key["last_used_at"]);
    }
    sidekey.revoke_key(&old.id).await;
    let revoked = shown(&sidekey, &old).await;
    assert_eq!(revoked["previous_secret"], Value::Null);
    assert_eq!(revoked["last_used_at"], key["last_used_at"]);
}

/// Sends the mixture with each key so many times, on some instances at once; what clients count.
async fn load(instances: &[Sidekey], keys: &[Key], rounds: usize) -> Vec<Tally> {
    let sending = instances.iter().map(|sidekey| async move {
        let mut tallies = vec![Tally::default(); keys.len()];
        for _ in 0..rounds {
            for (key, tally) in keys.iter().zip(&mut tallies) {
                for ask in MIXTURE {
                    send(sidekey, key, ask, tally).await;
                }
            }
        }
        tallies
    });
    let all = join_all(sending).await;
    all.into_iter()
        .fold(vec![Tally::default(); keys.len()], |sum, more| {
            sum.into_iter().zip(more).map(|(a, b)| a.plus(b)).collect()
        })
}

fn plus(all: Vec<Tally>, more: Vec<Tally>) -> Vec<Tally> {
    all.into_iter().zip(more).map(|(a, b)| a.plus(b)).collect()
}

/// Each key, each tenant and the platform come to what clients have counted. The first two keys are of
/// tenant `red`, the third one of `blue`; the rest is what the fleet itself did, of `acme`.
async fn all_come_to(sidekey: &Sidekey, keys: &[Key], tallies: &[Tally]) {
    for (key, tally) in keys.iter().zip(tallies) {
        comes_to(sidekey, &of_key(key), *tally).await;
        assert_eq!(Tally::of(&shown(sidekey, key).await["usage"]), *tally);
    }
    let red = tallies[0].plus(tallies[1]);
    comes_to(sidekey, &of_tenant("red"), red).await;
    comes_to(sidekey, &of_tenant("blue"), tallies[2]).await;
    let acme = total(sidekey, &of_tenant("acme")).await;
    comes_to(sidekey, USAGE, acme.plus(red).plus(tallies[2])).await;
}

async fn three_keys(sidekey: &Sidekey) -> Vec<Key> {
    let mut keys = Vec::new();
    for tenant in ["red", "red", "blue"] {
        keys.push(key_of(sidekey, tenant).await);
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_and_their_restarts_lose_nothing() {
    let postgres = Postgres::start().await;
    // So rarely that only the end of a process stores what it has counted.
    let rarely = scoped("[usage]\nflush_interval_seconds = 300\n");
    let mut fleet = Fleet::start(3, &postgres.url(), None, &rarely).await;
    let keys = three_keys(&fleet.all[0]).await;
    let mut tallies = load(&fleet.all, &keys, 3).await;
    for _ in 0..3 {
        let mut ended = fleet.all.remove(0);
        ended.signal("TERM");
        // The others go on meanwhile.
        let others = load(&fleet.all, &keys, 2).await;
        assert!(ended.wait().success());
        tallies = plus(tallies, others);
        ended.reconfigure(config(fleet.upstream(), &scoped(OFTEN)));
        fleet.all.push(ended.restart().await);
        tallies = plus(tallies, load(&fleet.all[2..], &keys, 2).await);
    }
    all_come_to(&fleet.all[0], &keys, &tallies).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_loses_nothing() {
    let mut postgres = Postgres::start().await;
    let fleet = Fleet::start(2, &postgres.url(), None, &scoped(OFTEN)).await;
    let keys = three_keys(&fleet.all[0]).await;
    let mut tallies = load(&fleet.all, &keys, 1).await;
    for way in ["killed", "hanging"] {
        if way == "killed" {
            postgres.kill();
        } else {
            postgres.signal("STOP");
        }
        tallies = plus(tallies, load(&fleet.all, &keys, 2).await);
        for sidekey in &fleet.all {
            eventually("rows wait", || async {
                sidekey.metric("sidekey_usage_pending_rows").await >= 3.0
                    && sidekey.metric("sidekey_usage_flush_failures_total").await > 0.0
            })
            .await;
        }
        tallies = plus(tallies, load(&fleet.all, &keys, 1).await);
        if way == "killed" {
            postgres.launch().await;
        } else {
            postgres.signal("CONT");
        }
        eventually("the database answers", || async {
            let reply = fleet.all[0].ask(Method::GET, USAGE, None).await;
            reply.status == 200
        })
        .await;
        all_come_to(&fleet.all[0], &keys, &tallies).await;
    }
    for sidekey in &fleet.all {
        assert_eq!(
            sidekey.metric("sidekey_usage_rows_dropped_total").await,
            0.0
        );
        assert!(sidekey.metric("sidekey_usage_flushes_total").await > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_what_was_not_flushed_and_no_more() {
    let upstream = Upstream::start().await;
    let mut sidekey = Sidekey::start(&config(upstream.address, &scoped(OFTEN))).await;
    let key = [key_of(&sidekey, "red").await];
    let stored = load(std::slice::from_ref(&sidekey), &key, 3).await[0];
    comes_to(&sidekey, &of_key(&key[0]), stored).await;
    let more = load(std::slice::from_ref(&sidekey), &key, 3).await[0];
    sidekey.kill();
    let sidekey = sidekey.restart().await;
    let left = total(&sidekey, &of_key(&key[0])).await;
    assert!(left.requests >= stored.requests, "{left:?}");
    assert!(left.requests <= stored.requests + more.requests, "{left:?}");
    assert_eq!(left, total(&sidekey, USAGE).await);
    // A new process is a new instance: its first batch is not taken for one that was there.
    let again = load(std::slice::from_ref(&sidekey), &key, 2).await[0];
    comes_to(&sidekey, &of_key(&key[0]), left.plus(again)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_answered_with_all_that_is_wrong() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let key = key_of(&sidekey, "red").await;
    let wrong = "interval=week&from=yesterday&to=tomorrow&x=1";
    let cases = [
        (wrong, vec!["from", "interval", "to", "x"]),
        (
            "from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z",
            vec!["from"],
        ),
        (
            "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
            vec!["from"],
        ),
        (
            "from=2020-01-01T00:00:00Z&to=2023-01-01T00:00:00Z",
            vec!["from"],
        ),
        ("interval=hour&to=2020-01-01T00:00:00Z", vec!["from"]),
        ("limit=5&cursor=x", vec!["cursor", "limit"]),
    ];
    for (query, fields) in &cases {
        for path in [of_key(&key), USAGE.to_owned()] {
            let reply = sidekey
                .ask(Method::GET, &format!("{path}?{query}"), None)
                .await;
            assert_eq!(reply.bad_fields(), *fields, "{path} {query}");
        }
    }
    let path = format!("{}?tenant_id=red", of_key(&key));
    let reply = sidekey.ask(Method::GET, &path, None).await;
    assert_eq!(reply.bad_fields(), ["tenant_id"]);
    let path = format!("{USAGE}?tenant_id=../red");
    let reply = sidekey.ask(Method::GET, &path, None).await;
    assert_eq!(reply.bad_fields(), ["tenant_id"]);
    let most = "from=2020-01-01T00:00:00Z&to=2022-09-27T00:00:00Z";
    let body = usage(&sidekey, &format!("{USAGE}?{most}")).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1000);
    assert_eq!(body["from"], "2020-01-01T00:00:00Z");
    assert_eq!(body["to"], "2022-09-27T00:00:00Z");
    let post = sidekey.ask(Method::POST, USAGE, None).await;
    post.problem(405);
    let unknown = format!("{KEYS}/000000000000/usage");
    sidekey.ask(Method::GET, &unknown, None).await.problem(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_another_tenants_usage() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let with = async |tenant: &str, scope: &str| {
        let fields = json!({"tenant_id": tenant, "scopes": [scope]});
        sidekey.create_key(fields).await
    };
    let red = with("red", "sidekey:usage:read").await;
    let admin = with("red", "sidekey:admin").await;
    let reader = with("red", "sidekey:keys:read").await;
    let blue = key_of(&sidekey, "blue").await;
    let mine = key_of(&sidekey, "red").await;
    let ask = async |key: &Key, path: &str| {
        sidekey
            .ask_as(Some(&key.text), Method::GET, path, None)
            .await
    };
    for path in [of_key(&mine), of_tenant("red")] {
        assert_eq!(ask(&red, &path).await.status, 200, "{path}");
        assert_eq!(ask(&admin, &path).await.status, 200, "{path}");
        let refused = ask(&reader, &path).await;
        refused.problem(403);
        assert!(refused.text.contains("sidekey:usage:read"), "{refused:?}");
        let nobody = sidekey.ask_as(None, Method::GET, &path, None).await;
        nobody.problem(401);
    }
    for path in [of_key(&blue), of_tenant("blue"), of_tenant("nobody")] {
        ask(&red, &path).await.problem(404);
        assert_eq!(ask(&admin, &path).await.status, 200, "{path}");
    }
    let platform = ask(&red, USAGE).await;
    platform.problem(403);
    assert!(platform.text.contains("sidekey:admin"), "{platform:?}");
    assert_eq!(ask(&admin, USAGE).await.status, 200);
}
