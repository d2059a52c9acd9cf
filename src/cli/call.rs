//! A call of the admin API before it is sent, and its answer.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::failure::Failure;
use super::refusal::not_the_api;

/// How far a change has come on other instances.
const PROPAGATION: HeaderName = HeaderName::from_static("sidekey-propagation");

/// A call that is not sent yet.
pub struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Vec<u8>>,
    pub is_repeatable: bool,
    /// What shows the things that there are, where one is missing.
    pub see: Option<&'static str>,
}

impl Call {
    pub fn new(method: Method, url: Url) -> Self {
        Call {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            is_repeatable: true,
            see: None,
        }
    }

    /// Adds a query parameter, where there is a value.
    pub fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.set_query(name, &value.to_string());
        }
        self
    }

    /// Adds a query parameter, or replaces it.
    pub fn set_query(&mut self, name: &str, value: &str) {
        let others: Vec<(String, String)> = self
            .url
            .query_pairs()
            .filter(|(other, _)| other != name)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        self.url
            .query_pairs_mut()
            .clear()
            .extend_pairs(others)
            .append_pair(name, value);
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// With `body` as JSON.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, media_type: &'static str, body: String) -> Self {
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = Some(body.into_bytes());
        self
    }

    /// Carrying it out twice does more than once: it is sent once.
    pub fn once(mut self) -> Self {
        self.is_repeatable = false;
        self
    }

    /// Names the command that shows what there is.
    pub fn see(mut self, command: &'static str) -> Self {
        self.see = Some(command);
        self
    }
}

/// An answer, read to its end. It may hold a key, so it has no `Debug`.
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    pub headers: HeaderMap,
}

impl Answer {
    /// The body.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.text).map_err(|_| not_the_api())
    }

    /// A header field's value.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The instances that have not confirmed a change yet: `"blue-1" "blue-2"`.
    pub fn unconfirmed(&self) -> Option<&str> {
        let field = self.header(&PROPAGATION)?;
        let (_, names) = field.split_once("unconfirmed=(")?;
        let (names, _) = names.split_once(')')?;
        (!names.is_empty()).then_some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_have_not_confirmed_are_named() {
        let mut answer = Answer {
            status: StatusCode::NO_CONTENT,
            text: String::new(),
            headers: HeaderMap::new(),
        };
        assert_eq!(answer.unconfirmed(), None);
        for (field, expected) in [
            ("instances=1, confirmed=1, unconfirmed=()", None),
            (
                "instances=3, confirmed=1, unconfirmed=(\"a\" \"b\")",
                Some("\"a\" \"b\""),
            ),
            ("nonsense", None),
        ] {
            answer
                .headers
                .insert(PROPAGATION, HeaderValue::from_static(field));
            assert_eq!(answer.unconfirmed(), expected, "{field}");
        }
    }
}
