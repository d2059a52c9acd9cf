//! A call of the admin API, and what came back.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::sidekey::Sidekey;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// Sends `request` and reads the answer.
    pub async fn to(request: RequestBuilder) -> Self {
        let answer = request.send().await.expect("an answer");
        Reply {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            text: answer.text().await.expect("text"),
        }
    }

    /// A header field's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    /// Fails unless this is a complete problem of `status` (RFC 9457); its body.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{self:?}");
        for member in ["type", "title", "detail", "request_id"] {
            let text = body[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "no {member} in {self:?}");
        }
        body
    }

    /// The fields that a 422 names, in alphabetical order.
    #[track_caller]
    pub fn bad_fields(&self) -> Vec<String> {
        let body = self.problem(422);
        let errors = body["errors"].as_array().expect("errors");
        let mut fields: Vec<String> = errors
            .iter()
            .map(|error| {
                assert!(error["detail"].is_string(), "{error}");
                error["field"].as_str().expect("a field").to_owned()
            })
            .collect();
        fields.sort();
        fields
    }
}

impl Sidekey {
    /// Calls the admin API with the bootstrap key.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.ask_as(Some(&self.admin_key()), method, path, body)
            .await
    }

    /// Calls the admin API with `key`, or without one.
    pub async fn ask_as(
        &self,
        key: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Reply {
        let mut request = self
            .client
            .request(method, format!("http://{}{path}", self.admin));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Reply::to(request).await
    }
}

/// Takes from a key as it is shown what it was used for: that is stored now and then, and is no change.
pub fn forget_use(key: &mut Value) {
    for name in ["usage", "last_used_at", "last_used_ip"] {
        key[name].take();
        if key["previous_secret"].is_object() {
            key["previous_secret"][name].take();
        }
    }
}

/// The same of all keys of a list.
pub fn forget_uses(list: &mut Value) {
    let keys = list["data"].as_array_mut().expect("keys");
    keys.iter_mut().for_each(forget_use);
}
