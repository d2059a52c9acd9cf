//! Where the admin API is, and with which key it is called. No option takes the key itself: arguments
//! stand in `ps` and in the shell's history.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::config::Environment;

/// Where the admin API is by default.
const URL_DEFAULT: &str = "http://127.0.0.1:8081";
/// Where `sidekey serve` leaves the first admin key by default (`admin.bootstrap_key_file`).
const KEY_FILE_DEFAULT: &str = "data/admin.key";
/// A file with an admin key has at most this many bytes.
const KEY_FILE_BYTES_MAX: u64 = 4 << 10;
/// A file with certificates has at most this many bytes.
const CA_FILE_BYTES_MAX: u64 = 1 << 20;

const URL_VARIABLE: &str = "SIDEKEY_ADMIN_URL";
const KEY_VARIABLE: &str = "SIDEKEY_ADMIN_KEY";
const KEY_FILE_VARIABLE: &str = "SIDEKEY_ADMIN_KEY_FILE";

/// What every command of the admin API takes.
#[derive(clap::Args)]
#[command(next_help_heading = "The admin API")]
pub struct AccessArguments {
    /// Where the admin API is [env: SIDEKEY_ADMIN_URL] [default: http://127.0.0.1:8081]
    #[arg(long, global = true, value_name = "URL")]
    admin_url: Option<String>,
    /// A file with the admin key [env: SIDEKEY_ADMIN_KEY_FILE]. Without this option the key is read
    /// from the environment variable SIDEKEY_ADMIN_KEY, then from that file, and for an API on this
    /// machine from data/admin.key, where `sidekey serve` leaves the first one. No option takes the
    /// key itself
    #[arg(long, global = true, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities to trust besides the system's
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Allow http:// to another machine: whoever is on the way sees the admin key
    #[arg(long, global = true)]
    plain_http: bool,
    /// Print the API's answer as JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
}

impl AccessArguments {
    /// Whether an option or a variable says which admin API is meant, or with which key.
    pub fn is_named(&self, environment: &dyn Environment) -> bool {
        let names = [URL_VARIABLE, KEY_VARIABLE, KEY_FILE_VARIABLE];
        let mut variables = environment.variables().into_iter();
        self.admin_url.is_some()
            || self.admin_key_file.is_some()
            || variables.any(|(name, value)| names.contains(&name.as_str()) && !value.is_empty())
    }
}

/// Where a key came from, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    Variable,
    File(PathBuf),
}

impl std::fmt::Display for KeyOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyOrigin::Variable => f.write_str(KEY_VARIABLE),
            KeyOrigin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The way to the admin API.
pub struct Access {
    pub url: Url,
    /// The `Authorization` field, which holds the key.
    pub authorization: HeaderValue,
    pub key_origin: KeyOrigin,
    pub certificates: Option<Vec<u8>>,
}

impl Access {
    /// What arguments, environment and files say. Paths are relative to the working directory.
    pub fn read(
        arguments: &AccessArguments,
        environment: &dyn Environment,
    ) -> Result<Self, Failure> {
        let variables = environment.variables();
        let variable = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let text = arguments
            .admin_url
            .as_deref()
            .or_else(|| variable(URL_VARIABLE));
        let url = read_url(text.unwrap_or(URL_DEFAULT))?;
        let is_local = is_this_machine(&url);
        if url.scheme() == "http" && !is_local && !arguments.plain_http {
            return Err(Failure::arguments(
                "the admin key would go unencrypted to another machine: use https://, or allow it with --plain-http",
            ));
        }
        let origin = choose_key(arguments, &variable, is_local)?;
        let key = match &origin {
            KeyOrigin::Variable => {
                Zeroizing::new(variable(KEY_VARIABLE).unwrap_or_default().to_owned())
            }
            KeyOrigin::File(path) => read_key(path)?,
        };
        Ok(Access {
            url,
            authorization: authorization(&key, &origin)?,
            key_origin: origin,
            certificates: arguments
                .ca_file
                .as_deref()
                .map(read_certificates)
                .transpose()?,
        })
    }
}

/// The most particular wins: an option, the variable with the key, the variable with a file, and the
/// file of the first start. That one is for the Sidekey of this machine: no other is sent it.
fn choose_key<'a>(
    arguments: &AccessArguments,
    variable: &impl Fn(&str) -> Option<&'a str>,
    is_local: bool,
) -> Result<KeyOrigin, Failure> {
    if let Some(path) = &arguments.admin_key_file {
        return Ok(KeyOrigin::File(path.clone()));
    }
    if variable(KEY_VARIABLE).is_some() {
        return Ok(KeyOrigin::Variable);
    }
    if let Some(path) = variable(KEY_FILE_VARIABLE) {
        return Ok(KeyOrigin::File(path.into()));
    }
    if is_local && Path::new(KEY_FILE_DEFAULT).exists() {
        return Ok(KeyOrigin::File(KEY_FILE_DEFAULT.into()));
    }
    Err(Failure::arguments(format!(
        "no admin key: put it into {KEY_VARIABLE}, or name its file with --admin-key-file or {KEY_FILE_VARIABLE}"
    )))
}

/// Reads a URL. No message quotes it: it may hold a password.
fn read_url(text: &str) -> Result<Url, Failure> {
    let bad = |problem: &str| {
        Err(Failure::arguments(format!(
            "the URL of the admin API {problem}: write it like {URL_DEFAULT}"
        )))
    };
    let Ok(url) = Url::parse(text) else {
        return bad("can't be read");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return bad("must start with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("may hold neither a user nor a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return bad("may have neither ? nor #");
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(Failure::arguments(format!(
            "{} can't be read: {error}",
            path.display()
        ))),
        Ok(_) if bytes.len() as u64 > bytes_max => Err(Failure::arguments(format!(
            "{} has more than {bytes_max} bytes: is it the right file?",
            path.display()
        ))),
        Ok(_) => Ok(bytes),
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_file(path, KEY_FILE_BYTES_MAX)?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    read_file(path, CA_FILE_BYTES_MAX).map(|bytes| bytes.to_vec())
}

fn authorization(key: &str, origin: &KeyOrigin) -> Result<HeaderValue, Failure> {
    let key = key.trim();
    let is_plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    let field = Zeroizing::new(format!("Bearer {key}"));
    match HeaderValue::from_str(&field) {
        Ok(mut value) if is_plain => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(Failure::arguments(format!(
            "{origin} holds no key: it must hold one admin key and nothing else"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        access: AccessArguments,
    }

    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Access, Failure> {
        let line = Line::parse_from(std::iter::once(&"sidekey").chain(arguments));
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Access::read(&line.access, &variables)
    }

    fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> String {
        match read(arguments, variables) {
            Err(Failure::Arguments(text)) => text,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{arguments:?} {variables:?} passed"),
        }
    }

    #[test]
    fn the_most_particular_place_of_a_key_wins() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("one.key");
        std::fs::write(&file, "of-the-file\n").unwrap();
        let file = file.display().to_string();
        let (key, named) = (
            ("SIDEKEY_ADMIN_KEY", "of-the-variable"),
            ("SIDEKEY_ADMIN_KEY_FILE", file.as_str()),
        );
        let option = ["--admin-key-file", file.as_str()];
        for (arguments, variables, expected) in [
            (&option[..], &[key][..], "Bearer of-the-file"),
            (&[], &[named, key], "Bearer of-the-variable"),
            (&[], &[named], "Bearer of-the-file"),
        ] {
            let access = read(arguments, variables).ok().unwrap();
            assert_eq!(access.authorization, expected);
            assert!(access.authorization.is_sensitive());
            assert_eq!(access.url.as_str(), "http://127.0.0.1:8081/");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_unseen() {
        for key in ["", "  ", "two words", "a\nb", "schlüssel"] {
            let told = refused(&[], &[("SIDEKEY_ADMIN_KEY", key)]);
            assert!(told.starts_with("SIDEKEY_ADMIN_KEY holds no key"), "{told}");
        }
        assert!(refused(&["--admin-key-file", "/nowhere/x"], &[]).contains("/nowhere/x"));
        assert!(refused(&["--admin-key-file", "/dev/zero"], &[]).contains("more than 4096 bytes"));
        assert!(refused(&["--admin-url", "https://gateway.example"], &[]).contains("no admin key"));
    }

    #[test]
    fn urls_hold_no_secrets_and_keys_do_not_travel_in_the_open() {
        let key = ("SIDEKEY_ADMIN_KEY", "k");
        for url in [
            "http://user:hunter2@127.0.0.1:8081",
            "http://hunter2@127.0.0.1",
            "http://127.0.0.1/?key=hunter2",
            "http://127.0.0.1/#hunter2",
            "ftp://hunter2",
            "hunter2",
            "",
            "unix:/hunter2",
        ] {
            for told in [
                refused(&["--admin-url", url], &[key]),
                refused(&[], &[key, ("SIDEKEY_ADMIN_URL", url)]),
            ] {
                assert!(!told.contains("hunter2"), "{told}");
            }
        }
        for url in [
            "http://gateway:8081",
            "http://10.0.0.1",
            "http://localhost.example",
            "http://[::2]",
        ] {
            assert!(
                refused(&["--admin-url", url], &[key]).contains("--plain-http"),
                "{url}"
            );
            assert!(
                read(&["--admin-url", url, "--plain-http"], &[key]).is_ok(),
                "{url}"
            );
        }
        for url in [
            "https://gateway/sidekey/",
            "http://localhost:1",
            "http://127.9.9.9",
            "http://[::1]:8081",
        ] {
            assert!(read(&["--admin-url", url], &[key]).is_ok(), "{url}");
        }
    }
}
