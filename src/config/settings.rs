//! Checked settings: what the rest of the program gets. Every value is sound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use lettre::message::Mailbox;
use secrecy::SecretString;

use super::read_secret_file;
use crate::key::{Catalogue, Policy, Prefix, Scope};
use crate::redis_link::Target;
use crate::telemetry::access::PerOutcome;

/// Everything that the program was told.
#[derive(Debug)]
pub struct Settings {
    pub proxy: ProxySettings,
    pub credentials: CredentialSettings,
    pub upstreams: Vec<UpstreamSettings>,
    pub routes: Vec<RouteSettings>,
    pub catalogue: Catalogue,
    /// The catalogue's scopes, with what each is for.
    pub described_scopes: Vec<DescribedScope>,
    pub limits: LimitSettings,
    pub verification: VerificationSettings,
    pub bcrypt: BcryptSettings,
    pub store: StoreSettings,
    pub secrets: SecretsSettings,
    pub reconcile: ReconcileSettings,
    pub admin: AdminSettings,
    pub dashboard: DashboardSettings,
    pub usage: UsageSettings,
    pub metrics: MetricsSettings,
    /// Where mail can be sent.
    pub smtp: Option<SmtpSettings>,
    pub reminders: ReminderSettings,
    pub log: LogSettings,
    pub tracing: TracingSettings,
}

/// A scope of the catalogue.
#[derive(Debug, Clone)]
pub struct DescribedScope {
    pub scope: Scope,
    /// For people; may be empty.
    pub description: String,
}

/// Whether refusals are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// Nobody is refused, everything is reported.
    Shadow,
}

#[derive(Debug)]
pub struct ProxySettings {
    pub listen: Vec<SocketAddr>,
    pub mode: Mode,
    pub trusted_proxies: Vec<IpNet>,
    pub threads: usize,
    /// Whole seconds.
    pub keepalive: Duration,
    pub client_timeout: Duration,
    pub upgrade_idle: Duration,
    pub header_timeout: Duration,
    pub max_connections: usize,
    pub max_header_bytes: usize,
    pub max_body_bytes: u64,
    /// Between a signal to stop and the end of listening.
    pub shutdown_notice: Duration,
    pub shutdown: Duration,
    /// Where the holder of a key can ask about it, if anywhere.
    pub self_service: Option<String>,
}

/// One place where a request may carry its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Bearer,
    Basic,
    Header(HeaderName),
    Query(String),
    Cookie(String),
}

#[derive(Debug)]
pub struct CredentialSettings {
    pub sources: Vec<Source>,
    pub hide: bool,
    pub realm: String,
    pub prefix: Prefix,
}

/// Where one server of an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// A host name or an address.
    Host { host: String, port: u16, tls: bool },
    /// The built-in echo upstream.
    Echo,
}

#[derive(Debug)]
pub struct UpstreamSettings {
    pub name: String,
    pub servers: Vec<Server>,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub idle_timeout: Duration,
}

/// What a route asks of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Required,
    /// A key if there is one; anonymous callers have limits of their own.
    Optional,
    Off,
}

/// Which hosts a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    /// Lower case, without port.
    Exact(String),
    /// `.example.com` for `*.example.com`.
    Suffix(String),
}

#[derive(Debug)]
pub struct RouteSettings {
    pub name: String,
    pub host: HostPattern,
    /// Without a slash at the end; empty for `/`.
    pub path: String,
    /// Empty: all.
    pub methods: Vec<Method>,
    /// Index into [`Settings::upstreams`].
    pub upstream: usize,
    pub auth: Auth,
    pub scopes: Vec<Scope>,
    pub cost: u64,
    /// Where it is not that of the limits.
    pub on_outage: Option<OnOutage>,
    pub cors_preflight: bool,
    pub max_body_bytes: u64,
}

/// What happens to limits while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// Each instance holds keys to its share.
    Local,
    /// Nobody is limited.
    Open,
    /// Nobody passes.
    Closed,
}

/// `[redis]`, where limits are shared.
#[derive(Debug)]
pub struct RedisSettings {
    pub target: Target,
    pub timeout: Duration,
    /// What `target` has read, to see when its certificates end.
    pub ca_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
}

#[derive(Debug)]
pub struct LimitSettings {
    /// Where buckets are shared; in memory otherwise.
    pub redis: Option<RedisSettings>,
    pub on_outage: OnOutage,
    /// For how long tokens are taken from Redis in advance. Zero: never.
    pub max_lease: Duration,
    /// Instances that share the limits.
    pub instances: u64,
    pub default: Vec<Arc<Policy>>,
    pub anonymous: Vec<Arc<Policy>>,
    pub failed_auth: Arc<Policy>,
    pub max_addresses: u64,
    /// Whether `RateLimit` and `RateLimit-Policy` are sent.
    pub ratelimit_fields: bool,
    /// Whether `X-RateLimit-*` are sent.
    pub x_ratelimit_fields: bool,
}

#[derive(Debug, Clone)]
pub struct VerificationSettings {
    pub max_proofs: u64,
    pub proof_ttl: Duration,
    pub negative_ttl: Duration,
}

#[derive(Debug, Clone)]
pub struct BcryptSettings {
    pub cost: u32,
    pub max_queue: usize,
    pub threads: usize,
}

#[derive(Debug)]
pub struct StoreSettings {
    /// May hold a password.
    pub url: SecretString,
    /// How long keys are served from memory while the database is away.
    pub max_stale: Duration,
    /// How often to look for what other instances have changed.
    pub poll_interval: Duration,
    /// How long an answer waits for other instances to confirm a change.
    pub propagation_wait: Duration,
    /// What answers call this instance; otherwise its host and the admin port.
    pub instance_name: Option<String>,
}

/// Where hashes and mint keys live.
#[derive(Debug, Clone)]
pub enum SecretsSettings {
    /// In the store's own database.
    Embedded,
    Vault(VaultSettings),
}

#[derive(Debug, Clone)]
pub struct VaultSettings {
    /// Scheme, host and port; no path.
    pub address: String,
    /// A KV v2 mount.
    pub mount: String,
    pub auth: VaultAuth,
    /// Where the method of `auth` is mounted.
    pub auth_mount: String,
    pub namespace: Option<String>,
    pub ca_file: Option<PathBuf>,
    /// How long one call may take as a whole.
    pub timeout: Duration,
}

/// How Sidekey gets a token of Vault.
#[derive(Debug, Clone)]
pub enum VaultAuth {
    Token(SecretSource),
    AppRole {
        role_id: String,
        secret_id: SecretSource,
    },
    Kubernetes {
        role: String,
        /// The service account's token.
        jwt: SecretSource,
    },
}

/// Where a secret comes from.
#[derive(Debug, Clone)]
pub enum SecretSource {
    Text(SecretString),
    /// Read whenever it is needed, so that it can be replaced.
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now, without what stands around it.
    pub fn read(&self) -> Result<SecretString, String> {
        match self {
            SecretSource::Text(text) => Ok(text.clone()),
            SecretSource::File(path) => match read_secret_file(path) {
                Ok(text) => Ok(SecretString::from(text.trim())),
                Err(detail) => Err(format!("{} {detail}", path.display())),
            },
        }
    }
}

/// How what a crash left between the stores is found and removed.
#[derive(Debug, Clone)]
pub struct ReconcileSettings {
    /// `None`: never.
    pub interval: Option<Duration>,
    /// How old a left-over has to be.
    pub leftover_age: Duration,
    pub max_removals: usize,
}

/// What each key was used for.
#[derive(Debug, Clone)]
pub struct UsageSettings {
    pub flush_interval: Duration,
    /// How long hours are kept.
    pub retention: Duration,
    /// Rows that may wait while the database is away.
    pub max_pending_rows: usize,
}

/// What is shown to Prometheus.
#[derive(Debug, Clone)]
pub struct MetricsSettings {
    /// Tenants that have series of their own.
    pub max_tenants: usize,
}

/// How connections to the mail server are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Before anything is said but that.
    StartTls,
    /// From the beginning.
    Implicit,
    Off,
}

/// The server that takes mail.
#[derive(Debug, Clone)]
pub struct SmtpSettings {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub login: Option<MailLogin>,
    pub from: Mailbox,
    pub reply_to: Option<Mailbox>,
    pub ca_file: Option<PathBuf>,
    /// How long one mail may take.
    pub timeout: Duration,
}

/// As whom mail is sent.
#[derive(Debug, Clone)]
pub struct MailLogin {
    pub username: String,
    pub password: SecretSource,
}

/// Who is told that a key's secret should be replaced.
#[derive(Debug, Clone)]
pub struct ReminderSettings {
    pub is_enabled: bool,
    /// How often to look which are due.
    pub interval: Duration,
    /// Of all instances together.
    pub hourly_max: u64,
    /// Whether answers say how many days are left.
    pub has_response_header: bool,
}

#[derive(Debug)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    /// Whose word for the client's address is taken.
    pub trusted_proxies: Vec<IpNet>,
    pub bootstrap_key_file: PathBuf,
}

/// Pages for people, on the admin port.
#[derive(Debug, Clone)]
pub struct DashboardSettings {
    pub is_enabled: bool,
    /// How people reach the admin port: scheme, host and, where it is not the scheme's own, port.
    pub url: Option<String>,
    /// What examples of code call, without a slash at its end; otherwise where the proxy listens.
    pub proxy_url: Option<String>,
    /// How long a session lasts without being used, and how long at all.
    pub session_idle: Duration,
    pub session_max: Duration,
    /// What failed sign-ins of an address are held to.
    pub sign_in: Arc<Policy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
    /// Text on a terminal, JSON elsewhere.
    Auto,
}

/// Which requests get a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    All,
    /// Refusals, and requests that failed.
    Refused,
    Off,
}

#[derive(Debug, Clone)]
pub struct LogSettings {
    pub level: tracing::Level,
    pub format: LogFormat,
    pub access: AccessLog,
    /// How many of the lines about requests are written: 0 to 1.
    pub shares: PerOutcome<f64>,
    /// Their levels.
    pub levels: PerOutcome<tracing::Level>,
}

#[derive(Debug, Clone)]
pub struct TracingSettings {
    /// Where spans are sent, if anywhere.
    pub endpoint: Option<String>,
    pub service_name: String,
    pub creates: bool,
    /// 0 to 1.
    pub sample_ratio: f64,
    pub follows_parent: bool,
    pub timeout: Duration,
}
