//! What the upstream learns of the caller: Sidekey's identity fields and nobody else's, the
//! request id, and the client's address with and without trusted proxies.

use serde_json::json;

use crate::harness::raw::{Answer, Raw, get};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::wire::Wire;

const OPEN: &str = r#"
[[routes]]
name = "open"
path = "/open"
upstream = "service"
auth = "off"
"#;

async fn send(sidekey: &Sidekey, path: &str, lines: &[&str]) -> Answer {
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(get(path, lines)).await;
    raw.read_answer().await
}

const FORGED: &[&str] = &[
    "X-Sidekey-Key-Id: forged",
    "x_sidekey_key_id: forged",
    "X-Sidekey_Tenant-Id: forged",
    "X_SIDEKEY_SCOPES: forged",
    "x-sidekey-scopes: forged",
    "X-SIDEKEY-ROLE: forged",
    "X-Request-ID: forged",
    "X_Request_Id: forged",
    "X-Sidekeys: stays",
];

#[tokio::test(flavor = "multi_thread")]
async fn identity_fields_are_ours_alone() {
    let upstream = Wire::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OPEN)).await;
    let key = sidekey
        .create_key(json!({"tenant_id": "umbrella", "scopes": ["orders:read", "orders:write"]}))
        .await;
    let authorization = format!("Authorization: Bearer {}", key.text);
    let with_key: Vec<&str> = FORGED.iter().copied().chain([&*authorization]).collect();
    for (path, lines) in [("/a", with_key.as_slice()), ("/open", FORGED)] {
        let answer = send(&sidekey, path, lines).await;
        assert_eq!(answer.status, 200, "{path}");
        let seen = upstream.last();
        assert!(!seen.head_contains("forged"), "{path}");
        assert_eq!(seen.header("x-sidekeys").as_deref(), Some("stays"));
        let id = seen.header("x-request-id").expect("a request id");
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
        let expected = |value: &str| (path == "/a").then(|| value.to_owned());
        assert_eq!(seen.header("x-sidekey-key-id"), expected(&key.id));
        assert_eq!(seen.header("x-sidekey-tenant-id"), expected("umbrella"));
        assert_eq!(
            seen.header("x-sidekey-scopes"),
            expected("orders:read orders:write")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_an_id_of_its_own() {
    let upstream = Wire::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OPEN)).await;
    let mut ids = Vec::new();
    for (path, status) in [
        ("/open", 200),
        ("/open", 200),
        ("/a", 401),
        ("/a/../b", 400),
    ] {
        let answer = send(&sidekey, path, &[]).await;
        assert_eq!(answer.status, status, "{path}");
        let id = answer.header("x-request-id").expect("an id").to_owned();
        if status != 200 {
            assert_eq!(answer.json()["request_id"], id.as_str(), "{path}");
        }
        assert!(!ids.contains(&id), "{id} came twice");
        ids.push(id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trusted_proxies_nobody_names_the_client() {
    let upstream = Wire::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OPEN)).await;
    let key = sidekey
        .create_key(json!({"allowed_ips": ["203.0.113.0/24"]}))
        .await;
    let authorization = format!("Authorization: Bearer {}", key.text);
    for spoofed in ["203.0.113.5", "127.0.0.1, 203.0.113.5", "for=203.0.113.5"] {
        let forwarded = format!("X-Forwarded-For: {spoofed}");
        let answer = send(&sidekey, "/a", &[&authorization, &forwarded]).await;
        assert_eq!(answer.status, 403, "{spoofed}");
    }
    assert!(upstream.requests().is_empty());
    let answer = send(&sidekey, "/open", &["X-Request-Id: theirs"]).await;
    assert_ne!(answer.header("x-request-id"), Some("theirs"));
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_names_the_client() {
    let upstream = Wire::start().await;
    let more = format!("{OPEN}\n[proxy]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let key = sidekey
        .create_key(json!({"allowed_ips": ["203.0.113.0/24", "2001:db8::/32"]}))
        .await;
    let authorization = format!("Authorization: Bearer {}", key.text);
    for (lines, status) in [
        (&["X-Forwarded-For: 203.0.113.5"] as &[&str], 200),
        (&["X-Forwarded-For: 203.0.113.5, 10.1.2.3"], 200),
        (
            &["X-Forwarded-For: 203.0.113.5", "X-Forwarded-For: 10.1.2.3"],
            200,
        ),
        (&["X-Forwarded-For: [2001:db8::7]:4711"], 200),
        (&["X-Forwarded-For: 203.0.113.5, 198.51.100.1"], 403),
        (
            &[
                "X-Forwarded-For: 203.0.113.5",
                "X-Forwarded-For: 198.51.100.1",
            ],
            403,
        ),
        (&["X-Forwarded-For: 203.0.113.5, nonsense"], 403),
        (&["X-Forwarded-For: 198.51.100.1"], 403),
        (&[], 403),
    ] {
        let all: Vec<&str> = lines.iter().copied().chain([&*authorization]).collect();
        let answer = send(&sidekey, "/a", &all).await;
        assert_eq!(answer.status, status, "{lines:?}");
    }
    let lines = [
        "X-Forwarded-For: 203.0.113.5, 10.1.2.3",
        "X-Request-Id: theirs-1",
    ];
    let answer = send(&sidekey, "/open", &lines).await;
    assert_eq!(answer.header("x-request-id"), Some("theirs-1"));
    let seen = upstream.last();
    assert_eq!(seen.header("x-request-id").as_deref(), Some("theirs-1"));
    assert_eq!(
        seen.header("x-forwarded-for").as_deref(),
        Some("203.0.113.5, 10.1.2.3, 127.0.0.1")
    );
    for bad in [
        "X-Request-Id: two words",
        "X-Request-Id: a\"b",
        "X-Request-Id:",
    ] {
        let answer = send(&sidekey, "/open", &[bad]).await;
        let id = answer.header("x-request-id").expect("an id");
        assert!(
            id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{bad}: {id}"
        );
    }
}
