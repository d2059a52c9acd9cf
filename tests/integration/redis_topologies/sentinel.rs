//! Sentinels: whom they name is who is asked, whatever happens to the one before.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use sidekey::redis_link::url::Login;
use sidekey::redis_link::{RedisLink, Target, Trust};

use super::{CLOSED, LOGIN, Load, PASSWORD, limits_are_shared, one_of_many_passes, users};
use crate::harness::redis::Redis;
use crate::harness::redis::sentinel::{SENTINEL_PASSWORD, Watched};
use crate::harness::upstream::Upstream;
use crate::harness::{DEADLINE, eventually};
use crate::shared_limits::fleet;

/// How long a failover may take: some seconds until the sentinels agree, and their election.
const FAILOVER_MAX: Duration = DEADLINE;
/// A call's limit, and what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_new_master() {
    let upstream = Upstream::start().await;
    let users = users();
    let mut watched = Watched::start(&[&users[0], &users[1]]).await;
    let url = format!("redis-sentinel://{LOGIN}{}/mymaster", watched.hosts());
    let environment = [
        ("SIDEKEY__REDIS__URL", url.as_str()),
        ("SIDEKEY__REDIS__SENTINEL_PASSWORD", SENTINEL_PASSWORD),
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

/// The old master has not heard of it, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_voted_out_is_left() {
    let (watched, other) = (Watched::start(&[]).await, Redis::start().await);
    let url = format!("redis-sentinel://{}/mymaster", watched.hosts());
    let target = Target::new(&SecretString::from(url), &Trust::default()).unwrap();
    let link = RedisLink::new(&target.with_sentinel_login(Some(Login {
        user: None,
        password: SecretString::from(SENTINEL_PASSWORD),
    })));
    let asks = async |port: u16| {
        let mut question = redis::cmd("CONFIG");
        question.arg("GET").arg("port");
        let answer: redis::RedisResult<(String, u16)> = link.query(&question).await;
        answer.is_ok_and(|(_, asked)| asked == port)
    };
    eventually("the master is asked", || asks(watched.servers[0].port)).await;
    let port = other.port.to_string();
    for (number, sentinel) in watched.sentinels.iter().enumerate() {
        // One alone may be mistaken; two of three are believed.
        if number < 2 {
            eventually("the old master is asked", || asks(watched.servers[0].port)).await;
        }
        let remove = ["REMOVE", "mymaster"];
        sentinel.ask::<()>("SENTINEL", &remove).await.unwrap();
        let monitor = ["MONITOR", "mymaster", "127.0.0.1", &port, "2"];
        sentinel.ask::<()>("SENTINEL", &monitor).await.unwrap();
    }
    eventually("the new master is asked", || asks(other.port)).await;
    assert!(watched.is_master(0).await);
}
