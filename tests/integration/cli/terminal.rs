//! On a terminal: the question before a revocation. `script` is the terminal.

use serde_json::json;

use super::{Cli, start};

/// Runs `command` on a terminal on which `typed` is typed; what it showed.
fn on_terminal(cli: &Cli, command: &str, typed: &str) -> (Option<i32>, String) {
    let script = format!(
        "printf '{typed}' | script --quiet --return --echo never --command '{command}' /dev/null"
    );
    let ended = cli.shell(&script);
    (ended.code, ended.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_asked_for() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let key = sidekey.create_key(json!({"name": "Nightly export"})).await;
    let command = format!("sidekey keys revoke {}", key.id);
    for typed in ["n\\n", "\\n", "yesterday\\n"] {
        let (code, shown) = on_terminal(&cli, &command, typed);
        assert!(
            shown.contains("(Nightly export, of tenant acme) for good? [y/N]"),
            "{typed}: {shown}"
        );
        assert_eq!(code, Some(1), "{typed}: {shown}");
        assert_eq!(sidekey.status("/orders", &key.text).await, 200, "{typed}");
    }
    let (code, shown) = on_terminal(&cli, &command, "y\\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("is revoked"), "{shown}");
    assert_eq!(sidekey.status("/orders", &key.text).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_on_a_terminal_does_not_steer_it() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let key = sidekey.create_key(json!({"name": "a\u{202e}b"})).await;
    let (code, shown) = on_terminal(&cli, &format!("sidekey keys show {} --json", key.id), "");
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("a\\u202eb") && !shown.contains('\u{202e}'),
        "{shown}"
    );
}
