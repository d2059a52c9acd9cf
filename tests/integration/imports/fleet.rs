//! Several instances: what one imports works on all.

use super::{import, log_in, plain, send, statuses, strong};
use crate::harness::fleet::{FIELD, Fleet, all_of};
use crate::harness::postgres::Postgres;
use futures_util::future::join_all;
use serde_json::Value;

const SETTINGS: &str = r#"
[credentials]
sources = ["bearer", "basic"]
[store]
propagation_wait_ms = 10000
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_imports_works_on_all_when_it_answers() {
    let postgres = Postgres::start().await;
    let fleet = Fleet::start(3, &postgres.url(), None, SETTINGS).await;
    let [a, b, c] = &fleet.all[..] else {
        panic!("three");
    };
    for (number, from) in [(1, a), (2, b), (3, c)] {
        let hash = bcrypt::non_truncating_hash("wonderland", 4).unwrap();
        let user = format!("user{number}");
        let login = super::line(serde_json::json!({"user": user, "hash": hash}));
        let reply = send(from, "", &[plain(&strong(number)), login]).await;
        assert_eq!(statuses(&reply), ["created"; 2]);
        assert_eq!(reply.header(FIELD), Some(&*all_of(3)));
        for sidekey in &fleet.all {
            assert_eq!(sidekey.status("/", &strong(number)).await, 200);
            assert_eq!(log_in(sidekey, &user, "wonderland").await, 200);
        }
    }
    for sidekey in &fleet.all {
        assert_eq!(sidekey.metric("sidekey_imported_keys").await, 6.0);
        assert_eq!(sidekey.status("/", &strong(4)).await, 401);
    }
}

/// The same list at the same time: each key is there once.
#[tokio::test(flavor = "multi_thread")]
async fn instances_that_import_the_same_at_once_agree() {
    let postgres = Postgres::start().await;
    let fleet = Fleet::start(3, &postgres.url(), None, SETTINGS).await;
    let lines: Vec<Value> = (0..60).map(|number| plain(&strong(number))).collect();
    // An answer says how far it came where a busy machine needs longer: then the rest follows.
    let sending = fleet.all.iter().map(async |sidekey| {
        let mut results: Vec<Value> = Vec::new();
        while results.len() < lines.len() {
            let reply = send(sidekey, "", &lines[results.len()..]).await;
            let done = reply.json()["results"].as_array().unwrap().clone();
            assert!(!done.is_empty(), "{reply:?}");
            results.extend(done);
        }
        results
    });
    let all: Vec<Vec<Value>> = join_all(sending).await;
    let total = |status: &str| {
        let results = all.iter().flatten();
        results.filter(|result| result["status"] == status).count()
    };
    assert_eq!((total("created"), total("existing")), (60, 120));
    let ids = |results: &[Value]| -> Vec<Value> {
        let ids = results.iter().map(|result| result["key_id"].clone());
        ids.collect()
    };
    for results in &all {
        assert_eq!(ids(results), ids(&all[0]));
    }
    let later = import(&fleet.all[1], &[plain(&strong(99))]).await;
    assert_eq!(later.len(), 1);
}
