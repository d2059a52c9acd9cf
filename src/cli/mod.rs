//! The commands: one file each. Exit codes: 0 well, 1 failed, 2 bad arguments or configuration.

mod access;
mod audit_log;
mod audit_verify;
mod call;
mod check;
mod client;
mod failure;
mod health;
mod import;
mod interrupt;
mod keys;
mod new_file;
mod options;
mod outcome;
mod pages;
mod parse;
mod progress;
mod refusal;
mod render;
mod secrets;
mod serve;
mod tenants;
mod usage;

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, ProcessEnvironment, Settings};
use crate::key::format::redact;

/// Bad arguments or configuration.
const EXIT_CONFIG: u8 = 2;

#[derive(Parser)]
#[command(
    name = "sidekey",
    version,
    about = "An API-key gateway for HTTP services which have no keys"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(ConfigArgument),
    /// Print every problem of a configuration file, and of what is stored
    Check(check::Arguments),
    /// Say whether the Sidekey of this configuration is alive, or ready for requests
    Health(health::Arguments),
    /// Work on key hashes and mint keys
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    Keys(keys::Keys),
    Tenants(tenants::Tenants),
    Usage(usage::Usage),
    Audit(audit_log::AuditLog),
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

impl ConfigArgument {
    fn path(&self) -> &std::path::Path {
        &self.config
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    if let Some(position) = position_of_a_key(std::env::args_os()) {
        failure::tell(&format!(
            "argument {position} holds an API key, which now stands in `ps` and in the shell's history: regenerate that key; where an id is wanted, give the 12 characters in the key's middle"
        ));
        return ExitCode::from(EXIT_CONFIG);
    }
    // Clap answers --help and bad arguments itself, with 0 and 2.
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments.config),
        Command::Check(arguments) => check::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Secrets(command) => secrets::run(&command),
        Command::Keys(keys) => keys::run(&keys),
        Command::Tenants(tenants) => tenants::run(&tenants),
        Command::Usage(usage) => usage::run(&usage),
        Command::Audit(audit) => audit_log::run(&audit),
    }
}

/// Which of `arguments` holds a key. No command takes one: what is typed can be read by others.
fn position_of_a_key(arguments: impl Iterator<Item = OsString>) -> Option<usize> {
    arguments
        .into_iter()
        .position(|argument| matches!(redact(&argument.to_string_lossy()), Cow::Owned(_)))
}

/// Reads the configuration; prints its problems where there are any.
fn load(path: &std::path::Path) -> Result<Settings, ExitCode> {
    config::load(path, &ProcessEnvironment).map_err(|problems| {
        for problem in &problems {
            eprintln!("{}: {problem}", path.display());
        }
        ExitCode::from(EXIT_CONFIG)
    })
}

/// Runs `work` on this thread to its end, and prints why it failed where it did.
fn block_on(work: impl Future<Output = Result<ExitCode, String>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(format!("no thread can be started: {error}")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("sidekey: {error}");
        ExitCode::FAILURE
    })
}
