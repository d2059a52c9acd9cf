//! A cluster: what one of its servers does is no business of the others' keys.

use std::time::{Duration, Instant};

use redis::{ErrorKind, Script};
use serde_json::json;
use sidekey::redis_link::RedisLink;
use tokio::time::timeout;

use super::{
    CLOSED, LOGIN, PASSWORD, count, key_of, limits_are_shared, link, messages_arrive,
    one_of_many_passes, users,
};
use crate::harness::eventually;
use crate::harness::redis::cluster::Cluster;
use crate::harness::upstream::Upstream;
use crate::shared_limits::fleet;

/// How long one decision may wait: nobody waits as long for a server that is known to be away.
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_MS: &str = "10000";
/// So many tenants are spread over all servers of a cluster, but for bad luck of one in a million.
const TENANTS: usize = 40;

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
    let environment = [
        ("SIDEKEY__REDIS__URL", url.as_str()),
        ("SIDEKEY__REDIS__TIMEOUT_MS", TIMEOUT_MS),
    ];
    let fleet = fleet(2, &upstream, &environment, CLOSED).await;
    limits_are_shared(&fleet, &cluster.servers.iter().collect::<Vec<_>>()).await;
    messages_arrive(&link(&url)).await;

    // So slow that no bucket is full again, and forgotten, before it is known who has it.
    let policies = json!([{"name": "a", "quota": 1000, "window_seconds": 2_592_000}, {"name": "b", "quota": 1000, "window_seconds": 2_592_000}]);
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
                assert!(start.elapsed() < TIMEOUT, "{way}");
            }
        }
        eventually("the log tells", || async {
            count(&fleet.all[0], "a Redis server can't be used") >= 1
        })
        .await;
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

/// One call about `key`, of a caller that waits for `limit`.
async fn set(link: &RedisLink, key: &str, limit: Duration) -> Option<redis::RedisResult<()>> {
    let script = Script::new("redis.call('SET', KEYS[1], 1, 'EX', 3600)");
    timeout(limit, link.run(script.prepare_invoke().key(key)))
        .await
        .ok()
}

/// What callers of one server see goes no further, and it does not take them long.
#[tokio::test(flavor = "multi_thread")]
async fn errors_about_one_server_or_slot_are_known_as_such() {
    let cluster = Cluster::start(&[]).await;
    let link = link(&format!("redis-cluster://{}", cluster.hosts()));
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let mut keys = Vec::new();
    for server in &cluster.servers {
        let before = keys.len();
        for name in (0..).map(|number| format!("k{number}")) {
            set(&link, &name, minute).await.unwrap().unwrap();
            if server.keys().await.contains(&name) {
                keys.push(name);
                break;
            }
        }
        assert_eq!(keys.len(), before + 1);
    }

    cluster.servers[1].signal("STOP");
    let mut late = 0;
    // As long as it takes to give it up, and to try it again.
    let start = Instant::now();
    while start.elapsed() < 4 * second {
        match set(&link, &keys[1], second / 20).await {
            None => late += 1,
            Some(result) => {
                let error = result.unwrap_err();
                assert!(link.is_about_one_of_several(&error), "{error}");
                tokio::time::sleep(second / 100).await;
            }
        }
    }
    // None, where its silence was noticed before the first call.
    assert!(late <= 10, "{late} were not answered");
    eventually("calls to the others go on", || async {
        matches!(set(&link, &keys[0], minute).await, Some(Ok(())))
    })
    .await;
    cluster.servers[1].signal("CONT");
    eventually("it is used again", || async {
        matches!(set(&link, &keys[1], second).await, Some(Ok(())))
    })
    .await;

    let keyslot: u16 = cluster.servers[0]
        .query("CLUSTER", &["KEYSLOT", &keys[2]])
        .await
        .unwrap();
    for server in &cluster.servers {
        let slot = keyslot.to_string();
        server.ask("CLUSTER", &["DELSLOTS", &slot]).await.unwrap();
    }
    eventually("nobody has the slot", || async {
        let error = set(&link, &keys[2], minute).await.unwrap().unwrap_err();
        error.kind() == ErrorKind::ClusterConnectionNotFound && link.is_about_one_of_several(&error)
    })
    .await;
}
