//! A finished request as spans, in the words of OpenTelemetry's conventions for HTTP: one of the
//! server, and where a service was asked one of the client.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, Version};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::clock::Timestamp;
use crate::telemetry::{Outcome, trace_context as ids};

/// What the conventions call methods that are not well known: they can be any token.
const OTHER_METHOD: &str = "_OTHER";

/// A request that is over. No text in it may hold a credential.
#[derive(Debug)]
pub struct Finished {
    pub trace_id: ids::TraceId,
    pub span_id: ids::SpanId,
    /// The span that the request was sent from.
    pub parent: Option<ids::SpanId>,
    pub ended_at: Timestamp,
    pub took_us: u64,
    /// By [`known_method`]: what waits must not keep any token that a client may send.
    pub method: &'static str,
    pub version: Version,
    /// Without query and keys.
    pub path: String,
    pub client: IpAddr,
    /// Where one was found.
    pub route: Option<String>,
    /// 0 where the client got no answer.
    pub status: u16,
    pub outcome: Outcome,
    /// Why it would have been refused, were the mode not `shadow`.
    pub shadow: Option<Outcome>,
    pub request_id: String,
    pub key_id: Option<String>,
    pub tenant_id: Option<String>,
    pub call: Option<Call>,
}

/// What was asked of the service behind.
#[derive(Debug)]
pub struct Call {
    pub span_id: ids::SpanId,
    /// Since the request's beginning.
    pub after_us: u64,
    /// The server that was asked last.
    pub server: SocketAddr,
    /// Servers that were asked before it.
    pub failed_attempts: usize,
    /// 0 where it did not answer.
    pub status: u16,
}

impl Finished {
    pub fn span_count(&self) -> u64 {
        1 + u64::from(self.call.is_some())
    }

    /// Adds its spans to `spans`.
    pub fn into_spans(self, scope: &InstrumentationScope, spans: &mut Vec<SpanData>) {
        let millis = u64::try_from(self.ended_at.as_millis()).unwrap_or_default();
        let end = UNIX_EPOCH + Duration::from_millis(millis);
        let start = end - Duration::from_micros(self.took_us);
        if let Some(call) = &self.call {
            let began = start + Duration::from_micros(call.after_us);
            spans.push(self.client_span(call, began.min(end), end, scope));
        }
        spans.push(self.server_span(start, end, scope));
    }

    fn server_span(
        self,
        start: SystemTime,
        end: SystemTime,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let is_failure = self.status >= 500 || is_failure(self.outcome);
        let method = self.method;
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("network.protocol.version", version(self.version)),
            KeyValue::new("client.address", self.client.to_string()),
            KeyValue::new("sidekey.outcome", self.outcome.as_str()),
            KeyValue::new("sidekey.request_id", self.request_id),
        ];
        let verb = verb(method);
        let name = match &self.route {
            Some(route) => Cow::from(format!("{verb} {route}")),
            None => Cow::from(verb),
        };
        attributes.push(KeyValue::new("url.path", self.path));
        if self.status > 0 {
            attributes.push(status(self.status));
        }
        if is_failure {
            attributes.push(error_type(self.status, self.outcome));
        }
        let more: [(&'static str, Option<Value>); 4] = [
            ("http.route", self.route.map(Value::from)),
            ("sidekey.shadow", self.shadow.map(|o| o.as_str().into())),
            ("sidekey.key_id", self.key_id.map(Value::from)),
            ("sidekey.tenant_id", self.tenant_id.map(Value::from)),
        ];
        for (key, value) in more {
            attributes.extend(value.map(|value| KeyValue::new(key, value)));
        }
        SpanData {
            span_context: context(self.trace_id, self.span_id),
            parent_span_id: self.parent.map_or(SpanId::INVALID, span_id),
            parent_span_is_remote: self.parent.is_some(),
            span_kind: SpanKind::Server,
            name,
            start_time: start,
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: standing(is_failure, self.outcome),
            instrumentation_scope: scope.clone(),
        }
    }

    fn client_span(
        &self,
        call: &Call,
        start: SystemTime,
        end: SystemTime,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let is_failure = call.status >= 400 || is_failure(self.outcome);
        let method = self.method;
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("server.address", call.server.ip().to_string()),
            KeyValue::new("server.port", i64::from(call.server.port())),
        ];
        if call.status > 0 {
            attributes.push(status(call.status));
        }
        if call.failed_attempts > 0 {
            let count = i64::try_from(call.failed_attempts).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new("http.request.resend_count", count));
        }
        if is_failure {
            attributes.push(error_type(call.status, self.outcome));
        }
        SpanData {
            span_context: context(self.trace_id, call.span_id),
            parent_span_id: span_id(self.span_id),
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            name: verb(method).into(),
            start_time: start,
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: standing(is_failure, self.outcome),
            instrumentation_scope: scope.clone(),
        }
    }
}

/// Whether it went wrong, whatever the status says: an answer may break off.
fn is_failure(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::UpstreamFailed | Outcome::UpstreamTimedOut | Outcome::Internal
    )
}

/// Without words where the status code says it all.
fn standing(is_error: bool, outcome: Outcome) -> Status {
    match (is_error, outcome) {
        (false, _) => Status::Unset,
        (true, Outcome::Forwarded) => Status::error(""),
        (true, _) => Status::error(outcome.as_str()),
    }
}

/// What kind of error it was: a service's own has no other name than its number.
fn error_type(status: u16, outcome: Outcome) -> KeyValue {
    let kind = match outcome {
        Outcome::Forwarded => Value::from(status.to_string()),
        _ => Value::from(outcome.as_str()),
    };
    KeyValue::new("error.type", kind)
}

fn status(status: u16) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status))
}

/// A method as the conventions name it.
pub fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => OTHER_METHOD,
    }
}

/// The method as a part of a span's name.
fn verb(method: &'static str) -> &'static str {
    if method == OTHER_METHOD {
        "HTTP"
    } else {
        method
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn span_id(id: ids::SpanId) -> SpanId {
    SpanId::from_bytes(id.to_bytes())
}

fn context(trace_id: ids::TraceId, id: ids::SpanId) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace_id.to_bytes()),
        span_id(id),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}
