//! The cases that the contract's table is made of: one program in front of a service, keys in every
//! state, and for each row the requests that earn its answer.

use serde_json::json;

use crate::harness::raw::request;
use crate::harness::sidekey::{Key, Sidekey};
use crate::harness::upstream::{Scripted, Upstream, nobody};
use crate::tenancy::TENANTS;

const INVALID_TOKEN: &str = "Bearer realm=\"api\", error=\"invalid_token\"";

/// A request, and the refusal that it earns.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub path: &'static str,
    pub lines: Vec<String>,
    pub body: &'static str,
    pub status: u16,
    /// The end of the problem's `type`.
    pub problem: &'static str,
    pub challenge: Option<&'static str>,
    /// The label in metrics and logs.
    pub outcome: &'static str,
    pub route: &'static str,
}

impl Case {
    pub fn new(name: &'static str, path: &'static str, status: u16, problem: &'static str) -> Self {
        Case {
            name,
            path,
            lines: Vec::new(),
            body: "",
            status,
            problem,
            challenge: None,
            outcome: "",
            route: "api",
        }
    }

    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    pub fn key(self, key: &Key) -> Self {
        self.with(bearer(key))
    }

    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    pub fn counted(mut self, route: &'static str, outcome: &'static str) -> Self {
        (self.route, self.outcome) = (route, outcome);
        self
    }

    /// The request's bytes.
    pub fn request(&self, method: &str, body: &str) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        request(method, self.path, &lines, body)
    }
}

/// The program in front of a service, keys in every state, and the cases they make.
pub struct World {
    pub upstream: Upstream,
    pub sidekey: Sidekey,
    pub good: Key,
    pub cases: Vec<Case>,
    /// Accepts connections and never answers.
    _silent: Scripted,
}

pub fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

/// `key` with one character of its secret changed.
pub fn forged(key: &Key) -> Key {
    let mut text = key.text.clone();
    let at = text.len() - 30;
    let other = if &text[at..=at] == "a" { "b" } else { "a" };
    text.replace_range(at..=at, other);
    Key {
        text,
        ..key.clone()
    }
}

impl World {
    pub async fn start(mode: &str) -> Self {
        let upstream = Upstream::start().await;
        let silent = Scripted::start().await;
        let config = format!(
            r#"
            [proxy]
            mode = "{mode}"
            max_header_bytes = 4096
            [log]
            access = "all"
            [usage]
            flush_interval_seconds = 1
            [[upstreams]]
            name = "service"
            servers = ["{}"]
            [[upstreams]]
            name = "refused"
            servers = ["{}"]
            [[upstreams]]
            name = "silent"
            servers = ["{}"]
            read_timeout_seconds = 1
            [[routes]]
            name = "api"
            path = "/api"
            upstream = "service"
            [[routes]]
            name = "write"
            path = "/write"
            upstream = "service"
            scopes = ["orders:read", "orders:write"]
            [[routes]]
            name = "small"
            path = "/small"
            upstream = "service"
            max_body_bytes = 10
            [[routes]]
            name = "refused"
            path = "/refused"
            upstream = "refused"
            [[routes]]
            name = "silent"
            path = "/silent"
            upstream = "silent"
            [[scopes]]
            name = "orders:read"
            [[scopes]]
            name = "orders:write"
            "#,
            upstream.address,
            nobody(),
            silent.address,
        );
        let sidekey = Sidekey::start(&config).await;
        let good = sidekey.create_key(json!({"rate_limits": []})).await;
        let cases = cases(&sidekey, &good).await;
        World {
            upstream,
            sidekey,
            good,
            cases,
            _silent: silent,
        }
    }
}

/// One case for each reading of each row that is decided before the service is asked.
async fn cases(sidekey: &Sidekey, good: &Key) -> Vec<Case> {
    let plain = || Case::new("", "/api/x", 401, "");
    let invalid = |name| Case {
        name,
        problem: "invalid-key",
        ..plain()
            .challenge(INVALID_TOKEN)
            .counted("api", "invalid_key")
    };
    let mut cases = vec![
        Case::new("no key", "/api/x", 401, "missing-credential")
            .challenge("Bearer realm=\"api\"")
            .counted("api", "no_credential"),
        invalid("malformed").with("Authorization: Bearer not-one-of-ours"),
        invalid("empty").with("Authorization: Bearer "),
        invalid("too long").with(format!("X-API-Key: {}", "x".repeat(2000))),
        invalid("forged").key(&forged(good)),
        invalid("revoked").key(&revoked(sidekey, false).await),
        invalid("revoked, warm").key(&revoked(sidekey, true).await),
        invalid("replaced").key(&replaced(sidekey).await),
    ];
    let authority = [
        (
            "expired",
            json!({"expires_at": "2020-01-01T00:00:00Z"}),
            "expired-key",
            "expired_key",
        ),
        (
            "disabled",
            json!({"status": "disabled"}),
            "disabled-key",
            "disabled_key",
        ),
    ];
    for (name, change, problem, outcome) in authority {
        let key = sidekey.create_key(json!({})).await;
        sidekey.change_key(&key.id, change).await;
        let case = Case::new(name, "/api/x", 401, problem).challenge(INVALID_TOKEN);
        cases.push(case.counted("api", outcome).key(&key));
    }
    let key = sidekey.create_key(json!({"tenant_id": "late-payer"})).await;
    let path = format!("{TENANTS}/late-payer/suspend");
    let reply = sidekey.ask(reqwest::Method::POST, &path, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let case = Case::new("suspended", "/api/x", 401, "suspended-tenant").challenge(INVALID_TOKEN);
    cases.push(case.counted("api", "suspended_tenant").key(&key));
    let other = sidekey.create_key(json!({})).await;
    let twice = |name| {
        Case::new(name, "/api/x", 400, "ambiguous-credential")
            .counted("api", "ambiguous_credential")
    };
    cases.extend([
        twice("two different keys")
            .key(good)
            .with(format!("X-API-Key: {}", other.text)),
        twice("one key in two places")
            .key(good)
            .with(format!("X-API-Key: {}", good.text)),
        twice("a repeated key").key(good).key(good),
    ]);
    cases.extend(forbidden(sidekey).await);
    for (name, path) in [
        ("dot segments", "/api/../x"),
        ("an encoded slash", "/api/a%2Fb"),
        ("an encoded NUL", "/api/a%00b"),
    ] {
        cases.push(
            Case::new(name, path, 400, "ambiguous-path")
                .counted("api", "ambiguous_path")
                .key(good),
        );
    }
    cases.extend([
        Case {
            body: "more than ten bytes",
            ..Case::new("a body over the limit", "/small", 413, "body-too-large")
                .counted("small", "body_too_large")
                .key(good)
        },
        Case::new("headers over the limit", "/api/x", 431, "headers-too-large")
            .counted("api", "headers_too_large")
            .key(good)
            .with(format!("X-Padding: {}", "x".repeat(4096))),
    ]);
    cases
}

/// The rows of keys that are valid and may not do this.
async fn forbidden(sidekey: &Sidekey) -> Vec<Case> {
    let elsewhere = sidekey
        .create_key(json!({"allowed_ips": ["203.0.113.0/24"]}))
        .await;
    let reader = sidekey.create_key(json!({"scopes": ["orders:read"]})).await;
    let hourly = json!([{"name": "hourly", "quota": 1, "window_seconds": 3600}]);
    let spent = sidekey.create_key(json!({"rate_limits": hourly})).await;
    assert_eq!(sidekey.status("/api/x", &spent.text).await, 200);
    vec![
        Case::new("from elsewhere", "/api/x", 403, "address-not-allowed")
            .counted("api", "address_not_allowed")
            .key(&elsewhere),
        Case::new("a scope is missing", "/write", 403, "insufficient-scope")
            .challenge(
                "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"orders:read orders:write\"",
            )
            .counted("write", "insufficient_scope")
            .key(&reader),
        Case::new("over a limit", "/api/x", 429, "#quota-exceeded")
            .counted("api", "rate_limited")
            .key(&spent),
    ]
}

async fn revoked(sidekey: &Sidekey, warm: bool) -> Key {
    let key = sidekey.create_key(json!({})).await;
    if warm {
        assert_eq!(sidekey.status("/api/x", &key.text).await, 200);
    }
    sidekey.revoke_key(&key.id).await;
    key
}

async fn replaced(sidekey: &Sidekey) -> Key {
    let key = sidekey.create_key(json!({})).await;
    sidekey.regenerate_key(&key.id, 0).await;
    key
}
