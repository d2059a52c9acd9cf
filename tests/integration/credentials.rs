//! Where a request carries its key, and that the key goes no further: each source in its forms,
//! hiding in every encoding, two credentials in one request, and foreign credentials, which are
//! none of Sidekey's business. What the upstream learns of the caller stands in `identity.rs`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::json;

use crate::harness::raw::{Answer, Raw, get};
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::wire::{Request, Wire};

const SOURCES: &str =
    r#"sources = ["bearer", "basic", "header:X-API-Key", "query:api_key", "cookie:session"]"#;
const PLENTY: &str =
    r#"limits.default = [{ name = "plenty", quota = 100000, window_seconds = 1 }]"#;

/// One request: a target and header lines; `KEY` stands for the key.
struct Case {
    target: String,
    lines: Vec<String>,
}

fn case(target: &str, lines: &[&str], key: &str) -> Case {
    let fill = |text: &str| {
        text.replace("BASIC(KEY:)", &STANDARD.encode(format!("{key}:")))
            .replace("BASIC(:KEY)", &STANDARD.encode(format!(":{key}")))
            .replace("BASIC(user:KEY)", &STANDARD.encode(format!("user:{key}")))
            .replace(
                "BARE(KEY:x)",
                &STANDARD_NO_PAD.encode(format!("{key}:x-oauth-basic")),
            )
            .replace("ENCODED(KEY)", &encode_all(key))
            .replace("KEY", key)
    };
    Case {
        target: fill(target),
        lines: lines.iter().map(|line| fill(line)).collect(),
    }
}

/// Every byte as a percent escape.
fn encode_all(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

/// Sends a request on a connection of its own.
async fn send(sidekey: &Sidekey, case: &Case) -> Answer {
    let lines: Vec<&str> = case.lines.iter().map(String::as_str).collect();
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(get(&case.target, &lines)).await;
    raw.read_answer().await
}

/// Starts with all sources, `credentials` and `proxy` settings.
async fn start(upstream: &Wire, settings: &str) -> (Sidekey, Key) {
    let more = format!(
        "{settings}\n[[routes]]\nname = \"open\"\npath = \"/open\"\nupstream = \"service\"\nauth = \"off\""
    );
    let all = format!("{PLENTY}\n{}", config(upstream.address, &more));
    let sidekey = Sidekey::start(&all).await;
    let key = sidekey.create_key(json!({})).await;
    (sidekey, key)
}

async fn start_with_all_sources(upstream: &Wire) -> (Sidekey, Key) {
    start(upstream, &format!("[credentials]\n{SOURCES}")).await
}

/// Whether the secret stands anywhere in what the upstream was sent, in any of its encodings.
fn has_secret(request: &Request, key: &str) -> bool {
    let secret = &key[key.len() - 54..];
    let forms = [secret.to_owned(), encode_all(secret)];
    let in_basic = request.header("authorization").is_some_and(|value| {
        let encoded = value.split(' ').nth(1).unwrap_or_default();
        let decoded = STANDARD.decode(encoded).unwrap_or_default();
        String::from_utf8_lossy(&decoded).contains(secret)
    });
    in_basic || forms.iter().any(|form| request.head_contains(form))
}

/// Each form in which a key may come, and the target and cookies that the upstream then sees.
const FORMS: &[(&str, &[&str], &str, Option<&str>)] = &[
    ("/a", &["Authorization: Bearer KEY"], "/a", None),
    ("/a", &["authorization: bEARER   KEY  "], "/a", None),
    ("/a", &["Authorization: Basic BASIC(KEY:)"], "/a", None),
    ("/a", &["Authorization: Basic BASIC(:KEY)"], "/a", None),
    ("/a", &["Authorization: Basic BASIC(user:KEY)"], "/a", None),
    ("/a", &["Authorization: basic BARE(KEY:x)"], "/a", None),
    ("/a", &["X-API-Key: KEY"], "/a", None),
    ("/a", &["x-api-key:\tKEY\t"], "/a", None),
    ("/a?api_key=KEY", &[], "/a", None),
    ("/a?api%5Fkey=ENCODED(KEY)", &[], "/a", None),
    (
        "/a?z=1&%61%70%69%5f%6B%65%79=KEY&a=%7e&&b",
        &[],
        "/a?z=1&a=%7e&&b",
        None,
    ),
    (
        "/a?b=%2B+x?y&api_ke%79=KEY&c;d=/",
        &[],
        "/a?b=%2B+x?y&c;d=/",
        None,
    ),
    (
        "/a?API_key=other&api_key=KEY",
        &[],
        "/a?API_key=other",
        None,
    ),
    ("/a", &["Cookie: session=KEY"], "/a", None),
    (
        "/a",
        &["Cookie: z=1; session=KEY; a=\"q%3D\""],
        "/a",
        Some("z=1; a=\"q%3D\""),
    ),
    (
        "/a",
        &["Cookie: mysession=1; session=\"KEY\"; session2=x=y"],
        "/a",
        Some("mysession=1; session2=x=y"),
    ),
    (
        "/a",
        &["Cookie: city=Münster; session=KEY; b=é"],
        "/a",
        Some("city=Münster; b=é"),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_source_is_read_and_hidden_and_the_rest_stays() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start_with_all_sources(&upstream).await;
    for (target, lines, forwarded, cookies) in FORMS {
        let answer = send(&sidekey, &case(target, lines, &key.text)).await;
        assert_eq!(answer.status, 200, "{target} {lines:?}");
        let seen = upstream.last();
        assert_eq!(seen.target(), *forwarded, "{target} {lines:?}");
        assert_eq!(seen.header("cookie").as_deref(), *cookies, "{lines:?}");
        assert_eq!(seen.header("x-sidekey-key-id"), Some(key.id.clone()));
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("x-api-key"), None);
        assert!(!has_secret(&seen, &key.text), "{target} {lines:?}");
    }
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_that_are_not_text_keep_their_bytes() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start_with_all_sources(&upstream).await;
    let mut raw = Raw::connect(sidekey.proxy).await;
    let mut bytes = b"GET /a HTTP/1.1\r\nHost: test.example\r\nCookie: a=\xe9\xff; ".to_vec();
    bytes.extend_from_slice(format!("session={}; b=\"\"\r\n\r\n", key.text).as_bytes());
    raw.send(bytes).await;
    assert_eq!(raw.read_answer().await.status, 200);
    let seen = upstream.last();
    let cookie = seen.headers.iter().find(|(name, _)| name == "cookie");
    assert_eq!(cookie.unwrap().1, b"a=\xe9\xff; b=\"\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hiding_the_credential_goes_on_as_it_came() {
    let upstream = Wire::start().await;
    let settings = format!("[credentials]\nhide = false\n{SOURCES}");
    let (sidekey, key) = start(&upstream, &settings).await;
    for (target, lines, _, _) in FORMS {
        let case = case(target, lines, &key.text);
        let answer = send(&sidekey, &case).await;
        assert_eq!(answer.status, 200, "{target} {lines:?}");
        let seen = upstream.last();
        assert_eq!(seen.target(), case.target);
        for line in &case.lines {
            let (name, value) = line.split_once(':').unwrap();
            let forwarded = seen.header(&name.to_ascii_lowercase());
            assert_eq!(forwarded.as_deref(), Some(value.trim()), "{line}");
        }
        assert_eq!(seen.header("x-sidekey-key-id"), Some(key.id.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_credentials_or_a_repeated_one_are_refused() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start_with_all_sources(&upstream).await;
    for (target, lines) in [
        (
            "/a",
            &["Authorization: Bearer KEY", "X-API-Key: other"] as &[&str],
        ),
        ("/a", &["Authorization: Bearer KEY", "X-API-Key: KEY"]),
        (
            "/a",
            &["Authorization: Bearer KEY", "Authorization: Bearer KEY"],
        ),
        (
            "/a",
            &["Authorization: Bearer KEY", "Authorization: Basic dTpw"],
        ),
        ("/a", &["X-API-Key: KEY", "x-api-key: KEY"]),
        ("/a?api_key=KEY&api%5Fkey=KEY", &[]),
        ("/a?api_key=KEY&%61pi_key=", &[]),
        ("/a?api_key=KEY", &["Authorization: Bearer other"]),
        ("/a?api_key=KEY", &["Cookie: session=KEY"]),
        ("/a", &["Cookie: session=KEY; session=other"]),
        ("/a", &["Cookie: session=KEY", "Cookie: session=KEY"]),
        ("/a", &["Cookie: session=KEY; x=é; session=other"]),
    ] {
        let answer = send(&sidekey, &case(target, lines, &key.text)).await;
        assert_eq!(answer.status, 400, "{target} {lines:?}");
        assert_eq!(
            answer.json()["type"],
            "urn:sidekey:problem:ambiguous-credential"
        );
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains(&key.text[key.text.len() - 54..]));
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_credential_is_refused_and_not_taken_for_none() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start_with_all_sources(&upstream).await;
    for (target, lines) in [
        ("/a", &["Authorization: Bearer"] as &[&str]),
        ("/a", &["Authorization: Bearer KEYx"]),
        ("/a", &["Authorization: Bearer KEY KEY"]),
        ("/a", &["Authorization: Bearer \"KEY\""]),
        ("/a", &["Authorization: Basic !!!"]),
        ("/a", &["X-API-Key:"]),
        ("/a", &["X-API-Key: Bearer KEY"]),
        ("/a", &["X-API-Key: KEY, KEY"]),
        ("/a?api_key", &[]),
        ("/a?api_key=KEY%00", &[]),
        ("/a?api_key=%ff", &[]),
        ("/a", &["Cookie: session="]),
    ] {
        let answer = send(&sidekey, &case(target, lines, &key.text)).await;
        assert_eq!(answer.status, 401, "{target} {lines:?}");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"api\", error=\"invalid_token\""),
            "{target} {lines:?}"
        );
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_are_not_configured_are_not_read() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start(&upstream, "[credentials]\nsources = [\"header:X-Token\"]").await;
    for (target, lines) in [
        ("/a", &["Authorization: Bearer KEY"] as &[&str]),
        ("/a", &["X-API-Key: KEY"]),
        ("/a?api_key=KEY", &["Cookie: session=KEY"]),
    ] {
        let answer = send(&sidekey, &case(target, lines, &key.text)).await;
        assert_eq!(answer.status, 401, "{target} {lines:?}");
    }
    let foreign = &["X-Token: KEY", "Authorization: Bearer theirs"];
    let answer = send(&sidekey, &case("/a", foreign, &key.text)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        upstream.last().header("authorization").as_deref(),
        Some("Bearer theirs")
    );
}

/// What a request without a checked key carries, and what of it the upstream sees.
const UNCHECKED: &[(&str, &[&str], &str, Option<&str>)] = &[
    (
        "",
        &["Authorization: Bearer theirs"],
        "",
        Some("Bearer theirs"),
    ),
    ("", &["Authorization: Basic dTpw"], "", Some("Basic dTpw")),
    ("?api_key=theirs&b", &[], "?api_key=theirs&b", None),
    ("", &["Authorization: Bearer KEY"], "", None),
    ("", &["Authorization: Basic BASIC(user:KEY)"], "", None),
    ("?a=1&api_key=ENCODED(KEY)&b", &[], "?a=1&b", None),
    // More than one: ours goes, theirs stays.
    (
        "",
        &["Authorization: Bearer theirs", "X-API-Key: KEY"],
        "",
        Some("Bearer theirs"),
    ),
    (
        "",
        &["Authorization: Basic dTpw", "Cookie: session=KEY"],
        "",
        Some("Basic dTpw"),
    ),
    ("", &["X-API-Key: KEY", "X-API-Key: KEY"], "", None),
    ("?api_key=x&api_key=KEY", &[], "", None),
    (
        "",
        &[
            "Authorization: Bearer KEY",
            "Cookie: session=KEY; session=x",
        ],
        "",
        None,
    ),
];

async fn assert_only_ours_goes(upstream: &Wire, sidekey: &Sidekey, key: &Key, path: &str) {
    for (query, lines, forwarded, authorization) in UNCHECKED {
        let case = case(&format!("{path}{query}"), lines, &key.text);
        let answer = send(sidekey, &case).await;
        assert_eq!(answer.status, 200, "{query} {lines:?}");
        let seen = upstream.last();
        assert_eq!(seen.target(), format!("{path}{forwarded}"), "{lines:?}");
        let sent_on = seen.header("authorization");
        assert_eq!(sent_on.as_deref(), *authorization, "{query} {lines:?}");
        assert!(!has_secret(&seen, &key.text), "{query} {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_key_is_asked_for_ours_stops_and_foreign_ones_pass() {
    let upstream = Wire::start().await;
    let (sidekey, key) = start_with_all_sources(&upstream).await;
    assert_only_ours_goes(&upstream, &sidekey, &key, "/open").await;
    for seen in upstream.requests() {
        assert_eq!(seen.header("x-sidekey-key-id"), None, "nothing was checked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_mode_ours_stops_and_foreign_ones_pass() {
    let upstream = Wire::start().await;
    let settings = format!("[proxy]\nmode = \"shadow\"\n[credentials]\n{SOURCES}");
    let (sidekey, key) = start(&upstream, &settings).await;
    assert_only_ours_goes(&upstream, &sidekey, &key, "/a").await;
    // An ambiguous path passes too, and not with the key.
    let dotted = case("/a/../b", &["Authorization: Bearer KEY"], &key.text);
    assert_eq!(send(&sidekey, &dotted).await.status, 200);
    assert_eq!(upstream.last().target(), "/a/../b");
    assert!(!has_secret(&upstream.last(), &key.text));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_optional_routes_a_wrong_key_is_refused_and_none_is_anonymous() {
    let upstream = Wire::start().await;
    let more = "[[routes]]\nname = \"maybe\"\npath = \"/maybe\"\nupstream = \"service\"\nauth = \"optional\"";
    let sidekey = Sidekey::start(&config(upstream.address, more)).await;
    let key = sidekey.create_key(json!({})).await;
    let status = async |lines: &[&str]| {
        let answer = send(&sidekey, &case("/maybe", lines, &key.text)).await;
        answer.status
    };
    assert_eq!(status(&[]).await, 200);
    assert_eq!(upstream.last().header("x-sidekey-key-id"), None);
    assert_eq!(status(&["Authorization: Bearer KEY"]).await, 200);
    assert_eq!(
        upstream.last().header("x-sidekey-key-id"),
        Some(key.id.clone())
    );
    assert_eq!(status(&["Authorization: Bearer KEYx"]).await, 401);
    assert_eq!(
        status(&["X-API-Key: KEY", "Authorization: Bearer KEY"]).await,
        400
    );
    assert_eq!(status(&["Authorization: Digest theirs"]).await, 200);
    assert_eq!(
        upstream.last().header("authorization").as_deref(),
        Some("Digest theirs")
    );
    assert_eq!(upstream.requests().len(), 3);
}
