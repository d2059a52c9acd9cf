//! What is told where a call did not lead to what was wanted: one sentence that says what to do.
//!
//! Must never quote the admin key, or a body.

use http::Method;
use serde_json::Value;
use url::Url;

use super::access::KeyOrigin;
use super::call::{Answer, Call};
use super::failure::Failure;
use super::options;
use crate::problem::Kind;

/// How an attempt ended without an answer.
pub enum Lost {
    /// Nothing was sent.
    NoConnection(String),
    /// It may have been carried out.
    NoAnswer(String),
    /// An answer that is too long to be one.
    TooLong(usize),
}

/// The sentence for a call that was not answered.
pub fn unanswered(lost: Lost, call: &Call, url: &Url) -> Failure {
    Failure::Failed(match lost {
        Lost::NoConnection(cause) => format!(
            "{url} can't be reached ({cause}): start Sidekey there, or give the URL of its admin port with --admin-url or SIDEKEY_ADMIN_URL"
        ),
        Lost::NoAnswer(cause) if call.method == Method::GET => {
            format!("{url} did not answer ({cause}): try again")
        }
        Lost::NoAnswer(cause) => format!(
            "{url} did not answer ({cause}): it may have been carried out all the same, so look before trying again"
        ),
        Lost::TooLong(bytes_max) => format!(
            "the answer of {url} has more than {bytes_max} bytes: ask for less with --limit"
        ),
    })
}

/// The sentence for an answer that is not a success.
pub fn refused(answer: &Answer, call: &Call, url: &Url, key_origin: &KeyOrigin) -> Failure {
    let status = answer.status;
    if status.is_redirection() {
        return Failure::failed(format!(
            "{url} answers with a redirection, which is not followed: give the right URL with --admin-url or SIDEKEY_ADMIN_URL"
        ));
    }
    let Some(problem) = problem(answer) else {
        return not_the_api();
    };
    let detail = problem["detail"].as_str().unwrap_or_default();
    let sentence = detail.trim_end_matches('.');
    match status.as_u16() {
        _ if problem["type"] == Kind::NoRoute.uri() => not_the_api(),
        401 => Failure::failed(format!(
            "the admin key from {key_origin} was refused ({sentence}): give another with SIDEKEY_ADMIN_KEY or --admin-key-file"
        )),
        403 => Failure::failed(format!(
            "the admin key from {key_origin} may not do this: {detail}"
        )),
        404 => match call.see {
            Some(see) => Failure::failed(format!("{sentence}: `{see}` shows what there is")),
            None => Failure::failed(format!(
                "{sentence}: does {url} belong to a Sidekey of this version?"
            )),
        },
        422 => Failure::Arguments(bad_fields(&problem)),
        _ => Failure::failed(detail),
    }
}

/// Something else answers there.
pub fn not_the_api() -> Failure {
    Failure::failed(
        "the answer is not one of Sidekey's admin API: give the URL of the admin port with --admin-url or SIDEKEY_ADMIN_URL",
    )
}

/// The body of a problem (RFC 9457).
fn problem(answer: &Answer) -> Option<Value> {
    let problem: Value = serde_json::from_str(&answer.text).ok()?;
    (problem["detail"].is_string() && problem["type"].is_string()).then_some(problem)
}

/// The `type` of a problem; empty where it is none.
pub fn problem_type(answer: &Answer) -> String {
    let problem = problem(answer).unwrap_or_default();
    problem["type"].as_str().unwrap_or_default().to_owned()
}

/// Every bad field on a line, by the option that it belongs to.
fn bad_fields(problem: &Value) -> String {
    let mut text =
        "the API does not accept this; correct what stands below, and run it again".to_owned();
    for error in problem["errors"].as_array().into_iter().flatten() {
        let field = error["field"].as_str().unwrap_or_default();
        let detail = error["detail"].as_str().unwrap_or_default();
        let option = options::of_field(field).unwrap_or(field);
        text.push_str(&format!("\n  {option}: {detail}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    fn answer(status: u16, body: Value) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            text: body.to_string(),
            headers: HeaderMap::new(),
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let url: Url = "http://127.0.0.1:1".parse().unwrap();
        let call = Call::new(Method::GET, url.clone()).see("sidekey keys list");
        let body = |kind: Kind, detail: &str| json!({"type": kind.uri(), "detail": detail});
        let told = |status, body| match refused(
            &answer(status, body),
            &call,
            &url,
            &KeyOrigin::Variable,
        ) {
            Failure::Failed(text) | Failure::Arguments(text) => text,
            other => panic!("{other:?}"),
        };
        assert!(
            told(401, body(Kind::InvalidKey, "No."))
                .contains("from SIDEKEY_ADMIN_KEY was refused (No)")
        );
        assert!(told(403, body(Kind::InsufficientScope, "It lacks x.")).contains("It lacks x."));
        assert_eq!(
            told(404, body(Kind::NotFound, "There is no such key.")),
            "There is no such key: `sidekey keys list` shows what there is"
        );
        assert!(told(404, body(Kind::NoRoute, "Nothing.")).contains("admin port"));
        for (status, other) in [
            (200, json!("<html>")),
            (502, json!({"error": "x"})),
            (301, json!(null)),
        ] {
            assert!(told(status, other).contains("--admin-url"), "{status}");
        }
        let mut fields = body(Kind::InvalidFields, "Correct the fields in errors.");
        fields["errors"] =
            json!([{"field": "rate_limits", "detail": "a"}, {"field": "colour", "detail": "b"}]);
        assert_eq!(
            refused(&answer(422, fields), &call, &url, &KeyOrigin::Variable),
            Failure::Arguments(
                "the API does not accept this; correct what stands below, and run it again\n  --rate-limit: a\n  colour: b".to_owned()
            )
        );
    }
}
