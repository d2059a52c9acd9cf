//! What a path names.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::page::PageError;
use crate::admin::api::extract;

/// The key id of a path, as it was written. What can't even be read names no key.
pub struct IdText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdText {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, PageError> {
        let extract::IdText(id) = extract::IdText::from_request_parts(parts, state).await?;
        Ok(IdText(id))
    }
}
