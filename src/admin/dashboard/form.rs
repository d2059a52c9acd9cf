//! Forms, as they are sent: from a page of ours, by somebody who is signed in.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::response::Response;

use super::session::Visitor;
use crate::admin::AdminState;

/// The fields of a form in their order, and who has sent them.
pub struct Form {
    pub visitor: Visitor,
    pub pairs: Vec<(String, String)>,
}

impl FromRequest<Arc<AdminState>> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Arc<AdminState>) -> Result<Self, Response> {
        use axum::extract::FromRequestParts;
        let (mut parts, _body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, state).await?;
        Ok(Form {
            visitor,
            pairs: Vec::new(),
        })
    }
}
