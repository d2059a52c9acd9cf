//! Shared limits on every way to Redis: one server with a user of few rights, or behind TLS; Valkey; a
//! cluster; sentinels. The same checks on each, and what each does when servers go away.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;
use sidekey::redis_link::{RedisLink, Target, Trust};

use crate::harness::eventually;
use crate::harness::redis::cluster::Cluster;
use crate::harness::redis::sentinel::{SENTINEL_PASSWORD, Watched};
use crate::harness::redis::{Redis, free_port, valkey};
use crate::harness::sidekey::{Key, Sidekey};
use crate::harness::upstream::Upstream;
use crate::shared_limits::{Fleet, fleet};
use crate::tls::make_certificates;

const CLOSED: &str = "[limits]\non_outage = \"closed\"\n";
const PASSWORD: &str = "change-this-password";
const LOGIN: &str = "sidekey:change-this-password@";
/// So many tenants are spread over all servers of a cluster, but for bad luck of one in a million.
const TENANTS: usize = 40;

/// The users of config/redis-users.conf, as a server's argument.
fn users() -> [String; 2] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/redis-users.conf");
    ["--include".to_owned(), file.display().to_string()]
}

async fn start_with_users(program: &Path) -> Redis {
    let users = users();
    Redis::start_with(program, &[&users[0], &users[1]]).await
}

fn link(url: &str) -> RedisLink {
    let url = SecretString::from(url);
    RedisLink::new(&Target::new(&url, &Trust::default()).unwrap())
}

/// A key that passes once in an hour.
async fn key_of(fleet: &Fleet, tenant: &str) -> Key {
    let policies = json!([
        {"name": "wide", "quota": 1000, "window_seconds": 3600},
        {"name": "one", "quota": 1, "window_seconds": 3600},
    ]);
    let fields = json!({"rate_limits": policies, "tenant_id": tenant});
    fleet.all[0].create_key(fields).await
}

/// Of many requests over all instances with one token left, one passes.
async fn one_of_many_passes(fleet: &Fleet, tenant: &str) {
    let key = key_of(fleet, tenant).await;
    let calls = (0..12).map(|n| fleet.all[n % fleet.all.len()].status("/", &key.text));
    let mut statuses = join_all(calls).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200, "{tenant}: {statuses:?}");
    assert!(
        statuses[1..].iter().all(|status| *status == 429),
        "{tenant}: {statuses:?}"
    );
}

/// What holds on every topology.
async fn limits_are_shared(fleet: &Fleet, servers: &[&Redis]) {
    for number in 0..4 {
        one_of_many_passes(fleet, &format!("tenant-{number}")).await;
    }
    let mut names = Vec::new();
    for server in servers {
        names.extend(server.keys().await);
        server.ask("SCRIPT", &["FLUSH"]).await.unwrap();
    }
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(name.starts_with("sidekey:{tenant-"), "{name}");
    }
    for number in 4..8 {
        one_of_many_passes(fleet, &format!("tenant-{number}")).await;
    }
}

/// Whoever subscribes hears what is published.
async fn messages_arrive(link: &RedisLink) {
    let mut messages = link.pubsub().await.unwrap();
    messages.subscribe("sidekey:test").await.unwrap();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("sidekey:test").arg("hello");
    let mut stream = messages.on_message();
    // More than one, because in a cluster each may go to another server.
    for _ in 0..3 {
        link.query::<i64>(&publish).await.unwrap();
        let message = tokio::time::timeout(Duration::from_secs(10), stream.next());
        let message = message.await.unwrap().unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), "hello");
    }
}

/// How often `text` stands in what the program wrote.
fn count(sidekey: &Sidekey, text: &str) -> usize {
    sidekey.output().matches(text).count()
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
        tokio::time::sleep(Duration::from_millis(700)).await;
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

/// Which of the cluster's servers has the keys of each tenant.
async fn owners(cluster: &Cluster) -> Vec<usize> {
    let mut names = Vec::new();
    for server in &cluster.servers {
        names.push(server.keys().await);
    }
    (0..TENANTS)
        .map(|tenant| {
            let start = format!("sidekey:{{t-{tenant}}}:");
            let has = |names: &Vec<String>| names.iter().any(|name| name.starts_with(&start));
            names.iter().position(has).expect("somebody has it")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_shares_limits_and_goes_on_where_one_server_is_away() {
    let upstream = Upstream::start().await;
    let users = users();
    let mut cluster = Cluster::start(&[&users[0], &users[1]]).await;
    let url = format!("redis-cluster://{LOGIN}{}", cluster.hosts());
    let environment = [("SIDEKEY__REDIS__URL", url.as_str())];
    let fleet = fleet(2, &upstream, &environment, CLOSED).await;
    limits_are_shared(&fleet, &cluster.servers.iter().collect::<Vec<_>>()).await;
    messages_arrive(&link(&url)).await;

    let policies = json!([{"name": "a", "quota": 1000, "window_seconds": 3600}, {"name": "b", "quota": 1000, "window_seconds": 3600}]);
    let mut keys = Vec::new();
    for tenant in 0..TENANTS {
        let fields = json!({"rate_limits": policies, "tenant_id": format!("t-{tenant}")});
        keys.push(fleet.all[0].create_key(fields).await);
        for sidekey in &fleet.all {
            assert_eq!(sidekey.status("/", &keys[tenant].text).await, 200);
        }
    }
    let owners = owners(&cluster).await;
    cluster.servers[0].ask("SCRIPT", &["FLUSH"]).await.unwrap();
    for key in &keys {
        assert_eq!(fleet.all[0].status("/", &key.text).await, 200);
    }
    for way in ["killed", "hanging"] {
        if way == "killed" {
            cluster.servers[1].kill();
        } else {
            cluster.servers[1].signal("STOP");
            let lost = keys.iter().zip(&owners).find(|(_, owner)| **owner == 1);
            eventually("the server that hangs is given up", || async {
                let start = Instant::now();
                fleet.all[0].status("/", &lost.unwrap().0.text).await == 503
                    && start.elapsed() < Duration::from_millis(500)
            })
            .await;
            let other = keys.iter().zip(&owners).find(|(_, owner)| **owner != 1);
            eventually("calls to the others go on", || async {
                fleet.all[0].status("/", &other.unwrap().0.text).await == 200
            })
            .await;
        }
        // Several times, so that a breaker for all of them would open.
        for _ in 0..3 {
            for (key, owner) in keys.iter().zip(&owners) {
                let expected = if *owner == 1 { 503 } else { 200 };
                let start = Instant::now();
                let status = fleet.all[0].status("/", &key.text).await;
                assert_eq!(status, expected, "{way}: server {owner}");
                assert!(start.elapsed() < Duration::from_secs(2), "{way}");
            }
        }
        assert!(count(&fleet.all[0], "a Redis server can't be used") >= 1);
        if way == "killed" {
            cluster.servers[1].launch().await;
        } else {
            cluster.servers[1].signal("CONT");
        }
        cluster.settled().await;
        for key in &keys {
            eventually("all limits are shared again", || async {
                fleet.all[0].status("/", &key.text).await == 200
            })
            .await;
        }
    }
    // Slots move to another server.
    let (from, to) = (&cluster.servers[1], &cluster.servers[2]);
    let to_id: String = to.query("CLUSTER", &["MYID"]).await.unwrap();
    let (tenant, _) = owners
        .iter()
        .enumerate()
        .find(|(_, owner)| **owner == 1)
        .unwrap();
    let slot: u16 = from
        .query("CLUSTER", &["KEYSLOT", &format!("{{t-{tenant}}}")])
        .await
        .unwrap();
    let slot = slot.to_string();
    let from_id: String = from.query("CLUSTER", &["MYID"]).await.unwrap();
    to.ask("CLUSTER", &["SETSLOT", &slot, "IMPORTING", &from_id])
        .await
        .unwrap();
    from.ask("CLUSTER", &["SETSLOT", &slot, "MIGRATING", &to_id])
        .await
        .unwrap();
    // While the slot moves, a bucket that is not there yet is asked for at the other server. Of several
    // buckets at once no server wants to speak then; others have nothing to do with that.
    let one = json!([{"name": "one", "quota": 1, "window_seconds": 3600}]);
    let fields = json!({"rate_limits": one, "tenant_id": format!("t-{tenant}")});
    let new = fleet.all[0].create_key(fields).await;
    for (number, expected) in [(0, 200), (1, 429), (0, 429)] {
        let status = fleet.all[number].status("/", &new.text).await;
        assert_eq!(status, expected);
    }
    let several = key_of(&fleet, &format!("t-{tenant}")).await;
    for _ in 0..5 {
        assert_eq!(fleet.all[0].status("/", &several.text).await, 503);
    }
    for (key, owner) in keys.iter().zip(&owners) {
        if *owner != 1 {
            assert_eq!(fleet.all[0].status("/", &key.text).await, 200);
        }
    }
    let names: Vec<String> = from
        .query("CLUSTER", &["GETKEYSINSLOT", &slot, "100"])
        .await
        .unwrap();
    let port = to.port.to_string();
    let mut migrate = vec!["127.0.0.1", &port, "", "0", "5000", "KEYS"];
    migrate.extend(names.iter().map(String::as_str));
    from.ask("MIGRATE", &migrate).await.unwrap();
    for server in [to, from] {
        server
            .ask("CLUSTER", &["SETSLOT", &slot, "NODE", &to_id])
            .await
            .unwrap();
    }
    for sidekey in &fleet.all {
        assert_eq!(sidekey.status("/", &keys[tenant].text).await, 200);
    }
    one_of_many_passes(&fleet, &format!("t-{tenant}")).await;
    for sidekey in &fleet.all {
        assert!(!sidekey.output().contains(PASSWORD));
    }
}

/// One answer, when it came, and how long it took.
#[derive(Debug)]
struct Answer {
    status: u16,
    at: Duration,
    took: Duration,
}

/// Requests one after another, until it is told to end.
struct Load {
    task: tokio::task::JoinHandle<Vec<Answer>>,
    end: tokio::sync::watch::Sender<bool>,
}

impl Load {
    fn start(sidekey: &Sidekey, key: &Key) -> Self {
        let (client, url) = (sidekey.client.clone(), format!("http://{}/", sidekey.proxy));
        let key = key.text.clone();
        let (end, ended) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let (start, mut answers) = (Instant::now(), Vec::new());
            while !*ended.borrow() {
                let at = start.elapsed();
                let answer = client.get(&url).bearer_auth(&key).send().await.unwrap();
                answers.push(Answer {
                    status: answer.status().as_u16(),
                    at,
                    took: start.elapsed() - at,
                });
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answers
        });
        Load { task, end }
    }

    async fn end(self) -> Vec<Answer> {
        self.end.send(true).unwrap();
        self.task.await.unwrap()
    }
}

/// How long a failover may take: a second until the sentinels agree, and their election.
const FAILOVER_MAX: Duration = Duration::from_secs(15);
const TIMEOUT_MS: &str = "250";
/// A call's limit, and what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_new_master() {
    let upstream = Upstream::start().await;
    let users = users();
    let mut watched = Watched::start(&[&users[0], &users[1]]).await;
    let url = format!("redis-sentinel://{LOGIN}{}/mymaster", watched.hosts());
    let environment = [
        ("SIDEKEY__REDIS__URL", url.as_str()),
        ("SIDEKEY__REDIS__SENTINEL_PASSWORD", SENTINEL_PASSWORD),
        ("SIDEKEY__REDIS__TIMEOUT_MS", TIMEOUT_MS),
    ];
    let fleet = fleet(2, &upstream, &environment, CLOSED).await;
    limits_are_shared(&fleet, &[&watched.servers[0]]).await;
    let policies = json!([{"name": "p", "quota": 1_000_000, "window_seconds": 60}]);
    let key = fleet.key(policies).await;
    for (master, way) in [(0, "killed"), (1, "hanging")] {
        let loads: Vec<_> = (0..2).map(|n| Load::start(&fleet.all[n], &key)).collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let replica = 1 - master;
        if way == "killed" {
            watched.servers[master].kill();
        } else {
            watched.servers[master].signal("STOP");
        }
        eventually("the replica is promoted", || watched.is_master(replica)).await;
        for sidekey in &fleet.all {
            eventually("limits are shared again", || async {
                sidekey.status("/", &key.text).await == 200
            })
            .await;
        }
        one_of_many_passes(&fleet, "acme").await;
        // The old master comes back, and has to follow.
        if way == "killed" {
            watched.servers[master].launch().await;
        } else {
            watched.servers[master].signal("CONT");
        }
        eventually("the old master follows", || async {
            !watched.is_master(master).await
        })
        .await;
        one_of_many_passes(&fleet, "acme").await;
        for load in loads {
            let answers = load.end().await;
            let slowest = answers.iter().map(|answer| answer.took).max().unwrap();
            assert!(slowest < ANSWER_MAX, "{way}: {slowest:?}");
            let refused: Vec<_> = answers.iter().filter(|a| a.status == 503).collect();
            assert!(answers.iter().all(|a| matches!(a.status, 200 | 503)));
            let (Some(first), Some(last)) = (refused.first(), refused.last()) else {
                panic!("a failover is not noticed: {way}");
            };
            assert!(last.at - first.at < FAILOVER_MAX, "{way}");
            assert_eq!(answers.last().unwrap().status, 200, "{way}");
        }
        eventually("the new replica is known", || async {
            let replica = &watched.servers[master];
            let info: String = replica.query("INFO", &["replication"]).await.unwrap();
            let known: redis::RedisResult<()> = watched.sentinels[0]
                .ask("SENTINEL", &["CKQUORUM", "mymaster"])
                .await;
            info.contains("master_link_status:up") && known.is_ok()
        })
        .await;
    }
    // With one sentinel less, on command: the old master lives on, as a replica.
    watched.sentinels[0].kill();
    let old = usize::from(watched.is_master(1).await);
    eventually("the failover begins", || async {
        let begun: redis::RedisResult<()> = watched.sentinels[1]
            .ask("SENTINEL", &["FAILOVER", "mymaster"])
            .await;
        begun.is_ok()
    })
    .await;
    eventually("the roles are changed", || async {
        watched.is_master(1 - old).await && !watched.is_master(old).await
    })
    .await;
    for sidekey in &fleet.all {
        eventually("limits are shared again", || async {
            sidekey.status("/", &key.text).await == 200
        })
        .await;
    }
    one_of_many_passes(&fleet, "acme").await;
    for sidekey in &fleet.all {
        let output = sidekey.output();
        assert!(!output.contains(PASSWORD) && !output.contains(SENTINEL_PASSWORD));
    }
}
