//! One server: a user of few rights, logins that are refused, TLS, a restart.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{
    CLOSED, LOGIN, Load, PASSWORD, count, key_of, limits_are_shared, link, messages_arrive,
    one_of_many_passes, users,
};
use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::redis::{Redis, valkey};
use crate::harness::upstream::Upstream;
use crate::shared_limits::fleet;
use crate::tls::make_certificates;

async fn start_with_users(program: &Path) -> Redis {
    let users = users();
    Redis::start_with(program, &[&users[0], &users[1]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_few_rights_is_enough() {
    let upstream = Upstream::start().await;
    for program in [Path::new("redis-server"), &valkey()] {
        let mut redis = start_with_users(program).await;
        let url = format!("redis://{LOGIN}{}", redis.address());
        let environment = [("SIDEKEY__REDIS__URL", url.as_str())];
        let fleet = fleet(2, &upstream, &environment, CLOSED).await;
        limits_are_shared(&fleet, &[&redis]).await;
        let link = link(&url);
        messages_arrive(&link).await;
        for forbidden in [
            "GET sidekey:x",
            "PUBLISH others x",
            "FLUSHALL",
            "CONFIG GET *",
        ] {
            let mut words = forbidden.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            command.arg(words.collect::<Vec<_>>());
            let refused = link.query::<redis::Value>(&command).await.unwrap_err();
            assert_eq!(refused.code(), Some("NOPERM"), "{forbidden}: {refused}");
        }
        redis.kill();
        redis.launch().await;
        let key = fleet.key(json!(null)).await;
        for sidekey in &fleet.all {
            eventually("limits are shared again", || async {
                sidekey.status("/", &key.text).await == 200
            })
            .await;
        }
        one_of_many_passes(&fleet, "later").await;
        for sidekey in &fleet.all {
            assert!(!sidekey.output().contains(PASSWORD));
        }
    }
}

/// Nobody but the log hears of a restart where outages are bridged.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_not_seen_where_outages_are_bridged() {
    let (upstream, mut redis) = (Upstream::start().await, Redis::start().await);
    let url = redis.url();
    for rule in ["local", "open"] {
        let more = format!("[limits]\non_outage = \"{rule}\"\n");
        let environment = [("SIDEKEY__REDIS__URL", url.as_str())];
        let fleet = fleet(2, &upstream, &environment, &more).await;
        let policies = json!([{"name": "p", "quota": 1_000_000, "window_seconds": 60}]);
        let key = fleet.key(policies).await;
        let loads: Vec<_> = (0..2).map(|n| Load::start(&fleet.all[n], &key)).collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.kill();
        for sidekey in &fleet.all {
            eventually("Redis is given up", || async {
                sidekey.metric("sidekey_redis_up").await == 0.0
            })
            .await;
        }
        redis.launch().await;
        for sidekey in &fleet.all {
            eventually("Redis answers again", || async {
                count(sidekey, "Redis answers again") > 0
            })
            .await;
        }
        for load in loads {
            let answers = load.end().await;
            let wrong = answers.iter().find(|answer| answer.status != 200);
            assert!(wrong.is_none(), "{rule}: {wrong:?}");
        }
    }
}

/// What is wrong with a login, or with its rights, is said once, without the password; the rule for
/// outages holds meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_what_to_do() {
    let upstream = Upstream::start().await;
    let redis = start_with_users(Path::new("redis-server")).await;
    let weak = ["SETUSER", "weak", "on", ">weak-password", "~sidekey:*"];
    let weak: Vec<&str> = weak
        .into_iter()
        .chain(["+ping", "+evalsha", "+script|load"])
        .collect();
    redis.ask("ACL", &weak).await.unwrap();
    let open = "[[routes]]\nname = \"open\"\npath = \"/open\"\nupstream = \"service\"\non_outage = \"open\"\n";
    let more = format!("{open}{CLOSED}");
    for (login, hint) in [
        (
            "sidekey:wrong-password@",
            "put the right USER:PASSWORD@ into redis.url",
        ),
        (
            "nobody:wrong-password@",
            "put the right USER:PASSWORD@ into redis.url",
        ),
        ("weak:weak-password@", "config/redis-users.conf"),
    ] {
        let url = format!("redis://{login}{}", redis.address());
        let fleet = fleet(1, &upstream, &[("SIDEKEY__REDIS__URL", &url)], &more).await;
        let sidekey = &fleet.all[0];
        let key = key_of(&fleet, "acme").await;
        for _ in 0..10 {
            assert_eq!(sidekey.status("/", &key.text).await, 503, "{login}");
            assert_eq!(sidekey.status("/open", &key.text).await, 200, "{login}");
        }
        eventually("the log says what to do", || async {
            count(sidekey, hint) > 0 && count(sidekey, "Redis is away") > 0
        })
        .await;
        // Once by each who connects (for decisions, to tell of changes, to hear of them), and by the one who
        // wanted a decision.
        let said = count(sidekey, hint);
        assert!(said <= 4, "{}", sidekey.output());
        // It answers a PING of the last one, which is not to decide.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(count(sidekey, "Redis is away"), 1);
        assert_eq!(sidekey.metric("sidekey_redis_up").await, 0.0);
        let output = sidekey.output();
        assert!(!output.contains("wrong-password") && !output.contains("weak-password"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_on_both_sides() {
    let upstream = Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (authority, certificate, key) = (file("ca.pem"), file("leaf.pem"), file("leaf.key"));
    let port = free_port().to_string();
    let mut arguments = vec!["--tls-port", &port, "--tls-ca-cert-file", &authority];
    arguments.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
    arguments.extend(["--tls-auth-clients", "yes"]);
    let redis = Redis::start_with(Path::new("redis-server"), &arguments).await;
    let url = format!("rediss://localhost:{port}");
    let trusting = [
        ("SIDEKEY__REDIS__URL", url.as_str()),
        ("SIDEKEY__REDIS__CA_FILE", &authority),
        ("SIDEKEY__REDIS__CLIENT_CERT_FILE", &certificate),
        ("SIDEKEY__REDIS__CLIENT_KEY_FILE", &key),
    ];
    let all = fleet(2, &upstream, &trusting, CLOSED).await;
    limits_are_shared(&all, &[&redis]).await;
    // Who trusts the system's authorities only, and who shows nothing.
    for (environment, hint) in [
        (&trusting[..1], "UnknownIssuer"),
        (&trusting[..2], "a Redis server can't be used"),
    ] {
        let strict = fleet(1, &upstream, environment, CLOSED).await;
        let sidekey = &strict.all[0];
        let key = key_of(&strict, "acme").await;
        assert_eq!(sidekey.status("/", &key.text).await, 503);
        eventually("the log says why", || async { count(sidekey, hint) > 0 }).await;
        if hint == "UnknownIssuer" {
            assert!(sidekey.output().contains("redis.ca_file"));
        }
    }
}
