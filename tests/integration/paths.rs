//! Targets: ambiguous paths are refused before any upstream sees them, odd but legal ones are
//! forwarded byte for byte, and no way of writing a path or host gets around a route.

use serde_json::json;

use crate::harness::raw::{Answer, Raw};
use crate::harness::sidekey::{Key, Sidekey};
use crate::harness::wire::Wire;

pub(crate) async fn send(sidekey: &Sidekey, method: &str, target: &[u8], lines: &[&str]) -> Answer {
    let mut bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
    for line in lines {
        bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(bytes).await;
    raw.read_answer().await
}

/// An upstream, and the program in front of it with `routes` (its upstream is `service`).
pub(crate) async fn start(routes: &str) -> (Wire, Sidekey, Key) {
    let upstream = Wire::start().await;
    let config = format!(
        r#"
limits.default = [{{ name = "plenty", quota = 100000, window_seconds = 1 }}]
[[upstreams]]
name = "service"
servers = ["{}"]
[[scopes]]
name = "orders:read"
[[scopes]]
name = "admin"
{routes}
"#,
        upstream.address
    );
    let sidekey = Sidekey::start(&config).await;
    let key = sidekey.create_key(json!({})).await;
    (upstream, sidekey, key)
}

const PUBLIC_AND_ADMIN: &str = r#"
[[routes]]
name = "public"
path = "/"
upstream = "service"
auth = "off"
[[routes]]
name = "admin"
path = "/admin"
upstream = "service"
scopes = ["admin"]
"#;

const AMBIGUOUS: &[&[u8]] = &[
    b"/..",
    b"/.",
    b"/a/../b",
    b"/a/./b",
    b"/a/..",
    b"/a/%2e%2e/b",
    b"/a/%2E./b",
    b"/a/.%2e",
    b"/%2e",
    b"/a/..;/b",
    b"/a/..;x=y/b",
    b"/a/.;/b",
    b"/a/%2e%2e%3b/b",
    b"/a%2fb",
    b"/a%2Fb",
    b"/a%5cb",
    b"/a%5Cb",
    b"/a%00",
    b"/%00",
    b"/a%0ab",
    b"/a%0d%0aX:y",
    b"/a%09b",
    b"/a%7fb",
    b"/a%1bb",
    b"/a%252fb",
    b"/a%252e%252e/b",
    b"/a%255cb",
    b"/a%2500",
    b"/a%25252e",
    b"/%25%32%65",
    b"/a/%25%32%65%252e/b",
    b"/a%252%66b",
    b"/%c0%ae%c0%ae/b",
    b"/a%c0%afb",
    b"/%e0%80%ae",
    b"/%ff",
    b"/a\\b",
    b"/\\b",
    b"/a/..\\b",
    b"//",
    b"//a",
    b"/a//b",
    b"/a///",
    b"/;x//b",
    b"/a#b",
    b"/a?b#c",
    b"/#",
    b"/a%",
    b"/a%2",
    b"/a%zz",
    b"/a%u002e",
    b"/a\tb",
    b"/a\xff",
    b"/a\xc0\xaf",
    b"/a\x01b",
    b"/a\x7fb",
    b"*",
    b"a",
    b"a/b",
    b"?a",
    b"http:/a",
    b"http://test.example",
    b"http://test.example?x",
    b"http://test.example/a/../b",
    b"ftp://test.example/a",
];

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_paths_are_refused_before_any_upstream_sees_them() {
    let (upstream, sidekey, _) = start(PUBLIC_AND_ADMIN).await;
    for target in AMBIGUOUS {
        let shown = target.escape_ascii().to_string();
        let answer = send(&sidekey, "GET", target, &["Host: test.example"]).await;
        assert_eq!(answer.status, 400, "{shown}");
        assert_eq!(upstream.targets(), Vec::<String>::new(), "{shown}");
        // What is not even the text of a path is refused by Pingora's reader, without words.
        if target[0] == b'/' && std::str::from_utf8(target).is_ok() {
            let kind = answer.header("content-type");
            assert_eq!(kind, Some("application/problem+json"), "{shown}");
            assert_eq!(answer.json()["status"], 400, "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_legal_paths_are_forwarded_byte_for_byte() {
    let (upstream, sidekey, _) = start(PUBLIC_AND_ADMIN).await;
    for target in [
        "/",
        "/?",
        "/a?",
        "/a?b?c=/d",
        "/a/",
        "/a/;jsessionid=1F",
        "/a;jsessionid=1F?x",
        "/a;v=1;w=2/b;c",
        "/a+b",
        "/a%2Bb%20c",
        "/caf%C3%A9/%e2%82%ac",
        "/café",
        "/%41%7e~",
        "/a%25b",
        "/100%25",
        "/a%3Fb%23c",
        "/...",
        "/.hidden/..b/a..",
        "/a:b@c!$&'()*,=",
        "/[a]",
        "/a|b",
        "/a^",
        "/a{b}",
        "/a\"",
        "/a?[b]=1|2",
        "/a?../..%2f%5c%00//\\",
        "/a?q=%ff%zz%",
        "/a?u=http://x/../y",
    ] {
        let answer = send(&sidekey, "GET", target.as_bytes(), &["Host: test.example"]).await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(upstream.last().target(), target);
    }
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

/// Pingora's reader mends them before anybody else sees them: the gateway and the service read the
/// same path, which is what matters.
#[tokio::test(flavor = "multi_thread")]
async fn a_raw_space_is_forwarded_as_an_encoded_one() {
    let (upstream, sidekey, _) = start(PUBLIC_AND_ADMIN).await;
    for (target, forwarded) in [
        ("/a b", "/a%20b"),
        ("/a?b c", "/a?b%20c"),
        ("/admin x", "/admin%20x"),
    ] {
        let answer = send(&sidekey, "GET", target.as_bytes(), &["Host: test.example"]).await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(upstream.last().target(), forwarded);
    }
    let answer = send(&sidekey, "GET", b"/admin/a b", &["Host: test.example"]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_is_brought_into_origin_form() {
    let (upstream, sidekey, _) = start(PUBLIC_AND_ADMIN).await;
    for (target, forwarded) in [
        ("http://test.example/a?b=c", "/a?b=c"),
        ("HTTP://test.example/", "/"),
    ] {
        let answer = send(&sidekey, "GET", target.as_bytes(), &["Host: test.example"]).await;
        assert_eq!(answer.status, 200, "{target}");
        let seen = upstream.last();
        assert_eq!(seen.target(), forwarded);
        assert_eq!(seen.header("host").as_deref(), Some("test.example"));
    }
    let admin = b"http://test.example/admin";
    let answer = send(&sidekey, "GET", admin, &["Host: test.example"]).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_a_path_gets_around_its_route() {
    let (upstream, sidekey, key) = start(PUBLIC_AND_ADMIN).await;
    let authorization = format!("Authorization: Bearer {}", key.text);
    for target in [
        "/admin",
        "/admin/",
        "/admin?",
        "/admin?x=/",
        "/admin/users",
        "/%61dmin",
        "/%61%64%6d%69%6E/users",
        "/admi%6e?",
        "/admin/users;x=1",
        "/admin/;x",
        "http://test.example/admin",
        "http://other.example/admin",
    ] {
        let target = target.as_bytes();
        let none = send(&sidekey, "GET", target, &["Host: test.example"]).await;
        let shown = target.escape_ascii();
        assert!(matches!(none.status, 400 | 401), "{shown}: {}", none.status);
        let lines = ["Host: test.example", &authorization];
        let lacking = send(&sidekey, "GET", target, &lines).await;
        assert!(
            matches!(lacking.status, 400 | 403),
            "{shown}: {}",
            lacking.status
        );
    }
    for target in ["/admin;x=1", "/admin;x=1/users", "/admin;", "/%61dmin;/x"] {
        let answer = send(&sidekey, "GET", target.as_bytes(), &["Host: test.example"]).await;
        assert_eq!(answer.status, 400, "{target}");
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
    for target in [
        "/administrator",
        "/admin2",
        "/Admin",
        "/x/admin",
        "/admin.txt",
    ] {
        let answer = send(&sidekey, "GET", target.as_bytes(), &["Host: test.example"]).await;
        assert_eq!(answer.status, 200, "{target} is another path");
    }
}

const HOSTS: &str = r#"
[[routes]]
name = "anyone"
path = "/"
upstream = "service"
auth = "off"
[[routes]]
name = "api"
host = "api.example.com"
path = "/"
upstream = "service"
[[routes]]
name = "tenants"
host = "*.tenants.example.com"
path = "/"
upstream = "service"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_a_host_gets_around_its_route() {
    let (upstream, sidekey, key) = start(HOSTS).await;
    for host in [
        "api.example.com",
        "API.Example.COM",
        "api.example.com:80",
        "api.example.com:",
        "api.example.com.",
        "Api.example.com.:8080",
        "a.tenants.example.com",
        "a.b.tenants.example.com",
        "A.TENANTS.example.com.:1",
    ] {
        let line = format!("Host: {host}");
        let answer = send(&sidekey, "GET", b"/", &[&line]).await;
        assert_eq!(answer.status, 401, "{host}");
    }
    // The authority of an absolute target takes the place of Host (RFC 9112, section 3.2.2).
    for host in ["other.example", "api.example.com"] {
        let line = format!("Host: {host}");
        let answer = send(&sidekey, "GET", b"http://api.example.com/", &[&line]).await;
        assert!(
            matches!(answer.status, 400 | 401),
            "{host}: {}",
            answer.status
        );
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
    let authorization = format!("Authorization: Bearer {}", key.text);
    let lines = ["Host: API.example.com.:8080", &authorization];
    assert_eq!(send(&sidekey, "GET", b"/", &lines).await.status, 200);
    let forwarded = upstream.last().header("host");
    assert_eq!(forwarded.as_deref(), Some("API.example.com.:8080"));
    for host in [
        "example.com",
        "xapi.example.com",
        "tenants.example.com",
        "xtenants.example.com",
        "api.example.com.evil.example",
        "[::1]:80",
    ] {
        let line = format!("Host: {host}");
        let answer = send(&sidekey, "GET", b"/", &[&line]).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}
