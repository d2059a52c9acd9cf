//! `deploy/sidekey.service`, by systemd's own judgement.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{stop_seconds, succeed, text};
use crate::harness::run::{Ended, run_command};
use crate::harness::sidekey::program;

/// The exposure (0 to 100) that systemd may find, at most. What is left is that it has a network.
const EXPOSURE_MAX: u32 = 15;

/// The unit with the program where it is here.
fn unit(directory: &Path, text: &str) -> PathBuf {
    let file = directory.join("sidekey.service");
    let text = text.replace("/usr/local/bin/sidekey", &program().display().to_string());
    std::fs::write(&file, text).unwrap();
    file
}

fn analyze(arguments: &[&str], unit: &Path) -> Ended {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg(unit);
    run_command(command)
}

#[test]
fn systemd_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let service = text("deploy/sidekey.service");
    let ended = succeed(analyze(&["verify"], &unit(directory.path(), &service)));
    assert!(!ended.stderr.contains("sidekey.service"), "{ended:?}");
    let bad = service.replace("ProtectHome=yes", "ProtectHome=perhaps");
    let ended = analyze(&["verify"], &unit(directory.path(), &bad));
    assert!(ended.stderr.contains("sidekey.service:"), "{ended:?}");
}

#[test]
fn it_is_shut_in() {
    let directory = tempfile::tempdir().unwrap();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let arguments = ["security", "--offline=true", "--no-pager", &threshold];
    let service = text("deploy/sidekey.service");
    succeed(analyze(&arguments, &unit(directory.path(), &service)));
    let open = service
        .replace("ProtectSystem=strict", "")
        .replace("PrivateDevices=yes", "");
    let open = open
        .replace("DynamicUser=yes", "")
        .replace("SystemCallFilter", "#");
    assert_eq!(
        analyze(&arguments, &unit(directory.path(), &open)).code,
        Some(1)
    );
}

#[test]
fn a_stop_has_the_time_that_it_takes() {
    let service = text("deploy/sidekey.service");
    let given = service
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let given: i64 = given.expect("a time").parse().expect("seconds");
    assert!(
        given > stop_seconds(&text("config/sidekey.toml")),
        "{given}"
    );
}
