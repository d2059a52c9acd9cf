//! From a key that exists elsewhere to the record of its end, by the command line alone.

use serde_json::{Value, json};

use super::{Cli, told};
use crate::harness::eventually;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

const OLD: &str = "7f3c9a5e1b8d4260a9c7e5f1";

/// The id in the middle of a key.
fn id_in(key: &str) -> &str {
    key.split('_').nth(2).expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing() {
    let upstream = Upstream::start().await;
    let often = "[usage]\nflush_interval_seconds = 1\n";
    let sidekey = Sidekey::start(&config(upstream.address, often)).await;
    // The first admin key makes another, with which everything else is done.
    let first = Cli::of(&sidekey);
    let admin = first.ok(&[
        "keys",
        "create",
        "--name",
        "ops",
        "--tenant",
        "ops",
        "--scope",
        "sidekey:admin",
        "-q",
    ]);
    let cli = Cli::of(&sidekey).with("SIDEKEY_ADMIN_KEY", admin.trim());

    let list = format!("name,key,scopes\nOld mobile app,{OLD},orders:read\n");
    std::fs::write(sidekey.directory().join("keys.csv"), list).expect("a file");
    let report = cli.json(&["keys", "import", "keys.csv", "--tenant", "acme"]);
    assert_eq!(report["created"], 1, "{report}");
    let id = report["results"][0]["key_id"].as_str().expect("an id");
    let shown = cli.ok(&["keys", "show", id]);
    assert_eq!(
        (told(&shown, "origin "), told(&shown, "credential ")),
        ("imported", "key")
    );
    assert_eq!(told(&shown, "previous secret "), "-");
    assert_eq!(sidekey.status("/orders", OLD).await, 200);

    let new = cli.ok(&["keys", "regenerate", id, "--grace", "1h", "--quiet"]);
    let new = new.trim();
    assert_eq!(id_in(new), id);
    for key in [OLD, new] {
        assert_eq!(sidekey.status("/orders", key).await, 200);
    }
    // Somebody still uses the old secret.
    eventually("the requests are counted", || async {
        let shown = cli.json(&["keys", "show", id]);
        shown["usage"]["requests"] == 3 && !shown["previous_secret"]["last_used_at"].is_null()
    })
    .await;
    let shown = cli.ok(&["keys", "show", id]);
    assert_eq!(
        told(&shown, "previous secret last used ip "),
        "127.0.0.1",
        "{shown}"
    );
    assert!(told(&shown, "previous secret valid until ").ends_with('Z'));
    assert_eq!(told(&shown, "usage requests "), "3");

    cli.ok(&["keys", "end-overlap", id]);
    assert_eq!(sidekey.status("/orders", OLD).await, 401);
    assert_eq!(sidekey.status("/orders", new).await, 200);
    cli.ok(&["keys", "revoke", id, "--yes"]);
    assert_eq!(sidekey.status("/orders", new).await, 401);
    assert!(
        cli.ok(&["keys", "list", "--status", "revoked"])
            .contains(id)
    );

    let events = cli.json(&["audit", "list", "--key", id]);
    let steps: Vec<Value> = events["data"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| {
            json!([
                event["action"],
                event["actor"],
                event["key_id"],
                event["tenant_id"]
            ])
        })
        .collect();
    let by = json!({"type": "key", "key_id": id_in(&admin)});
    let step = |action: &str| json!([action, by, id, "acme"]);
    assert_eq!(
        steps,
        [
            step("key.revoked"),
            step("key.overlap_ended"),
            step("key.regenerated"),
            step("key.imported"),
        ]
    );
    let table = cli.ok(&["audit", "list", "--key", id]);
    let revoked: Vec<&str> = table
        .lines()
        .nth(1)
        .expect("a line")
        .split_whitespace()
        .collect();
    assert_eq!(
        revoked[2..6],
        ["key.revoked", id_in(&admin), id, "acme"],
        "{table}"
    );
    let verified = cli.ok(&["audit", "verify"]);
    let anchor = verified.trim().rsplit(' ').next().expect("an anchor");
    assert!(
        verified.starts_with("the audit chain is intact: "),
        "{verified}"
    );
    cli.ok(&["audit", "verify", "--anchor", anchor]);
    let (seq, hash) = anchor.split_once(':').expect("SEQ:HASH");
    let other = format!("{seq}:{}", hash.chars().rev().collect::<String>());
    let broken = cli.run(&["audit", "verify", "--anchor", &other]);
    assert_eq!(broken.code, Some(1), "{broken:?}");
    assert!(broken.stdout.contains("is broken"), "{broken:?}");

    let requests = || cli.json(&["usage", id])["totals"]["requests"].clone();
    eventually("the last request is counted", || async { requests() == 4 }).await;
    let table = cli.ok(&["usage", id]);
    let total: Vec<&str> = table
        .lines()
        .last()
        .expect("totals")
        .split_whitespace()
        .collect();
    assert_eq!(total[..2], ["total", "4"], "{table}");
}
