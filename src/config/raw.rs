//! The file's shape. The doc comment of a field is its documentation, `Default` its default.
//!
//! Nothing here is checked beyond its type: `check` turns it into settings.

mod values;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use values::{OneOrMany, Share};

use crate::key::Policy;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Raw {
    pub proxy: Proxy,
    pub credentials: Credentials,
    pub upstreams: Vec<Upstream>,
    pub routes: Vec<Route>,
    pub self_service: SelfService,
    pub scopes: Vec<ScopeEntry>,
    pub limits: Limits,
    pub verification: Verification,
    pub bcrypt: Bcrypt,
    pub store: Store,
    pub secrets: Secrets,
    pub redis: Redis,
    pub admin: Admin,
    pub dashboard: Dashboard,
    pub usage: Usage,
    pub metrics: Metrics,
    pub smtp: Smtp,
    pub reminders: Reminders,
    pub log: Log,
    pub tracing: Tracing,
}

/// `[proxy]`: the port that clients call.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// Addresses to listen on. Port 0: any free port.
    pub listen: OneOrMany,
    /// `enforce`, or `shadow`: nobody is refused, everything is reported.
    pub mode: String,
    /// CIDRs whose `X-Forwarded-For` is believed.
    pub trusted_proxies: OneOrMany,
    /// Proxy threads. 0: as many as the CPUs that this process may use.
    pub threads: usize,
    /// How long an idle client connection is kept.
    pub keepalive_seconds: u64,
    /// Client connections that may be open; more are closed at once.
    pub max_connections: usize,
    /// How long a request's header may take, from its first byte to its last.
    pub header_timeout_seconds: u64,
    /// How long one read from or write to a client may take.
    pub client_timeout_seconds: u64,
    /// How long an upgraded connection (WebSocket) may be silent.
    pub upgrade_idle_seconds: u64,
    /// The most bytes of a request's line and header fields; more is answered with 431.
    pub max_header_bytes: usize,
    /// The most bytes of a request's body; more is answered with 413.
    pub max_body_bytes: u64,
    /// After SIGTERM, how long everything goes on while `/readyz` says 503, so that who sends requests
    /// here can stop before connections are refused. A second signal ends it.
    pub shutdown_notice_seconds: u64,
    /// After that, how long requests in flight may take to finish.
    pub shutdown_seconds: u64,
}

impl Default for Proxy {
    fn default() -> Self {
        Proxy {
            listen: OneOrMany(vec!["127.0.0.1:8080".to_owned()]),
            mode: "enforce".to_owned(),
            trusted_proxies: OneOrMany::default(),
            threads: 0,
            keepalive_seconds: 60,
            max_connections: 10_000,
            header_timeout_seconds: 30,
            client_timeout_seconds: 60,
            upgrade_idle_seconds: 3600,
            max_header_bytes: 64 << 10,
            max_body_bytes: 10 << 30,
            shutdown_notice_seconds: 0,
            shutdown_seconds: 10,
        }
    }
}

/// `[credentials]`: where a request carries its key.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// `bearer`, `basic`, `header:NAME`, `query:NAME`, `cookie:NAME`; tried in order.
    pub sources: OneOrMany,
    /// Whether the credential is taken out of what the upstream sees.
    pub hide: bool,
    /// The realm in `WWW-Authenticate`.
    pub realm: String,
    /// What new keys start with.
    pub prefix: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Credentials {
            sources: OneOrMany(vec!["bearer".to_owned(), "header:X-API-Key".to_owned()]),
            hide: true,
            realm: "api".to_owned(),
            prefix: "sk".to_owned(),
        }
    }
}

/// `[[upstreams]]`: a service behind Sidekey.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Upstream {
    pub name: String,
    /// `host:port`, `http://host:port`, `https://host:port`, or `builtin:echo`; used in turn.
    pub servers: OneOrMany,
    /// How long connecting to one server may take.
    pub connect_timeout_ms: u64,
    /// How long the service may be silent before and within an answer.
    pub read_timeout_seconds: u64,
    /// How long an idle connection to the service is kept.
    pub idle_timeout_seconds: u64,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            name: String::new(),
            servers: OneOrMany::default(),
            connect_timeout_ms: 2000,
            read_timeout_seconds: 60,
            idle_timeout_seconds: 60,
        }
    }
}

/// `[[routes]]`: which requests go where, and what they need. The most specific match wins.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Route {
    pub name: String,
    /// A host name, or `*.example.com`. Absent: any host.
    pub host: Option<String>,
    /// A prefix of whole path segments.
    pub path: String,
    /// Absent or empty: all methods.
    pub methods: OneOrMany,
    pub upstream: String,
    /// `required`, `optional` or `off`.
    pub auth: String,
    /// All of them are needed.
    pub scopes: OneOrMany,
    /// Tokens that one request takes.
    pub cost: u64,
    /// In place of `limits.on_outage`.
    pub on_outage: Option<String>,
    /// Whether CORS preflight requests pass without a key.
    pub cors_preflight: bool,
    /// In place of `proxy.max_body_bytes`.
    pub max_body_bytes: Option<u64>,
}

impl Default for Route {
    fn default() -> Self {
        Route {
            name: String::new(),
            host: None,
            path: "/".to_owned(),
            methods: OneOrMany::default(),
            upstream: String::new(),
            auth: "required".to_owned(),
            scopes: OneOrMany::default(),
            cost: 1,
            on_outage: None,
            cors_preflight: false,
            max_body_bytes: None,
        }
    }
}

/// `[[scopes]]`: the catalogue that keys may be granted from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScopeEntry {
    pub name: String,
    pub description: String,
}

/// `[limits]`
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// `memory`, or `redis`.
    pub backend: String,
    /// What happens when Redis is away: `local`, `open`, `closed`.
    pub on_outage: String,
    /// Instances that share the limits: with `local`, each holds keys to its share of them while
    /// Redis is away.
    pub instances: u64,
    /// How far ahead an instance takes tokens from Redis. 0: it asks on every request.
    pub max_lease_ms: u64,
    /// Rate-limit fields on answers: `ratelimit`, `x-ratelimit`.
    pub headers: OneOrMany,
    /// The policies of keys that have none of their own.
    pub default: Vec<Policy>,
    /// The policies of callers without a key on `auth = "optional"` routes, for each address.
    pub anonymous: Vec<Policy>,
    /// How many wrong keys one address may present before it is answered 429 unread.
    pub failed_auth: Policy,
    /// Addresses that are remembered for the two limits above.
    pub max_addresses: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let policy = |name: &str, quota, burst| Policy {
            name: name.to_owned(),
            quota,
            window_seconds: 60,
            burst: Some(burst),
        };
        Limits {
            backend: "memory".to_owned(),
            on_outage: "local".to_owned(),
            instances: 1,
            max_lease_ms: 50,
            headers: OneOrMany(vec!["ratelimit".to_owned(), "x-ratelimit".to_owned()]),
            default: vec![policy("default", 600, 100)],
            anonymous: vec![policy("anonymous", 60, 30)],
            failed_auth: policy("failed-auth", 600, 1000),
            max_addresses: 100_000,
        }
    }
}

/// `[self_service]`: where the holder of a key can ask what it may do.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct SelfService {
    /// Whether anybody can.
    pub enabled: bool,
    /// The path on the clients' port, for GET and HEAD; it hides the service's own.
    pub path: String,
}

impl Default for SelfService {
    fn default() -> Self {
        SelfService {
            enabled: false,
            path: "/.well-known/api-key".to_owned(),
        }
    }
}

/// `[verification]`: what is remembered about presented keys.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// Keys that are remembered as proven.
    pub max_proofs: u64,
    /// How long a proven key is remembered without being used.
    pub proof_ttl_seconds: u64,
    /// How long a wrong secret is remembered.
    pub negative_ttl_seconds: u64,
}

impl Default for Verification {
    fn default() -> Self {
        Verification {
            max_proofs: 250_000,
            proof_ttl_seconds: 4 * 3600,
            negative_ttl_seconds: 10,
        }
    }
}

/// `[bcrypt]`
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Bcrypt {
    /// Each step doubles the time of one hash; 10 is about 50 ms.
    pub cost: u32,
    /// Checks that may wait; more are answered with 503.
    pub max_queue: usize,
    /// Threads that do nothing else. 0: half of the CPUs that this process may use.
    pub threads: usize,
}

impl Default for Bcrypt {
    fn default() -> Self {
        Bcrypt {
            cost: 10,
            max_queue: 64,
            threads: 0,
        }
    }
}

/// `[store]`: where key metadata lives.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Store {
    /// `sqlite://PATH`, or `postgres://...`.
    pub url: String,
    /// A file that holds the URL, in place of `url`.
    pub url_file: Option<String>,
    /// How long keys are served from memory while the database is away.
    pub max_stale_seconds: u64,
    /// How often to look for what other instances have changed. With `limits.backend = "redis"` they
    /// also tell each other at once, through Redis.
    pub poll_interval_ms: u64,
    /// How long the answer to a change of a key waits for the other instances to confirm it. 0: it
    /// says who has confirmed it at once.
    pub propagation_wait_ms: u64,
    /// What answers call this instance. Empty: its host and the admin port. It should differ between
    /// instances, and stay over restarts.
    pub instance_name: String,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            url: "sqlite://data/sidekey.db".to_owned(),
            url_file: None,
            max_stale_seconds: 600,
            poll_interval_ms: 250,
            propagation_wait_ms: 500,
            instance_name: String::new(),
        }
    }
}

/// `[secrets]`: where key hashes and the mint key live.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Secrets {
    /// `embedded` (in the store's database), or `vault`.
    pub backend: String,
    /// How often to look for hashes that a crash left behind, which nothing needs, and to remove them;
    /// 0: never.
    pub reconcile_interval_seconds: u64,
    /// How long such a hash is left alone: the key that it belongs to may be in the making.
    pub leftover_age_seconds: u64,
    /// Where more keys than this, and more than a tenth of all, have such hashes, nothing is removed:
    /// rows may have been lost.
    pub reconcile_max_removals: usize,
    pub vault: Vault,
}

impl Default for Secrets {
    fn default() -> Self {
        Secrets {
            backend: "embedded".to_owned(),
            reconcile_interval_seconds: 3600,
            leftover_age_seconds: 60,
            reconcile_max_removals: 100,
            vault: Vault::default(),
        }
    }
}

/// `[secrets.vault]`: a Vault, or an OpenBao.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Vault {
    /// `https://HOST:PORT`; `http://` only on this machine.
    pub address: String,
    /// A KV v2 mount.
    pub mount: String,
    /// `token`, `approle` or `kubernetes`.
    pub auth: String,
    /// With `auth = "token"`.
    pub token: Option<String>,
    /// A file that holds the token, in place of `token`; read again when the token ends.
    pub token_file: Option<String>,
    /// With `auth = "approle"`.
    pub role_id: String,
    pub secret_id: Option<String>,
    /// A file that holds the secret id, in place of `secret_id`; read again at each login.
    pub secret_id_file: Option<String>,
    /// The role at Vault, with `auth = "kubernetes"`.
    pub role: String,
    /// The service account's token, read again at each login.
    pub jwt_file: String,
    /// Where the method of `auth` is mounted. Absent: under its own name.
    pub auth_mount: Option<String>,
    /// Absent: the root namespace.
    pub namespace: Option<String>,
    /// Certificates (PEM) that are trusted besides the system's; read again at each login.
    pub ca_file: Option<String>,
    /// How long one call may take, a new login included.
    pub timeout_ms: u64,
}

impl Default for Vault {
    fn default() -> Self {
        Vault {
            address: "https://127.0.0.1:8200".to_owned(),
            mount: "secret".to_owned(),
            auth: "token".to_owned(),
            token: None,
            token_file: None,
            role_id: String::new(),
            secret_id: None,
            secret_id_file: None,
            role: String::new(),
            jwt_file: "/var/run/secrets/kubernetes.io/serviceaccount/token".to_owned(),
            auth_mount: None,
            namespace: None,
            ca_file: None,
            timeout_ms: 2000,
        }
    }
}

/// `[redis]`
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Redis {
    /// `redis://[USER:PASSWORD@]HOST:PORT[/DATABASE]`,
    /// `redis-sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DATABASE]` or
    /// `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT`; with `rediss` in place of `redis` all
    /// connections are encrypted.
    pub url: String,
    /// A file that holds the URL, in place of `url`.
    pub url_file: Option<String>,
    /// The authorities (PEM) that servers' certificates must come from; the system's without it.
    pub ca_file: Option<String>,
    /// A certificate (PEM) to show to servers, and its key.
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
    /// The sentinels' own user and password; those in `url` are the servers'.
    pub sentinel_username: String,
    pub sentinel_password: String,
    /// A file that holds the password, in place of `sentinel_password`.
    pub sentinel_password_file: Option<String>,
    /// How long one decision may take.
    pub timeout_ms: u64,
}

impl Default for Redis {
    fn default() -> Self {
        Redis {
            url: "redis://127.0.0.1:6379".to_owned(),
            url_file: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            sentinel_password_file: None,
            timeout_ms: 50,
        }
    }
}

/// `[admin]`: the port of the key API.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Admin {
    pub listen: String,
    /// CIDRs whose `X-Forwarded-For` is believed.
    pub trusted_proxies: OneOrMany,
    /// Where the first admin key is written at the first start.
    pub bootstrap_key_file: String,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            listen: "127.0.0.1:8081".to_owned(),
            trusted_proxies: OneOrMany::default(),
            bootstrap_key_file: "data/admin.key".to_owned(),
        }
    }
}

/// `[dashboard]`: pages for people, on the admin port.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Dashboard {
    /// Whether they are there.
    pub enabled: bool,
    /// How people reach the admin port, such as `https://keys.example.com`. Empty: whatever they write;
    /// then the browser's cookie is not kept to encrypted connections.
    pub url: String,
    /// What examples of code call. Empty: the first address of `proxy.listen`.
    pub proxy_url: String,
    /// How long somebody stays signed in without looking at a page.
    pub session_idle_seconds: u64,
    /// How long somebody stays signed in.
    pub session_max_seconds: u64,
    /// How many wrong keys one address may try to sign in with.
    pub sign_in: Policy,
}

impl Default for Dashboard {
    fn default() -> Self {
        Dashboard {
            enabled: true,
            url: String::new(),
            proxy_url: String::new(),
            session_idle_seconds: 3600,
            session_max_seconds: 12 * 3600,
            sign_in: Policy {
                name: "sign-in".to_owned(),
                quota: 10,
                window_seconds: 60,
                burst: Some(10),
            },
        }
    }
}

/// `[usage]`: what each key was used for.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// How often what was counted is stored. A crash loses what was counted since.
    pub flush_interval_seconds: u64,
    /// How long hours are kept; days are kept for good.
    pub retention_days: u64,
    /// Rows, one a key and hour, that wait in memory while the database is away; more are lost. Each
    /// takes about 250 bytes.
    pub max_pending_rows: usize,
}

impl Default for Usage {
    fn default() -> Self {
        Usage {
            flush_interval_seconds: 10,
            retention_days: 400,
            max_pending_rows: 250_000,
        }
    }
}

/// `[metrics]`: what is shown to Prometheus.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Tenants that have series of their own: the busiest. All others are told together.
    pub max_tenants: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { max_tenants: 50 }
    }
}

/// `[smtp]`: the server that takes mail. Without a host, reminders are only logged.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Smtp {
    /// A name or an address.
    pub host: String,
    /// Absent: 587 with `starttls`, 465 with `implicit`, 25 with `none`.
    pub port: Option<u16>,
    /// `starttls`, `implicit`, or `none`, which is for this machine.
    pub tls: String,
    /// Whether `none` is for other machines too. A password is never sent without encryption.
    pub allow_unencrypted: bool,
    /// Empty: without authentication.
    pub username: String,
    pub password: Option<String>,
    /// A file that holds the password, in place of `password`; read again for each connection.
    pub password_file: Option<String>,
    /// `keys@example.com`, or with a name: `Sidekey <keys@example.com>`.
    pub from: String,
    /// Whom answers go to, where that is somebody else.
    pub reply_to: String,
    /// The authorities (PEM) that the server's certificate must come from; the system's without it.
    pub ca_file: Option<String>,
    /// How long the server may take until it is ready for a mail, with the connection that it needs. Once it
    /// has the mail, it may think for five minutes.
    pub timeout_seconds: u64,
}

impl Default for Smtp {
    fn default() -> Self {
        Smtp {
            host: String::new(),
            port: None,
            tls: "starttls".to_owned(),
            allow_unencrypted: false,
            username: String::new(),
            password: None,
            password_file: None,
            from: String::new(),
            reply_to: String::new(),
            ca_file: None,
            timeout_seconds: 30,
        }
    }
}

/// `[reminders]`: who is told that a key's secret should be replaced.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Reminders {
    /// Whether mails are sent, or lines logged.
    pub enabled: bool,
    /// How often to look which are due.
    pub interval_seconds: u64,
    /// How many mails all instances together begin to send within an hour; later ones wait.
    pub max_per_hour: u64,
    /// Whether answers say how many days are left, in the last 30: `Sidekey-Rotation-Due-In-Days`.
    pub response_header: bool,
}

impl Default for Reminders {
    fn default() -> Self {
        Reminders {
            enabled: true,
            interval_seconds: 60,
            max_per_hour: 500,
            response_header: false,
        }
    }
}

/// `[log]`
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`.
    pub level: String,
    /// `json`, `text`, or `auto`: text on a terminal, JSON elsewhere.
    pub format: String,
    /// Which requests get a line: `refused` (and errors), `all`, `off`.
    pub access: String,
    /// How many of these lines are written, by how the request ended: 1 for all of them, 0.01 for one in a
    /// hundred. `default` is for what is not named.
    pub sample: BTreeMap<String, Share>,
    /// The level of these lines, by how the request ended. `default` is for what is not named.
    pub levels: BTreeMap<String, String>,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info".to_owned(),
            format: "auto".to_owned(),
            access: "refused".to_owned(),
            sample: BTreeMap::new(),
            levels: BTreeMap::new(),
        }
    }
}

/// `[tracing]`: W3C Trace Context, and spans for a collector.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// Where spans are sent, by OTLP/HTTP, such as `http://127.0.0.1:4318`. Empty: nowhere.
    pub otlp_endpoint: String,
    /// What this service is called in traces.
    pub service_name: String,
    /// Whether requests that come without a trace get one. Otherwise the service behind begins it.
    pub create: bool,
    /// How many of the traces that begin here are recorded. Without a collector nothing is, and all are
    /// marked for whoever comes behind.
    pub sample_ratio: Share,
    /// Whether traces that began elsewhere are recorded where they are there. Otherwise as those that
    /// begin here: clients can't cause more spans than that.
    pub follow_parent: bool,
    /// How long the collector may take for one batch.
    pub timeout_ms: u64,
}

impl Default for Tracing {
    fn default() -> Self {
        Tracing {
            otlp_endpoint: String::new(),
            service_name: "sidekey".to_owned(),
            create: true,
            sample_ratio: Share(0.05),
            follow_parent: true,
            timeout_ms: 5_000,
        }
    }
}
