//! Keys stand neither in arguments nor in messages, and files with them are their owner's alone.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Cli, start};
use crate::harness::upstream::Scripted;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_among_the_arguments_is_refused_and_not_repeated() {
    let (sidekey, upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let key = sidekey.create_key(json!({})).await.text;
    let secret = key.rsplit('_').next().expect("a secret");
    let url = format!("http://{key}@127.0.0.1:1");
    let metadata = format!("{{\"key\":\"{key}\"}}");
    for arguments in [
        vec!["keys", "show", &key],
        vec!["keys", "create", &key],
        vec!["keys", "create", "--name", &key, "--tenant", "acme"],
        vec!["keys", "create", "--name", "x", "--metadata", &metadata],
        vec!["keys", "list", "--key", &key],
        vec!["keys", "list", "--admin-key-file", &key],
        vec!["keys", "list", "--admin-url", &url],
        vec!["usage", &key],
        vec!["audit", "list", "--actor", &key],
        vec!["check", "--config", &key],
        vec![&key],
    ] {
        let told = cli.refused(&arguments, 2);
        assert!(told.contains("holds an API key"), "{arguments:?}: {told}");
        assert!(!told.contains(&secret[..8]), "{arguments:?}: {told}");
    }
    assert_eq!(upstream.count(), 0);
    // There is no option for it either.
    for option in ["--key", "--admin-key", "--token", "--password"] {
        assert_eq!(
            cli.run(&["keys", "list", option, "x"]).code,
            Some(2),
            "{option}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_key_is_in_no_message() {
    let (sidekey, _upstream) = start().await;
    let file = sidekey.directory().join("wrong.key");
    let wrong = sidekey.admin_key().replace("_live_", "_test_");
    std::fs::write(&file, format!("{wrong}\n")).expect("a file");
    let by_file = Cli::of(&sidekey).with("SIDEKEY_ADMIN_KEY_FILE", "wrong.key");
    let by_variable = Cli::of(&sidekey).with("SIDEKEY_ADMIN_KEY", &wrong);
    for (cli, origin) in [(&by_file, "wrong.key"), (&by_variable, "SIDEKEY_ADMIN_KEY")] {
        let told = cli.refused(&["keys", "list"], 1);
        assert!(
            told.contains(&format!("the admin key from {origin} was refused")),
            "{told}"
        );
        assert!(!told.contains(&wrong[30..40]), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let told = Cli::of(&sidekey)
        .with("SIDEKEY_ADMIN_KEY", format!("{wrong} {wrong}"))
        .refused(&["keys", "list"], 2);
    assert!(
        told.contains("holds no key") && !told.contains(&wrong[30..40]),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_ps_nor_the_command_line_shows_the_admin_key() {
    let scripted = Scripted::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = std::process::Command::new(crate::harness::sidekey::program())
        .args(["keys", "list"])
        .current_dir(directory.path())
        .env("SIDEKEY_ADMIN_URL", format!("http://{}", scripted.address))
        .env("SIDEKEY_ADMIN_KEY", "sesame-open")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    // While it waits for an answer.
    let connection = scripted.accept().await;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).expect("its arguments");
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    let _ = child.kill();
    let _ = child.wait();
    drop(connection);
    assert!(arguments.ends_with("keys\0list\0"), "{arguments:?}");
    assert!(!arguments.contains("sesame"), "{arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_into_a_new_file_of_its_owner() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let create = [
        "keys",
        "create",
        "--name",
        "x",
        "--tenant",
        "acme",
        "--scope",
        "orders:read",
        "--key-file",
    ];
    let shown = cli.ok(&[&create[..], &["new.key"]].concat());
    let path = sidekey.directory().join("new.key");
    let key = std::fs::read_to_string(&path).expect("the key");
    assert_eq!(sidekey.status("/orders", key.trim()).await, 200);
    assert!(
        !shown.contains(key.trim()) && shown.contains("The key is in new.key"),
        "{shown}"
    );
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    // What is there is not written over, and no key is made for nothing.
    let count = || {
        cli.json(&["keys", "list", "--tenant", "acme", "--all"])
            .as_array()
            .expect("keys")
            .len()
    };
    assert_eq!(count(), 1);
    for taken in ["new.key", "absent/new.key", "."] {
        let told = cli.refused(&[&create[..], &[taken]].concat(), 2);
        assert!(told.contains("name a file that is not there yet"), "{told}");
    }
    assert_eq!(count(), 1);
    assert_eq!(std::fs::read_to_string(&path).expect("the key"), key);

    let json = cli.json(&[&create[..], &["other.key"]].concat());
    assert!(
        json["api_key"]["id"].is_string() && json.get("key").is_none(),
        "{json}"
    );

    // A refusal leaves no empty file.
    cli.refused(
        &[
            "keys",
            "create",
            "--name",
            "x",
            "--tenant",
            "acme",
            "--scope",
            "orders:fly",
            "--key-file",
            "no.key",
        ],
        2,
    );
    assert!(!sidekey.directory().join("no.key").exists());
    let id = json["api_key"]["id"].as_str().expect("an id");
    cli.ok(&["keys", "regenerate", id, "--key-file", "third.key"]);
    let third = std::fs::read_to_string(sidekey.directory().join("third.key")).expect("the key");
    assert_eq!(sidekey.status("/orders", third.trim()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_end_leaves_no_empty_file() {
    for signal in ["INT", "TERM", "HUP"] {
        let scripted = Scripted::start().await;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("new.key");
        let child = std::process::Command::new(crate::harness::sidekey::program())
            .args([
                "keys",
                "regenerate",
                "4fzN8cQ2pLrT",
                "--key-file",
                "new.key",
            ])
            .current_dir(directory.path())
            .env("SIDEKEY_ADMIN_URL", format!("http://{}", scripted.address))
            .env("SIDEKEY_ADMIN_KEY", "sesame-open")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        let connection = scripted.accept().await;
        assert!(
            file.exists(),
            "the place for the key is made before the key"
        );
        crate::harness::send_signal(signal, &[child.id()]);
        let ended = child.wait_with_output().expect("its end");
        drop(connection);
        assert_eq!(ended.status.code(), Some(1), "{signal}");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            told.contains("interrupted") && told.contains("look before trying again"),
            "{told}"
        );
        assert!(!file.exists(), "{signal}");
    }
}
