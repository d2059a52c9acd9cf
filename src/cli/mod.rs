//! The commands: one file each. Exit codes: 0 well, 1 failed, 2 bad arguments or configuration.

mod audit;
mod check;
mod secrets;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, ProcessEnvironment, Settings};

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
    /// Look whether the audit log is what was written
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Work on key hashes and mint keys
    #[command(subcommand)]
    Secrets(secrets::Secrets),
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
    // Clap answers --help and bad arguments itself, with 0 and 2.
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments.config),
        Command::Check(arguments) => check::run(&arguments),
        Command::Audit(command) => audit::run(&command),
        Command::Secrets(command) => secrets::run(&command),
    }
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
