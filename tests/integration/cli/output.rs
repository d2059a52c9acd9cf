//! What stands on stdout: the API's answer for scripts, tables for people, nothing that steers a
//! terminal, and no complaint where the reader has had enough.

use reqwest::Method;
use serde_json::json;

use super::{Cli, start};
use crate::harness::sidekey::KEYS;

#[tokio::test(flavor = "multi_thread")]
async fn json_is_the_answer_of_the_api() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let key = sidekey
        .create_key(json!({"metadata": {"b": 1, "a": [2]}}))
        .await;
    for (arguments, path) in [
        (vec!["keys", "show", &key.id], format!("{KEYS}/{}", key.id)),
        (
            // Not those that are used meanwhile.
            vec!["keys", "list", "--tenant", "acme", "--limit", "5"],
            format!("{KEYS}?tenant_id=acme&limit=5"),
        ),
        (
            vec![
                "keys", "list", "--tenant", "acme", "--status", "active", "--search", "a test",
            ],
            format!("{KEYS}?tenant_id=acme&status=active&q=a+test"),
        ),
    ] {
        let printed = cli.ok(&[&arguments[..], &["--json"]].concat());
        let answer = sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(printed, format!("{}\n", answer.text), "{arguments:?}");
    }
    // Options may stand anywhere behind the first word.
    assert_eq!(
        cli.ok(&["keys", "--json", "show", &key.id]),
        cli.ok(&["keys", "show", "--json", &key.id])
    );
    assert_eq!(cli.ok(&["keys", "revoke", &key.id, "--yes", "--json"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_do_not_steer_the_terminal() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let key = sidekey
        .create_key(json!({"name": "pay\u{202e}lleh", "metadata": {"x": "\u{1b}[2J\u{9b}1m"}}))
        .await;
    for arguments in [vec!["keys", "list"], vec!["keys", "show", &key.id]] {
        let text = cli.ok(&arguments);
        assert!(text.contains("pay\\u{202e}lleh"), "{text}");
        assert!(
            !text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')),
            "{text:?}"
        );
    }
}

/// `command` in a pipe whose reader has left before; its exit code is printed.
fn without_reader(command: &str) -> String {
    format!(
        "{{ until [ -e left ]; do sleep 0.01; done; {command}; echo $? > code; }} | {{ exec <&-; touch left; }}; cat code"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_leave() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    for _ in 0..20 {
        sidekey
            .create_key(json!({"metadata": {"filler": "x".repeat(8000)}}))
            .await;
    }
    for script in [
        &without_reader("sidekey keys list --json"),
        &without_reader("sidekey keys list"),
        &without_reader("sidekey keys --help"),
        "sidekey keys list --all --json | head -c 1 > /dev/null; echo ${PIPESTATUS[0]}",
    ] {
        let ended = cli.shell(script);
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            ("0\n", ""),
            "{script}"
        );
    }
    let full = cli.shell("sidekey keys list > /dev/full; echo $?");
    assert_eq!(full.stdout, "1\n", "{full:?}");
    assert!(
        full.stderr.contains("the output can't be written"),
        "{full:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_could_read_is_not_lost_silently() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    for script in [
        "sidekey keys create --name x --tenant acme --quiet > /dev/full; echo $?",
        &without_reader("sidekey keys create --name x --tenant acme"),
    ] {
        let ended = cli.shell(script);
        assert_eq!(ended.stdout, "1\n", "{script}: {ended:?}");
        assert!(
            ended.stderr.contains("could not be handed over"),
            "{script}: {ended:?}"
        );
        assert!(
            ended.stderr.contains("sidekey keys regenerate "),
            "{script}: {ended:?}"
        );
    }
}

#[test]
fn help_has_examples() {
    let directory = tempfile::tempdir().expect("a directory");
    let cli = Cli::at(directory.path());
    for arguments in [
        &["keys"][..],
        &["keys", "create"],
        &["keys", "list"],
        &["keys", "change"],
        &["keys", "regenerate"],
        &["keys", "import"],
        &["tenants"],
        &["usage"],
        &["audit", "list"],
        &["audit", "export"],
    ] {
        let text = cli.ok(&[arguments, &["--help"]].concat());
        assert!(text.contains("Examples:\n"), "{arguments:?}: {text}");
        assert!(
            text.contains("SIDEKEY_ADMIN_KEY_FILE") && text.contains("data/admin.key"),
            "{text}"
        );
    }
}
