//! Verifications of the audit chain: one at a time on an instance, whoever asks, and what the last one of
//! this instance has found.
//!
//! What is remembered is a mark up to which the chain was read in full, at a moment that is told with it.
//! Entries that come later are verified as they come, where there are few: they have to go on from the mark.
//! That says nothing new about those before it, so their moment stays.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::AdminState;
use super::access::Actor;
use super::answer::ApiError;
use super::audit_log::failed;
use super::long_work;
use crate::audit::chain::{Anchor, Broken, Fault};
use crate::audit::verify::{Verdict, verify, verify_after};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// Verifications that run at the same time: each takes much of a thread.
const VERIFICATIONS_MAX: usize = 1;
/// How long a verification may take.
const VERIFICATION_TIMEOUT: Duration = Duration::from_secs(1800);
/// Entries after the mark that are verified when somebody only looks.
const FOLLOWED_MAX: i64 = 400;

/// Up to where the chain is known to hold, or where it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// How many entries were read when the chain was last read from its beginning.
    pub entries: i64,
    /// When that was.
    pub at: Timestamp,
    /// The newest entry that is known to hold.
    pub head: Anchor,
    /// When it was looked at.
    pub head_at: Timestamp,
    pub broken: Option<Broken>,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub entries: i64,
    pub of: i64,
}

/// What is known of the chain here.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub mark: Option<Mark>,
    pub under_way: Option<Progress>,
    /// Whether the last verification came to no end: the database was away, or it took too long.
    pub has_failed: bool,
}

/// The room that verifications have.
#[derive(Debug)]
pub struct Verifications {
    permits: Arc<Semaphore>,
    known: Mutex<Known>,
}

impl Default for Verifications {
    fn default() -> Self {
        Verifications {
            permits: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            known: Mutex::default(),
        }
    }
}

impl Verifications {
    pub fn known(&self) -> Known {
        self.known.lock().clone()
    }

    /// Notes what a verification from the beginning has found.
    fn found(&self, verdict: &Verdict, at: Timestamp) {
        let mark = Mark {
            entries: verdict.entries,
            at,
            head: verdict.head.clone(),
            head_at: at,
            broken: verdict.broken,
        };
        self.known.lock().mark = Some(mark);
    }

    /// Notes what was found after `since`, unless the mark is another one by now.
    fn followed(&self, since: &Anchor, verdict: &Verdict, at: Timestamp) {
        let mut known = self.known.lock();
        let Some(mark) = known.mark.as_mut().filter(|mark| mark.head == *since) else {
            return;
        };
        mark.head = verdict.head.clone();
        mark.head_at = at;
        mark.broken = verdict.broken;
    }
}

/// Shows that a verification is under way, until it is dropped.
struct UnderWay(Arc<Verifications>);

impl UnderWay {
    fn begin(room: &Arc<Verifications>) -> Self {
        let mut known = room.known.lock();
        known.under_way = Some(Progress { entries: 0, of: 0 });
        known.has_failed = false;
        drop(known);
        UnderWay(room.clone())
    }

    fn tell(&self, entries: i64, of: i64) {
        self.0.known.lock().under_way = Some(Progress { entries, of });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.known.lock().under_way = None;
    }
}

/// Begins to verify the whole chain, as an administrator may; `anchor` has to be in it.
pub fn begin(
    state: &Arc<AdminState>,
    actor: &Actor,
    anchor: Option<Anchor>,
) -> Result<JoinHandle<Result<Verdict, StoreError>>, ApiError> {
    actor.require_admin()?;
    let room = &state.verifications;
    let permit = long_work::begin(&room.permits, actor)?;
    let under_way = UnderWay::begin(room);
    let state = state.clone();
    Ok(tokio::spawn(async move {
        let _permit = permit;
        let result = read_all(&state, &under_way, anchor).await;
        under_way.0.known.lock().has_failed = result.is_err();
        result
    }))
}

async fn read_all(
    state: &AdminState,
    under_way: &UnderWay,
    anchor: Option<Anchor>,
) -> Result<Verdict, StoreError> {
    let progress = |entries, of| under_way.tell(entries, of);
    let verified = verify(&*state.audit, &state.sealer, anchor.clone(), progress);
    let limited = tokio::time::timeout(VERIFICATION_TIMEOUT, verified).await;
    let late = |_| Err(StoreError::Unavailable("it takes too long".to_owned()));
    let verdict = limited.unwrap_or_else(late)?;
    // Who gives a wrong anchor has found nothing out about the chain.
    let fault = verdict.broken.map(|broken| broken.fault);
    if anchor.is_none() || fault != Some(Fault::Anchor) {
        state.verifications.found(&verdict, state.clock.now());
    }
    Ok(verdict)
}

/// What is known, once the few entries that have come since are verified; and how many there are that
/// are not.
pub async fn look(state: &AdminState) -> Result<(Known, i64), ApiError> {
    let room = &state.verifications;
    let known = room.known();
    let Some(mark) = known.mark.as_ref() else {
        return Ok((known, 0));
    };
    let head = state.audit.audit_head().await.map_err(failed)?;
    let since = head.map_or(0, |head| head.seq) - mark.head.seq;
    if mark.broken.is_some() || known.under_way.is_some() || since > FOLLOWED_MAX {
        return Ok((known, since.max(0)));
    }
    let verified = verify_after(&*state.audit, &state.sealer, mark.head.clone()).await;
    room.followed(&mark.head, &verified.map_err(failed)?, state.clock.now());
    Ok((room.known(), 0))
}
