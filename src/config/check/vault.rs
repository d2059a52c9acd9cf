//! `[secrets]` and `[secrets.vault]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Checker;
use crate::config::raw;
use crate::config::settings::*;

const TIMEOUT_MS_MIN: u64 = 50;
/// No operation on a store may take longer than this.
const TIMEOUT_MS_MAX: u64 = 5000;
const PATH_LEN_MAX: usize = 200;

#[derive(Clone, Copy)]
enum Backend {
    Embedded,
    Vault,
}

#[derive(Clone, Copy)]
enum Method {
    Token,
    AppRole,
    Kubernetes,
}

impl Checker<'_> {
    pub(super) fn secrets(&mut self, raw: &raw::Secrets) -> Option<SecretsSettings> {
        let backend = self.choice(
            "secrets.backend",
            &raw.backend,
            &[("embedded", Backend::Embedded), ("vault", Backend::Vault)],
        );
        let method = self.choice(
            "secrets.vault.auth",
            &raw.vault.auth,
            &[
                ("token", Method::Token),
                ("approle", Method::AppRole),
                ("kubernetes", Method::Kubernetes),
            ],
        );
        match backend? {
            Backend::Embedded => method.map(|_| SecretsSettings::Embedded),
            Backend::Vault => self.vault(&raw.vault, method?).map(SecretsSettings::Vault),
        }
    }

    fn vault(&mut self, raw: &raw::Vault, method: Method) -> Option<VaultSettings> {
        self.vault_address(&raw.address);
        self.vault_path("secrets.vault.mount", &raw.mount);
        let auth_mount = raw.auth_mount.as_deref().unwrap_or(&raw.auth);
        self.vault_path("secrets.vault.auth_mount", auth_mount);
        if let Some(namespace) = &raw.namespace {
            self.vault_path("secrets.vault.namespace", namespace.trim_end_matches('/'));
        }
        self.number(
            "secrets.vault.timeout_ms",
            raw.timeout_ms,
            TIMEOUT_MS_MIN,
            TIMEOUT_MS_MAX,
        );
        if let Some(file) = &raw.ca_file
            && let Err(error) = std::fs::File::open(file)
        {
            self.report(
                "secrets.vault.ca_file",
                format!("{file} can't be read: {error}"),
            );
        }
        Some(VaultSettings {
            auth: self.vault_auth(raw, method)?,
            address: raw.address.trim_end_matches('/').to_owned(),
            mount: raw.mount.clone(),
            auth_mount: auth_mount.to_owned(),
            namespace: raw.namespace.clone(),
            ca_file: raw.ca_file.as_ref().map(PathBuf::from),
            timeout: Duration::from_millis(raw.timeout_ms.min(TIMEOUT_MS_MAX)),
        })
    }

    fn vault_auth(&mut self, raw: &raw::Vault, method: Method) -> Option<VaultAuth> {
        match method {
            Method::Token => {
                let source = self.source(
                    "secrets.vault.token",
                    raw.token.as_deref(),
                    raw.token_file.as_deref(),
                );
                source.map(VaultAuth::Token)
            }
            Method::AppRole => {
                self.not_empty("secrets.vault.role_id", &raw.role_id);
                let secret_id = self.source(
                    "secrets.vault.secret_id",
                    raw.secret_id.as_deref(),
                    raw.secret_id_file.as_deref(),
                );
                Some(VaultAuth::AppRole {
                    role_id: raw.role_id.clone(),
                    secret_id: secret_id?,
                })
            }
            Method::Kubernetes => {
                self.not_empty("secrets.vault.role", &raw.role);
                // Not read here: it is only there in the pod.
                self.not_empty("secrets.vault.jwt_file", &raw.jwt_file);
                Some(VaultAuth::Kubernetes {
                    role: raw.role.clone(),
                    jwt: SecretSource::File(raw.jwt_file.clone().into()),
                })
            }
        }
    }

    fn not_empty(&mut self, path: &str, text: &str) {
        if text.is_empty() {
            self.report(path, "is missing; secrets.vault.auth needs it");
        }
    }

    /// A secret that is given as text or as a file. A file that can't be read now is reported now.
    pub(super) fn source(
        &mut self,
        path: &str,
        text: Option<&str>,
        file: Option<&str>,
    ) -> Option<SecretSource> {
        match (text, file) {
            (_, Some(file)) => {
                self.secret(path, "", Some(file))?;
                Some(SecretSource::File(file.into()))
            }
            (Some(text), None) if !text.is_empty() => Some(SecretSource::Text(text.into())),
            _ => {
                let name = path.rsplit('.').next().unwrap_or(path);
                self.report(
                    path,
                    format!("is missing; give it here or, better, as {name}_file"),
                );
                None
            }
        }
    }

    /// `https://host:port`. Without TLS whoever listens on the way has every hash and the token, so
    /// that is only for this machine.
    fn vault_address(&mut self, address: &str) {
        let path = "secrets.vault.address";
        let uri = address.parse::<http::Uri>().ok();
        let (Some(uri), Some(scheme)) = (&uri, uri.as_ref().and_then(http::Uri::scheme_str)) else {
            // Not quoted back: it may hold a password.
            return self.report(path, "must be https://HOST:PORT");
        };
        let host = uri.host().unwrap_or_default();
        let has_login = uri.authority().is_some_and(|a| a.as_str().contains('@'));
        let is_plain = !has_login && uri.path() == "/" && uri.query().is_none() && !host.is_empty();
        if !is_plain || !matches!(scheme, "http" | "https") {
            return self.report(path, "must be https://HOST:PORT, without path or login");
        }
        // The client takes it apart by stricter rules, and can't say so: ports and numbers of addresses
        // have limits.
        if let Err(error) = url::Url::parse(address) {
            return self.report(path, format!("must be https://HOST:PORT: {error}"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_local =
            host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if scheme == "http" && !is_local {
            self.report(
                path,
                "is not encrypted; use https:// (http:// is for 127.0.0.1, [::1] and localhost)",
            );
        }
    }

    fn vault_path(&mut self, path: &str, text: &str) {
        let segment = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() > PATH_LEN_MAX || !text.split('/').all(segment) {
            self.report(
                path,
                format!(
                    "\"{text}\" must be names of letters, digits, '.', '_' and '-' with '/' between them"
                ),
            );
        }
    }
}
