//! The queue: what it takes, what it counts, and what it does while nobody takes anything from it.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::*;
use crate::audit::Actor;
use crate::audit::chain::{Anchor, Found};
use crate::audit::entry::Head;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::store::{EventFilter, EventPage, EventRange, StoreError};

/// A store that takes notes, or doesn't.
#[derive(Default)]
struct Taking {
    notes: Mutex<Vec<Note>>,
    is_away: AtomicBool,
}

#[async_trait]
impl AuditStore for Taking {
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        assert!(notes.len() <= BATCH_LEN_MAX + 1);
        self.notes.lock().extend_from_slice(notes);
        Ok(())
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        Ok(None)
    }

    fn witnessed(&self) -> Option<Anchor> {
        None
    }

    async fn chain_page(&self, _: i64) -> Result<Vec<Found>, StoreError> {
        Ok(Vec::new())
    }

    async fn event_range(&self, _: &EventFilter) -> Result<EventRange, StoreError> {
        Err(StoreError::Conflict)
    }

    async fn events(
        &self,
        _: &EventFilter,
        _: EventRange,
        _: usize,
    ) -> Result<EventPage, StoreError> {
        Err(StoreError::Conflict)
    }
}

struct Bench {
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    store: Taking,
}

fn bench() -> Bench {
    let clock = ManualClock::at(Timestamp::from_millis(1_000));
    let metrics = Arc::new(Metrics::new().unwrap());
    Bench {
        recorder: Recorder::new(clock.clone(), metrics.clone()),
        clock,
        metrics,
        store: Taking::default(),
    }
}

impl Bench {
    fn refuse(&self, address: [u8; 4], status: u16) {
        self.recorder.refused(Refusal {
            origin: Origin {
                actor: Actor::Unknown,
                address: Some(address.into()),
                request_id: Some(self.clock.monotonic_us().to_string()),
            },
            tenant_id: None,
            presented: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            status,
            problem: "p",
        });
    }

    /// How many entries were written, and for how many calls they stand.
    async fn written(&self) -> (usize, u64) {
        self.recorder.write_all(&self.store).await.unwrap();
        let notes = std::mem::take(&mut *self.store.notes.lock());
        let calls = notes.iter().map(|note| {
            let number = |name: &str| note.details.get(name).and_then(|n| n.as_u64());
            number("count").or(number("unrecorded")).unwrap_or(1)
        });
        (notes.len(), calls.sum())
    }
}

#[tokio::test]
async fn what_an_address_repeats_is_a_number() {
    let bench = bench();
    let most = u64::from(CALLS_A_MINUTE_MAX);
    for _ in 0..most + 40 {
        bench.refuse([192, 0, 2, 1], 401);
    }
    for _ in 0..10 {
        bench.refuse([192, 0, 2, 1], 429);
    }
    bench.refuse([192, 0, 2, 2], 401);
    let one_by_one = usize::try_from(most).unwrap() + 2;
    assert_eq!(bench.written().await, (one_by_one, most + 2));
    bench.recorder.end_minutes(false);
    assert_eq!(bench.written().await, (0, 0), "the minute is not over");
    bench.clock.advance(Duration::from_secs(60));
    bench.recorder.end_minutes(false);
    assert_eq!(bench.written().await, (2, 40 + 9));
    bench.refuse([192, 0, 2, 1], 429);
    assert_eq!(bench.written().await, (1, 1), "a new minute");
}

#[tokio::test]
async fn what_there_is_no_room_for_is_counted_and_told() {
    let bench = bench();
    bench.store.is_away.store(true, Ordering::SeqCst);
    let key: KeyId = "000000000001".parse().unwrap();
    let tenant: TenantId = "acme".parse().unwrap();
    let origin = |n: u32| Origin {
        actor: Actor::Key(key),
        address: Some(std::net::Ipv4Addr::from(n).into()),
        request_id: None,
    };
    let more = u32::try_from(QUEUE_LEN_MAX).unwrap() + 7;
    for n in 0..more {
        bench.recorder.signed_in(key, tenant.clone(), origin(n));
    }
    bench.recorder.write_all(&bench.store).await.unwrap_err();
    assert_eq!(bench.metrics.audit_unrecorded.get(), 7);
    bench.store.is_away.store(false, Ordering::SeqCst);
    assert_eq!(bench.written().await, (QUEUE_LEN_MAX + 1, u64::from(more)));
    // One that was noted is known, one that there was no room for is not.
    bench.recorder.signed_in(key, tenant.clone(), origin(0));
    bench.recorder.signed_in(key, tenant, origin(more - 1));
    assert_eq!(bench.written().await, (1, 1));
}

#[tokio::test]
async fn addresses_have_a_limit() {
    let bench = bench();
    for n in 0..ADDRESSES_MAX as u32 + 5 {
        bench.refuse(n.to_be_bytes(), 401);
        if n % 1000 == 0 {
            bench.recorder.write_all(&bench.store).await.unwrap();
        }
    }
    let (_, calls) = bench.written().await;
    assert_eq!(calls, ADDRESSES_MAX as u64 + 5);
    assert_eq!(bench.metrics.audit_unrecorded.get(), 5);
    bench.clock.advance(Duration::from_secs(60));
    bench.recorder.end_minutes(false);
    bench.refuse([255, 255, 255, 255], 401);
    assert_eq!(bench.written().await, (1, 1));
}
