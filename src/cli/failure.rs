//! How a command of the admin API ends: with an exit code, and one sentence where it failed. What is
//! told may quote what was typed or answered, so whatever looks like a key is cut out of it here.

use std::process::ExitCode;

use super::EXIT_CONFIG;
use super::render::harmless;
use crate::key::format::redact;

/// Why a command did not do what it was told.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Bad arguments or configuration; the first line is a sentence, others name what is bad.
    Arguments(String),
    Failed(String),
    /// It has been told already.
    Told,
    /// Whoever read the output has had enough (`| head`).
    ClosedPipe,
}

impl Failure {
    pub fn arguments(text: impl Into<String>) -> Self {
        Failure::Arguments(text.into())
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Failure::Failed(text.into())
    }
}

/// Tells why a command failed, where it did, and is its exit code.
pub fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Failed(text)) => {
            tell(&text);
            ExitCode::FAILURE
        }
        Err(Failure::Arguments(text)) => {
            tell(&text);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Writes `text` to stderr: harmless to a terminal, and without anything that looks like a key.
pub fn tell(text: &str) {
    let lines: Vec<String> = text
        .lines()
        .map(|line| harmless(&redact(line)).into_owned())
        .collect();
    // Without a reader there is nobody to tell.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr().lock(),
        format!("sidekey: {}\n", lines.join("\n")).as_bytes(),
    );
}
