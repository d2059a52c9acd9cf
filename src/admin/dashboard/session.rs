//! Who is signed in.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;

use crate::admin::AdminState;
use crate::admin::access::Caller;

/// Somebody who is signed in.
pub struct Visitor {
    pub caller: Caller,
    /// What every form has to bring back.
    pub csrf: String,
}

impl FromRequestParts<Arc<AdminState>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(
        _parts: &mut Parts,
        _state: &Arc<AdminState>,
    ) -> Result<Self, Response> {
        Err(super::page::go(
            super::page::Fragment(false),
            "/dashboard/sign-in",
        ))
    }
}
