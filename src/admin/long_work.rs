//! Work that takes longer than others should wait for: so much of it runs at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Actor;
use super::answer::ApiError;
use crate::problem::Kind;

/// Where nobody can be asked to wait for a number of seconds that is known.
const BUSY_SECONDS: u64 = 5;

/// A permit for something that may take long, or an answer to come back later. Where there are several,
/// the last one is for administrators: tenants can't hold all of them.
pub fn begin(permits: &Arc<Semaphore>, actor: &Actor) -> Result<OwnedSemaphorePermit, ApiError> {
    let kept_free = u32::from(!actor.is_admin());
    let permit = permits.clone().try_acquire_many_owned(1 + kept_free);
    let permit = permit.map(|mut permit| permit.split(1).unwrap_or(permit));
    permit.map_err(|_| {
        let mut error = ApiError::new(
            Kind::TemporaryReducedCapacity,
            format!("As many of these are under way as may be. Try again in {BUSY_SECONDS} s."),
        );
        error.retry_after_seconds = Some(BUSY_SECONDS);
        error
    })
}
