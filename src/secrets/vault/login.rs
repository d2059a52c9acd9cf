//! The life of Vault's token: login, renewal at about two thirds of its time, a new login where it
//! can't be renewed, would soon end for good, or does not hold any more.
//!
//! One task looks after it, and asks Vault every few seconds whether it still holds: so an outage is
//! seen (and its end) when no request asks.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use vaultrs::api::AuthInfo;
use vaultrs::auth::{approle, kubernetes};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::token;

use super::link::{Answer, Failure, Link, answer_of};
use crate::config::settings::{SecretSource, VaultAuth};
use crate::telemetry::dependencies::VaultOperation;

/// How often Vault is asked whether the token holds.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait after a renewal or a login that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A refused call leads to at most one new login in this time.
const RELOGIN_PAUSE_US: u64 = 2_000_000;
/// The least time between two looks, whatever the token's time is.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// A token that nobody can replace is warned about this often.
const WARN_INTERVAL_US: u64 = 60_000_000;

/// What is shown as the time of a token that is refused or has ended; 0 is one without an end.
const TTL_OF_NO_TOKEN: i64 = -1;

/// A token in use.
pub(super) struct Session {
    pub client: Arc<VaultClient>,
    /// `None`: it never ends.
    lease: Option<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    /// What the token was given at its login.
    full: Duration,
    renewable: bool,
    refresh_at_us: u64,
    end_us: u64,
}

impl Lease {
    /// A token that lasts for `ttl` from `now_us`, of a full time of `full`.
    fn new(full: Duration, ttl: Duration, renewable: bool, now_us: u64) -> Self {
        let ttl_us = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
        // Between 60 and 70 %, so that instances which started together don't come together.
        let share = ttl_us / 100 * fastrand::u64(60..70);
        Lease {
            full,
            renewable,
            refresh_at_us: now_us.saturating_add(share),
            end_us: now_us.saturating_add(ttl_us),
        }
    }

    /// How many seconds are left at `now_us`, as the gauge shows it.
    fn seconds_left(&self, now_us: u64) -> i64 {
        match self.end_us.saturating_sub(now_us) {
            0 => TTL_OF_NO_TOKEN,
            us => i64::try_from(us.div_ceil(1_000_000)).unwrap_or(i64::MAX),
        }
    }
}

impl Link {
    /// Logs in and makes the new token the current one.
    pub async fn log_in(&self) -> Result<Arc<Session>, Failure> {
        let logged_in = self.new_session().await;
        if let Err(failure) = &logged_in {
            self.metrics.vault_login_errors.inc();
            tracing::error!(reason = %failure.text(), "the login at Vault failed");
        }
        let session = Arc::new(logged_in?);
        self.session.store(Some(session.clone()));
        tracing::info!("logged in at Vault");
        Ok(session)
    }

    /// A login after a call with the token of `old` was refused. `None` where a new one would not help.
    pub async fn login_after(&self, old: &Arc<Session>) -> Result<Option<Arc<Session>>, Failure> {
        let mut last = self.login.lock().await;
        if let Some(current) = self.session.load_full()
            && !Arc::ptr_eq(&current, old)
        {
            // Somebody else has logged in meanwhile.
            return Ok(Some(current));
        }
        let now_us = self.clock.monotonic_us();
        let is_soon = last.is_some_and(|last| now_us < last.saturating_add(RELOGIN_PAUSE_US));
        if is_soon || !self.can_log_in_again() {
            return Ok(None);
        }
        *last = Some(now_us);
        self.log_in().await.map(Some)
    }

    /// Whether the configuration can give another token than the one it has given.
    fn can_log_in_again(&self) -> bool {
        !matches!(self.settings.auth, VaultAuth::Token(SecretSource::Text(_)))
    }

    async fn new_session(&self) -> Result<Session, Failure> {
        let mount = &self.settings.auth_mount;
        match &self.settings.auth {
            VaultAuth::Token(source) => self.session_of_token(&read(source)?).await,
            VaultAuth::AppRole { role_id, secret_id } => {
                let (client, secret_id) = (self.client("")?, read(secret_id)?);
                let login = approle::login(&client, mount, role_id, secret_id.expose_secret());
                self.session_of(login.await)
            }
            VaultAuth::Kubernetes { role, jwt } => {
                let (client, jwt) = (self.client("")?, read(jwt)?);
                let login = kubernetes::login(&client, mount, role, jwt.expose_secret());
                self.session_of(login.await)
            }
        }
    }

    fn session_of(&self, login: Result<AuthInfo, ClientError>) -> Result<Session, Failure> {
        let auth = login.map_err(|error| self.login_failure(&error))?;
        let ttl = Duration::from_secs(auth.lease_duration);
        Ok(Session {
            client: Arc::new(self.client(&auth.client_token)?),
            lease: self.lease(ttl, auth.renewable),
        })
    }

    async fn session_of_token(&self, token: &SecretString) -> Result<Session, Failure> {
        let client = Arc::new(self.client(token.expose_secret())?);
        let found = token::lookup_self(client.as_ref()).await;
        let found = found.map_err(|error| self.login_failure(&error))?;
        let ttl = Duration::from_secs(found.ttl);
        let lease = self.lease(ttl, found.renewable.unwrap_or(false));
        Ok(Session { client, lease })
    }

    fn lease(&self, ttl: Duration, renewable: bool) -> Option<Lease> {
        self.show_ttl(ttl);
        let now_us = self.clock.monotonic_us();
        (!ttl.is_zero()).then(|| Lease::new(ttl, ttl, renewable, now_us))
    }

    fn show_ttl(&self, ttl: Duration) {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        self.metrics.vault_token_ttl.set(seconds);
    }

    /// What a failed login means. Vault's words are left out: they may quote what was sent.
    fn login_failure(&self, error: &ClientError) -> Failure {
        let (names, mount) = match self.settings.auth {
            VaultAuth::Token(_) => ("secrets.vault.token or its file", "token"),
            VaultAuth::AppRole { .. } => {
                ("role_id and secret_id", self.settings.auth_mount.as_str())
            }
            VaultAuth::Kubernetes { .. } => (
                "role, and that Vault may review the service account's token",
                self.settings.auth_mount.as_str(),
            ),
        };
        match answer_of(error) {
            Answer::Status(code, words) if code < 429 => {
                let hint = if words.contains("namespace") || code == 404 {
                    " and secrets.vault.namespace"
                } else {
                    ""
                };
                Failure::Denied(format!(
                    "Vault refuses the login ({code}) at auth/{mount}: check {names}{hint}"
                ))
            }
            _ => self.failure("the login", error),
        }
    }

    /// A client with `token`. It is a new one for each token, so certificates are read again.
    fn client(&self, token: &str) -> Result<VaultClient, Failure> {
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            let text = "a token of Vault has characters that no token has; check its file";
            return Err(Failure::Denied(text.to_owned()));
        }
        let settings = &self.settings;
        let ca_certs = settings.ca_file.iter();
        // Everything is given, so that nothing comes from the VAULT_* variables of the environment.
        let built = VaultClientSettingsBuilder::default()
            .address(&settings.address)
            .ca_certs(
                ca_certs
                    .map(|path| path.display().to_string())
                    .collect::<Vec<_>>(),
            )
            .identity(None)
            // Each call has a limit as a whole.
            .timeout(None)
            .token(token)
            .verify(true)
            .namespace(settings.namespace.clone())
            .build();
        let built = built.map_err(|_| self.away("secrets.vault.address is none"))?;
        VaultClient::new(built).map_err(|error| self.failure("its client", &error))
    }

    /// Looks after the token for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        let mut warned_us = 0;
        loop {
            tokio::time::sleep(self.pause()).await;
            if self.is_due() {
                if !self.refresh(&mut warned_us).await {
                    tokio::time::sleep(jittered(RETRY_PAUSE)).await;
                }
            } else {
                // Whatever comes of it: the breaker and the gauges have seen it.
                let _ = self.look().await;
            }
        }
    }

    /// Asks Vault whether the token holds. What is shown of it follows, whatever comes of that.
    pub async fn look(&self) -> Result<(), Failure> {
        let before = self.session.load_full();
        let found = self
            .call(
                VaultOperation::Login,
                "auth/token/lookup-self",
                async |client| token::lookup_self(client.as_ref()).await,
            )
            .await;
        match &found {
            Ok(found) => self.show_ttl(Duration::from_secs(found.ttl)),
            Err(Failure::Denied(_)) => self.token_does_not_hold(before.as_ref()),
            Err(_) => self.show_what_was_told(),
        }
        found.map(|_| ())
    }

    /// Vault does not know the token of `before` any more, unless it has been replaced since.
    fn token_does_not_hold(&self, before: Option<&Arc<Session>>) {
        let current = self.session.load_full();
        if current.as_ref().map(Arc::as_ptr) != before.map(Arc::as_ptr) {
            return;
        }
        self.metrics.vault_token_ttl.set(TTL_OF_NO_TOKEN);
        // A login that fails has counted itself; where there can be none, nobody else does.
        if !self.can_log_in_again() {
            self.metrics.vault_login_errors.inc();
        }
    }

    /// Vault can't be asked: the token's time goes on as it was told at the last login or renewal.
    fn show_what_was_told(&self) {
        if let Some(lease) = self.current_lease() {
            let left = lease.seconds_left(self.clock.monotonic_us());
            self.metrics.vault_token_ttl.set(left);
        }
    }

    fn current_lease(&self) -> Option<Lease> {
        self.session.load().as_ref()?.lease
    }

    /// How long until there is something to do.
    fn pause(&self) -> Duration {
        let until_refresh = self.current_lease().map(|lease| {
            let us = lease
                .refresh_at_us
                .saturating_sub(self.clock.monotonic_us());
            Duration::from_micros(us)
        });
        let pause = until_refresh
            .unwrap_or(LOOK_INTERVAL)
            .min(jittered(LOOK_INTERVAL));
        pause.max(LOOK_INTERVAL_MIN)
    }

    fn is_due(&self) -> bool {
        let now_us = self.clock.monotonic_us();
        self.current_lease()
            .is_some_and(|lease| now_us >= lease.refresh_at_us)
    }

    /// Renews the token, or logs in again; whether there is a new time for it.
    async fn refresh(&self, warned_us: &mut u64) -> bool {
        let Some(lease) = self.current_lease() else {
            return true;
        };
        match self.renew_or_replace(lease).await {
            Ok(true) => return true,
            Ok(false) => self.warn_of_end(lease, warned_us),
            // It is in the log and the metrics, and comes again.
            Err(_) => {}
        }
        // Else the gauge would stay where the last renewal has left it.
        let _ = self.look().await;
        false
    }

    /// `false` where the token can be neither renewed nor replaced.
    async fn renew_or_replace(&self, lease: Lease) -> Result<bool, Failure> {
        if lease.renewable && self.renew(lease).await? {
            return Ok(true);
        }
        if !self.can_log_in_again() {
            return Ok(false);
        }
        let logged_in = self.guarded(VaultOperation::Login, self.log_in()).await;
        logged_in.map(|_| true)
    }

    /// Renews the token. `false` where it would end soon all the same.
    async fn renew(&self, lease: Lease) -> Result<bool, Failure> {
        let renewed = self
            .call(
                VaultOperation::Login,
                "auth/token/renew-self",
                async |client| token::renew_self(client.as_ref(), None).await,
            )
            .await;
        let auth = match renewed {
            Ok(auth) => auth,
            Err(Failure::Away(text)) => {
                self.metrics.vault_login_errors.inc();
                return Err(Failure::Away(text));
            }
            Err(failure) => {
                self.metrics.vault_login_errors.inc();
                tracing::warn!(reason = %failure.text(), "the token of Vault was not renewed");
                return Ok(false);
            }
        };
        let ttl = Duration::from_secs(auth.lease_duration);
        let Some(session) = self.session.load_full() else {
            return Ok(false);
        };
        let now_us = self.clock.monotonic_us();
        self.show_ttl(ttl);
        self.session.store(Some(Arc::new(Session {
            client: session.client.clone(),
            lease: Some(Lease::new(lease.full, ttl, auth.renewable, now_us)),
        })));
        // Near the end of the time that it may live at most, a renewal gives less and less.
        Ok(ttl >= lease.full / 2)
    }

    fn warn_of_end(&self, lease: Lease, warned_us: &mut u64) {
        let now_us = self.clock.monotonic_us();
        if *warned_us != 0 && now_us < warned_us.saturating_add(WARN_INTERVAL_US) {
            return;
        }
        *warned_us = now_us.max(1);
        let seconds = lease.end_us.saturating_sub(now_us) / 1_000_000;
        tracing::warn!(
            seconds_left = seconds,
            "the token of Vault ends and can't be renewed: give a new one with secrets.vault.token_file, or a login (secrets.vault.auth = \"approle\" or \"kubernetes\"), and start Sidekey again"
        );
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * fastrand::f64())
}

fn read(source: &SecretSource) -> Result<SecretString, Failure> {
    source.read().map_err(Failure::Denied)
}
