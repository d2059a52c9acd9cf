//! Lists: their formats, their limits, the report of each line, and dry runs.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    SETTINGS, import, jsonl, line, plain, refused_fields, send, send_as, start, statuses, strong,
};
use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;

async fn send_csv(sidekey: &Sidekey, query: &str, list: &str) -> Reply {
    send_as(sidekey, &sidekey.admin_key(), query, "text/csv", list).await
}

async fn count_of_keys(sidekey: &Sidekey) -> usize {
    let path = format!("{KEYS}?limit=1000");
    let list = sidekey.ask(Method::GET, &path, None).await.json();
    list["data"].as_array().expect("keys").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_file_is_a_list_too() {
    let (sidekey, _upstream) = start().await;
    let hash = bcrypt::non_truncating_hash("wonderland", 4).unwrap();
    let list = format!(
        "name,tenant_id,environment,scopes,rate_limits,metadata,rotation_days,external_id,key,user,hash\r\n\
         first,acme,live,orders:read orders:write,\"[{{\"\"name\"\":\"\"a\"\",\"\"quota\"\":5,\"\"window_seconds\"\":60}}]\",\"{{\"\"a\"\":1}}\",30,7,{},,\r\n\
         \"second, \"\"quoted\"\"\",acme,test,orders:read,,,,,,alice,{hash}\r\n\
         third,acme,live,nobody:knows,,,,,{},,\r\n",
        strong(1),
        strong(2),
    );
    let reply = send_csv(&sidekey, "", &list).await;
    assert_eq!(statuses(&reply), ["created", "created", "refused"]);
    assert_eq!(refused_fields(&reply, 2), ["scopes"]);
    let results = reply.json()["results"].clone();
    assert_eq!(
        (&results[0]["line"], &results[2]["line"]),
        (&json!(2), &json!(4))
    );
    let id = results[0]["key_id"].as_str().unwrap();
    let shown = sidekey
        .ask(Method::GET, &format!("{KEYS}/{id}"), None)
        .await
        .json();
    assert_eq!(shown["scopes"], json!(["orders:read", "orders:write"]));
    assert_eq!(shown["metadata"], json!({"a": 1, "external_id": "7"}));
    assert_eq!(shown["rate_limits"][0]["quota"], 5);
    let id = results[1]["key_id"].as_str().unwrap();
    let shown = sidekey
        .ask(Method::GET, &format!("{KEYS}/{id}"), None)
        .await
        .json();
    assert_eq!(shown["name"], "second, \"quoted\"");
    assert_eq!(sidekey.status("/", &strong(1)).await, 200);
    assert_eq!(super::log_in(&sidekey, "alice", "wonderland").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_has_its_report() {
    let (sidekey, _upstream) = start().await;
    let minted = sidekey.create_key(json!({})).await.text;
    let mut forged = minted.clone().into_bytes();
    forged[30] = if forged[30] == b'a' { b'b' } else { b'a' };
    let forged = String::from_utf8(forged).unwrap();
    let list = [
        plain(&strong(1)).to_string(),
        String::new(),
        "{\"name\": ".to_owned(),
        "[]".to_owned(),
        line(json!({"key": strong(2), "environment": "prod", "rotation_days": 0, "colour": 1}))
            .to_string(),
        plain(&strong(1)).to_string(),
        plain("password123").to_string(),
        plain(&minted).to_string(),
        plain(&forged).to_string(),
        plain("with space and more 8Kq2").to_string(),
        line(json!({})).to_string(),
        plain(&strong(3)).to_string(),
    ]
    .join("\n");
    let key = sidekey.admin_key();
    let reply = send_as(
        &sidekey,
        &key,
        "",
        "application/x-ndjson; charset=utf-8",
        &list,
    )
    .await;
    let body = reply.json();
    assert_eq!(body["dry_run"], false);
    assert_eq!(body["next_line"], Value::Null);
    let counts = ["created", "existing", "refused"].map(|name| body[name].as_u64().unwrap());
    assert_eq!(counts, [2, 0, 9]);
    let results = body["results"].as_array().unwrap();
    let lines: Vec<u64> = results
        .iter()
        .map(|r| r["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let expected: [&[&str]; 11] = [
        &[],
        &["line"],
        &["line"],
        &["line", "environment", "rotation_days"],
        &["line"],
        &["key"],
        &["key"],
        &["key"],
        &["key"],
        &["key"],
        &[],
    ];
    for (index, fields) in expected.iter().enumerate() {
        assert_eq!(refused_fields(&reply, index), *fields, "{}", results[index]);
        assert_eq!(results[index]["key_id"].is_string(), fields.is_empty());
    }
    for secret in [&strong(1), &minted, &forged] {
        assert!(!reply.text.contains(secret.as_str()));
    }
    // Sent again: what is there stays as it is.
    let again = send_as(&sidekey, &key, "", "application/jsonl", &list).await;
    let body = again.json();
    let counts = ["created", "existing", "refused"].map(|name| body[name].as_u64().unwrap());
    assert_eq!(counts, [0, 2, 9]);
    assert_eq!(body["results"][0]["key_id"], results[0]["key_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_key_is_imported_on_request_only() {
    let (sidekey, _upstream) = start().await;
    let weak = [plain("partner-2019")];
    let refused = send(&sidekey, "", &weak).await;
    assert_eq!(statuses(&refused), ["refused"]);
    let detail = refused.json()["results"][0]["errors"][0]["detail"].clone();
    assert!(detail.as_str().unwrap().contains("allow_weak"), "{detail}");
    assert_eq!(
        statuses(&send(&sidekey, "?allow_weak=true", &weak).await),
        ["created"]
    );
    assert_eq!(sidekey.status("/", "partner-2019").await, 200);
    let own = [line(
        json!({"key": "partner-2020", "scopes": ["sidekey:admin"]}),
    )];
    let refused = send(&sidekey, "?allow_weak=true", &own).await;
    assert_eq!(refused_fields(&refused, 0), ["scopes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let (sidekey, _upstream) = start().await;
    let old = import(&sidekey, &[plain(&strong(0))]).await;
    let keys = count_of_keys(&sidekey).await;
    let runs = sidekey.metric("sidekey_bcrypt_runs_total").await;
    let lines = [
        plain(&strong(0)),
        plain(&strong(1)),
        plain("weak"),
        plain(&strong(1)),
    ];
    let reply = send(&sidekey, "?dry_run=true", &lines).await;
    let expected = ["existing", "would_create", "refused", "refused"];
    assert_eq!(statuses(&reply), expected);
    let body = reply.json();
    assert_eq!(body["dry_run"], true);
    assert_eq!(body["results"][0]["key_id"], old[0].as_str());
    assert_eq!(body["results"][1]["key_id"], Value::Null);
    assert_eq!(count_of_keys(&sidekey).await, keys);
    assert_eq!(sidekey.metric("sidekey_bcrypt_runs_total").await, runs);
    assert_eq!(sidekey.metric("sidekey_imported_keys").await, 1.0);
    assert_eq!(sidekey.status("/", &strong(1)).await, 401);
    let wet = send(&sidekey, "?dry_run=false", &lines).await;
    assert_eq!(
        statuses(&wet),
        ["existing", "created", "refused", "refused"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_can_not_be_read_is_refused_as_a_whole() {
    let (sidekey, _upstream) = start().await;
    let key = sidekey.admin_key();
    let ask = async |query: &str, media_type: &str, list: &str| {
        send_as(&sidekey, &key, query, media_type, list).await
    };
    let one = jsonl(&[plain(&strong(1))]);
    ask("", "application/json", &one).await.problem(415);
    ask("", "text/plain", &one).await.problem(415);
    let unknown = ask("?dry=true&allow_weak=1", "application/jsonl", &one).await;
    assert_eq!(unknown.bad_fields(), ["allow_weak", "dry"]);
    let headless = format!("n,acme,live,orders:*,{}\n", strong(1));
    let refused = ask("", "text/csv", &headless).await;
    refused.problem(400);
    assert!(!refused.text.contains(&strong(1)));
    ask("", "application/jsonl", &"{}\n".repeat(1001))
        .await
        .problem(413);
    let wide = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    ask("", "application/jsonl", &wide).await.problem(413);
    assert_eq!(sidekey.metric("sidekey_imported_keys").await, 0.0);
    // As much as fits.
    let full = ask("", "application/jsonl", &"{}\n".repeat(1000)).await;
    assert_eq!(full.json()["refused"], 1000);
    let wide = format!("{{\"name\": \"{}\"}}", "x".repeat(900 << 10));
    assert_eq!(
        statuses(&ask("", "application/jsonl", &wide).await),
        ["refused"]
    );
    let empty = ask("", "application/jsonl", "").await;
    assert_eq!(empty.json()["results"], json!([]));
    // Bytes that are no text.
    let url = format!("http://{}{KEYS}/import", sidekey.admin);
    let request = sidekey.client.post(url).bearer_auth(&key);
    let request = request.header("content-type", "text/csv");
    Reply::to(request.body(vec![0xff, 0xfe, b'a']))
        .await
        .problem(400);
}

/// A request has its time. What was not done in it is named, and can be sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_takes_long_is_answered_in_time() {
    let upstream = Upstream::start().await;
    // So dear that not all are done in time, and not so dear that a slow machine is too late with one.
    let dear = [("SIDEKEY__BCRYPT__COST", "13")];
    let sidekey = Sidekey::start_with(&config(upstream.address, SETTINGS), &dear).await;
    let lines: Vec<Value> = (0..120).map(|number| plain(&strong(number))).collect();
    let reply = send(&sidekey, "", &lines).await;
    let done = statuses(&reply).len();
    assert!((1..lines.len()).contains(&done), "{done}");
    assert_eq!(reply.json()["next_line"], done + 1);
    // Asked once more, it goes on, and what was done costs nothing.
    let again = send(&sidekey, "", &lines).await;
    let body = again.json();
    assert_eq!(body["existing"], done);
    assert!(body["created"].as_u64().unwrap() >= 1);
}
