//! `sidekey check`

use std::path::Path;
use std::process::ExitCode;

pub fn run(config: &Path) -> ExitCode {
    match super::load(config) {
        Ok(settings) => {
            println!(
                "{} is sound: {} routes to {} upstreams",
                config.display(),
                settings.routes.len(),
                settings.upstreams.len()
            );
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
