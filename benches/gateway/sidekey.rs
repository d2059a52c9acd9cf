//! The gateway under test: the release binary, with a configuration, a store and a bootstrap key
//! in a temporary folder, driven over its admin port as an operator would.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Connection, fan_out, get_request};
use crate::process::{Programs, Running, on_cpus};
use crate::wrk;

/// How long the gateway may take until it says that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Fewer than the default `bcrypt.max_queue`, so creating keys is never refused for load.
const CREATE_CONNECTIONS: usize = 16;
/// A policy that nobody reaches: the largest that the gateway takes, in a window of a minute.
const TOKENS: u64 = 1_000_000_000;
const TENANTS: usize = 100;
/// Connections of [`Sidekey::load`].
const LOAD_CONNECTIONS: usize = 32;
/// Keys that are imported by one request.
const IMPORT_BATCH: usize = 500;
const KEYS_PATH: &str = "/api/v1/platform/api-keys";
/// The route that needs both scopes.
pub const PATH: &str = "/orders/17";

/// How the gateway is configured for a case.
pub struct SidekeyOptions<'a> {
    pub upstream: SocketAddr,
    /// `[proxy] threads`; 0 means as many as there are CPUs.
    pub threads: usize,
    pub bcrypt_cost: u32,
    /// The CPUs that it runs on.
    pub cpus: &'a str,
    /// Sections and fields of `[limits]` that are not as usual; ends in that section.
    pub limits: &'a str,
}

/// Limits in memory.
pub const IN_MEMORY: &str = "[limits]\n";

/// A running gateway.
pub struct Sidekey {
    pub running: Running,
    pub proxy: SocketAddr,
    admin: SocketAddr,
    admin_key: String,
}

impl Sidekey {
    /// Starts the gateway in `folder`. A second start in the same folder finds the keys of the
    /// first, and has verified none of them: every key is cold.
    pub fn start(
        programs: &Programs,
        folder: &Path,
        options: &SidekeyOptions,
    ) -> Result<Self, String> {
        let config = folder.join("sidekey.toml");
        let admin_key_file = folder.join("admin.key");
        fs::write(&config, config_text(folder, &admin_key_file, options))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let binary = Path::new(env!("CARGO_BIN_EXE_sidekey"));
        let mut command = on_cpus(programs, options.cpus, binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::piped());
        forget_own_settings(&mut command);
        let mut running = Running::start("sidekey", command, folder.join("sidekey.log"))?;
        let stdout = running.stdout().expect("stdout was piped just above");
        let ready = ready_line(stdout).map_err(|error| running.failure(&error))?;
        let (proxy, admin) = addresses(&ready)
            .ok_or_else(|| running.failure(&format!("said {ready:?} instead of ready")))?;
        let admin_key = fs::read_to_string(&admin_key_file)
            .map_err(|error| format!("the bootstrap key: {error}"))?;
        Ok(Self {
            running,
            proxy,
            admin,
            admin_key: admin_key.trim().to_owned(),
        })
    }

    /// Creates keys with everything on (two scopes, two buckets) and returns them as callers
    /// present them.
    pub fn create_keys(&self, count: usize) -> Result<Vec<String>, String> {
        fan_out(
            self.admin,
            CREATE_CONNECTIONS.min(count),
            count,
            "keys created",
            |connection, number| self.create_key(connection, number, 2),
        )
    }

    /// Creates one such key.
    pub fn create_one_key(&self) -> Result<String, String> {
        self.create_one(2)
    }

    /// Creates a key with one bucket.
    pub fn create_key_with_one_bucket(&self) -> Result<String, String> {
        self.create_one(1)
    }

    fn create_one(&self, buckets: usize) -> Result<String, String> {
        let mut connection =
            Connection::open(self.admin).map_err(|error| format!("the admin port: {error}"))?;
        self.create_key(&mut connection, 0, buckets)
    }

    fn create_key(
        &self,
        connection: &mut Connection,
        number: usize,
        buckets: usize,
    ) -> Result<String, String> {
        let policies = [
            json!({"name": "steady", "quota": TOKENS, "window_seconds": 60}),
            json!({"name": "burst", "quota": TOKENS, "window_seconds": 1}),
        ];
        let body = json!({
            "name": format!("bench {number}"),
            "tenant_id": format!("tenant-{}", number % TENANTS),
            "environment": "live",
            "scopes": ["orders:read", "orders:write"],
            "rate_limits": policies[..buckets],
        })
        .to_string();
        let request = format!(
            "POST {KEYS_PATH} HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.admin_key,
            body.len()
        );
        let answer = connection
            .exchange(request.as_bytes())
            .map_err(|error| format!("creating a key: {error}"))?;
        let text = String::from_utf8_lossy(answer.body);
        serde_json::from_str::<Value>(&text)
            .ok()
            .filter(|_| answer.status == 201)
            .and_then(|created| created["key"].as_str().map(str::to_owned))
            .ok_or_else(|| format!("creating a key: answer {} {text}", answer.status))
    }

    /// Imports keys of any look, with the rights of those that are created.
    pub fn import_keys(&self, keys: &[String]) -> Result<(), String> {
        let mut connection =
            Connection::open(self.admin).map_err(|error| format!("the admin port: {error}"))?;
        for keys in keys.chunks(IMPORT_BATCH) {
            let lines: String = keys.iter().map(|key| import_line(key)).collect();
            let request = format!(
                "POST {KEYS_PATH}/import HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/jsonl\r\nContent-Length: {}\r\n\r\n{lines}",
                self.admin_key,
                lines.len()
            );
            let answer = connection
                .exchange(request.as_bytes())
                .map_err(|error| format!("importing keys: {error}"))?;
            let text = String::from_utf8_lossy(answer.body);
            let report: Value = serde_json::from_str(&text).unwrap_or_default();
            if report["created"] != keys.len() {
                return Err(format!("importing keys: answer {} {text}", answer.status));
            }
        }
        Ok(())
    }

    /// Calls the route once with `key` and expects 200: after that the key is warm.
    pub fn warm(&self, key: &str) -> Result<(), String> {
        let mut connection =
            Connection::open(self.proxy).map_err(|error| format!("the proxy: {error}"))?;
        let answer = connection
            .exchange(&request_with(key))
            .map_err(|error| format!("calling with a fresh key: {error}"))?;
        match answer.status {
            200 => Ok(()),
            status => Err(format!(
                "calling with a fresh key: answer {status} {}",
                String::from_utf8_lossy(answer.body)
            )),
        }
    }

    /// How many bcrypt hashes the gateway says it has computed.
    pub fn bcrypt_runs(&self) -> Result<f64, String> {
        self.counter("sidekey_bcrypt_runs_total")
    }

    /// How long those took together.
    pub fn bcrypt_seconds(&self) -> Result<f64, String> {
        self.counter("sidekey_bcrypt_duration_seconds_sum")
    }

    /// How many requests it has forwarded.
    pub fn forwarded(&self) -> Result<f64, String> {
        self.counter("sidekey_requests_total{outcome=\"forwarded\",route=\"orders\"}")
    }

    /// Keeps it busy for the length of a measurement.
    pub fn load(&self, bench: &crate::cases::Bench, key: &str) -> Result<(), String> {
        let (programs, run_for) = (&bench.programs, bench.settings.measure_for);
        wrk::run(
            programs,
            self.proxy,
            PATH,
            &bearer(key),
            LOAD_CONNECTIONS,
            run_for,
        )
        .map(drop)
    }

    /// How many presented keys failed the keyed check.
    pub fn forged_keys(&self) -> Result<f64, String> {
        self.counter("sidekey_forged_keys_total")
    }

    /// How many presented keys were looked up among the imported ones.
    pub fn import_lookups(&self) -> Result<f64, String> {
        self.counter("sidekey_import_lookups_total")
    }

    /// A counter without labels, from the admin port.
    fn counter(&self, name: &str) -> Result<f64, String> {
        let mut connection =
            Connection::open(self.admin).map_err(|error| format!("the admin port: {error}"))?;
        let answer = connection
            .exchange(&get_request("/metrics", ""))
            .map_err(|error| format!("/metrics: {error}"))?;
        String::from_utf8_lossy(answer.body)
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| format!("/metrics has no {name}"))
    }
}

/// A line of a list of existing keys.
fn import_line(key: &str) -> String {
    let line = json!({
        "name": "bench import",
        "tenant_id": "tenant-0",
        "environment": "live",
        "scopes": ["orders:read", "orders:write"],
        "rate_limits": [{"name": "steady", "quota": TOKENS, "window_seconds": 60}],
        "key": key,
    });
    format!("{line}\n")
}

/// A GET with `key` as its bearer.
pub fn request_with(key: &str) -> Vec<u8> {
    get_request(PATH, &format!("Authorization: {}\r\n", bearer(key)))
}

/// `key` as the value of an Authorization header.
pub fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// A `SIDEKEY_...` variable of whoever runs the bench must not configure what is measured.
fn forget_own_settings(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SIDEKEY_") {
            command.env_remove(name);
        }
    }
}

/// The first line on stdout. A thread reads it, since a pipe can't be read with a deadline, and
/// goes on reading so that the gateway never writes into a closed pipe.
fn ready_line(stdout: ChildStdout) -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody waits for the lines after the first.
            let _ = sender.send(line);
        }
    });
    receiver
        .recv_timeout(READY_TIMEOUT)
        .map_err(|_| "did not say that it is ready".to_owned())
}

/// Proxy and admin address of `ready proxy=... admin=...`.
fn addresses(ready: &str) -> Option<(SocketAddr, SocketAddr)> {
    let value_of = |name: &str| {
        ready
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name)?.parse().ok())
    };
    ready.starts_with("ready ").then_some(())?;
    Some((value_of("proxy=")?, value_of("admin=")?))
}

/// Everything on, and no limit that a bench could reach. What isn't said here is the default.
fn config_text(folder: &Path, admin_key_file: &Path, options: &SidekeyOptions) -> String {
    let SidekeyOptions {
        upstream,
        threads,
        bcrypt_cost,
        limits,
        ..
    } = options;
    let store: PathBuf = folder.join("sidekey.db");
    format!(
        r#"[proxy]
listen = ["127.0.0.1:0"]
threads = {threads}

[[upstreams]]
name = "nginx"
servers = ["{upstream}"]

[[scopes]]
name = "orders:read"
description = "Read orders"

[[scopes]]
name = "orders:write"
description = "Create and change orders"

[[routes]]
name = "orders"
path = "/orders"
upstream = "nginx"
scopes = ["orders:read", "orders:write"]

{limits}headers = ["ratelimit", "x-ratelimit"]
failed_auth = {{ name = "failed-auth", quota = {TOKENS}, window_seconds = 60, burst = {TOKENS} }}

[bcrypt]
cost = {bcrypt_cost}

[store]
url = "sqlite://{store}"

[admin]
listen = "127.0.0.1:0"
bootstrap_key_file = "{admin_key_file}"
"#,
        store = store.display(),
        admin_key_file = admin_key_file.display(),
    )
}
