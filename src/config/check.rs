//! Raw shape -> checked settings. Every function reports all that it finds and goes on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use secrecy::SecretString;

use super::raw::{self, Raw};
use super::settings::*;
use super::{Problem, parse, read_secret_file};
use crate::key::policy::POLICIES_MAX;
use crate::key::scope::{CATALOGUE_LEN_MAX, OWN_NAMESPACE};
use crate::key::{Catalogue, Policy, Scope, hash, record};

/// No duration in the file is longer than this.
const SECONDS_MAX: u64 = 366 * 86_400;
const INSTANCES_MAX: u64 = 1000;
const ON_OUTAGE: [(&str, OnOutage); 3] = [
    ("local", OnOutage::Local),
    ("open", OnOutage::Open),
    ("closed", OnOutage::Closed),
];
const POLL_MS_MIN: u64 = 10;
const POLL_MS_MAX: u64 = 60_000;
const THREADS_MAX: usize = 1024;
const NAME_LEN_MAX: usize = 64;

struct Checker<'p> {
    problems: &'p mut Vec<Problem>,
}

/// Settings, if nothing is wrong that would leave a value open. `problems` gets everything.
pub fn check(raw: Raw, problems: &mut Vec<Problem>) -> Option<Settings> {
    let mut checker = Checker { problems };
    let c = &mut checker;
    let proxy = c.proxy(&raw.proxy);
    let credentials = c.credentials(&raw.credentials);
    let upstreams = c.upstreams(&raw.upstreams);
    let catalogue = c.catalogue(&raw.scopes);
    let limits = c.limits(&raw.limits, &raw.redis);
    let routes = c.routes(&raw, &catalogue, limits.as_ref());
    let verification = c.verification(&raw.verification);
    let bcrypt = c.bcrypt(&raw.bcrypt);
    let store = c.store(&raw.store);
    c.not_yet(&raw);
    let admin = c.admin(&raw.admin);
    let log = c.log(&raw.log);
    Some(Settings {
        proxy: proxy?,
        credentials: credentials?,
        upstreams: upstreams?,
        routes: routes?,
        catalogue,
        limits: limits?,
        verification,
        bcrypt: bcrypt?,
        store: store?,
        admin: admin?,
        log: log?,
    })
}

impl Checker<'_> {
    fn report(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        self.problems.push(Problem::new(path, detail));
    }

    fn number<N: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        path: &str,
        value: N,
        min: N,
        max: N,
    ) {
        if value < min || value > max {
            self.report(path, format!("is {value}; it must be {min} to {max}"));
        }
    }

    fn name(&mut self, path: &str, name: &str) {
        if name.is_empty() {
            self.report(path, "is missing; give it a name");
        } else if name.len() > NAME_LEN_MAX
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            self.report(
                path,
                format!(
                    "\"{name}\" must be at most {NAME_LEN_MAX} letters, digits, '.', '_' and '-'"
                ),
            );
        }
    }

    /// Reports every name of `names` that was there before.
    fn unique<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = HashMap::new();
        for (index, name) in names.enumerate() {
            if name.is_empty() {
                continue;
            }
            if let Some(first) = seen.insert(name, index) {
                self.report(
                    format!("{what}[{index}].name"),
                    format!("\"{name}\" is the name of {what}[{first}] too; names must differ"),
                );
            }
        }
    }

    fn choice<T: Copy>(&mut self, path: &str, text: &str, choices: &[(&str, T)]) -> Option<T> {
        let chosen = choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value);
        if chosen.is_none() {
            let names: Vec<String> = choices
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            self.report(
                path,
                format!("is \"{text}\"; it must be {}", names.join(" or ")),
            );
        }
        chosen
    }

    fn address(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.report(
                path,
                format!(
                    "\"{text}\" is not an address and port such as 127.0.0.1:8080 or [::1]:8080"
                ),
            );
        }
        address
    }

    fn proxy(&mut self, raw: &raw::Proxy) -> Option<ProxySettings> {
        if raw.listen.0.is_empty() {
            self.report(
                "proxy.listen",
                "is empty; name at least one address and port",
            );
        }
        let listen: Vec<Option<SocketAddr>> = (raw.listen.0.iter().enumerate())
            .map(|(i, text)| self.address(&format!("proxy.listen[{i}]"), text))
            .collect();
        let mode = self.choice(
            "proxy.mode",
            &raw.mode,
            &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)],
        );
        let trusted: Vec<Option<IpNet>> = (raw.trusted_proxies.0.iter().enumerate())
            .map(|(i, text)| {
                let net = record::parse_net(text);
                if net.is_none() {
                    self.report(
                        format!("proxy.trusted_proxies[{i}]"),
                        format!("\"{text}\" is not a CIDR such as 10.0.0.0/8, nor an address"),
                    );
                }
                net
            })
            .collect();
        self.number("proxy.threads", raw.threads, 0, THREADS_MAX);
        self.number(
            "proxy.keepalive_seconds",
            raw.keepalive_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "proxy.client_timeout_seconds",
            raw.client_timeout_seconds,
            1,
            SECONDS_MAX,
        );
        self.number("proxy.max_connections", raw.max_connections, 1, 10_000_000);
        self.number(
            "proxy.header_timeout_seconds",
            raw.header_timeout_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "proxy.upgrade_idle_seconds",
            raw.upgrade_idle_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "proxy.max_header_bytes",
            raw.max_header_bytes,
            1 << 10,
            1 << 20,
        );
        self.number(
            "proxy.max_body_bytes",
            raw.max_body_bytes,
            0,
            i64::MAX as u64,
        );
        self.number("proxy.shutdown_seconds", raw.shutdown_seconds, 0, 86_400);
        Some(ProxySettings {
            listen: listen.into_iter().collect::<Option<_>>()?,
            mode: mode?,
            trusted_proxies: trusted.into_iter().collect::<Option<_>>()?,
            threads: threads(raw.threads),
            keepalive: Duration::from_secs(raw.keepalive_seconds),
            client_timeout: Duration::from_secs(raw.client_timeout_seconds),
            upgrade_idle: Duration::from_secs(raw.upgrade_idle_seconds),
            header_timeout: Duration::from_secs(raw.header_timeout_seconds),
            max_connections: raw.max_connections,
            max_header_bytes: raw.max_header_bytes,
            max_body_bytes: raw.max_body_bytes,
            shutdown: Duration::from_secs(raw.shutdown_seconds),
        })
    }

    fn credentials(&mut self, raw: &raw::Credentials) -> Option<CredentialSettings> {
        let mut sources = Vec::new();
        for (i, text) in raw.sources.0.iter().enumerate() {
            let path = format!("credentials.sources[{i}]");
            match parse::source(text) {
                Ok(source) if sources.contains(&source) => {
                    self.report(path, format!("\"{text}\" stands there twice"));
                }
                Ok(source) => sources.push(source),
                Err(detail) => self.report(path, detail),
            }
        }
        if raw.sources.0.is_empty() {
            self.report(
                "credentials.sources",
                "is empty; name at least one, such as \"bearer\"",
            );
        }
        let plain = |c: char| c == ' ' || c.is_ascii_graphic();
        if raw.realm.contains(['"', '\\']) || !raw.realm.chars().all(plain) {
            self.report(
                "credentials.realm",
                "may hold printable ASCII without quotes and backslashes",
            );
        }
        let prefix = raw.prefix.parse();
        if let Err(error) = &prefix {
            self.report("credentials.prefix", format!("\"{}\" {error}", raw.prefix));
        }
        Some(CredentialSettings {
            sources,
            hide: raw.hide,
            realm: raw.realm.clone(),
            prefix: prefix.ok()?,
        })
    }

    fn upstreams(&mut self, raw: &[raw::Upstream]) -> Option<Vec<UpstreamSettings>> {
        self.unique(
            "upstreams",
            raw.iter().map(|upstream| upstream.name.as_str()),
        );
        let checked: Vec<Option<UpstreamSettings>> = raw
            .iter()
            .enumerate()
            .map(|(i, upstream)| self.upstream(i, upstream))
            .collect();
        checked.into_iter().collect()
    }

    fn upstream(&mut self, index: usize, raw: &raw::Upstream) -> Option<UpstreamSettings> {
        let at = format!("upstreams[{index}]");
        self.name(&format!("{at}.name"), &raw.name);
        if raw.servers.0.is_empty() {
            self.report(
                format!("{at}.servers"),
                "is empty; name at least one server as host:port",
            );
        }
        let servers: Vec<Option<Server>> = (raw.servers.0.iter().enumerate())
            .map(|(i, text)| match parse::server(text) {
                Ok(server) => Some(server),
                Err(detail) => {
                    self.report(format!("{at}.servers[{i}]"), detail);
                    None
                }
            })
            .collect();
        self.number(
            &format!("{at}.connect_timeout_ms"),
            raw.connect_timeout_ms,
            1,
            600_000,
        );
        self.number(
            &format!("{at}.read_timeout_seconds"),
            raw.read_timeout_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            &format!("{at}.idle_timeout_seconds"),
            raw.idle_timeout_seconds,
            0,
            SECONDS_MAX,
        );
        Some(UpstreamSettings {
            name: raw.name.clone(),
            servers: servers.into_iter().collect::<Option<_>>()?,
            connect_timeout: Duration::from_millis(raw.connect_timeout_ms),
            read_timeout: Duration::from_secs(raw.read_timeout_seconds),
            idle_timeout: Duration::from_secs(raw.idle_timeout_seconds),
        })
    }

    fn catalogue(&mut self, raw: &[raw::ScopeEntry]) -> Catalogue {
        self.unique("scopes", raw.iter().map(|entry| entry.name.as_str()));
        if raw.len() > CATALOGUE_LEN_MAX {
            self.report(
                "scopes",
                format!("has {} entries; at most {CATALOGUE_LEN_MAX} fit", raw.len()),
            );
        }
        let mut scopes: Vec<Scope> = Vec::new();
        for (i, entry) in raw.iter().enumerate() {
            let path = format!("scopes[{i}].name");
            match entry.name.parse::<Scope>() {
                Ok(_) if entry.name.starts_with(OWN_NAMESPACE) => {
                    self.report(
                        path,
                        format!(
                            "\"{}\": names with {OWN_NAMESPACE} are Sidekey's own",
                            entry.name
                        ),
                    );
                }
                Ok(scope) if !scopes.contains(&scope) => scopes.push(scope),
                Ok(_) => {}
                Err(error) => self.report(path, format!("\"{}\" {error}", entry.name)),
            }
        }
        Catalogue::new(scopes)
    }

    fn policies(&mut self, path: &str, raw: &[Policy]) -> Vec<Arc<Policy>> {
        if raw.len() > POLICIES_MAX {
            self.report(
                path,
                format!("has {} policies; at most {POLICIES_MAX} fit", raw.len()),
            );
        }
        self.unique(path, raw.iter().map(|policy| policy.name.as_str()));
        for (i, policy) in raw.iter().enumerate() {
            self.policy(&format!("{path}[{i}]"), policy);
        }
        raw.iter().cloned().map(Arc::new).collect()
    }

    fn policy(&mut self, path: &str, policy: &Policy) {
        for problem in policy.problems() {
            self.report(format!("{path}.{}", problem.field()), problem.to_string());
        }
    }

    /// `[redis]` is only looked at where it is used: a file that it names need not be there.
    fn redis(&mut self, raw: &raw::Redis, is_used: bool) -> Option<RedisSettings> {
        use secrecy::ExposeSecret;
        self.number("redis.timeout_ms", raw.timeout_ms, 1, 10_000);
        if !is_used {
            return None;
        }
        let url = self.secret("redis.url", &raw.url, raw.url_file.as_deref())?;
        let text = url.expose_secret();
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            // Not quoted back: it may hold a password.
            self.report(
                "redis.url",
                "must be redis://HOST:PORT, or rediss:// for TLS (Sentinel and Cluster are not supported by this version)",
            );
        }
        Some(RedisSettings {
            url,
            timeout: Duration::from_millis(raw.timeout_ms),
        })
    }

    fn limits(&mut self, raw: &raw::Limits, redis: &raw::Redis) -> Option<LimitSettings> {
        let found_before = self.problems.len();
        let default = self.policies("limits.default", &raw.default);
        let anonymous = self.policies("limits.anonymous", &raw.anonymous);
        self.policy("limits.failed_auth", &raw.failed_auth);
        let on_outage = self.choice("limits.on_outage", &raw.on_outage, &ON_OUTAGE);
        self.number("limits.instances", raw.instances, 1, INSTANCES_MAX);
        let is_shared = self.choice(
            "limits.backend",
            &raw.backend,
            &[("memory", false), ("redis", true)],
        );
        let redis = self.redis(redis, is_shared == Some(true));
        self.number("limits.max_lease_ms", raw.max_lease_ms, 0, 10_000);
        self.number("limits.max_addresses", raw.max_addresses, 1, 100_000_000);
        let (mut ratelimit_fields, mut x_ratelimit_fields) = (false, false);
        for (i, name) in raw.headers.0.iter().enumerate() {
            match name.as_str() {
                "ratelimit" => ratelimit_fields = true,
                "x-ratelimit" => x_ratelimit_fields = true,
                other => self.report(
                    format!("limits.headers[{i}]"),
                    format!("is \"{other}\"; it must be \"ratelimit\" or \"x-ratelimit\""),
                ),
            }
        }
        let on_outage = on_outage?;
        (self.problems.len() == found_before).then(|| LimitSettings {
            redis,
            on_outage,
            instances: raw.instances,
            default,
            anonymous,
            failed_auth: Arc::new(raw.failed_auth.clone()),
            max_addresses: raw.max_addresses,
            ratelimit_fields,
            x_ratelimit_fields,
        })
    }

    fn routes(
        &mut self,
        raw: &Raw,
        catalogue: &Catalogue,
        limits: Option<&LimitSettings>,
    ) -> Option<Vec<RouteSettings>> {
        if raw.routes.is_empty() {
            self.report(
                "routes",
                "is empty; without a route every request is answered 404",
            );
        }
        self.unique("routes", raw.routes.iter().map(|route| route.name.as_str()));
        let checked: Vec<Option<RouteSettings>> = (raw.routes.iter().enumerate())
            .map(|(i, route)| self.route(i, route, raw, catalogue, limits))
            .collect();
        self.overlaps(&checked);
        checked.into_iter().collect()
    }

    fn route(
        &mut self,
        index: usize,
        route: &raw::Route,
        raw: &Raw,
        catalogue: &Catalogue,
        limits: Option<&LimitSettings>,
    ) -> Option<RouteSettings> {
        let at = |field: &str| format!("routes[{index}].{field}");
        self.name(&at("name"), &route.name);
        let host = match parse::host(route.host.as_deref()) {
            Ok(host) => Some(host),
            Err(detail) => {
                self.report(at("host"), detail);
                None
            }
        };
        let path = match parse::path(&route.path) {
            Ok(path) => Some(path),
            Err(detail) => {
                self.report(at("path"), detail);
                None
            }
        };
        let mut methods = Vec::new();
        for (i, text) in route.methods.0.iter().enumerate() {
            match Method::from_bytes(text.as_bytes()) {
                Ok(method) if !text.bytes().any(|b| b.is_ascii_lowercase()) => methods.push(method),
                _ => self.report(
                    format!("routes[{index}].methods[{i}]"),
                    format!("\"{text}\" is not a method in capital letters such as GET"),
                ),
            }
        }
        let upstream = raw
            .upstreams
            .iter()
            .position(|upstream| upstream.name == route.upstream);
        if upstream.is_none() {
            let detail = if route.upstream.is_empty() {
                "is missing; name one of [[upstreams]]".to_owned()
            } else {
                format!(
                    "there is no [[upstreams]] entry named \"{}\"",
                    route.upstream
                )
            };
            self.report(at("upstream"), detail);
        }
        let auth = self.choice(
            &at("auth"),
            &route.auth,
            &[
                ("required", Auth::Required),
                ("optional", Auth::Optional),
                ("off", Auth::Off),
            ],
        );
        let scopes = self.route_scopes(index, route, catalogue);
        if auth == Some(Auth::Optional) && !route.scopes.0.is_empty() {
            self.report(
                at("scopes"),
                "can't be asked for where auth is \"optional\": whoever leaves the key out would need none",
            );
        }
        if auth == Some(Auth::Off) && !route.scopes.0.is_empty() {
            self.report(at("scopes"), "can't be asked for where auth is \"off\"");
        }
        self.cost(&at("cost"), route.cost, auth, limits);
        let on_outage = match &route.on_outage {
            Some(text) => Some(self.choice(&at("on_outage"), text, &ON_OUTAGE)?),
            None => None,
        };
        Some(RouteSettings {
            name: route.name.clone(),
            host: host?,
            path: path?,
            methods,
            upstream: upstream?,
            auth: auth?,
            scopes: scopes?,
            cost: route.cost,
            on_outage,
            cors_preflight: route.cors_preflight,
            max_body_bytes: route.max_body_bytes.unwrap_or(raw.proxy.max_body_bytes),
        })
    }

    fn route_scopes(
        &mut self,
        index: usize,
        route: &raw::Route,
        catalogue: &Catalogue,
    ) -> Option<Vec<Scope>> {
        let found_before = self.problems.len();
        let mut scopes = Vec::new();
        for (i, text) in route.scopes.0.iter().enumerate() {
            let path = format!("routes[{index}].scopes[{i}]");
            match text.parse::<Scope>() {
                Ok(scope) if catalogue.require(std::slice::from_ref(&scope)).is_ok() => {
                    scopes.push(scope)
                }
                Ok(_) => self.report(
                    path,
                    format!("there is no [[scopes]] entry named \"{text}\""),
                ),
                Err(error) => self.report(path, format!("\"{text}\" {error}")),
            }
        }
        (self.problems.len() == found_before).then_some(scopes)
    }

    /// A request that costs more than a bucket holds could never pass.
    fn cost(&mut self, path: &str, cost: u64, auth: Option<Auth>, limits: Option<&LimitSettings>) {
        if cost > crate::key::policy::TOKENS_MAX {
            self.report(
                path,
                format!(
                    "is {cost}; it must be 0 to {}",
                    crate::key::policy::TOKENS_MAX
                ),
            );
        }
        let Some(limits) = limits else { return };
        let anonymous: &[_] = if auth == Some(Auth::Optional) {
            &limits.anonymous
        } else {
            &[]
        };
        let default: &[_] = if auth == Some(Auth::Off) {
            &[]
        } else {
            &limits.default
        };
        for (list, policies) in [("limits.default", default), ("limits.anonymous", anonymous)] {
            for policy in policies.iter().filter(|policy| policy.burst() < cost) {
                self.report(
                    path,
                    format!(
                        "is {cost}, but a bucket of \"{}\" in {list} holds {} tokens, so no request could pass; \
                         raise its burst or lower the cost",
                        policy.name,
                        policy.burst()
                    ),
                );
            }
        }
    }

    /// Two routes that are equally specific for the same request.
    fn overlaps(&mut self, routes: &[Option<RouteSettings>]) {
        for (later, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            let clash = routes[..later].iter().position(|other| {
                other.as_ref().is_some_and(|other| {
                    other.host == route.host
                        && other.path == route.path
                        && other.methods.is_empty() == route.methods.is_empty()
                        && (route.methods.is_empty()
                            || route
                                .methods
                                .iter()
                                .any(|method| other.methods.contains(method)))
                })
            });
            if let Some(earlier) = clash {
                self.report(
                    format!("routes[{later}]"),
                    format!(
                        "overlaps with routes[{earlier}]: same host, path and method, so neither is more specific; \
                         change or remove one"
                    ),
                );
            }
        }
    }

    fn verification(&mut self, raw: &raw::Verification) -> VerificationSettings {
        self.number("verification.max_proofs", raw.max_proofs, 1, 100_000_000);
        self.number(
            "verification.proof_ttl_seconds",
            raw.proof_ttl_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "verification.negative_ttl_seconds",
            raw.negative_ttl_seconds,
            1,
            3600,
        );
        VerificationSettings {
            max_proofs: raw.max_proofs,
            proof_ttl: Duration::from_secs(raw.proof_ttl_seconds.min(SECONDS_MAX)),
            negative_ttl: Duration::from_secs(raw.negative_ttl_seconds.min(3600)),
        }
    }

    fn bcrypt(&mut self, raw: &raw::Bcrypt) -> Option<BcryptSettings> {
        self.number("bcrypt.cost", raw.cost, hash::COST_MIN, hash::COST_MAX);
        self.number("bcrypt.max_queue", raw.max_queue, 1, 100_000);
        self.number("bcrypt.threads", raw.threads, 0, THREADS_MAX);
        let threads = if raw.threads == 0 {
            (threads(0) / 2).max(1)
        } else {
            raw.threads
        };
        Some(BcryptSettings {
            cost: raw.cost,
            max_queue: raw.max_queue,
            threads,
        })
    }

    fn secret(&mut self, path: &str, value: &str, file: Option<&str>) -> Option<SecretString> {
        match file {
            None => Some(SecretString::from(value)),
            Some(file) => match read_secret_file(Path::new(file)) {
                Ok(text) => Some(SecretString::from(text)),
                Err(detail) => {
                    self.report(format!("{path}_file"), format!("{file} {detail}"));
                    None
                }
            },
        }
    }

    fn store(&mut self, raw: &raw::Store) -> Option<StoreSettings> {
        use secrecy::ExposeSecret;
        let url = self.secret("store.url", &raw.url, raw.url_file.as_deref())?;
        let text = url.expose_secret();
        let is_postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        if !is_postgres && text.strip_prefix("sqlite://").is_none_or(str::is_empty) {
            // Not quoted back: it may hold a password.
            self.report(
                "store.url",
                "must be sqlite://PATH, such as sqlite://data/sidekey.db, or postgres://USER:PASSWORD@HOST/DATABASE",
            );
        }
        self.number(
            "store.max_stale_seconds",
            raw.max_stale_seconds,
            1,
            SECONDS_MAX,
        );
        self.number(
            "store.poll_interval_ms",
            raw.poll_interval_ms,
            POLL_MS_MIN,
            POLL_MS_MAX,
        );
        if raw.max_stale_seconds.saturating_mul(1000) < raw.poll_interval_ms.saturating_mul(2) {
            self.report(
                "store.max_stale_seconds",
                "must be at least twice store.poll_interval_ms, or keys would be refused between two looks",
            );
        }
        Some(StoreSettings {
            url,
            max_stale: Duration::from_secs(raw.max_stale_seconds),
            poll_interval: Duration::from_millis(raw.poll_interval_ms),
        })
    }

    /// What the file may say already, but this version can't do.
    fn not_yet(&mut self, raw: &Raw) {
        if raw.secrets.backend != "embedded" {
            let detail = match raw.secrets.backend.as_str() {
                "vault" => {
                    "\"vault\" is not supported by this version; use \"embedded\"".to_owned()
                }
                other => format!("is \"{other}\"; it must be \"embedded\""),
            };
            self.report("secrets.backend", detail);
        }
        self.choice(
            "secrets.vault.auth",
            &raw.secrets.vault.auth,
            &[("token", ()), ("approle", ()), ("kubernetes", ())],
        );
        for field in raw.smtp.iter().flat_map(toml::Table::keys) {
            self.report(
                format!("smtp.{field}"),
                "mail is not supported by this version; leave the section empty",
            );
        }
    }

    fn admin(&mut self, raw: &raw::Admin) -> Option<AdminSettings> {
        if raw.bootstrap_key_file.is_empty() {
            self.report(
                "admin.bootstrap_key_file",
                "is empty; name the file for the first admin key",
            );
        }
        Some(AdminSettings {
            listen: self.address("admin.listen", &raw.listen)?,
            bootstrap_key_file: raw.bootstrap_key_file.clone().into(),
        })
    }

    fn log(&mut self, raw: &raw::Log) -> Option<LogSettings> {
        use tracing::Level;
        let level = self.choice(
            "log.level",
            &raw.level,
            &[
                ("error", Level::ERROR),
                ("warn", Level::WARN),
                ("info", Level::INFO),
                ("debug", Level::DEBUG),
            ],
        );
        let format = self.choice(
            "log.format",
            &raw.format,
            &[
                ("auto", LogFormat::Auto),
                ("json", LogFormat::Json),
                ("text", LogFormat::Text),
            ],
        );
        let access = self.choice(
            "log.access",
            &raw.access,
            &[
                ("refused", AccessLog::Refused),
                ("all", AccessLog::All),
                ("off", AccessLog::Off),
            ],
        );
        Some(LogSettings {
            level: level?,
            format: format?,
            access: access?,
        })
    }
}

fn threads(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    std::thread::available_parallelism().map_or(1, usize::from)
}
