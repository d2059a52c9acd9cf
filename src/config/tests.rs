use super::*;
use crate::config::settings::*;
use crate::telemetry::Outcome;
use crate::telemetry::access::PerOutcome;

const MINIMAL: &str = r#"
[[upstreams]]
name = "legacy"
servers = ["127.0.0.1:9000"]
[[routes]]
name = "all"
upstream = "legacy"
"#;

fn nothing() -> Vec<(String, String)> {
    Vec::new()
}

fn settings(text: &str) -> Settings {
    match parse(text, &nothing()) {
        Ok(settings) => settings,
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// The paths of all problems of `text`, in order.
fn paths(text: &str) -> Vec<String> {
    match parse(text, &nothing()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| problem.path).collect(),
    }
}

#[test]
fn the_contracts_sample_is_sound() {
    let sample = r#"
[proxy]
listen = ["127.0.0.1:8080"]
mode = "enforce"
trusted_proxies = []
threads = 0
[credentials]
sources = ["bearer", "header:X-API-Key"]
hide = true
realm = "api"
prefix = "sk"
[[upstreams]]
name = "legacy"
servers = ["127.0.0.1:9000"]
[[routes]]
name = "orders-write"
host = "api.example.com"
path = "/orders"
methods = ["POST", "PUT"]
upstream = "legacy"
auth = "required"
scopes = ["orders:write"]
cost = 1
[[scopes]]
name = "orders:write"
description = "Create and change orders"
[limits]
backend = "memory"
on_outage = "local"
max_lease_ms = 50
headers = ["ratelimit", "x-ratelimit"]
default = [{ name = "default", quota = 600, window_seconds = 60, burst = 100 }]
[bcrypt]
cost = 10
max_queue = 64
[store]
url = "sqlite://data/sidekey.db"
max_stale_seconds = 600
[secrets]
backend = "embedded"
[secrets.vault]
address = "https://127.0.0.1:8200"
mount = "secret"
auth = "token"
[redis]
url = "redis://127.0.0.1:6379"
[admin]
listen = "127.0.0.1:8081"
bootstrap_key_file = "data/admin.key"
[smtp]
"#;
    let settings = settings(sample);
    assert_eq!(
        settings.routes[0].host,
        HostPattern::Exact("api.example.com".into())
    );
    assert_eq!(settings.routes[0].path, "/orders");
    assert_eq!(settings.limits.default[0].burst(), 100);
    assert!(settings.proxy.threads >= 1);
}

#[test]
fn everything_has_a_default() {
    let settings = settings(MINIMAL);
    assert_eq!(settings.proxy.mode, Mode::Enforce);
    assert_eq!(settings.routes[0].path, "");
    assert_eq!(settings.routes[0].cost, 1);
    assert_eq!(settings.credentials.prefix.as_str(), "sk");
}

#[test]
fn all_problems_are_found_in_one_run() {
    let broken = r#"
[proxy]
listen = ["nowhere"]
mode = "maybe"
trusted_proxies = ["10.0.0.0/99"]
threads = "many"
colour = "blue"
[credentials]
sources = ["bearer", "smoke", "header:a b"]
prefix = "9"
[[upstreams]]
name = "legacy"
servers = ["127.0.0.1"]
[[upstreams]]
name = "legacy"
servers = ["[::1]:80"]
[[routes]]
name = "a"
path = "orders"
upstream = "nobody"
scopes = ["orders:write", "bad scope"]
auth = "perhaps"
cost = 1000
[[routes]]
name = "b"
path = "/x"
upstream = "legacy"
methods = ["GET", "POST"]
[[routes]]
name = "c"
path = "/x/"
upstream = "legacy"
methods = ["POST", "get"]
[[scopes]]
name = "sidekey:admin"
[limits]
default = [{ name = "d", quota = 0, window_seconds = 60, burst = 100 }]
"#;
    let found = paths(broken);
    for path in [
        "proxy.threads",
        "proxy.colour",
        "proxy.listen[0]",
        "proxy.mode",
        "proxy.trusted_proxies[0]",
        "credentials.sources[1]",
        "credentials.sources[2]",
        "credentials.prefix",
        "upstreams[1].name",
        "upstreams[0].servers[0]",
        "scopes[0].name",
        "limits.default[0].quota",
        "routes[0].path",
        "routes[0].upstream",
        "routes[0].auth",
        "routes[0].scopes[0]",
        "routes[0].scopes[1]",
        "routes[2].methods[1]",
        "routes[2]",
    ] {
        assert!(
            found.iter().any(|f| f == path),
            "{path} is not among {found:#?}"
        );
    }
    assert_eq!(found.len(), 19, "{found:#?}");
}

#[test]
fn one_problem_each() {
    for (change, path) in [
        ("[nonsense]\n", "nonsense"),
        ("[proxy]\nlisten = []\n", "proxy.listen"),
        ("[proxy]\nlisten = [1]\n", "proxy.listen[0]"),
        ("[proxy]\nmax_header_bytes = 1\n", "proxy.max_header_bytes"),
        (
            "[proxy]\nkeepalive_seconds = -1\n",
            "proxy.keepalive_seconds",
        ),
        ("[bcrypt]\ncost = 3\n", "bcrypt.cost"),
        ("[bcrypt]\ncost = 99\n", "bcrypt.cost"),
        (
            "[limits]\nbackend = \"redis\"\n[redis]\nurl = \"redis-cluster://a/1\"\n",
            "redis.url",
        ),
        ("[limits]\nheaders = [\"x\"]\n", "limits.headers[0]"),
        (
            "[limits]\ndefault = [{ name = \"d\", quota = 1 }]\n",
            "limits.default[0]",
        ),
        (
            "[limits]\nfailed_auth = { name = \"f\", quota = 1, window_seconds = 0 }\n",
            "limits.failed_auth.window_seconds",
        ),
        ("[secrets]\nbackend = \"vault\"\n", "secrets.vault.token"),
        ("[secrets]\nbackend = \"paper\"\n", "secrets.backend"),
        ("[store]\nurl = \"mysql://u:p@h/d\"\n", "store.url"),
        ("[store]\nurl = \"file.db\"\n", "store.url"),
        ("[store]\nurl_file = \"/nonexistent\"\n", "store.url_file"),
        ("[smtp]\nhost = \"x\"\n", "smtp.from"),
        ("[smtp]\nfrom = \"a@b.example\"\n", "smtp.host"),
        ("[log]\nlevel = \"loud\"\n", "log.level"),
        ("[admin]\nlisten = \"x\"\n", "admin.listen"),
        (
            "[[scopes]]\nname = \"a\"\n[[scopes]]\nname = \"a\"\n",
            "scopes[1].name",
        ),
        (
            "[[routes]]\nname = \"all2\"\nupstream = \"legacy\"\n",
            "routes[1]",
        ),
        (
            "[[routes]]\nname = \"all\"\npath=\"/x\"\nupstream = \"legacy\"\n",
            "routes[1].name",
        ),
        (
            "[[routes]]\nname = \"r\"\npath=\"/a/../b\"\nupstream = \"legacy\"\n",
            "routes[1].path",
        ),
        (
            "[[routes]]\nname = \"r\"\npath=\"/a//b\"\nupstream = \"legacy\"\n",
            "routes[1].path",
        ),
        (
            "[[routes]]\nname = \"r\"\npath=\"/a\"\nhost=\"*.*\"\nupstream = \"legacy\"\n",
            "routes[1].host",
        ),
        (
            "[[routes]]\nname = \"r\"\npath=\"/a\"\ncost=101\nupstream = \"legacy\"\n",
            "routes[1].cost",
        ),
        (
            "[[routes]]\nname = \"r\"\npath=\"/a\"\nauth=\"off\"\nscopes=[\"s\"]\nupstream = \"legacy\"\n[[scopes]]\nname=\"s\"\n",
            "routes[1].scopes",
        ),
    ] {
        assert_eq!(paths(&format!("{MINIMAL}{change}")), [path], "{change}");
    }
    assert_eq!(paths("not toml"), [""]);
    assert_eq!(paths(""), ["routes"]);
}

#[test]
fn a_syntax_error_names_its_line() {
    let problems = parse("[proxy]\nmode = \n", &nothing()).unwrap_err();
    assert!(problems[0].detail.starts_with("line 2"), "{}", problems[0]);
}

#[test]
fn values_that_may_be_secret_are_not_quoted_back() {
    for text in [
        "[store]\nurl = [\"hunter2\"]\n",
        "[store]\nurl = \"hunter2\"\n",
        "[redis]\nurl = 5\nurll = \"hunter2\"\n",
    ] {
        let problems = parse(&format!("{MINIMAL}{text}"), &nothing()).unwrap_err();
        assert!(
            problems.iter().all(|p| !p.to_string().contains("hunter2")),
            "{problems:?}"
        );
    }
}

#[test]
fn servers_are_read_in_every_form() {
    let text = MINIMAL.replace(
        "[\"127.0.0.1:9000\"]",
        "[\"http://a.example:81\", \"https://b.example\", \"[::1]:9\", \"builtin:echo\", \"http://c/\"]",
    );
    let host = |host: &str, port, tls| Server::Host {
        host: host.into(),
        port,
        tls,
    };
    assert_eq!(
        settings(&text).upstreams[0].servers,
        [
            host("a.example", 81, false),
            host("b.example", 443, true),
            host("::1", 9, false),
            Server::Echo,
            host("c", 80, false)
        ]
    );
}

#[test]
fn lines_are_sampled_by_outcome() {
    let text = format!(
        "{MINIMAL}[log]\nsample = {{ default = 0.5, forwarded = 0 }}\nlevels = {{ rate_limited = \"warn\" }}\n"
    );
    let environment = vec![(
        "SIDEKEY__LOG__SAMPLE__INVALID_KEY".to_owned(),
        "0.25".to_owned(),
    )];
    let log = parse(&text, &environment).unwrap().log;
    for (outcome, share, level) in [
        (Outcome::Forwarded, 0.0, tracing::Level::INFO),
        (Outcome::InvalidKey, 0.25, tracing::Level::INFO),
        (Outcome::RateLimited, 0.5, tracing::Level::WARN),
        (Outcome::Unavailable, 0.5, tracing::Level::INFO),
    ] {
        assert_eq!(log.shares.get(outcome), share, "{outcome:?}");
        assert_eq!(log.levels.get(outcome), level, "{outcome:?}");
    }
    let plain = settings(MINIMAL).log;
    assert_eq!(plain.shares, PerOutcome::all(1.0));
}

#[test]
fn the_environment_lies_over_the_file() {
    let environment = vec![
        ("SIDEKEY__PROXY__LISTEN".to_owned(), "0.0.0.0:1".to_owned()),
        (
            "SIDEKEY__UPSTREAMS__0__SERVERS".to_owned(),
            "[\"10.0.0.1:80\"]".to_owned(),
        ),
    ];
    let settings = parse(MINIMAL, &environment).unwrap();
    assert_eq!(settings.proxy.listen, ["0.0.0.0:1".parse().unwrap()]);
    assert_eq!(
        settings.upstreams[0].servers,
        [Server::Host {
            host: "10.0.0.1".into(),
            port: 80,
            tls: false
        }]
    );
}
