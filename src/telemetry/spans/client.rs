//! The HTTP client that spans are sent with. It remembers why a call failed: the exporter says "network error"
//! whatever it was.

use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;

use crate::root_cause::root_cause;

/// Why the last call had no answer, until that is told.
pub type Reason = Arc<Mutex<Option<String>>>;

#[derive(Debug)]
pub struct Client {
    pub inner: reqwest::blocking::Client,
    pub reason: Reason,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answered = self.inner.send_bytes(request).await;
        *self.reason.lock() = answered.as_ref().err().map(|error| root_cause(&**error));
        answered
    }
}
