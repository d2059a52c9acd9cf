//! `sidekey check` and `sidekey serve`: exit codes, and every problem of a configuration with its
//! path. Each file under `tests/config` has one fault; this table says where.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sidekey::config;

use crate::harness::run::{Ended, run};

/// Bad files, and the paths that have to be named. An empty path is the file as a whole.
#[rustfmt::skip]
const BAD: &[(&str, &[&str])] = &[
    ("not-toml", &[""]),
    ("no-routes", &["routes"]),
    ("unknown-section", &["proxies"]),
    ("unknown-field", &["proxy.colour"]),
    ("unknown-field-of-route", &["routes[0].pth"]),
    ("unknown-field-of-policy", &["limits.default[0].bust"]),
    ("wrong-type", &["proxy.threads"]),
    ("negative-time", &["proxy.keepalive_seconds"]),
    ("listen-nowhere", &["proxy.listen[0]"]),
    ("listen-nothing", &["proxy.listen"]),
    ("mode", &["proxy.mode"]),
    ("trusted-proxy", &["proxy.trusted_proxies[1]"]),
    ("admin-trusted-proxy", &["admin.trusted_proxies[1]"]),
    ("too-many-threads", &["proxy.threads"]),
    ("keepalive-zero", &["proxy.keepalive_seconds"]),
    ("client-timeout", &["proxy.client_timeout_seconds"]),
    ("header-bytes", &["proxy.max_header_bytes"]),
    ("body-bytes", &["proxy.max_body_bytes"]),
    ("shutdown", &["proxy.shutdown_seconds"]),
    ("source-unknown", &["credentials.sources[1]"]),
    ("source-twice", &["credentials.sources[1]"]),
    ("source-authorization", &["credentials.sources[0]"]),
    ("source-cookie-header", &["credentials.sources[0]"]),
    ("source-bad-header", &["credentials.sources[0]"]),
    ("source-bad-query", &["credentials.sources[0]"]),
    ("source-bad-cookie", &["credentials.sources[0]"]),
    ("no-sources", &["credentials.sources"]),
    ("realm", &["credentials.realm"]),
    ("self-service-path", &["self_service.path"]),
    ("prefix", &["credentials.prefix"]),
    ("upstream-unnamed", &["upstreams[0].name"]),
    ("upstream-bad-name", &["upstreams[0].name"]),
    ("upstream-twice", &["upstreams[1].name"]),
    ("upstream-no-servers", &["upstreams[0].servers"]),
    ("server-no-port", &["upstreams[0].servers[0]"]),
    ("server-path", &["upstreams[0].servers[0]"]),
    ("server-login", &["upstreams[0].servers[0]"]),
    ("server-scheme", &["upstreams[0].servers[0]"]),
    ("connect-timeout", &["upstreams[0].connect_timeout_ms"]),
    ("read-timeout", &["upstreams[0].read_timeout_seconds"]),
    ("idle-timeout", &["upstreams[0].idle_timeout_seconds"]),
    ("route-unnamed", &["routes[0].name"]),
    ("route-twice", &["routes[1].name"]),
    ("route-host", &["routes[0].host"]),
    ("route-host-wildcard", &["routes[0].host"]),
    ("route-path-relative", &["routes[0].path"]),
    ("route-path-wildcard", &["routes[0].path"]),
    ("route-path-dots", &["routes[0].path"]),
    ("route-path-empty-segment", &["routes[0].path"]),
    ("route-method", &["routes[0].methods[1]"]),
    ("route-no-upstream", &["routes[0].upstream"]),
    ("route-missing-upstream", &["routes[0].upstream"]),
    ("route-auth", &["routes[0].auth"]),
    ("route-unknown-scope", &["routes[0].scopes[0]"]),
    ("route-wildcard-scope", &["routes[0].scopes[0]"]),
    ("route-scope-without-auth", &["routes[0].scopes"]),
    ("route-cost-over-burst", &["routes[0].cost"]),
    ("route-cost-over-anonymous-burst", &["routes[0].cost"]),
    ("routes-overlap", &["routes[1]"]),
    ("routes-overlap-in-a-method", &["routes[1]"]),
    ("scope-name", &["scopes[0].name"]),
    ("scope-wildcard", &["scopes[0].name"]),
    ("scope-twice", &["scopes[1].name"]),
    ("scope-reserved", &["scopes[0].name"]),
    ("limits-backend", &["limits.backend"]),
    ("limits-redis", &["redis.url"]),
    ("limits-instances", &["limits.instances"]),
    ("redis-timeout", &["redis.timeout_ms"]),
    ("redis-ca-missing", &["redis.ca_file"]),
    ("redis-ca-not-pem", &["redis.ca_file"]),
    ("redis-ca-without-tls", &["redis.url"]),
    ("redis-client-key", &["redis.client_key_file"]),
    ("redis-sentinel-login", &["redis.sentinel_password"]),
    ("redis-sentinel-no-password", &["redis.sentinel_password"]),
    ("redis-sentinel-no-master", &["redis.url"]),
    ("route-on-outage", &["routes[0].on_outage"]),
    ("limits-on-outage", &["limits.on_outage"]),
    ("limits-lease", &["limits.max_lease_ms"]),
    ("limits-header", &["limits.headers[1]"]),
    ("limits-addresses", &["limits.max_addresses"]),
    ("policy-no-quota", &["limits.default[0].quota"]),
    ("policy-no-window", &["limits.anonymous[0].window_seconds"]),
    ("policy-no-burst", &["limits.failed_auth.burst"]),
    ("policy-name", &["limits.default[0].name"]),
    ("policy-incomplete", &["limits.default[0]"]),
    ("policy-twice", &["limits.default[1].name"]),
    ("max-proofs", &["verification.max_proofs"]),
    ("proof-ttl", &["verification.proof_ttl_seconds"]),
    ("negative-ttl", &["verification.negative_ttl_seconds"]),
    ("bcrypt-cheap", &["bcrypt.cost"]),
    ("bcrypt-dear", &["bcrypt.cost"]),
    ("bcrypt-queue", &["bcrypt.max_queue"]),
    ("bcrypt-threads", &["bcrypt.threads"]),
    ("store-url", &["store.url"]),
    ("store-mysql", &["store.url"]),
    ("store-url-file", &["store.url_file"]),
    ("store-poll", &["store.poll_interval_ms"]),
    ("store-stale", &["store.max_stale_seconds"]),
    ("store-propagation", &["store.propagation_wait_ms"]),
    ("store-instance-name", &["store.instance_name"]),
    ("secrets-backend", &["secrets.backend"]),
    ("vault-plain", &["secrets.vault.address"]),
    ("vault-address", &["secrets.vault.address"]),
    ("vault-port", &["secrets.vault.address"]),
    ("vault-mount", &["secrets.vault.mount"]),
    ("vault-token", &["secrets.vault.token"]),
    ("vault-token-file", &["secrets.vault.token_file"]),
    ("vault-approle", &["secrets.vault.role_id", "secrets.vault.secret_id"]),
    ("vault-kubernetes", &["secrets.vault.role"]),
    ("vault-namespace", &["secrets.vault.namespace"]),
    ("vault-ca", &["secrets.vault.ca_file"]),
    ("vault-timeout", &["secrets.vault.timeout_ms"]),
    ("reconcile-interval", &["secrets.reconcile_interval_seconds"]),
    ("usage-interval", &["usage.flush_interval_seconds"]),
    ("usage-retention", &["usage.retention_days"]),
    ("usage-rows", &["usage.max_pending_rows"]),
    ("metrics-tenants", &["metrics.max_tenants"]),
    ("leftover-age", &["secrets.leftover_age_seconds"]),
    ("vault-auth", &["secrets.vault.auth"]),
    ("shutdown-notice", &["proxy.shutdown_notice_seconds"]),
    ("admin-listen", &["admin.listen"]),
    ("admin-key-file", &["admin.bootstrap_key_file"]),
    ("dashboard-url", &["dashboard.url"]),
    ("dashboard-url-path", &["dashboard.url"]),
    ("dashboard-proxy-url", &["dashboard.proxy_url"]),
    ("dashboard-idle", &["dashboard.session_idle_seconds"]),
    ("dashboard-max", &["dashboard.session_max_seconds"]),
    ("dashboard-sign-in", &["dashboard.sign_in.quota"]),
    ("smtp", &["smtp.from"]),
    ("smtp-host", &["smtp.host"]),
    ("smtp-login", &["smtp.password"]),
    ("smtp-plain", &["smtp.tls"]),
    ("smtp-plain-login", &["smtp.tls"]),
    ("smtp-tls", &["smtp.tls"]),
    ("smtp-ca", &["smtp.ca_file"]),
    ("smtp-reply-to", &["smtp.reply_to"]),
    ("smtp-timeout", &["smtp.timeout_seconds"]),
    ("reminders-interval", &["reminders.interval_seconds"]),
    ("reminders-per-hour", &["reminders.max_per_hour"]),
    ("log-level", &["log.level"]),
    ("log-format", &["log.format"]),
    ("log-access", &["log.access"]),
    ("log-sample", &["log.sample.default", "log.sample.forwarded"]),
    ("log-sample-outcome", &["log.sample.refused"]),
    ("log-levels", &["log.levels.nobody", "log.levels.rate_limited"]),
    ("tracing-endpoint", &["tracing.otlp_endpoint"]),
    ("tracing-sample", &["tracing.sample_ratio"]),
    ("tracing-service", &["tracing.service_name"]),
    ("tracing-timeout", &["tracing.timeout_ms"]),
    ("many", &["proxy.mode", "proxy.threads", "proxy.trusted_proxies[0]", "routes[0].path", "routes[0].upstream", "store.url", "colour"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn bad_file(name: &str) -> String {
    root()
        .join(format!("tests/config/{name}.toml"))
        .display()
        .to_string()
}

/// The paths of the problems on stderr, where each line starts with the file's name.
fn named_paths(ended: &Ended, file: &str) -> BTreeSet<String> {
    let prefix = format!("{file}: ");
    ended
        .stderr
        .lines()
        .map(|line| {
            let rest = line
                .strip_prefix(&prefix)
                .unwrap_or_else(|| panic!("{line:?} does not start with the file"));
            match rest.split_once(": ") {
                Some((path, detail)) if !path.contains(' ') => {
                    assert!(!detail.is_empty(), "{line}");
                    path.to_owned()
                }
                _ => String::new(),
            }
        })
        .collect()
}

#[test]
fn every_fault_of_a_configuration_is_named_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    for (name, paths) in BAD {
        let file = bad_file(name);
        let ended = run(directory.path(), &["check", "--config", &file], &[]);
        assert_eq!(ended.code, Some(2), "{name}: {ended:?}");
        assert_eq!(ended.stdout, "", "errors go to stderr: {name}");
        let expected: BTreeSet<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(named_paths(&ended, &file), expected, "{name}: {ended:?}");
        assert!(!ended.stderr.contains("hunter2"), "{name}: {ended:?}");
    }
}

#[test]
fn the_table_has_every_file() {
    let entries = std::fs::read_dir(root().join("tests/config")).unwrap();
    let files: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let table: BTreeSet<String> = BAD.iter().map(|(name, _)| format!("{name}.toml")).collect();
    assert_eq!(files, table);
}

#[test]
fn serve_does_not_start_with_a_bad_configuration() {
    let directory = tempfile::tempdir().unwrap();
    for (name, paths) in BAD
        .iter()
        .filter(|(name, _)| matches!(*name, "many" | "not-toml"))
    {
        let file = bad_file(name);
        let ended = run(directory.path(), &["serve", "--config", &file], &[]);
        assert_eq!(ended.code, Some(2), "{name}: {ended:?}");
        assert_eq!(ended.stdout, "", "{name}");
        assert_eq!(
            named_paths(&ended, &file).len(),
            paths.len(),
            "{name}: {ended:?}"
        );
    }
    // Nothing was made before the configuration was found sound.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_a_bad_argument() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large.toml");
    std::fs::write(&large, "#".repeat(5 << 20)).unwrap();
    std::fs::write(directory.path().join("binary.toml"), b"\xff\xfe\x00").unwrap();
    for command in ["check", "serve"] {
        for file in ["absent.toml", ".", "large.toml", "binary.toml"] {
            let ended = run(directory.path(), &[command, "--config", file], &[]);
            assert_eq!(ended.code, Some(2), "{command} {file}: {ended:?}");
            assert!(ended.stderr.contains(file), "{command} {file}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        }
    }
}

#[test]
fn arguments_decide_the_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let version = format!("sidekey {}\n", env!("CARGO_PKG_VERSION"));
    for (arguments, code) in [
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["serve", "--help"], 0),
        (vec!["check", "--help"], 0),
        (vec!["help"], 0),
        (vec![], 2),
        (vec!["dance"], 2),
        (vec!["--loud"], 2),
        (vec!["serve", "--loud"], 2),
        (vec!["check", "--config"], 2),
        (vec!["check", "a.toml"], 2),
        (vec!["check", "--config", "a", "--config", "b"], 2),
    ] {
        let ended = run(directory.path(), &arguments, &[]);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        let (told, silent) = if code == 0 {
            (&ended.stdout, &ended.stderr)
        } else {
            (&ended.stderr, &ended.stdout)
        };
        assert!(
            !told.is_empty() && silent.is_empty(),
            "{arguments:?}: {ended:?}"
        );
        if arguments == ["--version"] {
            assert_eq!(ended.stdout, version);
        }
    }
}

#[test]
fn the_environment_lies_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let shipped = root().join("config/sidekey.toml").display().to_string();
    for (file, name, value, path) in [
        (shipped.clone(), "SIDEKEY__PROXY__MODE", "shadow", None),
        (
            shipped.clone(),
            "SIDEKEY__PROXY__LISTEN",
            "[\"127.0.0.1:0\", \"[::1]:0\"]",
            None,
        ),
        (
            shipped.clone(),
            "SIDEKEY__UPSTREAMS__0__SERVERS",
            "http://127.0.0.1:9090",
            None,
        ),
        (shipped.clone(), "SIDEKEY__CREDENTIALS__HIDE", "false", None),
        (
            shipped.clone(),
            "SIDEKEY_ADMIN_KEY",
            "not configuration",
            None,
        ),
        // The twin puts the file's fault right.
        (bad_file("mode"), "SIDEKEY__PROXY__MODE", "enforce", None),
        (
            bad_file("bcrypt-cheap"),
            "SIDEKEY__BCRYPT__COST",
            "10",
            None,
        ),
        (
            shipped.clone(),
            "SIDEKEY__PROXY__MODE",
            "maybe",
            Some("proxy.mode"),
        ),
        (
            shipped.clone(),
            "SIDEKEY__PROXY__COLOUR",
            "blue",
            Some("proxy.colour"),
        ),
        (
            shipped.clone(),
            "SIDEKEY__PROXI__MODE",
            "shadow",
            Some("proxi"),
        ),
        (
            shipped.clone(),
            "SIDEKEY__BCRYPT__COST",
            "ten",
            Some("bcrypt.cost"),
        ),
        (
            shipped.clone(),
            "SIDEKEY__ROUTES__1__UPSTREAM",
            "nobody",
            Some("routes[1].upstream"),
        ),
        (
            shipped.clone(),
            "SIDEKEY__ROUTES__9__PATH",
            "/x",
            Some("SIDEKEY__ROUTES__9__PATH"),
        ),
        (
            shipped.clone(),
            "SIDEKEY__PROXY__LISTEN",
            "[1",
            Some("SIDEKEY__PROXY__LISTEN"),
        ),
        (
            shipped,
            "SIDEKEY__STORE__URL",
            "mysql://root:hunter2@db/x",
            Some("store.url"),
        ),
    ] {
        let arguments = ["check", "--config", &file];
        let ended = run(directory.path(), &arguments, &[(name, value)]);
        match path {
            None => assert_eq!(ended.code, Some(0), "{name}={value}: {ended:?}"),
            Some(path) => {
                assert_eq!(ended.code, Some(2), "{name}={value}: {ended:?}");
                assert!(ended.stderr.contains(path), "{name}={value}: {ended:?}");
                assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
            }
        }
    }
}

fn shipped() -> String {
    std::fs::read_to_string(root().join("config/sidekey.toml")).unwrap()
}

/// What the program makes of `text`.
fn meaning(text: &str) -> Result<String, String> {
    match config::parse(text, &Vec::new()) {
        Ok(settings) => Ok(format!("{settings:?}")),
        Err(problems) => Err(format!("{problems:?}")),
    }
}

/// `text` with line `number` replaced.
fn with_line(text: &str, number: usize, line: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines[number] = line;
    lines.join("\n")
}

/// The name in `name = value`, if that is what `line` is.
fn field_of(line: &str) -> Option<&str> {
    let (name, value) = line.split_once(" = ")?;
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    (plain && !value.is_empty()).then_some(name)
}

#[test]
fn the_shipped_configuration_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let file = root().join("config/sidekey.toml").display().to_string();
    let ended = run(directory.path(), &["check", "--config", &file], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    assert!(ended.stdout.contains("2 routes"), "{ended:?}");
    assert_eq!(
        Path::new(config::DEFAULT_PATH),
        Path::new("config/sidekey.toml")
    );
    let by_default = run(&root(), &["check"], &[]);
    assert_eq!(by_default.code, Some(0), "{by_default:?}");
}

#[test]
fn what_the_shipped_configuration_shows_commented_out_is_the_default() {
    // These say something that is not the default; the comment beside them says so.
    let examples: BTreeSet<&str> = [
        "trusted_proxies",
        "host",
        "methods",
        "max_body_bytes",
        "on_outage",
        "url_file",
    ]
    .into();
    let text = shipped();
    let before = meaning(&text).unwrap();
    let (mut defaults, mut shown_examples) = (0, BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        let Some(bare) = line.strip_prefix("# ") else {
            continue;
        };
        let Some(field) = field_of(bare) else {
            continue;
        };
        let after = meaning(&with_line(&text, number, bare));
        if after.as_ref() == Ok(&before) {
            defaults += 1;
            continue;
        }
        shown_examples.insert(field);
        assert!(examples.contains(field), "{line}: {after:?}");
        // The file that it names is not here.
        assert!(after.is_ok() || field == "url_file", "{line}: {after:?}");
    }
    assert_eq!(shown_examples, examples);
    assert!(defaults >= 20, "{defaults} defaults were looked at");
}

#[test]
fn what_the_shipped_configuration_sets_is_the_default_too() {
    let text = shipped();
    let before = meaning(&text).unwrap();
    let mut section = String::new();
    let mut looked_at = 0;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        // Entries of lists are the user's own; every other field has a default.
        if section.starts_with("[[") || field_of(line).is_none() {
            continue;
        }
        looked_at += 1;
        assert_eq!(
            meaning(&with_line(&text, number, "")).as_ref(),
            Ok(&before),
            "{line}"
        );
    }
    assert!(looked_at >= 15, "{looked_at} fields were looked at");
}
