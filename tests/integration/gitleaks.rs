//! The shipped rule finds Sidekey's keys wherever people leave them, and nothing else: with the real
//! gitleaks, on files and on the history of repositories, this one included.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sidekey::key::mint::{MINT_KEY_LEN, MintKey};
use sidekey::key::{Environment, MintKeys};

use crate::harness::run::{Ended, run_command, run_command_within};
use crate::harness::service::tool;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// How long it may take to look through everything that there ever was, on a busy machine.
const SCAN_MAX: Duration = Duration::from_secs(300);
const RULE: &str = "sidekey-api-key";
/// Prefixes of the shortest and the greatest length among them.
const PREFIXES: [&str; 4] = ["sk", "a1", "acme2", "abcdefghij012345"];
/// Characters of a key that are secret: its end.
const SECRET_LEN: usize = 54;
/// What of this directory is not the project.
const NOT_OURS: [&str; 3] = [".git", "target", "data"];

/// A new key of some deployment.
fn minted(prefix: &str, environment: Environment) -> String {
    let mint_keys = MintKeys::new(MintKey::new(&[7; MINT_KEY_LEN]), vec![]);
    let key = mint_keys.mint(&prefix.parse().expect("a prefix"), environment);
    key.expect("a key").text.expose_secret().to_owned()
}

/// Where people leave keys: a file's name and what stands in it.
fn places(key: &str) -> Vec<(&'static str, String)> {
    let basic = STANDARD.encode(format!("client:{key}"));
    vec![
        (
            ".env",
            format!("API_URL=https://api.example.com\nAPI_KEY={key}\n"),
        ),
        (
            "quoted.env",
            format!("export API_KEY='{key}'\r\nOTHER=1\r\n"),
        ),
        (
            "settings.json",
            json!({"api": {"key": key, "retries": 3}}).to_string(),
        ),
        ("values.yaml", format!("api:\n  key: {key}   # of acme\n")),
        ("settings.toml", format!("key = \"{key}\"\n")),
        ("main.rs", format!("const KEY: &str = \"{key}\";\n")),
        (
            "client.py",
            format!("session.headers[\"X-API-Key\"] = \"{key}\"\n"),
        ),
        (
            "min.js",
            format!("fetch(u,{{headers:{{authorization:`Bearer ${{'{key}'}}`}}}})"),
        ),
        (
            "call.sh",
            format!("curl 'https://api.example.com/orders?api_key={key}&page=2'\n"),
        ),
        (
            "access.log",
            format!("GET /orders?k={} HTTP/1.1\n", key.replace('_', "%5F")),
        ),
        (
            "request.http",
            format!("GET / HTTP/1.1\nAuthorization: Basic {basic}\n"),
        ),
        ("notes.md", format!("The key is `{key}`.\n")),
        ("name.txt", format!("prod_{key}_old")),
        ("bare.txt", key.to_owned()),
    ]
}

/// Runs gitleaks with the shipped rule in `directory`; the secrets that it found, by file.
fn scan(what: &str, directory: &Path) -> BTreeMap<String, Vec<String>> {
    let rule = Path::new(ROOT).join("config/gitleaks.toml");
    let ended = gitleaks(
        directory,
        &[what, ".", "--config", rule.to_str().expect("a path")],
    );
    let found: Vec<Value> =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    // 1 where something was found: anything else is a failure of its own.
    assert_eq!(ended.code, Some(i32::from(!found.is_empty())), "{ended:?}");
    let mut secrets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in found {
        assert_eq!(one["RuleID"], RULE, "{one}");
        let text = |member: &str| one[member].as_str().expect("a text").to_owned();
        secrets
            .entry(text("File"))
            .or_default()
            .push(text("Secret"));
    }
    secrets
}

fn gitleaks(directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(tool("gitleaks"));
    command.current_dir(directory).args(arguments).args([
        "--no-banner",
        "--report-format",
        "json",
        "--report-path",
        "-",
    ]);
    run_command_within(command, SCAN_MAX)
}

/// Runs git in `directory`, as nobody in particular.
fn git(directory: &Path, arguments: &[&str]) -> Ended {
    let path = std::env::var("PATH").unwrap_or_default();
    git_on(&path, directory, arguments)
}

/// The same, with hooks that find their programs on `path`.
fn git_on(path: &str, directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .args([
            "-c",
            "user.name=Nobody",
            "-c",
            "user.email=nobody@example.com",
        ])
        .args([
            "-c",
            "init.defaultBranch=main",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("PATH", path);
    run_command(command)
}

#[track_caller]
fn git_ok(directory: &Path, arguments: &[&str]) {
    let ended = git(directory, arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("a file");
}

fn end_of(key: &str) -> String {
    key[key.len() - SECRET_LEN..].to_owned()
}

#[test]
fn keys_are_found_wherever_they_stand() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut planted = BTreeMap::new();
    for prefix in PREFIXES {
        for environment in [Environment::Live, Environment::Test] {
            for index in 0..places("").len() {
                let key = minted(prefix, environment);
                let (name, text) = places(&key).swap_remove(index);
                let folder = format!("{prefix}-{}", environment.as_str());
                std::fs::create_dir_all(directory.path().join(&folder)).expect("a folder");
                let file = format!("{folder}/{name}");
                write(directory.path(), &file, &text);
                planted.insert(file, vec![end_of(&key)]);
            }
        }
    }
    assert_eq!(scan("dir", directory.path()), planted);
}

/// Random keys are random enough for the rule, each of them. gitleaks reads long files in pieces that end
/// at a blank line; without any, it would cut through a key here and there.
#[test]
fn no_key_is_missed_for_its_characters() {
    let directory = tempfile::tempdir().expect("a directory");
    let keys: Vec<String> = (0..2000).map(|_| minted("sk", Environment::Live)).collect();
    write(directory.path(), "keys.txt", &keys.join("\n\n"));
    let found = scan("dir", directory.path()).remove("keys.txt");
    let found: BTreeSet<String> = found.expect("keys").into_iter().collect();
    let planted: BTreeSet<String> = keys.iter().map(|key| end_of(key)).collect();
    let differ: Vec<&String> = planted.symmetric_difference(&found).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn a_key_that_was_taken_out_again_is_found_in_the_history() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let key = minted("acme", Environment::Live);
    git_ok(at, &["init", "-q"]);
    for (text, message) in [(key.as_str(), "first try"), ("${API_KEY}", "no key here")] {
        write(at, "settings.yaml", &format!("key: {text}\n"));
        git_ok(at, &["add", "."]);
        git_ok(at, &["commit", "-qm", message]);
    }
    assert!(!scan("dir", at).contains_key("settings.yaml"));
    let history = scan("git", at);
    assert_eq!(history["settings.yaml"], [end_of(&key)]);
}

/// The commands of the guide, as they stand there.
#[test]
fn the_guides_commands_look_through_a_repository_and_hold_a_commit_up() {
    let guide =
        std::fs::read_to_string(Path::new(ROOT).join("docs/security.md")).expect("the guide");
    let mut blocks = guide.split("```sh\n").skip(1);
    let block = blocks
        .find(|block| block.contains("gitleaks git"))
        .expect("a block");
    let (block, _) = block.split_once("```").expect("its end");
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    git_ok(at, &["init", "-q"]);
    let rule = std::fs::read_to_string(Path::new(ROOT).join("config/gitleaks.toml"));
    std::fs::create_dir(at.join("config")).expect("a folder");
    write(at, "config/gitleaks.toml", &rule.expect("the rule"));
    write(at, "readme.md", "Nothing to see.\n");
    git_ok(at, &["add", "."]);
    git_ok(at, &["commit", "-qm", "begin"]);
    let path = tool("gitleaks")
        .parent()
        .expect("a folder")
        .display()
        .to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell
        .args(["-e", "-c", block])
        .current_dir(at)
        .env("PATH", &path);
    let ended = run_command(shell);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    // The default rules are there beside ours: this one is a token of another service, in two parts so
    // that it is none here.
    let other = format!(
        "token = \"ghp_{}\"\n",
        "x7Kq2mZp9RtV4wYb1NcE8sUf3HjL6aGd0QoT"
    );
    let ours = format!("key = \"{}\"\n", minted("acme", Environment::Test));
    for (text, rule) in [(ours, RULE), (other, "github-pat")] {
        write(at, "new.toml", &text);
        git_ok(at, &["add", "."]);
        let held_up = git_on(&path, at, &["commit", "-qm", "a leak"]);
        assert_eq!(held_up.code, Some(1), "{held_up:?}");
        let told = format!("{}{}", held_up.stdout, held_up.stderr);
        assert!(told.contains(rule), "{rule}: {told}");
        assert!(
            !told.contains(&text[10..40]),
            "what it found is hidden: {told}"
        );
    }
    write(at, "new.toml", "key = \"\"\n");
    git_ok(at, &["add", "."]);
    let passed = git_on(&path, at, &["commit", "-qm", "no leak"]);
    assert_eq!(passed.code, Some(0), "{passed:?}");
}

/// Texts that are near to keys, and what is written down about keys all day.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_taken_for_a_key() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "[log]\naccess = \"all\"\n")).await;
    let key = sidekey.create_key(json!({})).await;
    let hint = format!("sk_live_{}_...{}", key.id, &key.text[key.text.len() - 4..]);
    sidekey.get("/orders", &key.text).await;
    sidekey.get("/orders", &format!("{}x", key.text)).await;

    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let cut = &key.text[..key.text.len() - 1];
    let hash = "$2b$10$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW";
    let sum = blake3::hash(key.text.as_bytes()).to_hex();
    let near = [
        hint.clone(),
        format!("key id: {}", key.id),
        format!("cut short: {cut}"),
        format!("longer: {}A", key.text),
        format!(
            "of neither environment: {}",
            key.text.replace("_live_", "_prod_")
        ),
        format!("in capitals: {}", key.text.replace("sk_live", "SK_LIVE")),
        format!(
            "a placeholder: sk_live_000000000000_{}",
            "0".repeat(SECRET_LEN)
        ),
        format!("another: sk_test_XXXXXXXXXXXX_{}", "x".repeat(SECRET_LEN)),
        format!(
            "the documents' own: sk_live_4fzN8cQ2pLrT_{}",
            end_of(&key.text)
        ),
        format!("a hash: {hash}"),
        format!("a digest: {sum}"),
        format!("a mint key: {sum}"),
        "a request: 0af7651916cd43dd8448eb211c80319c".to_owned(),
        "a trace: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        "my_test_file_with_a_long_name, is_live_show, a_live_4fzN8cQ2pLrT_thing".to_owned(),
    ];
    write(at, "near.txt", &near.join("\n"));
    for (name, path) in [
        ("keys.json", KEYS.to_owned()),
        ("key.json", format!("{KEYS}/{}", key.id)),
        (
            "events.jsonl",
            "/api/v1/platform/audit-events/export".to_owned(),
        ),
        ("openapi.json", "/api/v1/openapi.json".to_owned()),
        ("metrics.txt", "/metrics".to_owned()),
    ] {
        let answer = sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(answer.status, 200, "{path}");
        write(at, name, &answer.text);
    }
    let keys = std::fs::read_to_string(at.join("keys.json")).expect("a file");
    assert!(keys.contains(&hint), "{keys}");
    write(at, "sidekey.log", &sidekey.output());
    assert_eq!(scan("dir", at), BTreeMap::new());

    // The same files with the key itself in one more.
    write(
        at,
        "created.json",
        &json!({"api_key": {"id": key.id}, "key": key.text}).to_string(),
    );
    let found = scan("dir", at);
    assert_eq!(
        found,
        BTreeMap::from([("created.json".to_owned(), vec![end_of(&key.text)])])
    );
}

/// This repository: as it is, and as it ever was.
#[test]
fn no_key_is_in_this_repository() {
    let directory = tempfile::tempdir().expect("a directory");
    copy(Path::new(ROOT), directory.path(), &NOT_OURS);
    let file = directory.path().join("docs/security.md");
    assert!(file.is_file(), "the repository is there");
    assert_eq!(scan("dir", directory.path()), BTreeMap::new());
    // A source archive has none.
    if Path::new(ROOT).join(".git").exists() {
        assert_eq!(scan("git", Path::new(ROOT)), BTreeMap::new());
    }
}

/// Copies the files of a folder, but for those of some names.
fn copy(from: &Path, to: &Path, without: &[&str]) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (name, kind) = (entry.file_name(), entry.file_type().expect("a kind"));
        if without.iter().any(|other| name == *other) {
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir(to.join(&name)).expect("a folder");
            copy(&entry.path(), &to.join(&name), &[]);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(&name)).expect("a file");
        }
    }
}
