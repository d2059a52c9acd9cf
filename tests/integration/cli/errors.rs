//! Exit codes, and sentences that say what to do.

use reqwest::Method;
use serde_json::json;

use super::{Cli, start};
use crate::harness::sidekey::KEYS;
use crate::harness::upstream::nobody;

#[test]
fn bad_arguments_are_refused_before_anything_is_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let cli = Cli::at(directory.path()).with("SIDEKEY_ADMIN_KEY", "k");
    for arguments in [
        &["keys"][..],
        &["keys", "fly"],
        &["keys", "show"],
        &["keys", "show", "a", "b"],
        &["keys", "create"],
        &["keys", "create", "--name", "x", "--environment", "prod"],
        &["keys", "create", "--name", "x", "--expires-in", "90"],
        &["keys", "create", "--name", "x", "--rate-limit", "1/s"],
        &["keys", "create", "--name", "x", "--metadata", "[]"],
        &[
            "keys",
            "create",
            "--name",
            "x",
            "--quiet",
            "--key-file",
            "f",
        ],
        &["keys", "list", "--limit", "0"],
        &["keys", "list", "--limit", "5", "--all"],
        &["keys", "change", "x", "--clear", "name"],
        &["keys", "regenerate", "x", "--grace", "soon"],
        &["tenants", "set"],
        &["usage", "--interval", "week"],
        &["usage", "x", "--tenant", "y"],
        &["audit", "export", "--limit", "3"],
    ] {
        let ended = cli.run(arguments);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {ended:?}"
        );
    }
    for (arguments, word) in [
        (&["keys", "change", "x"][..], "nothing to change"),
        (&["keys", "revoke", "x"], "--yes"),
        (&["keys", "import", "keys.txt"], "--format"),
        (
            &["keys", "import", "absent.csv"],
            "absent.csv can't be read",
        ),
        (
            &["keys", "list", "--ca-file", "absent.pem"],
            "absent.pem can't be read",
        ),
        (
            &["keys", "list", "--admin-key-file", "absent.key"],
            "absent.key can't be read",
        ),
        (
            &["keys", "list", "--admin-url", "http://user:hunter2@h"],
            "neither a user nor a password",
        ),
        (
            &["keys", "list", "--admin-url", "http://gateway.example:8081"],
            "--plain-http",
        ),
    ] {
        let told = cli.refused(arguments, 2);
        assert!(
            told.contains(word) && !told.contains("hunter2"),
            "{arguments:?}: {told}"
        );
    }
    let told = Cli::at(directory.path()).refused(&["keys", "list"], 2);
    assert!(
        told.contains("no admin key") && told.contains("--admin-key-file"),
        "{told}"
    );
    std::fs::write(directory.path().join("not.pem"), "hello").expect("a file");
    let told = cli.refused(&["keys", "list", "--ca-file", "not.pem"], 2);
    assert!(told.contains("holds no certificate"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = nobody();
    let url = format!("http://{address}");
    let cli = Cli::at(directory.path()).with("SIDEKEY_ADMIN_KEY", "k");
    let told = cli.refused(&["keys", "list", "--admin-url", &url], 1);
    assert!(
        told.contains(&format!("{url}/ can't be reached (Connection refused")),
        "{told}"
    );
    assert!(
        told.contains("--admin-url") && told.lines().count() == 1,
        "{told}"
    );
    let told = cli.refused(
        &["keys", "list", "--admin-url", "https://sidekey.invalid"],
        1,
    );
    assert!(told.contains("can't be reached"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_api_say_what_to_do() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let reader = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:read"]}))
        .await;
    let may_read = Cli::of(&sidekey).with("SIDEKEY_ADMIN_KEY", &reader.text);
    let told = may_read.refused(&["keys", "create", "--name", "x", "--tenant", "acme"], 1);
    assert!(
        told.contains("the admin key from SIDEKEY_ADMIN_KEY may not do this"),
        "{told}"
    );
    for arguments in [
        &["keys", "show", "000000000000"][..],
        &["keys", "show", "../../x"],
        &["keys", "disable", "x y"],
        &["keys", "regenerate", "000000000000"],
        &["keys", "revoke", "000000000000", "--yes"],
    ] {
        let told = cli.refused(arguments, 1);
        assert!(
            told.contains("There is no such key: `sidekey keys list`"),
            "{arguments:?}: {told}"
        );
    }
    let told = cli.refused(
        &[
            "keys",
            "create",
            "--name",
            " ",
            "--tenant",
            "../x",
            "--scope",
            "orders:fly",
            "--allow-ip",
            "everywhere",
            "--contact-email",
            "nobody",
            "--rotation-days",
            "0",
            "--expires-at",
            "1999-01-01",
        ],
        2,
    );
    for option in [
        "--name",
        "--tenant",
        "--scope",
        "--allow-ip",
        "--contact-email",
        "--rotation-days",
        "--expires-at",
    ] {
        assert!(
            told.lines()
                .any(|line| line.starts_with(&format!("  {option}"))),
            "{option}: {told}"
        );
    }
    let id = sidekey.create_key(json!({})).await.id;
    sidekey.revoke_key(&id).await;
    let told = cli.refused(&["keys", "enable", &id], 1);
    assert!(told.starts_with("sidekey: Nothing was changed"), "{told}");
    assert_eq!(
        sidekey
            .ask(Method::GET, &format!("{KEYS}/{id}"), None)
            .await
            .json()["status"],
        "revoked"
    );
    // The port that clients call is not the admin port.
    let proxy =
        Cli::at(sidekey.directory()).with("SIDEKEY_ADMIN_URL", format!("http://{}", sidekey.proxy));
    let told = proxy.refused(&["keys", "list"], 1);
    assert!(told.contains("admin port"), "{told}");
}
