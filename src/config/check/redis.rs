//! `[redis]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::Checker;
use crate::config::{raw, read_secret_file, settings::*};
use crate::redis_link::url::Login;
use crate::redis_link::{Target, Trust};

impl Checker<'_> {
    /// `[redis]` is only looked at where it is used: a file that it names need not be there.
    pub(super) fn redis(&mut self, raw: &raw::Redis, is_used: bool) -> Option<RedisSettings> {
        self.number("redis.timeout_ms", raw.timeout_ms, 1, 10_000);
        if !is_used {
            return None;
        }
        let url = self.secret("redis.url", &raw.url, raw.url_file.as_deref())?;
        let login = self.sentinel_login(raw);
        let target = match Target::new(&url, &Trust::default()) {
            Ok(target) => target,
            Err(detail) => {
                self.report("redis.url", detail);
                return None;
            }
        };
        let files = [&raw.ca_file, &raw.client_cert_file, &raw.client_key_file];
        if files.iter().any(|file| file.is_some()) && !target.is_encrypted() {
            self.report(
                "redis.url",
                "must start with rediss where certificates are given; nothing would be encrypted",
            );
            return None;
        }
        if login.is_some() && !target.has_sentinels() {
            self.report(
                "redis.sentinel_password",
                "is for sentinels; redis.url names none",
            );
        }
        let trust = self.redis_trust(raw)?;
        let target = Target::new(&url, &trust).ok()?;
        Some(RedisSettings {
            target: target.with_sentinel_login(login),
            timeout: Duration::from_millis(raw.timeout_ms),
            ca_file: raw.ca_file.as_ref().map(PathBuf::from),
            client_cert_file: raw.client_cert_file.as_ref().map(PathBuf::from),
        })
    }

    fn redis_trust(&mut self, raw: &raw::Redis) -> Option<Trust> {
        let (certificate, key) = (&raw.client_cert_file, &raw.client_key_file);
        if certificate.is_some() != key.is_some() {
            let (missing, other) = match key {
                None => ("redis.client_key_file", "certificate"),
                Some(_) => ("redis.client_cert_file", "key"),
            };
            self.report(missing, format!("is missing; the {other} is there"));
            return None;
        }
        let authorities = self.pem("redis.ca_file", raw.ca_file.as_deref())?;
        let certificate = self.pem("redis.client_cert_file", certificate.as_deref())?;
        let key = self.pem("redis.client_key_file", key.as_deref())?;
        let identity = certificate.zip(key);
        let identity = identity.map(|(certificate, key)| (certificate, SecretString::from(key)));
        let (authorities, identity) = (
            authorities.map(String::into_bytes),
            identity.map(|(certificate, key)| (certificate.into_bytes(), key)),
        );
        for (path, trust) in [
            (
                "redis.ca_file",
                Trust {
                    authorities: authorities.clone(),
                    identity: None,
                },
            ),
            (
                "redis.client_cert_file",
                Trust {
                    authorities: None,
                    identity: identity.clone(),
                },
            ),
        ] {
            if let Some(detail) = trust.problem() {
                self.report(path, format!("can't be used: {detail}"));
                return None;
            }
        }
        Some(Trust {
            authorities,
            identity,
        })
    }

    /// The text of a PEM file, if one is named. `None` where that can't be had.
    pub(super) fn pem(&mut self, path: &str, file: Option<&str>) -> Option<Option<String>> {
        let Some(file) = file else {
            return Some(None);
        };
        match read_secret_file(Path::new(file)) {
            Ok(text) if text.contains("-----BEGIN ") => Some(Some(text)),
            Ok(_) => {
                self.report(
                    path,
                    format!("{file} holds nothing in PEM (-----BEGIN ...)"),
                );
                None
            }
            Err(detail) => {
                self.report(path, format!("{file} {detail}"));
                None
            }
        }
    }

    fn sentinel_login(&mut self, raw: &raw::Redis) -> Option<Login> {
        let file = raw.sentinel_password_file.as_deref();
        if raw.sentinel_password.is_empty() && file.is_none() {
            if !raw.sentinel_username.is_empty() {
                self.report(
                    "redis.sentinel_password",
                    "is missing; redis.sentinel_username is there",
                );
            }
            return None;
        }
        let password = self.secret("redis.sentinel_password", &raw.sentinel_password, file)?;
        let user = &raw.sentinel_username;
        Some(Login {
            user: (!user.is_empty()).then(|| user.clone()),
            password,
        })
    }
}
