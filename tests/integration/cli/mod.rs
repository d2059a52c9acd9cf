//! The commands of the admin API, as people and scripts call them: against the real program, and
//! against stand-ins where an answer has to be strange.

mod errors;
mod from_nothing;
mod import;
mod life;
mod output;
mod parts;
mod secrets;
mod stand_in;
mod terminal;
mod transport;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::run::{Ended, path_with_program, run, run_command};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

/// Whoever calls the commands: a directory, and variables of the environment.
pub struct Cli {
    directory: PathBuf,
    variables: Vec<(String, String)>,
}

impl Cli {
    /// In `directory`, without anything else.
    pub fn at(directory: &Path) -> Self {
        Cli {
            directory: directory.to_owned(),
            variables: vec![],
        }
    }

    /// In the program's own directory, where its first admin key lies.
    pub fn of(sidekey: &Sidekey) -> Self {
        Cli::at(sidekey.directory()).with("SIDEKEY_ADMIN_URL", format!("http://{}", sidekey.admin))
    }

    /// With a variable more.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// Runs `sidekey` to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        run(&self.directory, arguments, &self.variables())
    }

    /// Runs it with success and without a word on stderr; what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stderr, "", "{arguments:?}");
        ended.stdout
    }

    /// The same with --json.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{arguments:?}: {text:?} is not JSON"))
    }

    /// Runs it, and it has to fail with `code` and a sentence on stderr, which is given.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str], code: i32) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(
            ended.stderr.starts_with("sidekey: "),
            "{arguments:?}: {ended:?}"
        );
        ended.stderr
    }

    /// Runs bash, to which the program is `sidekey`.
    pub fn shell(&self, script: &str) -> Ended {
        run_command(self.shell_command(script))
    }

    fn shell_command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .current_dir(&self.directory)
            .env("PATH", path_with_program())
            .envs(self.variables());
        command
    }
}

/// The program in front of a service.
async fn start() -> (Sidekey, Upstream) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    (sidekey, upstream)
}

/// What a table says of `label`, in its second column.
#[track_caller]
fn told<'a>(table: &'a str, label: &str) -> &'a str {
    let line = table.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label} in {table}"))
        .trim()
}
