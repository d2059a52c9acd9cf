//! The id of a request to the admin port: in its answer, in its problem, in the audit log.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;

use crate::problem;

/// The field that every answer carries.
const FIELD: &str = "x-request-id";

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// Gives a request its id.
pub async fn assign(request: Request, next: Next) -> Response {
    let id = problem::new_request_id();
    let mut response = CURRENT.scope(id.clone(), next.run(request)).await;
    response.headers_mut().insert(FIELD, id);
    response
}

/// `work` for the request that this task answers, to be done by another task.
pub fn carried<W: Future>(work: W) -> impl Future<Output = W::Output> {
    let id = CURRENT.try_with(HeaderValue::clone);
    CURRENT.scope(id.unwrap_or_else(|_| problem::new_request_id()), work)
}

/// The id of the request that this task answers.
pub fn current() -> String {
    let id = CURRENT.try_with(HeaderValue::clone);
    let id = id.unwrap_or_else(|_| problem::new_request_id());
    id.to_str().unwrap_or_default().to_owned()
}
