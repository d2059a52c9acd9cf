//! Verifications of the audit chain over HTTP. A long chain takes longer than a request may, so after a
//! while the answer begins with white space, which JSON allows, and goes on with some as long as the work
//! does: nobody between here and the caller takes it for dead.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::Response;
use tokio::task::JoinHandle;

use super::audit::json as json_answer;
use super::audit_schemas::{AnchorParameter, VerificationBody};
use super::problems::ListProblems;
use super::{Shared, query};
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::ApiError;
use crate::admin::audit_log::failed;
use crate::admin::audit_verification::begin;
use crate::audit::chain::Anchor;
use crate::audit::verify::Verdict;
use crate::store::StoreError;

/// How long the whole answer may be waited for before it begins.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a sign of life is sent afterwards.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

fn read_anchor(pairs: Vec<(String, String)>) -> Result<Option<Anchor>, ApiError> {
    let mut anchor = None;
    let read = query::read(&pairs, |name, value| {
        match name {
            "anchor" => anchor = Some(query::parsed(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    });
    read.map_err(|errors| ApiError::fields(&errors))?;
    Ok(anchor)
}

/// Work that ends with whoever waits for it.
struct Work(JoinHandle<Result<Verdict, StoreError>>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    async fn wait(&mut self, limit: Duration) -> Option<Result<Verdict, StoreError>> {
        let ended = tokio::time::timeout(limit, &mut self.0).await.ok()?;
        let early = |_| {
            Err(StoreError::Unavailable(
                "a verification ended early".to_owned(),
            ))
        };
        Some(ended.unwrap_or_else(early))
    }
}

/// Verify the audit chain
///
/// Reads all of it; one verification runs at a time (503). Needs `sidekey:admin`.
#[utoipa::path(get, path = "/api/v1/platform/audit-events/verification", operation_id = "verify_audit_chain",
    tag = "audit", params(AnchorParameter),
    responses((status = 200, body = VerificationBody, description = "What was found."), ListProblems))]
pub async fn verification(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::Admin)?;
    let anchor = read_anchor(pairs)?;
    let mut work = Work(begin(&state, &actor, anchor)?);
    if let Some(result) = work.wait(PATIENCE).await {
        let verdict = result.map_err(failed)?;
        return Ok(json_answer(verdict.json().to_string()));
    }
    let parts = futures_util::stream::unfold(Some(work), async |work| {
        let mut work = work?;
        Some(match work.wait(SIGN_OF_LIFE).await {
            None => (Ok(Bytes::from_static(b"\n")), Some(work)),
            // An error breaks the answer off: there is no status any more to tell it with.
            Some(result) => (
                result.map(|verdict| verdict.json().to_string().into()),
                None,
            ),
        })
    });
    Ok(json_answer(Body::from_stream(parts)))
}
