//! `sidekey serve`

use std::path::Path;
use std::process::ExitCode;

pub fn run(config: &Path) -> ExitCode {
    let settings = match super::load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match crate::app::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidekey: {error}");
            ExitCode::FAILURE
        }
    }
}
