//! The configuration: one TOML file and its environment twins.
//!
//! `raw` is the file's shape with every default, `overlay` lays the environment over the file,
//! `read` brings it into that shape, and `check` makes `settings` of it, which are what the rest of
//! the program gets: in the domain's own types. All problems are found in one run, each with its
//! path in the file.

mod check;
mod overlay;
mod parse;
pub mod raw;
mod read;
pub mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

pub use settings::Settings;

/// Where the configuration is looked for by default.
pub const DEFAULT_PATH: &str = "config/sidekey.toml";
/// A configuration file has at most this many bytes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// After this many problems the rest is left for the next run.
pub const PROBLEMS_MAX: usize = 200;

/// Something in the configuration that has to be changed before Sidekey can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `routes[1].upstream`. Empty for the file as a whole.
    pub path: String,
    /// What is wrong, and what to do.
    pub detail: String,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem {
            path: path.into(),
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.detail)
        } else {
            write!(f, "{}: {}", self.path, self.detail)
        }
    }
}

/// Where configuration comes from, so that tests need no real environment.
pub trait Environment {
    /// All variables.
    fn variables(&self) -> Vec<(String, String)>;
}

/// The process's environment.
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variables(&self) -> Vec<(String, String)> {
        // A variable that is not UTF-8 can't be one of ours.
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }
}

impl Environment for Vec<(String, String)> {
    fn variables(&self) -> Vec<(String, String)> {
        self.clone()
    }
}

/// Reads and checks the configuration file at `path`.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<Settings, Vec<Problem>> {
    let text = read_file(path).map_err(|problem| vec![problem])?;
    parse(&text, environment)
}

/// Checks a configuration's text.
pub fn parse(text: &str, environment: &dyn Environment) -> Result<Settings, Vec<Problem>> {
    let mut problems = Vec::new();
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => return Err(vec![Problem::new("", syntax_error(text, &error))]),
    };
    let table = overlay::apply(table, environment, &mut problems);
    let raw = read::read(table, &mut problems);
    let settings = check::check(raw, &mut problems);
    problems.truncate(PROBLEMS_MAX);
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    }
}

/// The address of the admin port, whatever else the file says: who asks a running process how it is has
/// nothing to do with what has become of the file since.
pub fn admin_address(path: &Path, environment: &dyn Environment) -> Result<SocketAddr, Problem> {
    let text = read_file(path)?;
    let table = text
        .parse::<toml::Table>()
        .map_err(|error| Problem::new("", syntax_error(&text, &error)))?;
    let table = overlay::apply(table, environment, &mut Vec::new());
    let listen = match table.get("admin").and_then(|admin| admin.get("listen")) {
        Some(value) => value.as_str().unwrap_or_default().to_owned(),
        None => raw::Admin::default().listen,
    };
    listen.parse().map_err(|_| {
        let detail = "is not an address and port such as 127.0.0.1:8081";
        Problem::new("admin.listen", detail)
    })
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let shown = path.display();
    let found = std::fs::metadata(path).map_err(|error| {
        Problem::new(
            "",
            format!("{shown} can't be read: {error}; give the file with --config"),
        )
    })?;
    if found.len() > FILE_BYTES_MAX {
        return Err(Problem::new(
            "",
            format!("{shown} has more than {FILE_BYTES_MAX} bytes; make it shorter"),
        ));
    }
    std::fs::read_to_string(path)
        .map_err(|error| Problem::new("", format!("{shown} can't be read: {error}")))
}

fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| {
        1 + text
            .bytes()
            .take(span.start)
            .filter(|b| *b == b'\n')
            .count()
    });
    let message = error.message();
    match line {
        Some(line) => format!("line {line} is not TOML: {message}"),
        None => format!("the file is not TOML: {message}"),
    }
}

/// Reads a secret that stands in a file of its own: its text without trailing line breaks.
pub(crate) fn read_secret_file(path: &Path) -> Result<String, String> {
    const SECRET_BYTES_MAX: u64 = 64 << 10;
    let found = std::fs::metadata(path).map_err(|error| format!("can't be read: {error}"))?;
    if found.len() > SECRET_BYTES_MAX {
        return Err(format!(
            "has more than {SECRET_BYTES_MAX} bytes; it should hold the secret alone"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("can't be read: {error}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests;
