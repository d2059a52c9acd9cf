//! The line in the log about one request. The query is left out, and of what looks like a key
//! elsewhere only the part before the secret is shown. Texts that a client chooses are cut to a
//! length, so that a full queue of lines has a size.

use pingora_error::{Error, ErrorType};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{Context, NO_ROUTE, target};
use crate::key::format::shown;
use crate::telemetry::Outcome;
use crate::telemetry::access::{Line, event_at};

/// Characters of a path that are shown.
const PATH_CHARS_MAX: usize = 1_024;
/// Of a method, which can be any token.
const METHOD_CHARS_MAX: usize = 32;

/// Writes it.
pub(super) fn write(
    line: Line,
    session: &Session,
    ctx: &Context,
    outcome: Outcome,
    took_us: u64,
    error: Option<&Error>,
) {
    let request = session.req_header();
    let caller = ctx.caller_view();
    event_at!(
        line.level,
        target: "sidekey::access",
        request_id = ctx.request_id(),
        trace_id = ctx.trace.map(|trace| trace.id.to_string()),
        outcome = outcome.as_str(),
        shadow = ctx.shadow.map(|refusal| refusal.outcome().as_str()),
        status = status(session),
        // A method can be a key as well.
        method = shown(request.method.as_str(), METHOD_CHARS_MAX),
        path = path(request),
        client = %ctx.client,
        route = ctx.route.as_ref().map_or(NO_ROUTE, |route| &route.name),
        key_id = caller.as_ref().map(|view| view.id.as_str()),
        tenant_id = caller.as_ref().map(|view| view.tenant.id.as_str()),
        upstream = ctx.endpoint.as_ref().map(|endpoint| endpoint.address().to_string()),
        error = error.map(describe),
        duration_ms = milliseconds(took_us),
        upstream_ms = ctx.upstream_us().map(milliseconds),
        added_ms = milliseconds(ctx.added_us(ctx.started_us + took_us)),
        bytes_in = session.body_bytes_read(),
        bytes_out = session.body_bytes_sent(),
        sample = line.sampled(),
        "request"
    );
}

/// The status that the client got; 0 where it got none.
pub(super) fn status(session: &Session) -> u16 {
    let response = session.response_written();
    response.map_or(0, |response| response.status.as_u16())
}

/// The path, fit to be shown.
pub(super) fn path(request: &RequestHeader) -> String {
    let path = String::from_utf8_lossy(request.raw_path());
    shown(
        &target::without_keys(target::split(&path).0),
        PATH_CHARS_MAX,
    )
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// What went wrong, for the log. Only of a failed connection is the cause told (an unknown
/// certificate, a refused port): later errors may quote header fields.
fn describe(error: &Error) -> String {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, InvalidCert,
        TLSHandshakeFailure,
    };
    match error.etype() {
        ConnectError | ConnectNoRoute | ConnectRefused | ConnectTimedout | InvalidCert
        | TLSHandshakeFailure => error.to_string().trim().to_owned(),
        kind => kind.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(target: &str) -> String {
        path(&RequestHeader::build("GET", target.as_bytes(), None).unwrap())
    }

    #[test]
    fn a_path_has_no_query_no_key_and_a_length() {
        assert_eq!(path_of("/a/b?c=d"), "/a/b");
        let key = "sk_live_4fzN8cQ2pLrT_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3A4b5C6d7E8f9G0h1I2";
        assert_eq!(path_of(&format!("/{key}/x")), "/sk_live_4fzN8cQ2pLrT_.../x");
        // Where the cut would fall into a key.
        let long = format!("/{}/{key}", "x".repeat(PATH_CHARS_MAX - 30));
        assert!(!path_of(&long).contains("0aB1"), "{}", path_of(&long));
        let long = path_of(&format!("/{}", "x".repeat(2 * PATH_CHARS_MAX)));
        assert_eq!(long.len(), PATH_CHARS_MAX + 3);
        assert_eq!(long.capacity(), long.len());
        // Nothing turns the line around, or ends it.
        assert_eq!(path_of("/a\u{202e}b\u{2028}c"), "/a b c");
        let wide = "/ä".repeat(PATH_CHARS_MAX);
        assert_eq!(path_of(&wide).chars().count(), PATH_CHARS_MAX + 3);
    }
}
