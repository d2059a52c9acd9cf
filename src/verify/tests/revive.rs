//! Keys that become live without a secret, for who has proven one before.

use super::*;

fn admits(key: &LiveKey, generation: i64) -> Result<(), Denial> {
    let now = SystemClock::new().now();
    let client = "192.0.2.1".parse().unwrap();
    key.view().admits(Generation(generation), client, now)
}

#[tokio::test]
async fn a_key_is_revived_without_bcrypt_and_is_the_one_that_requests_use() {
    let bench = bench(8).await;
    let (key, _) = bench.create(4).await;
    let revived = bench.verifier.revive(key.id).await.unwrap();
    assert_eq!(admits(&revived, 1), Ok(()));
    assert_eq!(bench.metrics.bcrypt_runs.get(), 0);
    let proof = bench.verifier.prove(text(&key)).await.unwrap();
    assert!(Arc::ptr_eq(&proof.key, &revived));
    let reads = bench.reads();
    let again = bench.verifier.revive(key.id).await.unwrap();
    assert!(Arc::ptr_eq(&again, &revived));
    assert_eq!(bench.reads(), reads, "it is live");
}

#[tokio::test]
async fn what_has_become_of_a_key_holds() {
    let bench = bench(8).await;
    let (key, mut record) = bench.create(4).await;
    let revived = bench.verifier.revive(key.id).await.unwrap();
    assert_eq!(admits(&revived, 2), Err(Denial::Superseded));
    record.revision += 1;
    record.standing = Standing::Disabled;
    bench.store.update(&record, &noted()).await.unwrap();
    bench.live.apply(record.clone());
    let revived = bench.verifier.revive(key.id).await.unwrap();
    assert_eq!(admits(&revived, 1), Err(Denial::Disabled));
    record.revision += 1;
    record.standing = Standing::Revoked;
    bench.store.update(&record, &noted()).await.unwrap();
    bench.live.apply(record);
    let revived = bench.verifier.revive(key.id).await.unwrap();
    assert_eq!(admits(&revived, 1), Err(Denial::Revoked));
}

#[tokio::test]
async fn a_key_that_is_not_live_is_read_and_may_be_gone() {
    let bench = bench(8).await;
    let (key, mut record) = bench.create(4).await;
    record.revision += 1;
    record.standing = Standing::Revoked;
    bench.store.update(&record, &noted()).await.unwrap();
    let refusal = bench.verifier.revive(key.id).await.unwrap_err();
    assert_eq!(refusal, Refusal::Invalid);
    let nobody = bench.verifier.revive("unknownkeyid".parse().unwrap()).await;
    assert_eq!(nobody.unwrap_err(), Refusal::Invalid);
    bench.store.away.store(true, Ordering::SeqCst);
    let away = bench.verifier.revive(key.id).await.unwrap_err();
    assert_eq!(away, Refusal::Unavailable);
    assert!(bench.live.is_empty(), "no load is left behind");
}
