//! Commands whose part of the API is not here yet, against a stand-in. The tests named `stand_in_...` are to
//! be replaced by ones against the real program.

use serde_json::{Value, json};

use super::stand_in::{StandIn, answer, line};
use super::told;

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_end_overlap() {
    let server = StandIn::start(|_| {
        answer(204, "").header(
            "sidekey-propagation",
            "instances=2, confirmed=1, unconfirmed=(\"blue-1\")",
        )
    })
    .await;
    let ended = server.cli().run(&["keys", "end-overlap", "4fzN8cQ2pLrT"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "key 4fzN8cQ2pLrT has one secret now\n"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("not yet confirmed by \"blue-1\""),
        "{ended:?}"
    );
    assert_eq!(
        line(&server.last()),
        "DELETE /api-keys/4fzN8cQ2pLrT/previous-secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_list_filters() {
    let server = StandIn::start(|_| answer(200, "{\"data\":[],\"next_cursor\":null}")).await;
    server.cli().ok(&[
        "keys",
        "list",
        "--environment",
        "test",
        "--expiring-before",
        "2027-01-31",
        "--unused-since",
        "2026-01-01T01:00:00+01:00",
    ]);
    assert_eq!(
        line(&server.last()),
        "GET /api-keys?environment=test&expiring_before=2027-01-31T00%3A00%3A00Z&unused_since=2026-01-01T00%3A00%3A00Z"
    );
}

fn tenant() -> Value {
    json!({
        "id": "acme", "display_name": "Acme", "contact_email": null, "max_keys": 3, "key_count": 2, "status": "active",
        "rate_limits": [{"name": "all", "quota": 5, "window_seconds": 60, "burst": null}],
        "created_at": "2026-11-01T00:00:00Z", "updated_at": "2026-11-01T00:00:00Z",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_tenants_are_seen_and_suspended() {
    let server = StandIn::start(
        |seen| match line(seen.last().expect("a request")).as_str() {
            "GET /tenants?status=active&q=ac" => {
                answer(200, json!({"data": [tenant()], "next_cursor": null}))
            }
            _ => answer(200, tenant()),
        },
    )
    .await;
    let cli = server.cli();
    let list = cli.ok(&["tenants", "list", "--status", "active", "--search", "ac"]);
    let cells: Vec<&str> = list
        .lines()
        .nth(1)
        .expect("a tenant")
        .split_whitespace()
        .collect();
    assert_eq!(
        cells,
        [
            "acme",
            "Acme",
            "active",
            "2",
            "3",
            "-",
            "2026-11-01T00:00:00Z"
        ]
    );
    assert_eq!(
        told(&cli.ok(&["tenants", "show", "acme"]), "rate limits "),
        "all:5/60s"
    );
    assert_eq!(cli.json(&["tenants", "suspend", "acme"]), tenant());
    assert_eq!(line(&server.last()), "POST /tenants/acme/suspend");
    cli.ok(&["tenants", "resume", "acme"]);
    assert_eq!(line(&server.last()), "POST /tenants/acme/resume");
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_tenants_are_set_without_losing_what_is_not_named() {
    let server = StandIn::start(|_| answer(200, tenant()).header("etag", "\"r7\"")).await;
    server.cli().ok(&[
        "tenants",
        "set",
        "acme",
        "--max-keys",
        "9",
        "--clear",
        "rate-limits",
    ]);
    let put = server.last();
    assert_eq!(
        (line(&put).as_str(), put.header("if-match")),
        ("PUT /tenants/acme", Some("\"r7\""))
    );
    let body: Value = serde_json::from_slice(&put.body).expect("JSON");
    assert_eq!(body, json!({"display_name": "Acme", "max_keys": 9}));

    let server = StandIn::start(|seen| match seen.len() {
        1 => answer(
            404,
            json!({"type": "urn:sidekey:problem:not-found", "detail": "There is no such tenant."}),
        ),
        _ => answer(201, tenant()),
    })
    .await;
    server
        .cli()
        .ok(&["tenants", "set", "new", "--rate-limit", "all:1000/1m"]);
    let put = server.last();
    assert_eq!(put.header("if-match"), None);
    let body: Value = serde_json::from_slice(&put.body).expect("JSON");
    assert_eq!(body["rate_limits"][0]["quota"], 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_usage() {
    let body = json!({
        "interval": "day", "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z",
        "data": [{"start": "2026-11-01T00:00:00Z", "requests": 7, "errors_4xx": 1, "errors_5xx": 0, "denied": 2, "rate_limited": 3,
                  "bytes_in": 10, "bytes_out": 20, "latency_ms_mean": 1.5, "latency_ms_max": 4.0}],
        "totals": {"requests": 7, "errors_4xx": 1, "errors_5xx": 0, "denied": 2, "rate_limited": 3, "bytes_in": 10, "bytes_out": 20},
    });
    let text = body.to_string();
    let server = StandIn::start(move |_| answer(200, &text)).await;
    let cli = server.cli();
    let table = cli.ok(&[
        "usage",
        "4fzN8cQ2pLrT",
        "--from",
        "2026-11-01",
        "--to",
        "2026-11-02",
    ]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("total")),
        "{table}"
    );
    assert_eq!(
        line(&server.last()),
        "GET /api-keys/4fzN8cQ2pLrT/usage?from=2026-11-01T00%3A00%3A00Z&to=2026-11-02T00%3A00%3A00Z&interval=day"
    );
    assert_eq!(
        cli.json(&["usage", "--tenant", "acme", "--interval", "hour"]),
        body
    );
    assert_eq!(
        line(&server.last()),
        "GET /usage?tenant_id=acme&interval=hour"
    );
}

fn event(seq: u64) -> Value {
    json!({
        "seq": seq, "at": "2026-11-01T00:00:00Z", "action": "key.created", "actor": {"type": "key", "key_id": "Zk31mWq8aPbn"},
        "key_id": "4fzN8cQ2pLrT", "tenant_id": "acme", "address": "127.0.0.1", "request_id": "r", "details": {"name": "x"},
        "previous_hash": "a", "hash": "b",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_audit_list() {
    let server = StandIn::start(|seen| {
        let target = &seen.last().expect("a request").target;
        if target.contains("cursor=more") {
            answer(200, json!({"data": [event(1)], "next_cursor": null}))
        } else {
            answer(
                200,
                json!({"data": [event(3), event(2)], "next_cursor": "more"}),
            )
        }
    })
    .await;
    let cli = server.cli();
    let table = cli.run(&[
        "audit",
        "list",
        "--key",
        "k",
        "--actor",
        "a",
        "--action",
        "key.created",
        "--limit",
        "2",
    ]);
    assert!(
        table.stdout.contains("Zk31mWq8aPbn") && table.stdout.contains("name=x"),
        "{table:?}"
    );
    assert!(table.stderr.contains("--cursor more"), "{table:?}");
    assert_eq!(
        line(&server.last()),
        "GET /audit-events?key_id=k&actor=a&action=key.created&limit=2"
    );
    let all = cli.json(&["audit", "list", "--all"]);
    assert_eq!(all, json!([event(3), event(2), event(1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_audit_export() {
    let text = format!("{}\n{}\n", event(1), event(2));
    let exported = text.clone();
    let server = StandIn::start(move |_| answer(200, &text)).await;
    let cli = server.cli();
    assert_eq!(cli.ok(&["audit", "export", "--tenant", "acme"]), exported);
    assert_eq!(
        line(&server.last()),
        "GET /audit-events/export?tenant_id=acme"
    );
    assert_eq!(cli.ok(&["audit", "export", "-o", "events.jsonl"]), "");
    let path = server.directory.path().join("events.jsonl");
    assert_eq!(std::fs::read_to_string(path).expect("the events"), exported);
    cli.refused(&["audit", "export", "-o", "events.jsonl"], 2);

    // One that ends too early leaves nothing that looks like all.
    let server = StandIn::start(|_| answer(200, "{}\n".repeat(1 << 20)).cut()).await;
    let cli = server.cli();
    let told = cli.refused(&["audit", "export", "-o", "events.jsonl"], 1);
    assert!(told.contains("ended too early"), "{told}");
    assert!(!server.directory.path().join("events.jsonl").exists());
    assert_eq!(cli.run(&["audit", "export"]).code, Some(1));
}
