//! `[proxy]`, `[credentials]` and `[[upstreams]]`.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Checker, SECONDS_MAX, THREADS_MAX, threads};
use crate::config::settings::*;
use crate::config::{parse, raw};
use crate::key::record;

impl Checker<'_> {
    fn self_service(&mut self, raw: &raw::SelfService) -> Option<String> {
        match parse::path(&raw.path) {
            Ok(path) if path.is_empty() => {
                let detail = "is the root, which belongs to the services; choose a path of its own";
                self.report("self_service.path", detail);
            }
            Ok(path) if raw.enabled => return Some(path),
            Ok(_) => {}
            Err(detail) => self.report("self_service.path", detail),
        }
        None
    }

    pub(super) fn proxy(
        &mut self,
        raw: &raw::Proxy,
        self_service: &raw::SelfService,
    ) -> Option<ProxySettings> {
        let self_service = self.self_service(self_service);
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
        let trusted = self.nets("proxy.trusted_proxies", &raw.trusted_proxies);
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
        self.number(
            "proxy.shutdown_notice_seconds",
            raw.shutdown_notice_seconds,
            0,
            3600,
        );
        self.number("proxy.shutdown_seconds", raw.shutdown_seconds, 0, 86_400);
        Some(ProxySettings {
            listen: listen.into_iter().collect::<Option<_>>()?,
            mode: mode?,
            trusted_proxies: trusted?,
            threads: threads(raw.threads),
            keepalive: Duration::from_secs(raw.keepalive_seconds),
            client_timeout: Duration::from_secs(raw.client_timeout_seconds),
            upgrade_idle: Duration::from_secs(raw.upgrade_idle_seconds),
            header_timeout: Duration::from_secs(raw.header_timeout_seconds),
            max_connections: raw.max_connections,
            self_service,
            max_header_bytes: raw.max_header_bytes,
            max_body_bytes: raw.max_body_bytes,
            shutdown_notice: Duration::from_secs(raw.shutdown_notice_seconds),
            shutdown: Duration::from_secs(raw.shutdown_seconds),
        })
    }

    /// Networks, if all of them are.
    pub(super) fn nets(&mut self, path: &str, raw: &raw::OneOrMany) -> Option<Vec<IpNet>> {
        let nets: Vec<Option<IpNet>> = (raw.0.iter().enumerate())
            .map(|(i, text)| {
                let net = record::parse_net(text);
                if net.is_none() {
                    self.report(
                        format!("{path}[{i}]"),
                        format!("\"{text}\" is not a CIDR such as 10.0.0.0/8, nor an address"),
                    );
                }
                net
            })
            .collect();
        nets.into_iter().collect()
    }

    pub(super) fn credentials(&mut self, raw: &raw::Credentials) -> Option<CredentialSettings> {
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

    pub(super) fn upstreams(&mut self, raw: &[raw::Upstream]) -> Option<Vec<UpstreamSettings>> {
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

    pub(super) fn upstream(
        &mut self,
        index: usize,
        raw: &raw::Upstream,
    ) -> Option<UpstreamSettings> {
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
}
