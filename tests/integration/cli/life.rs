//! The life of a key by the command line alone.

use serde_json::json;

use super::{Cli, start, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_created_used_changed_rotated_and_revoked() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let created = cli.ok(&[
        "keys",
        "create",
        "--name",
        "Nightly export",
        "--tenant",
        "acme",
        "--scope",
        "orders:*",
        "--rate-limit",
        "day:10000/1d",
        "--rate-limit",
        "peak:10/s:20",
        "--expires-in",
        "90d",
        "--allow-ip",
        "127.0.0.0/8",
        "--contact-email",
        "ops@acme.example",
        "--rotation-days",
        "30",
        "--metadata",
        "{\"team\":\"billing\"}",
    ]);
    let id = told(&created, "id ").to_owned();
    let key = created.lines().last().expect("lines").trim().to_owned();
    assert!(key.contains(&id) && key.len() > 70, "{created}");
    assert!(created.contains("shown this once"), "{created}");
    assert_eq!(
        told(&created, "rate limits "),
        "day:10000/86400s, peak:10/1s:20"
    );
    assert_eq!(sidekey.status("/orders", &key).await, 200);

    let list = cli.ok(&[
        "keys", "list", "--tenant", "acme", "--status", "active", "--search", "nightly",
    ]);
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(
        list.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with(&id)),
        "{list}"
    );
    let shown = cli.ok(&["keys", "show", &id]);
    assert_eq!(told(&shown, "name "), "Nightly export");
    assert_eq!(told(&shown, "metadata "), "team=billing");
    assert!(!shown.contains(&key), "{shown}");

    let changed = cli.ok(&[
        "keys",
        "change",
        &id,
        "--name",
        "Export",
        "--clear",
        "expires-at",
        "--clear",
        "rate-limits",
    ]);
    assert_eq!(told(&changed, "name "), "Export");
    assert_eq!(
        (
            told(&changed, "expires at "),
            told(&changed, "rate limits ")
        ),
        ("-", "(the defaults)")
    );
    assert_eq!(told(&changed, "contact email "), "ops@acme.example");

    cli.ok(&["keys", "disable", &id]);
    assert_eq!(sidekey.status("/orders", &key).await, 401);
    cli.ok(&["keys", "enable", &id]);
    assert_eq!(sidekey.status("/orders", &key).await, 200);

    let new = cli.ok(&["keys", "regenerate", &id, "--grace", "1h", "--quiet"]);
    assert_eq!(sidekey.status("/orders", &key).await, 200);
    assert_eq!(sidekey.status("/orders", new.trim()).await, 200);
    let newest = cli.ok(&["keys", "regenerate", &id, "-q"]);
    assert_eq!(sidekey.status("/orders", new.trim()).await, 401);
    assert_eq!(sidekey.status("/orders", newest.trim()).await, 200);

    assert_eq!(
        cli.ok(&["keys", "revoke", &id, "--yes"]),
        format!("key {id} is revoked\n")
    );
    assert_eq!(sidekey.status("/orders", newest.trim()).await, 401);
    assert_eq!(told(&cli.ok(&["keys", "show", &id]), "status "), "revoked");
    // Again is well: it is what was wanted.
    cli.ok(&["keys", "revoke", &id, "-y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_tenant_needs_no_tenant_named() {
    let (sidekey, _upstream) = start().await;
    let admin = sidekey
        .create_key(
            json!({"scopes": ["sidekey:keys:read", "sidekey:keys:write"], "tenant_id": "initech"}),
        )
        .await;
    let cli = Cli::of(&sidekey).with("SIDEKEY_ADMIN_KEY", admin.text);
    let created = cli.json(&[
        "keys",
        "create",
        "--name",
        "x",
        "--scope",
        "orders:read",
        "--unlimited",
    ]);
    assert_eq!(created["api_key"]["tenant_id"], "initech");
    assert_eq!(created["api_key"]["rate_limits"], json!([]));
    assert_eq!(created["api_key"]["environment"], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_on_by_their_cursors() {
    let (sidekey, _upstream) = start().await;
    let cli = Cli::of(&sidekey);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(sidekey.create_key(json!({"tenant_id": "initech"})).await.id);
    }
    ids.reverse();
    let tenant = ["keys", "list", "--tenant", "initech"];
    let page = cli.run(&[&tenant[..], &["--limit", "2"]].concat());
    assert_eq!(
        (page.code, page.stdout.lines().count()),
        (Some(0), 3),
        "{page:?}"
    );
    let cursor = page
        .stderr
        .split("--cursor ")
        .nth(1)
        .and_then(|text| text.split(',').next());
    let next = cli.run(
        &[
            &tenant[..],
            &["--limit", "2", "--cursor", cursor.expect("a cursor")],
        ]
        .concat(),
    );
    assert!(
        next.stdout.contains(&ids[2]) && next.stdout.contains(&ids[3]),
        "{next:?}"
    );
    let all = cli.json(&[&tenant[..], &["--all"]].concat());
    let all: Vec<&str> = all
        .as_array()
        .expect("one array")
        .iter()
        .map(|key| key["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(all, ids);
    assert_eq!(
        cli.ok(&[&tenant[..], &["--all"]].concat()).lines().count(),
        6
    );
    assert_eq!(
        cli.json(&["keys", "list", "--tenant", "nobody", "--all"]),
        json!([])
    );
    assert!(
        cli.refused(&["keys", "list", "--all", "--cursor", "x"], 2)
            .contains("--cursor: ")
    );
}
