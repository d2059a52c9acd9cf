//! Calls of Vault: a limit on the time of each, a circuit breaker around all, and for each failure a
//! text that says what is wrong and what to do.
//!
//! Must never put a token, a login or a value into a text. The client library's own messages quote
//! bodies, so of its errors only the status, Vault's own words and the cause of a broken connection
//! are used.

use std::fmt::{self, Write};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use vaultrs::client::VaultClient;
use vaultrs::error::ClientError;

use super::login::Session;
use crate::breaker::Breaker;
use crate::clock::SharedClock;
use crate::config::settings::VaultSettings;
use crate::root_cause::root_cause;
use crate::secrets::SecretError;
use crate::telemetry::Metrics;
use crate::telemetry::dependencies::{Timer, VaultOperation, VaultTimes};
use crate::telemetry::metrics::Dependency;

/// Characters of somebody else's text that a message takes over.
const FOREIGN_CHARS_MAX: usize = 200;
/// Characters of a library's error that name its kind.
const KIND_CHARS_MAX: usize = 48;

/// Why a call gave nothing that can be used.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing lies at that path.
    Missing,
    /// What lay there was deleted, and can be brought back.
    Deleted,
    /// Somebody else wrote since it was read.
    Raced,
    /// The token does not hold, or does not allow it.
    Denied(String),
    /// What lies there was not written by Sidekey, or was changed since.
    NotOurs,
    /// Vault answers, but does not do this.
    Refused(String),
    /// Vault is away, sealed or too slow.
    Away(String),
}

impl Failure {
    /// The words for a line of the log.
    pub fn text(&self) -> &str {
        match self {
            Failure::Denied(text) | Failure::Refused(text) | Failure::Away(text) => text,
            Failure::Missing | Failure::Deleted | Failure::Raced | Failure::NotOurs => {
                "Vault has no such value"
            }
        }
    }
}

impl From<Failure> for SecretError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Raced => SecretError::Conflict,
            Failure::NotOurs => {
                SecretError::Damaged("a key's value in Vault is not as Sidekey wrote it")
            }
            Failure::Missing | Failure::Deleted => {
                SecretError::Unavailable("Vault has nothing there".to_owned())
            }
            Failure::Denied(text) | Failure::Refused(text) | Failure::Away(text) => {
                SecretError::Unavailable(text)
            }
        }
    }
}

/// The way to one Vault.
pub(super) struct Link {
    pub settings: VaultSettings,
    pub session: ArcSwapOption<Session>,
    /// When a refused call last led to a new login. One login at a time.
    pub login: tokio::sync::Mutex<Option<u64>>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    breaker: Breaker,
    times: VaultTimes,
}

impl Link {
    pub fn new(settings: VaultSettings, clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        Link {
            settings,
            session: ArcSwapOption::empty(),
            login: tokio::sync::Mutex::new(None),
            clock,
            times: metrics.vault_times(),
            metrics,
            breaker: Breaker::default(),
        }
    }

    /// Asks Vault about `path`. A call that is refused is made once more after a new login: its token
    /// may have ended, or been revoked.
    pub async fn call<T, W>(
        &self,
        operation: VaultOperation,
        path: &str,
        work: impl Fn(Arc<VaultClient>) -> W,
    ) -> Result<T, Failure>
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        self.guarded(operation, self.attempt(path, work)).await
    }

    async fn attempt<T, W>(
        &self,
        path: &str,
        work: impl Fn(Arc<VaultClient>) -> W,
    ) -> Result<T, Failure>
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        let session = self.session.load_full();
        let session = session.ok_or_else(|| Failure::Denied("there was no login".to_owned()))?;
        let error = match work(session.client.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let failure = self.failure(path, &error);
        if !matches!(failure, Failure::Denied(_)) {
            return Err(failure);
        }
        let Some(renewed) = self.login_after(&session).await? else {
            return Err(failure);
        };
        let again = work(renewed.client.clone()).await;
        again.map_err(|error| self.failure(path, &error))
    }

    /// Runs one call within its limit on time, if the breaker lets it through.
    pub async fn guarded<T>(
        &self,
        operation: VaultOperation,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.metrics.vault_calls.inc();
        let Some(permit) = self.breaker.permit(self.clock.monotonic_us()) else {
            self.metrics.vault_errors.inc();
            return Err(self.away("it did not answer the last calls"));
        };
        let limit = self.settings.timeout;
        let timer = Timer::begin(self.times.of(operation), &self.clock);
        let outcome = match tokio::time::timeout(limit, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.away(&format!("no answer within {} ms", limit.as_millis()))),
        };
        drop(timer);
        let was_open = self.breaker.is_open();
        match &outcome {
            Err(Failure::Away(text)) => {
                permit.failed(self.clock.monotonic_us());
                if !was_open && self.breaker.is_open() {
                    tracing::error!(reason = %text, "Vault is away: keys that are not in memory yet, and changes of keys, are answered 503 until it is back");
                    self.metrics.vault_up.set(0);
                }
            }
            _ => {
                permit.succeeded();
                if was_open {
                    tracing::info!("Vault answers again");
                }
                self.metrics.vault_up.set(1);
            }
        }
        let is_open = self.breaker.is_open();
        let shown = self.metrics.breaker_open(Dependency::Vault);
        shown.set(i64::from(is_open));
        let is_expected = matches!(
            outcome,
            Ok(_) | Err(Failure::Missing | Failure::Deleted | Failure::Raced | Failure::NotOurs)
        );
        if !is_expected {
            self.metrics.vault_errors.inc();
        }
        outcome
    }

    /// Vault can't be asked, because of `why`.
    pub fn away(&self, why: &str) -> Failure {
        Failure::Away(format!(
            "Vault at {} is away: {why}; check that it runs, is unsealed and can be reached (secrets.vault.address)",
            self.settings.address
        ))
    }

    /// What an error of a call about `path` means.
    pub fn failure(&self, path: &str, error: &ClientError) -> Failure {
        let mount = &self.settings.mount;
        match answer_of(error) {
            Answer::Status(404, words) if words.is_empty() => Failure::Missing,
            Answer::Status(404, words) => Failure::Refused(format!(
                "Vault knows no {path}: {words}; check secrets.vault.mount and secrets.vault.namespace"
            )),
            Answer::Body(404) => Failure::Deleted,
            Answer::Status(403, _) | Answer::Body(403) => Failure::Denied(format!(
                "Vault denies permission on {path}: check that the token's policy is config/vault-policy.hcl with \"{mount}\" as the mount, and secrets.vault.namespace"
            )),
            Answer::Status(400, words) if words.contains("check-and-set") => Failure::Raced,
            Answer::Status(503, words) if words.contains("sealed") => {
                self.away("it is sealed; unseal it")
            }
            Answer::Status(code, words) if code >= 429 => {
                self.away(&format!("it answered {code} {words}"))
            }
            Answer::Status(code, words) => {
                Failure::Refused(format!("Vault answered {code} about {path}: {words}"))
            }
            Answer::Body(code) => self.away(&format!("it answered {code}")),
            Answer::Unreadable => Failure::Refused(format!(
                "Vault's answer about {path} can't be read; check that \"{mount}\" is a KV v2 mount"
            )),
            Answer::Broken(cause) => self.away(&cause),
        }
    }
}

/// What came back in place of a success.
pub(super) enum Answer {
    /// A status, with what Vault says about it.
    Status(u16, String),
    /// A status with a body that is no error of Vault's.
    Body(u16),
    /// A success that the library can't read.
    Unreadable,
    /// No answer, and why.
    Broken(String),
}

/// Takes a library's error apart, without its bodies.
pub(super) fn answer_of(error: &ClientError) -> Answer {
    match error {
        ClientError::APIError { code, errors } => {
            Answer::Status(*code, foreign(errors.join(", ").trim()))
        }
        ClientError::RestClientError { source } => {
            // The type is of a crate that is not among our dependencies; its name and the status come
            // first in its debug text. What comes behind may be a body, and is not taken.
            let kind = kind_of(source);
            let status = kind.strip_prefix("ServerResponseError { code: ");
            let digits = status.map(|rest| rest.chars().take_while(char::is_ascii_digit));
            match digits.and_then(|digits| digits.collect::<String>().parse().ok()) {
                Some(code) => Answer::Body(code),
                None if kind.starts_with("RequestError") || kind.starts_with("ResponseError") => {
                    Answer::Broken(foreign(&root_cause(source)))
                }
                None => Answer::Unreadable,
            }
        }
        ClientError::ParseCertificateError { path, .. } => {
            Answer::Broken(format!("{path} holds no certificates (PEM)"))
        }
        ClientError::FileReadError { source, path } => {
            Answer::Broken(format!("{path} can't be read: {source}"))
        }
        ClientError::RestClientBuildError { source } => {
            Answer::Broken(foreign(&root_cause(source)))
        }
        _ => Answer::Unreadable,
    }
}

/// The beginning of a debug text; the rest is never made.
fn kind_of(error: &dyn fmt::Debug) -> String {
    struct Head(String);
    impl Write for Head {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = KIND_CHARS_MAX.saturating_sub(self.0.len());
            self.0.extend(text.chars().take(room));
            if room == 0 { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut head = Head(String::new());
    // Ends with an error where the head is full.
    let _ = write!(head, "{error:?}");
    head.0
}

/// Somebody else's text, for a line of a log.
fn foreign(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let chars = words.chars().filter(|c| !c.is_control());
    chars.take(FOREIGN_CHARS_MAX).collect()
}
