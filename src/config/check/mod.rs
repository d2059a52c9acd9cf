//! Raw shape -> checked settings. Every function reports all that it finds and goes on. One file a
//! part of the configuration; what several need stands here.

mod dashboard;
mod limits;
mod log;
mod metrics;
mod proxy;
mod reconcile;
mod redis;
mod reminders;
mod routes;
mod smtp;
mod stores;
mod tracing;
mod usage;
mod vault;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use secrecy::SecretString;

use super::raw::{self, Raw};
use super::settings::*;
use super::{Problem, read_secret_file};

/// No duration in the file is longer than this.
const SECONDS_MAX: u64 = 366 * 86_400;
const THREADS_MAX: usize = 1024;
const NAME_LEN_MAX: usize = 64;

struct Checker<'p> {
    problems: &'p mut Vec<Problem>,
}

/// Settings, if nothing is wrong that would leave a value open. `problems` gets everything.
pub fn check(raw: Raw, problems: &mut Vec<Problem>) -> Option<Settings> {
    let mut checker = Checker { problems };
    let c = &mut checker;
    let proxy = c.proxy(&raw.proxy, &raw.self_service);
    let credentials = c.credentials(&raw.credentials);
    let upstreams = c.upstreams(&raw.upstreams);
    let catalogue = c.catalogue(&raw.scopes);
    let described_scopes = routes::described(&raw.scopes, &catalogue);
    let limits = c.limits(&raw.limits, &raw.redis);
    let routes = c.routes(&raw, &catalogue, limits.as_ref());
    let verification = c.verification(&raw.verification);
    let bcrypt = c.bcrypt(&raw.bcrypt);
    let store = c.store(&raw.store);
    let secrets = c.secrets(&raw.secrets);
    let reconcile = c.reconcile(&raw.secrets);
    let admin = c.admin(&raw.admin);
    let dashboard = c.dashboard(&raw.dashboard);
    let usage = c.usage(&raw.usage);
    let metrics = c.metrics(&raw.metrics);
    let smtp = c.smtp(&raw.smtp);
    let reminders = c.reminders(&raw.reminders);
    let log = c.log(&raw.log);
    let tracing = c.tracing(&raw.tracing);
    Some(Settings {
        proxy: proxy?,
        credentials: credentials?,
        upstreams: upstreams?,
        routes: routes?,
        catalogue,
        described_scopes,
        limits: limits?,
        verification,
        bcrypt: bcrypt?,
        store: store?,
        secrets: secrets?,
        reconcile,
        admin: admin?,
        dashboard,
        usage,
        metrics,
        smtp,
        reminders,
        log: log?,
        tracing,
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

    fn admin(&mut self, raw: &raw::Admin) -> Option<AdminSettings> {
        if raw.bootstrap_key_file.is_empty() {
            self.report(
                "admin.bootstrap_key_file",
                "is empty; name the file for the first admin key",
            );
        }
        let trusted = self.nets("admin.trusted_proxies", &raw.trusted_proxies);
        Some(AdminSettings {
            listen: self.address("admin.listen", &raw.listen)?,
            trusted_proxies: trusted?,
            bootstrap_key_file: raw.bootstrap_key_file.clone().into(),
        })
    }
}

fn threads(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    std::thread::available_parallelism().map_or(1, usize::from)
}
