//! What callers do with keys, whichever way they ask: the API turns it into JSON, the dashboard into pages.
//!
//! Here stand permissions, the boundary between tenants, the order in which things are asked, and who is
//! waited for. Nothing here knows HTTP. An operation has two steps: the first finds out whether the caller
//! may do it at all (a form is only offered then), the second does it.

pub mod keys;
mod once;
mod uses;

pub use uses::Uses;

use super::answer::ApiError;
use super::request_id;
use crate::problem::Kind;

/// Carries `work` out to its end, also when the client goes away meanwhile: half of an operation
/// would be written and not acted upon.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let internal = |_| {
        ApiError::new(
            Kind::Internal,
            "The operation ended early. Look again what there is.",
        )
    };
    tokio::spawn(request_id::carried(work))
        .await
        .map_err(internal)?
}
