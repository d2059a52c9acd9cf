//! What happens at the edges of the contract's table: refusals before a key is looked at, requests
//! that can't be read at all, addresses and credentials that are no text, limits that can't be met.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::cases::{World, bearer};
use crate::contract::counts;
use crate::harness::eventually;
use crate::harness::raw::{Answer, Raw, get, request};
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::harness::wire::Wire;

/// How long an answer waits for the end of a refused body.
const BODY_WAIT: Duration = Duration::from_millis(500);

async fn answer(sidekey: &Sidekey, bytes: impl AsRef<[u8]>) -> Answer {
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(bytes).await;
    raw.read_answer().await
}

/// No route, a path with two readings, a header that is too long: the answer is the same for
/// everybody, but who has a good key is told what is left, whether the key is warm or cold.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_good_key_is_told_its_limits_whatever_the_refusal() {
    let world = World::start("enforce").await;
    let sidekey = &world.sidekey;
    let long = format!("X-Long: {}", "x".repeat(200 << 10));
    for (path, line, status) in [
        ("/nothing", "X-A: 1", 404),
        ("/api/../write", "X-A: 1", 400),
        ("/api", &long, 431),
    ] {
        let key = sidekey.create_key(json!({})).await;
        let revoked = sidekey.create_key(json!({})).await;
        sidekey
            .admin(Method::DELETE, &format!("{KEYS}/{}", revoked.id))
            .send()
            .await
            .unwrap();
        for state in ["cold", "warm"] {
            let told = answer(sidekey, get(path, &[&bearer(&key), line])).await;
            assert_eq!(told.status, status, "{path} {state}");
            let limit = told.header("ratelimit");
            assert_eq!(limit, Some("\"default\";r=100;t=10"), "{path} {state}");
            let refused = answer(sidekey, get(path, &[&bearer(&revoked), line])).await;
            assert_eq!(refused.status, status, "{path} {state}");
            assert_eq!(refused.header("ratelimit"), None, "{path} {state}");
        }
        let anonymous = answer(sidekey, get(path, &[line])).await;
        assert_eq!(anonymous.status, status, "{path}");
        assert_eq!(anonymous.header("ratelimit"), None, "{path}");
    }
}

/// In shadow mode such a request goes on, and the service learns whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn shadow_mode_names_the_caller_of_an_ambiguous_path() {
    let upstream = Wire::start().await;
    let shadow = config(upstream.address, "[proxy]\nmode = \"shadow\"\n");
    let sidekey = Sidekey::start(&shadow).await;
    let key = sidekey.create_key(json!({})).await;
    let told = answer(&sidekey, get("/a//b", &[&bearer(&key)])).await;
    assert_eq!(told.status, 200);
    assert!(told.header("ratelimit").is_some());
    let seen = upstream.last();
    assert_eq!(seen.target(), "/a//b");
    assert_eq!(seen.header("x-sidekey-key-id"), Some(key.id));
    assert_eq!(seen.header("authorization"), None);
}

/// Pingora gives up on these before any hook runs. They get an answer all the same, and a count.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cant_be_read_is_answered_and_counted() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X-Large: {}", "x".repeat((1 << 20) + (64 << 10)));
    for (name, bytes, status, outcome) in [
        (
            "300 fields",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            431,
            "headers_too_large",
        ),
        ("over 1 MiB", get("/", &[&large]), 431, "headers_too_large"),
        ("a quote", get("/?q=\"x\"", &[]), 400, "client_failed"),
        (
            "no request",
            "nonsense\r\n\r\n".to_owned(),
            400,
            "client_failed",
        ),
    ] {
        let series = format!("sidekey_requests_total{{outcome=\"{outcome}\",route=\"(none)\"}}");
        let before = sidekey.metric(&series).await;
        let mut raw = Raw::connect(sidekey.proxy).await;
        raw.try_send(bytes).await;
        let answer = raw.read_answer().await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{name}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{name}");
        assert_eq!(
            problem["request_id"].as_str(),
            answer.header("x-request-id"),
            "{name}"
        );
        counts(
            &sidekey,
            "sidekey_requests_total",
            "(none)",
            outcome,
            before + 1.0,
        )
        .await;
        let id = problem["request_id"].as_str().unwrap().to_owned();
        eventually("it is logged", || async { sidekey.output().contains(&id) }).await;
    }
    assert_eq!(upstream.count(), 0);
}

/// A line that is no text hides nothing of what a trusted proxy appended to it, nor what another
/// line says.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_name_no_client() {
    let upstream = Upstream::start().await;
    let trusted = "[proxy]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let sidekey = Sidekey::start(&config(upstream.address, trusted)).await;
    let fields = json!({"allowed_ips": ["203.0.113.0/24", "127.0.0.1"]});
    let key = sidekey.create_key(fields).await;
    for (lines, status) in [
        (vec![&b"203.0.113.7"[..]], 200),
        (vec![b"203.0.113.7", b"\xff, 198.51.100.1"], 403),
        (vec![b"\xff, 198.51.100.1"], 403),
        (vec![b"198.51.100.1", b"\xff, 203.0.113.7"], 200),
    ] {
        let mut bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer(&key)).into_bytes();
        for line in &lines {
            bytes.extend_from_slice(b"X-Forwarded-For: ");
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        assert_eq!(answer(&sidekey, bytes).await.status, status, "{lines:?}");
    }
}

/// A route may ask for more tokens than a key's bucket ever holds. Waiting does not help, and the
/// answer says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_never_suffices_is_told_as_such() {
    let upstream = Upstream::start().await;
    let costly =
        "[[routes]]\nname = \"costly\"\npath = \"/costly\"\nupstream = \"service\"\ncost = 5\n";
    let sidekey = Sidekey::start(&config(upstream.address, costly)).await;
    let limits = json!({"rate_limits": [{"name": "few", "quota": 3, "window_seconds": 60}]});
    let key = sidekey.create_key(limits).await;
    let refused = answer(&sidekey, get("/costly", &[&bearer(&key)])).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("60"));
    let problem = refused.json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("5 tokens") && detail.contains("few") && detail.contains("3"),
        "{detail}"
    );
    assert_eq!(sidekey.status("/", &key.text).await, 200);
}

/// A revoked key that was used before is a wrong key like any other: it counts, and is refused in
/// the same words.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_counts_as_a_failure_on_both_ports() {
    let upstream = Upstream::start().await;
    let few = r#"limits.failed_auth = { name = "failed-auth", quota = 3, window_seconds = 86400 }"#;
    let sidekey = Sidekey::start(&format!("{few}\n{}", config(upstream.address, ""))).await;
    let key = sidekey
        .create_key(json!({"scopes": ["sidekey:admin"]}))
        .await;
    assert_eq!(sidekey.status("/", &key.text).await, 200, "warm");
    let path = format!("{KEYS}/{}", key.id);
    sidekey.admin(Method::DELETE, &path).send().await.unwrap();
    let wrong = format!("sk_live_{:012}_{:054}", 7, 7);
    let mut statuses = Vec::new();
    for text in [&key.text, &wrong, &key.text, &key.text, &wrong] {
        statuses.push(sidekey.status("/", text).await);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let line = format!("Authorization: Bearer {}", key.text);
    let limited = answer(&sidekey, get("/", &[&line])).await;
    assert_eq!(limited.json()["violated-policies"], json!(["failed-auth"]));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let call = sidekey.ask_as(Some(&key.text), Method::GET, KEYS, None);
        statuses.push(call.await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 429]);
}

/// A short refused body in chunks is read away, and the connection stays; a body that does not end
/// keeps nobody waiting for the answer, which closes the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_in_chunks_keeps_the_connection_if_it_ends() {
    let world = World::start("enforce").await;
    let head = request("POST", "/api", &["Transfer-Encoding: chunked"], "");
    let mut raw = Raw::connect(world.sidekey.proxy).await;
    let mut in_time = 0;
    while in_time < 20 {
        let begun = Instant::now();
        raw.send(&head).await;
        raw.try_send("5\r\nabcde\r\n0\r\n\r\n").await;
        let took = begun.elapsed();
        let refused = raw.read_answer().await;
        assert_eq!(refused.status, 401);
        if took >= BODY_WAIT && refused.header("connection") == Some("close") {
            // On a busy machine it came too late.
            raw = Raw::connect(world.sidekey.proxy).await;
            continue;
        }
        raw.send(get("/api/next", &[&bearer(&world.good)])).await;
        assert_eq!(raw.read_answer().await.status, 200);
        in_time += 1;
    }
    let long = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    for begun in ["5\r\nabcde\r\n", &long.repeat(2)] {
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(&head).await;
        raw.try_send(begun).await;
        let refused = raw.read_answer().await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("connection"), Some("close"));
    }
}

/// Where no key is asked for, what is no credential by its form may hold a key all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_malformed_credential_goes_no_further() {
    let upstream = Wire::start().await;
    let open = |auth: &str| {
        format!(
            "[[routes]]\nname = \"{auth}\"\npath = \"/{auth}\"\nupstream = \"service\"\nauth = \"{auth}\"\n"
        )
    };
    let more = [open("optional"), open("off")].concat();
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let key = sidekey.create_key(json!({})).await.text;
    for path in ["/optional", "/off"] {
        for line in [
            format!("Authorization: Bearer\t{key}"),
            format!("Authorization: Bearer {key}\u{e9}"),
            format!("Authorization: Bearer \"{key}\""),
            format!("Authorization: Token {key}"),
            format!("X-API-Key: Bearer {key}"),
        ] {
            let answer = answer(&sidekey, get(path, &[&line])).await;
            let secret = &key[key.len() - 20..];
            if matches!(answer.status, 200) {
                assert!(!upstream.last().head_contains(secret), "{path} {line}");
            } else {
                assert_eq!((path, answer.status), ("/optional", 401), "{line}");
            }
        }
    }
    // What is not ours stays.
    let line = "Authorization: Token theirs";
    assert_eq!(answer(&sidekey, get("/off", &[line])).await.status, 200);
    assert!(upstream.last().head_contains("Token theirs"));
}

/// The admin port has a limit on its connections: who comes later waits for one to end.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_waits_where_all_connections_are_taken() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let mut idle = Vec::new();
    // Many at once: the first are closed if all of them take too long.
    for _ in 0..4 {
        let opened = (0..64).map(|_| async {
            let mut raw = Raw::connect(sidekey.admin).await;
            raw.send(get("/healthz", &[])).await;
            assert_eq!(raw.read_answer().await.status, 200);
            raw
        });
        idle.extend(join_all(opened).await);
    }
    let mut late = Raw::connect(sidekey.admin).await;
    late.send(get("/healthz", &[])).await;
    let waiting = tokio::spawn(async move { late.read_answer().await.status });
    // Another answer in the meantime: the late one has had its chance.
    let first = &mut idle[0];
    for _ in 0..3 {
        first.send(get("/healthz", &[])).await;
        assert_eq!(first.read_answer().await.status, 200);
    }
    assert!(!waiting.is_finished());
    idle.pop();
    assert_eq!(waiting.await.unwrap(), 200);
}

/// Readiness is about the database that keys are in, not about a connection that was good once.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_database_is_not_ready() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let ready = || async {
        sidekey
            .ask_as(None, Method::GET, "/readyz", None)
            .await
            .status
    };
    assert_eq!(ready().await, 200);
    for entry in std::fs::read_dir(sidekey.directory().join("data")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy();
        if name.contains(".db") {
            let mut options = OpenOptions::new();
            // That one is in the program's memory, which would end if it were cut off for a moment.
            options.write(true).truncate(!name.ends_with("-shm"));
            let mut file = options.open(&path).unwrap();
            file.write_all(&[b'x'; 8192]).unwrap();
        }
    }
    eventually("it is noticed", || async { ready().await == 503 }).await;
}

/// Where the end of a refused body can't be known, nothing that follows is taken for a request.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_damaged_body_no_request_is_read() {
    let world = World::start("enforce").await;
    let damaged = "zz\r\n";
    let overlong = format!("5;{}\r\n", "x".repeat(20 << 10));
    for body in [damaged, &overlong] {
        let mut raw = Raw::connect(world.sidekey.proxy).await;
        raw.send(request("POST", "/api", &["Transfer-Encoding: chunked"], ""))
            .await;
        raw.try_send(body).await;
        let refused = raw.read_answer().await;
        assert!(matches!(refused.status, 400 | 401), "{}", refused.status);
        assert_eq!(refused.header("connection"), Some("close"));
        raw.try_send(get("/api/smuggled", &[&bearer(&world.good)]))
            .await;
        assert_eq!(raw.read_to_end().await, b"");
    }
    let seen = world.upstream.seen();
    assert!(seen.iter().all(|seen| !seen.target.contains("smuggled")));
}

/// An interim answer that comes together with the final one leaves that one its fields.
#[tokio::test(flavor = "multi_thread")]
async fn the_final_answer_keeps_its_fields_behind_an_interim_one() {
    let upstream = Wire::answering(|_| {
        let both = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        both.as_bytes().to_vec()
    })
    .await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    let limits = json!([{"name": "default", "quota": 100, "window_seconds": 86400}]);
    let key = sidekey.create_key(json!({"rate_limits": limits})).await;
    let mut raw = Raw::connect(sidekey.proxy).await;
    for left in [99, 98, 97] {
        raw.send(get("/", &[&bearer(&key)])).await;
        let mut head = raw.read_head().await;
        if head.status == 103 {
            assert_eq!(head.header("ratelimit"), None);
            head = raw.read_head().await;
        }
        assert_eq!(head.status, 200);
        let said = head.header("ratelimit").unwrap_or_default().to_owned();
        assert!(
            said.starts_with(&format!("\"default\";r={left};")),
            "{said}"
        );
        assert!(head.header("x-request-id").is_some());
        assert_eq!(raw.read_exact(2).await, b"ok");
    }
}
