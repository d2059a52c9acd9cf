//! Tenants, usage and the audit log, and the filters of lists: against the real program, but for what it
//! can't be made to do.

use serde_json::json;

use super::stand_in::{StandIn, answer};
use super::{Cli, start, told};
use crate::harness::eventually;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

/// The words of a line of a table.
fn cells(table: &str, line: usize) -> Vec<&str> {
    let line = table.lines().nth(line);
    let line = line.unwrap_or_else(|| panic!("too short: {table}"));
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_have_not_confirmed_a_change_are_named() {
    let server = StandIn::start(|_| {
        answer(200, "{}").header(
            "sidekey-propagation",
            "instances=2, confirmed=1, unconfirmed=(\"blue-1\")",
        )
    })
    .await;
    for arguments in [
        &["keys", "end-overlap", "4fzN8cQ2pLrT"][..],
        &["keys", "change", "4fzN8cQ2pLrT", "--name", "x"],
        &["tenants", "suspend", "acme"],
    ] {
        let ended = server.cli().run(arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let told = "not yet confirmed by \"blue-1\"";
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_narrowed() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let create = |more: &[&str]| {
        let common = [
            "keys",
            "create",
            "--name",
            "x",
            "--tenant",
            "red",
            "--scope",
            "orders:read",
        ];
        let created = cli.json(&[&common[..], more].concat());
        created["api_key"]["id"].as_str().expect("an id").to_owned()
    };
    let soon = create(&["--expires-in", "5d"]);
    let later = create(&["--expires-in", "60d", "--environment", "test"]);
    let never = create(&[]);
    let ids = |filter: &[&str]| -> Vec<String> {
        let common = ["keys", "list", "--tenant", "red", "--all"];
        let keys = cli.json(&[&common[..], filter].concat());
        let keys = keys.as_array().expect("keys").iter();
        keys.map(|key| key["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(ids(&["--expiring-before", "30d"]), [soon.as_str()]);
    assert_eq!(
        ids(&["--expiring-before", "2199-01-31"]),
        [later.as_str(), &soon]
    );
    assert_eq!(ids(&["--environment", "test"]), [later.as_str()]);
    assert_eq!(
        ids(&["--unused-since", "0"]),
        [never.as_str(), &later, &soon]
    );
    assert!(
        ids(&["--unused-since", "1d"]).is_empty(),
        "none is that old"
    );
    assert_eq!(
        ids(&["--sort", "-expires_at"]),
        [later.as_str(), &soon, &never]
    );
    assert_eq!(ids(&["--sort=expires_at"]), [soon.as_str(), &later, &never]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_set_seen_and_suspended() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let set = cli.ok(&[
        "tenants",
        "set",
        "red",
        "--display-name",
        "Red",
        "--max-keys",
        "3",
        "--rate-limit",
        "all:500/1m",
    ]);
    assert_eq!(told(&set, "rate limits "), "all:500/60s");
    let key = sidekey.create_key(json!({"tenant_id": "red"})).await;
    let list = cli.ok(&["tenants", "list", "--status", "active", "--search", "re"]);
    assert_eq!(list.lines().count(), 2, "{list}");
    assert_eq!(
        cells(&list, 1)[..6],
        ["red", "Red", "active", "1", "3", "-"]
    );
    // What is not named stays.
    cli.ok(&[
        "tenants",
        "set",
        "red",
        "--max-keys",
        "9",
        "--clear",
        "rate-limits",
    ]);
    let shown = cli.ok(&["tenants", "show", "red"]);
    assert_eq!(
        (told(&shown, "display name "), told(&shown, "max keys ")),
        ("Red", "9")
    );
    assert_eq!(told(&shown, "rate limits "), "(no limit)");
    let suspended = cli.json(&["tenants", "suspend", "red"]);
    assert_eq!(suspended["status"], "suspended");
    assert_eq!(sidekey.status("/orders", &key.text).await, 401);
    cli.ok(&["tenants", "resume", "red"]);
    assert_eq!(sidekey.status("/orders", &key.text).await, 200);
    let told = cli.refused(&["tenants", "show", "nobody"], 1);
    assert!(told.contains("`sidekey tenants list`"), "{told}");
    cli.refused(&["tenants", "set", "red", "--contact-email", "nobody"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_somebody_else_changes_is_not_written_over() {
    let tenant = json!({"id": "acme", "display_name": "Acme", "rate_limits": [], "max_keys": 3});
    let server = StandIn::start(move |seen| match seen.len() {
        1 => answer(200, &tenant).header("etag", "\"r7\""),
        _ => answer(
            412,
            json!({"type": "urn:sidekey:problem:precondition-failed", "detail": "Read it again."}),
        ),
    })
    .await;
    let told = server
        .cli()
        .refused(&["tenants", "set", "acme", "--max-keys", "9"], 1);
    assert!(told.contains("Read it again"), "{told}");
    assert_eq!(server.count(), 2, "it is sent once");
    assert_eq!(server.last().header("if-match"), Some("\"r7\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_a_table_with_totals() {
    let upstream = Upstream::start().await;
    let often = "[usage]\nflush_interval_seconds = 1\n";
    let sidekey = Sidekey::start(&config(upstream.address, often)).await;
    let cli = Cli::of(&sidekey);
    let key = sidekey
        .create_key(json!({"tenant_id": "red", "rate_limits": [{"name": "two", "quota": 2, "window_seconds": 86400}]}))
        .await;
    for status in [200, 200, 429] {
        assert_eq!(sidekey.status("/orders", &key.text).await, status);
    }
    let of_key = ["usage", &key.id, "--from", "1h", "--interval", "hour"];
    eventually("all is counted", || async {
        cli.json(&of_key)["totals"]["requests"] == 3
    })
    .await;
    let of_tenant = ["usage", "--tenant", "red", "--from", "1d"];
    for arguments in [&of_key[..], &of_tenant, &["usage"]] {
        let table = cli.ok(arguments);
        assert!(table.starts_with("START "), "{table}");
        let total = cells(&table, table.lines().count() - 1);
        assert_eq!(
            total[..6],
            ["total", "3", "0", "0", "0", "1"],
            "{arguments:?}: {table}"
        );
        assert_eq!(total.len(), 10, "{table}");
        assert!(!total.contains(&"-"), "{table}");
    }
    let answer = cli.json(&of_tenant);
    assert_eq!(
        (
            &answer["interval"],
            answer["data"].as_array().expect("rows").len()
        ),
        (&json!("day"), 2)
    );
    let told = cli.refused(&["usage", "--from", "9000d"], 2);
    assert!(told.contains("--from"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_listed_and_exported() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let key = sidekey.create_key(json!({"tenant_id": "red"})).await;
    cli.ok(&["keys", "change", &key.id, "--name", "y"]);
    cli.ok(&["keys", "disable", &key.id]);
    let admin = sidekey.admin_key();
    let actor = admin.split('_').nth(2).expect("an id");
    let common = ["audit", "list", "--key", &key.id, "--actor", actor];
    let page = cli.run(&[&common[..], &["--limit", "2"]].concat());
    assert_eq!(page.stdout.lines().count(), 3, "{page:?}");
    let cursor = page.stderr.split("--cursor ").nth(1);
    let cursor = cursor.and_then(|text| text.split(',').next());
    let rest = cli.ok(&[&common[..], &["--cursor", cursor.expect("a cursor")]].concat());
    assert_eq!(
        cells(&rest, 1)[2..7],
        ["key.created", actor, &key.id, "red", "127.0.0.1"]
    );
    let all = cli.json(&[&common[..], &["--all"]].concat());
    assert_eq!(all.as_array().expect("events").len(), 3);
    let changes = cli.json(&[
        "audit",
        "list",
        "--tenant",
        "red",
        "--action",
        "key.changed",
        "--from",
        "1h",
        "--all",
    ]);
    assert_eq!(changes.as_array().expect("events").len(), 2);
    let told = cli.refused(&["audit", "list", "--action", "key.flown"], 2);
    assert!(told.contains("--action"), "{told}");

    // The same events, oldest first.
    let exported = cli.ok(&["audit", "export", "--key", &key.id]);
    let mut events: Vec<serde_json::Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect();
    events.reverse();
    assert_eq!(json!(events), all);
    let into_file = ["audit", "export", "--key", &key.id, "-o", "events.jsonl"];
    assert_eq!(cli.ok(&into_file), "");
    let path = sidekey.directory().join("events.jsonl");
    assert_eq!(std::fs::read_to_string(path).expect("events"), exported);
    cli.refused(&into_file, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_ends_too_early_leaves_nothing_that_looks_like_all() {
    let server = StandIn::start(|_| answer(200, "{}\n".repeat(1 << 20)).cut()).await;
    let cli = server.cli();
    let told = cli.refused(&["audit", "export", "-o", "events.jsonl"], 1);
    assert!(told.contains("ended too early"), "{told}");
    assert!(!server.directory.path().join("events.jsonl").exists());
    assert_eq!(cli.run(&["audit", "export"]).code, Some(1));
}
