//! Whether one answer is right: its status, its fields, its body. Pure.

use serde_json::Value;

use super::calls::{Call, Kind};
use super::client::Answer;
use super::world::{Caller, GRANTED, Limit, NEEDED_ELSEWHERE};

/// What is wrong, in words.
type Verdict = Result<(), String>;

/// Judges the answer to `call`.
pub fn judge(call: &Call<'_>, answer: &Answer<'_>) -> Verdict {
    let verdict = match (call.kind, answer.status, call.caller) {
        (Kind::Valid | Kind::OverLimit | Kind::Cold, 200, Some(caller)) => {
            forwarded(call, caller, answer)
        }
        (Kind::OverLimit, 429, Some(caller)) => over_limit(caller, answer),
        (Kind::WrongScope, 403, Some(caller)) => wrong_scope(caller, answer),
        (Kind::Forged, 401, None) => forged(answer),
        (Kind::Expired, 401, Some(_)) => refused_key(answer, "urn:sidekey:problem:expired-key"),
        // The queue of hashes is full.
        (Kind::Cold, 503, Some(_)) => {
            let body = problem(answer, CAPACITY)?;
            retry_after(answer, &body)
        }
        _ => Err("that is not the status".to_owned()),
    };
    verdict.map_err(|what| {
        let (kind, status, body) = (call.kind.name(), answer.status, answer.body);
        format!("{kind}, answered {status}: {what}: {body}")
    })
}

const CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
const QUOTA: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The service has answered, to this request and under this caller's name.
fn forwarded(call: &Call<'_>, caller: &Caller, answer: &Answer<'_>) -> Verdict {
    equal(
        "Content-Type",
        answer.field("content-type"),
        "application/json",
    )?;
    let body = json(answer)?;
    for (member, expected) in [
        ("target", call.target.as_str()),
        ("key", &caller.key.id),
        ("tenant", &caller.tenant),
        ("scopes", GRANTED),
        ("request_id", request_id(answer)?),
    ] {
        equal(member, body[member].as_str(), expected)?;
    }
    holds("the service saw the key", body["credential"] == false)?;
    holds("it is told to come back", !answer.has("retry-after"))?;
    holds("it is challenged", !answer.has("www-authenticate"))?;
    limit_fields(&caller.limit, answer).map(drop)
}

fn over_limit(caller: &Caller, answer: &Answer<'_>) -> Verdict {
    let body = problem(answer, QUOTA)?;
    retry_after(answer, &body)?;
    let violated = body["violated-policies"].as_array();
    let violated = violated.is_some_and(|names| *names == [caller.limit.name]);
    holds("it names another policy", violated)?;
    let left = limit_fields(&caller.limit, answer)?;
    holds("something is left", left == 0)
}

fn wrong_scope(caller: &Caller, answer: &Answer<'_>) -> Verdict {
    problem(answer, "urn:sidekey:problem:insufficient-scope")?;
    let challenge =
        format!("Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"{NEEDED_ELSEWHERE}\"");
    equal(
        "WWW-Authenticate",
        answer.field("www-authenticate"),
        &challenge,
    )?;
    limit_fields(&caller.limit, answer).map(drop)
}

/// Nobody is told anything about a key that is not proven.
fn forged(answer: &Answer<'_>) -> Verdict {
    refused_key(answer, "urn:sidekey:problem:invalid-key")?;
    let told = ["ratelimit", "ratelimit-policy", "x-ratelimit-limit"];
    holds(
        "it is told limits",
        !told.iter().any(|name| answer.has(name)),
    )
}

fn refused_key(answer: &Answer<'_>, uri: &str) -> Verdict {
    problem(answer, uri)?;
    let challenge = "Bearer realm=\"api\", error=\"invalid_token\"";
    equal(
        "WWW-Authenticate",
        answer.field("www-authenticate"),
        challenge,
    )
}

/// A complete problem of RFC 9457; its body.
fn problem(answer: &Answer<'_>, uri: &str) -> Result<Value, String> {
    let media_type = answer.field("content-type");
    equal("Content-Type", media_type, "application/problem+json")?;
    equal("Cache-Control", answer.field("cache-control"), "no-store")?;
    let body = json(answer)?;
    equal("type", body["type"].as_str(), uri)?;
    holds("it has another status", body["status"] == answer.status)?;
    equal(
        "request_id",
        body["request_id"].as_str(),
        request_id(answer)?,
    )?;
    for member in ["title", "detail"] {
        let text = body[member].as_str().unwrap_or_default();
        holds(member, !text.is_empty())?;
    }
    Ok(body)
}

fn retry_after(answer: &Answer<'_>, body: &Value) -> Verdict {
    let seconds: Option<u64> = number(answer, "retry-after");
    holds("Retry-After", seconds.is_some_and(|seconds| seconds >= 1))?;
    holds("there is no way on", body["detail"].is_string())
}

/// All rate-limit fields tell of `limit` and of nothing else; how much is left of it.
fn limit_fields(limit: &Limit, answer: &Answer<'_>) -> Result<u64, String> {
    let Limit {
        name,
        quota,
        window_seconds,
        burst,
    } = limit;
    let policy = format!("\"{name}\";q={quota};w={window_seconds}");
    equal(
        "RateLimit-Policy",
        answer.field("ratelimit-policy"),
        &policy,
    )?;
    let told = answer.field("ratelimit").unwrap_or_default();
    let left = told.strip_prefix(&format!("\"{name}\";r="));
    let left = left.and_then(|rest| rest.split_once(";t="));
    let left = left.and_then(|(r, t)| Some((r.parse::<u64>().ok()?, t.parse::<u64>().ok()?)));
    let (left, _) = left.ok_or_else(|| format!("RateLimit is {told:?}"))?;
    holds("more is left than the bucket holds", left <= *burst)?;
    let same = number(answer, "x-ratelimit-remaining") == Some(left);
    holds("X-RateLimit-Remaining differs", same)?;
    let same = number(answer, "x-ratelimit-limit") == Some(*quota);
    holds("X-RateLimit-Limit is another", same)?;
    let reset = number(answer, "x-ratelimit-reset").is_some();
    holds("X-RateLimit-Reset is no number", reset)?;
    Ok(left)
}

/// The id that the answer carries, in the form of a W3C trace id.
fn request_id<'a>(answer: &Answer<'a>) -> Result<&'a str, String> {
    let id = answer.field("x-request-id").unwrap_or_default();
    let is_one = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    holds("X-Request-Id", is_one).map(|()| id)
}

fn json(answer: &Answer<'_>) -> Result<Value, String> {
    serde_json::from_str(answer.body).map_err(|error| format!("the body is not JSON ({error})"))
}

fn number(answer: &Answer<'_>, field: &str) -> Option<u64> {
    answer.field(field)?.parse().ok()
}

fn equal(what: &str, found: Option<&str>, expected: &str) -> Verdict {
    if found == Some(expected) {
        Ok(())
    } else {
        Err(format!("{what} is {found:?}, not {expected:?}"))
    }
}

fn holds(what: &str, condition: bool) -> Verdict {
    if condition {
        Ok(())
    } else {
        Err(what.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::sidekey::Key;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn caller() -> Caller {
        Caller {
            key: Key {
                id: "4fzN8cQ2pLrT".to_owned(),
                text: String::new(),
            },
            tenant: "acme".to_owned(),
            limit: Limit {
                name: "tight",
                quota: 10,
                window_seconds: 1,
                burst: 10,
            },
        }
    }

    fn call(kind: Kind, caller: Option<&Caller>) -> Call<'_> {
        Call {
            kind,
            target: "/orders/1".to_owned(),
            caller,
            limited: None,
        }
    }

    fn judged(call: &Call<'_>, head: &str, body: &str) -> Verdict {
        judge(call, &Answer::new(head, body).expect("an answer"))
    }

    /// Right answers are believed, and not when any line or member of them is lost.
    #[track_caller]
    fn assert_complete(call: &Call<'_>, head: &str, body: &Value) {
        assert_eq!(judged(call, head, &body.to_string()), Ok(()));
        for line in head.lines().skip(1) {
            let less = head.replace(&format!("{line}\r\n"), "");
            assert!(judged(call, &less, &body.to_string()).is_err(), "{line}");
        }
        for member in body.as_object().expect("an object").keys() {
            let mut less = body.clone();
            less[member] = Value::Null;
            assert!(judged(call, head, &less.to_string()).is_err(), "{member}");
        }
    }

    fn problem_of(status: u16, uri: &str) -> Value {
        serde_json::json!({
            "type": uri, "title": "t", "status": status, "detail": "d", "request_id": ID,
        })
    }

    const LIMITS: &str = "RateLimit-Policy: \"tight\";q=10;w=1\r\nRateLimit: \"tight\";r=0;t=1\r\n\
        X-RateLimit-Limit: 10\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 1000\r\n";
    const OWN: &str = "Content-Type: application/problem+json\r\nCache-Control: no-store\r\n";

    #[test]
    fn every_part_of_a_forwarded_answer_counts() {
        let caller = caller();
        let call = call(Kind::Valid, Some(&caller));
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: {ID}\r\n{LIMITS}"
        );
        let body = serde_json::json!({
            "target": "/orders/1", "key": "4fzN8cQ2pLrT", "tenant": "acme", "scopes": GRANTED,
            "request_id": ID, "credential": false,
        });
        assert_complete(&call, &head, &body);
        let mut others = body.clone();
        others["target"] = "/orders/2".into();
        assert!(judged(&call, &head, &others.to_string()).is_err());
        let more = format!("{head}Retry-After: 1\r\n");
        assert!(judged(&call, &more, &body.to_string()).is_err());
    }

    #[test]
    fn every_part_of_a_refusal_counts() {
        let caller = caller();
        let mut body = problem_of(429, QUOTA);
        body["violated-policies"] = serde_json::json!(["tight"]);
        let id = format!("X-Request-Id: {ID}\r\n");
        let head = format!("HTTP/1.1 429 x\r\n{OWN}{id}{LIMITS}Retry-After: 1\r\n");
        assert_complete(&call(Kind::OverLimit, Some(&caller)), &head, &body);
        let head = format!(
            "HTTP/1.1 403 x\r\n{OWN}{id}{LIMITS}WWW-Authenticate: Bearer realm=\"api\", \
             error=\"insufficient_scope\", scope=\"orders:write\"\r\n"
        );
        let body = problem_of(403, "urn:sidekey:problem:insufficient-scope");
        assert_complete(&call(Kind::WrongScope, Some(&caller)), &head, &body);
        let head = format!("HTTP/1.1 503 x\r\n{OWN}{id}Retry-After: 1\r\n");
        let body = problem_of(503, CAPACITY);
        assert_complete(&call(Kind::Cold, Some(&caller)), &head, &body);
        let head = format!(
            "HTTP/1.1 401 x\r\n{OWN}{id}WWW-Authenticate: Bearer realm=\"api\", \
             error=\"invalid_token\"\r\n"
        );
        let body = problem_of(401, "urn:sidekey:problem:expired-key");
        assert_complete(&call(Kind::Expired, Some(&caller)), &head, &body);
        let body = problem_of(401, "urn:sidekey:problem:invalid-key");
        assert_complete(&call(Kind::Forged, None), &head, &body);
        let told = format!("{head}{LIMITS}");
        assert!(judged(&call(Kind::Forged, None), &told, &body.to_string()).is_err());
    }

    #[test]
    fn nobody_else_gets_through() {
        let caller = caller();
        for kind in [Kind::WrongScope, Kind::Expired, Kind::Forged] {
            let caller = (kind != Kind::Forged).then_some(&caller);
            assert!(judged(&call(kind, caller), "HTTP/1.1 200 OK\r\n", "{}").is_err());
        }
    }
}
