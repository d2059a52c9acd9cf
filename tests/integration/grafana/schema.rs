//! The dashboards are held against the types that Grafana publishes, by TypeScript's compiler.

use std::path::Path;
use std::process::Command;

use super::files::Board;
use crate::harness::run::{Ended, run_command_within};

/// The compiler starts while many other tests run.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);
const TYPES: &str = include_str!("../../grafana/types.ts");

/// Checks files of a name and a dashboard's text.
fn check(boards: &[(&str, &str)]) -> Ended {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node/node_modules");
    let compiler = packages.join(".bin/tsc");
    assert!(
        compiler.exists(),
        "{} is missing: run `tools/setup test` (make test does)",
        compiler.display()
    );
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("a file is written");
    };
    std::os::unix::fs::symlink(&packages, directory.path().join("node_modules")).expect("a link");
    write("types.ts", TYPES);
    let mut command = Command::new(compiler);
    command.current_dir(directory.path()).args([
        "--noEmit",
        "--strict",
        // The package's own declarations are not ours to judge.
        "--skipLibCheck",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "--target",
        "es2022",
    ]);
    for (name, text) in boards {
        let file = format!("{name}.ts");
        let head = "import type { Shown } from \"./types\";\nexport const dashboard: Shown =";
        write(&file, &format!("{head} {text};\n"));
        command.arg(file);
    }
    run_command_within(command, LIMIT)
}

#[test]
fn dashboards_have_the_shape_that_grafana_publishes() {
    let boards = Board::all();
    let texts: Vec<_> = boards.iter().map(|b| (&*b.name, &*b.text)).collect();
    let ended = check(&texts);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}

/// Otherwise the check above would say nothing.
#[test]
fn broken_dashboards_do_not_pass() {
    let board = Board::all().remove(0);
    let changes = [
        (
            "a-number-as-text",
            "\"schemaVersion\": 42",
            "\"schemaVersion\": \"42\"",
        ),
        (
            "a-text-as-number",
            "\"unit\": \"",
            "\"unit\": 5, \"displayName\": \"",
        ),
        (
            "no-such-word",
            "\"drawStyle\": \"line\"",
            "\"drawStyle\": \"lines\"",
        ),
        ("no-such-option", "\"graphMode\":", "\"graphMood\":"),
        (
            "no-such-panel",
            "\"type\": \"timeseries\"",
            "\"type\": \"graph\"",
        ),
        (
            "no-such-field",
            "\"gridPos\": {",
            "\"gridPos\": { \"z\": 1,",
        ),
        ("no-such-setting", "\"lineWidth\":", "\"linewidth\":"),
        ("no-such-refresh", "\"refresh\": 2", "\"refresh\": 7"),
        ("a-query-of-nothing", "\"expr\":", "\"expression\":"),
        (
            "without-a-title",
            "\"title\": \"Sidekey",
            "\"weekStart\": \"Sidekey",
        ),
    ];
    let broken: Vec<(&str, String)> = changes
        .iter()
        .map(|(name, from, to)| {
            assert!(board.text.contains(from), "{name}: nothing to change");
            (*name, board.text.replacen(from, to, 1))
        })
        .collect();
    let texts: Vec<_> = broken.iter().map(|(n, text)| (*n, &**text)).collect();
    let ended = check(&texts);
    assert_ne!(ended.code, Some(0));
    for (name, _) in texts {
        assert!(
            ended.stdout.contains(&format!("{name}.ts(")),
            "{name} passed: {}",
            ended.stdout
        );
    }
}
