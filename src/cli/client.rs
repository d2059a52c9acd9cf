//! Calls of the admin API: each with a limit on its time, on the size of its answer and on how often it
//! is repeated, and for each failure one sentence that says what to do.
//!
//! Must never put the admin key, or a body, into a message.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{Response, redirect};
use serde_json::Value;
use url::Url;

use super::access::{Access, AccessArguments, KeyOrigin};
use super::failure::{self, Failure};
use super::options;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::ProcessEnvironment;
use crate::problem::Kind;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take as a whole; the server ends its own after 30 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a download may be silent; as a whole it may take as long as it does.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(40);
/// An answer has at most this many bytes; a page of a thousand keys with full metadata has 12 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A call that may be repeated is sent at most this often.
const ATTEMPTS_MAX: u32 = 4;
/// The pause before the second attempt; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause that is made because the server asks for it.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Where the platform API stands below the URL.
const API_SEGMENTS: [&str; 3] = ["api", "v1", "platform"];

/// How far a change has come on other instances.
const PROPAGATION: HeaderName = HeaderName::from_static("sidekey-propagation");

/// A call that is not sent yet.
pub struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    is_repeatable: bool,
    /// What shows the things that there are, where one is missing.
    pub see: Option<&'static str>,
}

impl Call {
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
    headers: HeaderMap,
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

fn not_the_api() -> Failure {
    Failure::failed(
        "the answer is not one of Sidekey's admin API: give the URL of the admin port with --admin-url or SIDEKEY_ADMIN_URL",
    )
}

/// How an attempt ended without an answer.
enum Lost {
    /// Nothing was sent.
    NoConnection(String),
    /// It may have been carried out.
    NoAnswer(String),
    /// An answer that is too long to be one.
    TooLong,
}

/// The admin API.
pub struct Api {
    http: reqwest::Client,
    url: Url,
    authorization: HeaderValue,
    key_origin: KeyOrigin,
    /// Whether answers are printed as JSON.
    pub json: bool,
    pub clock: SystemClock,
    /// It has answered before: where it can't be reached now, it may be starting again.
    has_answered: AtomicBool,
}

/// Runs `work` on the admin API that `arguments` name, and is the exit code.
pub fn run(
    arguments: &AccessArguments,
    work: impl AsyncFnOnce(&Api) -> Result<(), Failure>,
) -> std::process::ExitCode {
    super::block_on(async {
        let done = match Api::open(arguments) {
            Ok(api) => work(&api).await,
            Err(failure) => Err(failure),
        };
        Ok(failure::end(done))
    })
}

impl Api {
    fn open(arguments: &AccessArguments) -> Result<Self, Failure> {
        let access = Access::read(arguments, &ProcessEnvironment)?;
        Ok(Api {
            http: http_client(access.certificates.as_deref())?,
            url: access.url,
            authorization: access.authorization,
            key_origin: access.key_origin,
            json: arguments.json,
            clock: SystemClock::new(),
            has_answered: AtomicBool::new(false),
        })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A call of the path that `segments` make below the platform API.
    pub fn call(&self, method: Method, segments: &[&str]) -> Call {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(API_SEGMENTS).extend(segments);
        }
        Call {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            is_repeatable: true,
            see: None,
        }
    }

    pub fn get(&self, segments: &[&str]) -> Call {
        self.call(Method::GET, segments)
    }

    /// Sends `call`; anything but success is a failure.
    pub async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let answer = self.ask(call).await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.refusal(&answer, call))
        }
    }

    /// Sends `call`; `None` where there is no such thing.
    pub async fn find(&self, call: &Call) -> Result<Option<Answer>, Failure> {
        let answer = self.ask(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND if problem_type(&answer) == Kind::NotFound.uri() => Ok(None),
            status if status.is_success() => Ok(Some(answer)),
            _ => Err(self.refusal(&answer, call)),
        }
    }

    /// Sends `call`, and gives its answer while it comes.
    pub async fn download(&self, call: &Call) -> Result<Response, Failure> {
        let sent = self.request(call).send().await;
        let response = sent.map_err(|error| self.failure(lost(&error), call))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let read = tokio::time::timeout(CALL_TIMEOUT, read(response)).await;
        let lost = |lost| self.failure(lost, call);
        let answer = read.unwrap_or_else(|_| Err(too_slow())).map_err(lost)?;
        Err(self.refusal(&answer, call))
    }

    /// Sends `call`, again where that does no harm and the answer was lost or is to come later.
    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let mut pause = PAUSE_FIRST;
        let mut attempt = 1;
        loop {
            let answer = self.attempt(call).await;
            let may_repeat = call.is_repeatable && attempt < ATTEMPTS_MAX;
            let wait = match &answer {
                _ if !may_repeat => None,
                Err(Lost::NoConnection(_)) if !self.has_answered.load(Ordering::Relaxed) => None,
                Err(Lost::TooLong) => None,
                Err(_) => Some(pause),
                Ok(answer) => self.later(answer).map(|asked| asked.max(pause)),
            };
            let Some(wait) = wait else {
                return answer.map_err(|lost| self.failure(lost, call));
            };
            tokio::time::sleep(wait).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// How long to wait before asking again, where the answer is that it can't be given now.
    fn later(&self, answer: &Answer) -> Option<Duration> {
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let seconds = answer
            .header(&RETRY_AFTER)
            .and_then(|text| text.parse().ok());
        let asked = seconds.map_or(PAUSE_FIRST, Duration::from_secs);
        (asked <= PAUSE_MAX).then_some(asked)
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Lost> {
        let exchange = async {
            let response = self.request(call).send().await;
            read(response.map_err(|error| lost(&error))?).await
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err(too_slow()))?;
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    fn request(&self, call: &Call) -> reqwest::RequestBuilder {
        let mut request = self
            .http
            .request(call.method.clone(), call.url.clone())
            .headers(call.headers.clone())
            .header(AUTHORIZATION, self.authorization.clone());
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        request
    }

    /// The sentence for a call that was not answered.
    fn failure(&self, lost: Lost, call: &Call) -> Failure {
        let url = &self.url;
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
            Lost::TooLong => format!(
                "the answer of {url} has more than {ANSWER_BYTES_MAX} bytes: ask for less with --limit"
            ),
        })
    }

    /// The sentence for an answer that is not a success.
    fn refusal(&self, answer: &Answer, call: &Call) -> Failure {
        let status = answer.status;
        if status.is_redirection() {
            return Failure::failed(format!(
                "{} answers with a redirection, which is not followed: give the right URL with --admin-url or SIDEKEY_ADMIN_URL",
                self.url
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
                "the admin key from {} was refused ({sentence}): give another with SIDEKEY_ADMIN_KEY or --admin-key-file",
                self.key_origin
            )),
            403 => Failure::failed(format!(
                "the admin key from {} may not do this: {detail}",
                self.key_origin
            )),
            404 => match call.see {
                Some(see) => Failure::failed(format!("{sentence}: `{see}` shows what there is")),
                None => Failure::failed(format!(
                    "{sentence}: does {} belong to a Sidekey of this version?",
                    self.url
                )),
            },
            422 => Failure::Arguments(bad_fields(&problem)),
            _ => Failure::failed(detail),
        }
    }
}

/// One client for all calls. The key goes nowhere but to the URL: no redirection is followed, and no
/// proxy of the environment is used.
fn http_client(certificates: Option<&[u8]>) -> Result<reqwest::Client, Failure> {
    crate::tls::use_ring();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .user_agent(concat!("sidekey/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = certificates {
        let read = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
        if read.is_empty() {
            return Err(Failure::arguments(
                "the file of --ca-file holds no certificate: give one in PEM form",
            ));
        }
        builder = builder.tls_certs_merge(read);
    }
    builder
        .build()
        .map_err(|error| Failure::failed(format!("HTTP can't be set up: {}", cause(&error))))
}

/// Reads an answer to its end.
async fn read(mut response: Response) -> Result<Answer, Lost> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Lost::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

fn too_slow() -> Lost {
    Lost::NoAnswer(format!("nothing within {} s", CALL_TIMEOUT.as_secs()))
}

fn lost(error: &reqwest::Error) -> Lost {
    if error.is_connect() {
        Lost::NoConnection(cause(error))
    } else {
        Lost::NoAnswer(cause(error))
    }
}

/// The innermost cause: the library's own words name the URL and no reason.
pub fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The body of a problem (RFC 9457).
fn problem(answer: &Answer) -> Option<Value> {
    let problem: Value = serde_json::from_str(&answer.text).ok()?;
    (problem["detail"].is_string() && problem["type"].is_string()).then_some(problem)
}

fn problem_type(answer: &Answer) -> String {
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
    use serde_json::json;

    fn api(url: &str) -> Api {
        Api {
            http: http_client(None).unwrap(),
            url: url.parse().unwrap(),
            authorization: HeaderValue::from_static("Bearer k"),
            key_origin: KeyOrigin::Variable,
            json: false,
            clock: SystemClock::new(),
            has_answered: AtomicBool::new(false),
        }
    }

    fn answer(status: u16, body: Value) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            text: body.to_string(),
            headers: HeaderMap::new(),
        }
    }

    #[test]
    fn what_is_typed_stays_one_segment() {
        for (base, expected) in [
            (
                "http://127.0.0.1:1",
                "http://127.0.0.1:1/api/v1/platform/api-keys/..%2Fx%3Fy?q=a+b",
            ),
            (
                "https://h/sidekey/",
                "https://h/sidekey/api/v1/platform/api-keys/..%2Fx%3Fy?q=a+b",
            ),
        ] {
            let call = api(base)
                .get(&["api-keys", "../x?y"])
                .query("q", Some("a b"))
                .query("r", None::<&str>);
            assert_eq!(call.url.as_str(), expected);
        }
        let mut call = api("http://h")
            .get(&["x"])
            .query("a", Some(1))
            .query("b", Some(2));
        call.set_query("a", "3");
        assert_eq!(call.url.query(), Some("b=2&a=3"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let api = api("http://127.0.0.1:1");
        let call = api.get(&["api-keys", "x"]).see("sidekey keys list");
        let body = |kind: Kind, detail: &str| json!({"type": kind.uri(), "detail": detail});
        let told = |status, body| match api.refusal(&answer(status, body), &call) {
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
            api.refusal(&answer(422, fields), &call),
            Failure::Arguments(
                "the API does not accept this; correct what stands below, and run it again\n  --rate-limit: a\n  colour: b".to_owned()
            )
        );
    }

    #[test]
    fn instances_that_have_not_confirmed_are_named() {
        let mut answer = answer(204, json!(null));
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
