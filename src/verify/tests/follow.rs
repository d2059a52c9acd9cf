//! What others change is followed.

use super::*;

impl Bench {
    /// One who has seen the changes up to number `seen`, and no imports.
    pub(super) fn follower(&self, seen: i64) -> Follower {
        Follower {
            store: self.store.clone(),
            tenants: self.tenants.clone(),
            live: self.live.clone(),
            imports: self.imports.clone(),
            clock: ManualClock::at(Timestamp::from_millis(0)),
            metrics: self.metrics.clone(),
            freshness: Arc::new(Freshness::new(Duration::from_secs(10), 0)),
            seen,
            imports_seen: 0,
        }
    }
}

/// What another instance writes is seen, also by who was away for so long that the changes
/// themselves are no longer kept; and what is no longer confirmed gets stale.
#[tokio::test]
async fn changes_of_others_are_followed() {
    let bench = bench(8).await;
    let (key, mut record) = bench.create(4).await;
    let proof = bench.verifier.prove(text(&key)).await.unwrap();
    let clock = ManualClock::at(Timestamp::from_millis(0));
    let freshness = Arc::new(Freshness::new(Duration::from_secs(10), 0));
    let mut follower = Follower {
        clock: clock.clone(),
        freshness: freshness.clone(),
        ..bench.follower(0)
    };
    let scopes = || proof.key.view().grants.patterns.len();
    assert_eq!(scopes(), record.scopes.len());
    record.scopes.push("one:more".parse().unwrap());
    record.revision += 1;
    bench.store.update(&record, &noted()).await.unwrap();
    follower.follow().await.unwrap();
    assert_eq!(scopes(), record.scopes.len());

    for _ in 0..2 {
        record.scopes.pop();
        record.revision += 1;
        bench.store.update(&record, &noted()).await.unwrap();
    }
    // The first of the two is forgotten, as after a long time away.
    sqlx::query("DELETE FROM key_changes WHERE seq = 3")
        .execute(bench.store.inner.writer())
        .await
        .unwrap();
    follower.follow().await.unwrap();
    assert_eq!((scopes(), follower.seen), (record.scopes.len(), 4));

    // All of the latest changes are forgotten, and none comes after them.
    record.scopes.push("two:more".parse().unwrap());
    record.revision += 1;
    bench.store.update(&record, &noted()).await.unwrap();
    let all = Timestamp::from_millis(i64::MAX / 2);
    bench.store.forget_changes(all).await.unwrap();
    follower.follow().await.unwrap();
    assert_eq!((scopes(), follower.seen), (record.scopes.len(), 5));

    // An older database takes over: what it says holds.
    record.scopes.pop();
    sqlx::query("UPDATE api_keys SET revision = 1, scopes = '[]'")
        .execute(bench.store.inner.writer())
        .await
        .unwrap();
    sqlx::query("UPDATE change_counter SET seq = 1")
        .execute(bench.store.inner.writer())
        .await
        .unwrap();
    follower.follow().await.unwrap();
    assert_eq!((scopes(), follower.seen), (0, 1));

    clock.advance(Duration::from_secs(9));
    follower.follow().await.unwrap();
    clock.advance(Duration::from_secs(10));
    assert!(!freshness.is_stale(clock.monotonic_us()));
    bench.store.away.store(true, Ordering::SeqCst);
    follower.follow().await.unwrap_err();
    clock.advance(Duration::from_secs(1));
    assert!(freshness.is_stale(clock.monotonic_us()));
    bench.store.away.store(false, Ordering::SeqCst);
    follower.follow().await.unwrap();
    assert!(!freshness.is_stale(clock.monotonic_us()));
}

/// What was known of a key no longer holds where its row is damaged, or gone with an older database.
#[tokio::test]
async fn a_live_key_without_a_sound_row_is_refused() {
    let bench = bench(8).await;
    let (key, mut record) = bench.create(4).await;
    let proof = bench.verifier.prove(text(&key)).await.unwrap();
    let now = Timestamp::from_millis(5000);
    let check = || proof.key.view().authority.check(proof.generation, now);
    let mut follower = bench.follower(1);
    let by_hand = async |sql: &'static str| {
        let pool = bench.store.inner.writer();
        sqlx::query(sql).execute(pool).await.unwrap();
    };
    record.revision += 1;
    bench.store.update(&record, &noted()).await.unwrap();
    by_hand("UPDATE api_keys SET standing = 'lost'").await;
    assert_eq!(check(), Ok(()));
    follower.follow().await.unwrap();
    assert_eq!((check(), follower.seen), (Err(Denial::Revoked), 2));

    by_hand("UPDATE api_keys SET standing = 'active'").await;
    record.revision += 1;
    bench.store.update(&record, &noted()).await.unwrap();
    follower.follow().await.unwrap();
    assert_eq!((check(), follower.seen), (Ok(()), 3));

    by_hand("DELETE FROM api_keys").await;
    by_hand("UPDATE change_counter SET seq = 0").await;
    follower.follow().await.unwrap();
    assert_eq!((check(), follower.seen), (Err(Denial::Revoked), 0));
}

/// A tenant's row is read once, however many of its keys are proven; what others change of it is
/// followed; and a row that can't be read any more is no reason to let its keys pass.
#[tokio::test]
async fn a_tenant_is_read_once_and_followed() {
    use crate::key::tenant::{TenantStanding, tests::tenant};

    let bench = bench(8).await;
    let (first, _) = bench.create(4).await;
    let (second, _) = bench.create(4).await;
    let mut follower = bench.follower(2);
    let tenant_reads = || bench.tenants.reads.load(Ordering::SeqCst);
    let proofs = [
        bench.verifier.prove(text(&first)).await.unwrap(),
        bench.verifier.prove(text(&second)).await.unwrap(),
    ];
    assert_eq!((bench.reads(), tenant_reads()), (2, 1));
    let client = std::net::IpAddr::from([127, 0, 0, 1]);
    let now = Timestamp::from_millis(5000);
    let check = || {
        let admits = |proof: &Proof| proof.key.view().admits(proof.generation, client, now);
        let [first, second] = [admits(&proofs[0]), admits(&proofs[1])];
        assert_eq!(first, second);
        first
    };
    let sql = &bench.store.inner;
    let by_hand = async |statement: &'static str| {
        sqlx::query(statement).execute(sql.writer()).await.unwrap();
    };
    // A warm request reads nothing, whatever was changed.
    let mut suspended = tenant(2);
    suspended.standing = TenantStanding::Suspended;
    sql.update_tenant(&suspended, &noted()).await.unwrap();
    bench.verifier.prove(text(&first)).await.unwrap();
    assert_eq!((bench.reads(), tenant_reads()), (2, 1));
    assert_eq!(check(), Ok(()), "not followed yet");
    follower.follow().await.unwrap();
    assert_eq!(check(), Err(Denial::Suspended));
    assert_eq!((bench.reads(), tenant_reads(), follower.seen), (2, 2, 3));

    sql.update_tenant(&tenant(3), &noted()).await.unwrap();
    by_hand("UPDATE tenants SET standing = 'lost'").await;
    follower.follow().await.unwrap();
    assert_eq!(check(), Err(Denial::Suspended));
    by_hand("UPDATE tenants SET standing = 'active'").await;
    sql.update_tenant(&tenant(4), &noted()).await.unwrap();
    follower.follow().await.unwrap();
    assert_eq!(check(), Ok(()));

    // The changes are forgotten, as after a long time away.
    suspended.revision = 5;
    sql.update_tenant(&suspended, &noted()).await.unwrap();
    by_hand("DELETE FROM key_changes").await;
    follower.follow().await.unwrap();
    assert_eq!(check(), Err(Denial::Suspended));

    // An older database takes over.
    by_hand("UPDATE tenants SET standing = 'active', revision = 1").await;
    by_hand("UPDATE change_counter SET seq = 1").await;
    follower.follow().await.unwrap();
    assert_eq!(check(), Ok(()));
}

/// Neither is a tenant that can't be read one without limits.
#[tokio::test]
async fn a_key_whose_tenant_cannot_be_read_is_not_verified() {
    let bench = bench(8).await;
    let (key, _) = bench.create(4).await;
    bench.tenants.away.store(true, Ordering::SeqCst);
    let refused = bench.verifier.prove(text(&key)).await;
    assert_eq!(refused.unwrap_err(), Refusal::Unavailable);
    assert!(bench.live.is_empty() && bench.live.tenants().ids().is_empty());
    bench.tenants.away.store(false, Ordering::SeqCst);
    assert!(bench.verifier.prove(text(&key)).await.is_ok());
}
