//! The Dockerfile, as far as it goes without a container engine.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{run_tool, succeed, text};
use crate::harness::run::{run, run_command};
use crate::harness::sidekey::program;
use crate::harness::upstream::nobody;

/// The shared libraries of the base image (glibc, and what GCC's code needs).
const LIBRARIES: [&str; 6] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "linux-vdso.so.1",
];

/// The instructions of the Dockerfile: their names and the rest, with continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let dockerfile = text("Dockerfile");
    let lines: Vec<&str> = dockerfile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| line.split_once(' '));
    instructions
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

fn all<'a>(instructions: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = instructions.iter().filter(|(of, _)| of == name);
    named.map(|(_, rest)| rest.as_str()).collect()
}

#[test]
fn hadolint_has_nothing_to_say() {
    let ended = succeed(run_tool("hadolint", &["Dockerfile"]));
    assert_eq!(ended.stdout, "");
    // It would.
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("Dockerfile");
    std::fs::write(&bad, "FROM debian:latest\nRUN cd /tmp && sudo ls\n").unwrap();
    let ended = run_tool("hadolint", &[&bad.display().to_string()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

/// Whether the build context has a path: everything is left out but what `.dockerignore` lets in.
fn is_let_in(name: &str) -> bool {
    let ignore = text(".dockerignore");
    let mut rules = ignore
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(rules.next(), Some("*"), "everything is left out first");
    rules.any(|rule| {
        let folder = rule.strip_prefix('!').expect("what is let in");
        Path::new(name).starts_with(folder)
    })
}

/// What the compiler noted when it made the library that the program consists of: the newest of its notes
/// about one, as others are about tests and lints.
fn what_was_read() -> String {
    let notes = program().with_file_name("deps").read_dir().unwrap();
    let notes = notes.filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        let is_ours = name.starts_with("sidekey-") && name.ends_with(".d");
        let note = is_ours.then(|| std::fs::read_to_string(&path).unwrap())?;
        let written = path.metadata().unwrap().modified().unwrap();
        note.contains(".rlib:").then_some((written, note))
    });
    let (_, newest) = notes
        .max_by_key(|(written, _)| *written)
        .expect("a note about a library");
    let (_, read) = newest.split_once(": ").expect("what was read");
    read.lines().next().expect("a line").to_owned()
}

#[test]
fn the_build_gets_what_it_reads_and_no_secrets() {
    let read = what_was_read();
    let root = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    let ours: Vec<String> = read
        .split_whitespace()
        .filter_map(|file| {
            let path = Path::new(&root).join(file).canonicalize().unwrap();
            let name = path.strip_prefix(&root).ok()?;
            Some(name.to_str().unwrap().to_owned())
        })
        .collect();
    assert!(ours.len() > 100, "{}", ours.len());
    let missing: Vec<&String> = ours.iter().filter(|file| !is_let_in(file)).collect();
    assert!(missing.is_empty(), "not in .dockerignore: {missing:?}");
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "tools/setup",
        "config/sidekey.toml",
    ] {
        assert!(is_let_in(name), "{name}");
    }
    // Cargo looks for the sources of all targets that it is told of.
    let cargo: toml::Table = text("Cargo.toml").parse().unwrap();
    for (kind, folder) in [("bench", "benches"), ("test", "tests")] {
        assert!(cargo.contains_key(kind) && is_let_in(folder), "{folder}");
    }
    for name in [".git", "data", "deploy/secrets", "target"] {
        assert!(!is_let_in(name), "{name}");
    }
}

/// The step that makes the image's configuration is run as it stands, and with what it makes the health
/// check's and the start's arguments.
#[test]
fn the_steps_after_the_build_work() {
    let instructions = instructions();
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::create_dir(&image).unwrap();
    std::os::unix::fs::symlink(program(), image.join("sidekey")).unwrap();
    let steps = all(&instructions, "RUN");
    let step = steps
        .iter()
        .find(|step| step.starts_with("sed "))
        .expect("the step");
    let mut shell = Command::new("sh");
    shell
        .args([
            "-e",
            "-c",
            &step.replace("/image/", &format!("{}/", image.display())),
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    succeed(run_command(shell));
    let config: toml::Table = std::fs::read_to_string(image.join("sidekey.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(config["proxy"]["listen"][0].as_str(), Some("0.0.0.0:8080"));
    assert_eq!(config["admin"]["listen"].as_str(), Some("0.0.0.0:8081"));
    let data = std::fs::metadata(image.join("var/data")).unwrap();
    assert_eq!(data.permissions().mode() & 0o777, 0o700);

    // Everything that is copied from the build was made by it.
    let copied: BTreeSet<&str> = all(&instructions, "COPY")
        .into_iter()
        .filter(|copy| copy.starts_with("--from=build"))
        .filter_map(|copy| {
            copy.split_whitespace()
                .find(|word| word.starts_with("/image/"))
        })
        .collect();
    assert_eq!(copied.len(), 3, "{copied:?}");
    for name in copied {
        assert!(directory.path().join(&name[1..]).exists(), "{name}");
    }

    let words = |list: &str| -> Vec<String> { serde_json::from_str(list).expect("a list") };
    let health = all(&instructions, "HEALTHCHECK").remove(0);
    let (_, health) = health.split_once("CMD ").expect("a command");
    let (entry, start) = (
        words(all(&instructions, "ENTRYPOINT")[0]),
        words(all(&instructions, "CMD")[0]),
    );
    let health = words(health);
    assert_eq!(entry, ["/usr/local/bin/sidekey"]);
    assert_eq!(health[0], entry[0]);
    assert_eq!((&*start[0], &start[1..]), ("serve", &health[2..]));
    let config = image.join("sidekey.toml").display().to_string();
    let arguments = [&health[1], &health[2], &config].map(String::as_str);
    let asked = run(
        directory.path(),
        &arguments,
        &[("SIDEKEY__ADMIN__LISTEN", &nobody().to_string())],
    );
    assert_eq!(asked.code, Some(1), "{asked:?}");
}

#[test]
fn the_image_runs_as_nobody_in_particular() {
    let instructions = instructions();
    let user = *all(&instructions, "USER").last().expect("a user");
    let id = user.split(':').next().unwrap_or_default();
    assert!(
        id.parse::<u32>().is_ok_and(|id| id > 0),
        "{user}: Kubernetes has to see that it is not root"
    );
    let bases = all(&instructions, "FROM");
    assert_eq!(bases.len(), 2, "what builds is no part of what runs");
    assert!(bases[1].contains("distroless"), "{bases:?}");
    let volume: Value = serde_json::from_str(all(&instructions, "VOLUME")[0]).unwrap();
    let folder = all(&instructions, "WORKDIR").pop().expect("a folder");
    assert_eq!(volume[0], format!("{folder}/data"));
}

#[test]
fn the_program_needs_no_library_that_the_image_lacks() {
    let mut ldd = Command::new("ldd");
    ldd.arg(program());
    let ended = succeed(run_command(ldd));
    let needed: BTreeSet<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.rsplit('/').next())
        .collect();
    assert!(needed.contains("libc.so.6"), "{needed:?}");
    let missing: Vec<&&str> = needed
        .iter()
        .filter(|name| !LIBRARIES.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn it_is_built_with_a_compiler_that_is_new_enough() {
    let cargo: toml::Table = text("Cargo.toml").parse().unwrap();
    let wanted = cargo["package"]["rust-version"].as_str().unwrap();
    let instructions = instructions();
    let base = all(&instructions, "FROM")[0];
    let version = base
        .strip_prefix("rust:")
        .and_then(|rest| rest.split('-').next());
    let number = |text: &str| -> Vec<u32> { text.split('.').flat_map(str::parse).collect() };
    assert!(
        number(version.unwrap()) >= number(wanted),
        "{base} < {wanted}"
    );
}
