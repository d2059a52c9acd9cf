//! Which certificates the configuration names.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use crate::config::Settings;
use crate::config::settings::{SecretsSettings, Server};
use crate::telemetry::certificates::NamedFile;
use crate::telemetry::dependencies::Certificate;
use crate::telemetry::shown_certificates::TlsServer;

/// Names of parameters of a database's URL, as its driver reads them.
const DATABASE_CA: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
const DATABASE_CLIENT: [&str; 2] = ["sslcert", "ssl-cert"];

/// The files of certificates that are in use.
pub(super) fn named_files(settings: &Settings) -> Vec<NamedFile> {
    let redis = settings.limits.redis.as_ref();
    let vault = match &settings.secrets {
        SecretsSettings::Embedded => None,
        SecretsSettings::Vault(vault) => vault.ca_file.clone(),
    };
    let smtp = settings.smtp.as_ref().and_then(|smtp| smtp.ca_file.clone());
    let url = settings.store.url.expose_secret();
    let named = [
        (Certificate::DatabaseCa, parameter(url, &DATABASE_CA)),
        (
            Certificate::DatabaseClient,
            parameter(url, &DATABASE_CLIENT),
        ),
        (
            Certificate::RedisCa,
            redis.and_then(|redis| redis.ca_file.clone()),
        ),
        (
            Certificate::RedisClient,
            redis.and_then(|redis| redis.client_cert_file.clone()),
        ),
        (Certificate::VaultCa, vault),
        (Certificate::SmtpCa, smtp),
    ];
    let named = named.into_iter();
    named
        .filter_map(|(certificate, path)| path.map(|path| NamedFile { certificate, path }))
        .collect()
}

/// The servers behind Sidekey that are called with TLS, each once.
pub(super) fn tls_servers(settings: &Settings) -> Vec<TlsServer> {
    let servers = settings.upstreams.iter().flat_map(|one| &one.servers);
    let with_tls = servers.filter_map(|server| match server {
        Server::Host {
            host,
            port,
            tls: true,
        } => Some(TlsServer {
            host: host.clone(),
            port: *port,
        }),
        Server::Host { .. } | Server::Echo => None,
    });
    let mut servers: Vec<TlsServer> = with_tls.collect();
    servers.sort();
    servers.dedup();
    servers
}

/// The last value of a parameter that has one of these names.
fn parameter(url: &str, names: &[&str]) -> Option<PathBuf> {
    let (_, query) = url.split_once('?')?;
    form_urlencoded::parse(query.as_bytes())
        .filter(|(name, value)| names.contains(&name.as_ref()) && !value.is_empty())
        .last()
        .map(|(_, value)| PathBuf::from(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_from_the_url_of_the_database() {
        let find = |url| parameter(url, &DATABASE_CA).map(|path| path.display().to_string());
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(find("postgres://u:p@h/d?sslmode=verify-full"), None);
        assert_eq!(find("sqlite://data/sidekey.db"), None);
        assert_eq!(find("postgres://h/d?sslrootcert=ca.pem"), some("ca.pem"));
        assert_eq!(
            find("postgres://h/d?a=b&ssl-ca=%2Fetc%2Fa%20b.pem&c"),
            some("/etc/a b.pem")
        );
        assert_eq!(find("postgres://h/d?sslrootcert="), None);
    }
}
