//! Calls of the admin API: each with a limit on its time, on the size of its answer and on how often it
//! is repeated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Response, redirect};
use url::Url;

use super::access::{Access, AccessArguments, KeyOrigin};
pub use super::call::{Answer, Call};
use super::failure::{self, Failure};
use super::refusal::{self, Lost, problem_type};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::ProcessEnvironment;
use crate::problem::Kind;
use crate::root_cause::root_cause;

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
        Call::new(method, url)
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
            Err(refusal::refused(&answer, call, &self.url, &self.key_origin))
        }
    }

    /// Sends `call`; `None` where there is no such thing.
    pub async fn find(&self, call: &Call) -> Result<Option<Answer>, Failure> {
        let answer = self.ask(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND if problem_type(&answer) == Kind::NotFound.uri() => Ok(None),
            status if status.is_success() => Ok(Some(answer)),
            _ => Err(refusal::refused(&answer, call, &self.url, &self.key_origin)),
        }
    }

    /// Sends `call`, and reads its answer for as long as that gives signs of life.
    pub async fn wait_for(&self, call: &Call) -> Result<Answer, Failure> {
        let answer = read(self.download(call).await?).await;
        answer.map_err(|lost| refusal::unanswered(lost, call, &self.url))
    }

    /// Sends `call`, and gives its answer while it comes.
    pub async fn download(&self, call: &Call) -> Result<Response, Failure> {
        let sent = self.request(call).send().await;
        let response = sent.map_err(|error| refusal::unanswered(lost(&error), call, &self.url))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let read = tokio::time::timeout(CALL_TIMEOUT, read(response)).await;
        let lost = |lost| refusal::unanswered(lost, call, &self.url);
        let answer = read.unwrap_or_else(|_| Err(too_slow())).map_err(lost)?;
        Err(refusal::refused(&answer, call, &self.url, &self.key_origin))
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
                Err(Lost::TooLong(_)) => None,
                Err(_) => Some(pause),
                Ok(answer) => self.later(answer).map(|asked| asked.max(pause)),
            };
            let Some(wait) = wait else {
                return answer.map_err(|lost| refusal::unanswered(lost, call, &self.url));
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
            return Err(Lost::TooLong(ANSWER_BYTES_MAX));
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

/// Why there was no answer.
pub fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    root_cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
