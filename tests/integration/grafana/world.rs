//! Two instances on PostgreSQL, Redis and OpenBao, a third one by itself in shadow mode, services behind
//! them that answer, fail and keep silent, and a Prometheus that scrapes all three.

use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::actors::Keys;
use super::prometheus::Prometheus;
use crate::harness::openbao::OpenBao;
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::run::run_command;
use crate::harness::sidekey::{Key, Sidekey};
use crate::harness::upstream::{Scripted, Upstream, nobody};
use crate::tls::make_certificates;

pub struct World {
    pub prometheus: Prometheus,
    pub keys: Arc<Keys>,
    pub one: Arc<Sidekey>,
    pub two: Arc<Sidekey>,
    /// Refuses nobody, keeps everything in its own files.
    pub shadow: Arc<Sidekey>,
    pub postgres: Postgres,
    pub redis: Redis,
    pub bao: OpenBao,
    _upstream: Upstream,
    _silent: Scripted,
    _directory: TempDir,
}

/// Limits so small that a few requests meet them; everything that is done now and then is done often.
const SETTINGS: &str = r#"
[proxy]
trusted_proxies = ["127.0.0.0/8"]
[limits]
default = []
failed_auth = { name = "failed-auth", quota = 1, window_seconds = 60, burst = 5 }
[admin]
trusted_proxies = ["127.0.0.0/8"]
[dashboard]
sign_in = { name = "sign-in", quota = 1, window_seconds = 60, burst = 3 }
[usage]
flush_interval_seconds = 1
# Nobody listens there: spans are lost, and that is counted.
[tracing]
otlp_endpoint = "http://127.0.0.1:9"
sample_ratio = 1.0
[log]
access = "all"
sample = { default = 0.5 }
[reminders]
interval_seconds = 1
[[scopes]]
name = "orders:read"
[[scopes]]
name = "orders:write"
"#;

const ROUTES: &str = r#"
[[routes]]
name = "orders-read"
path = "/orders"
methods = ["GET"]
upstream = "service"
scopes = ["orders:read"]
[[routes]]
name = "orders-write"
path = "/orders"
methods = ["POST"]
upstream = "service"
scopes = ["orders:write"]
max_body_bytes = 64
[[routes]]
name = "public"
path = "/public"
upstream = "service"
auth = "optional"
[[routes]]
name = "dead"
path = "/dead"
upstream = "dead"
auth = "off"
[[routes]]
name = "silent"
path = "/silent"
upstream = "silent"
auth = "off"
"#;

impl World {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let certificates = tempfile::tempdir().expect("a directory");
        make_certificates(certificates.path());
        let authority = directory.path().join("ca.pem");
        std::fs::copy(certificates.path().join("ca.pem"), &authority).expect("a copy");
        let (upstream, silent, postgres, redis, bao) = tokio::join!(
            Upstream::start(),
            Scripted::start(),
            Postgres::start(),
            Redis::start(),
            OpenBao::start_tls(certificates)
        );
        let role = bao.app_role(json!({"token_ttl": "1h"}), None).await;
        let ca_file = format!("ca_file = \"{}\"\n", authority.display());
        let vault = bao.config(&format!("{}{ca_file}", role.lines()));
        let vault = vault.replace("backend", "reconcile_interval_seconds = 1\nbackend");
        let upstreams: String = [
            ("service", upstream.address),
            ("dead", nobody()),
            ("silent", silent.address),
        ]
        .iter()
        .map(|(name, server)| {
            format!(
                "[[upstreams]]\nname = \"{name}\"\nservers = [\"{server}\"]\nread_timeout_seconds = 1\n"
            )
        })
        .collect();
        let alone = format!("{SETTINGS}\n{upstreams}\n{ROUTES}");
        let shared = format!("{alone}\n{vault}");

        let key_file = directory.path().join("admin.key").display().to_string();
        let (store, redis_url) = (postgres.url(), redis.url());
        let start = async |name: &str| {
            let environment = [
                ("SIDEKEY__STORE__URL", &*store),
                ("SIDEKEY__STORE__INSTANCE_NAME", name),
                ("SIDEKEY__LIMITS__BACKEND", "redis"),
                ("SIDEKEY__REDIS__URL", &*redis_url),
                ("SIDEKEY__REDIS__TIMEOUT_MS", "5000"),
                ("SIDEKEY__ADMIN__BOOTSTRAP_KEY_FILE", &*key_file),
            ];
            let sidekey = Sidekey::start_with(&shared, &environment).await;
            // Where the harness looks for it.
            std::fs::create_dir_all(sidekey.directory().join("data")).expect("a directory");
            std::fs::copy(&key_file, sidekey.directory().join("data/admin.key")).expect("a copy");
            Arc::new(sidekey)
        };
        let one = start("one").await;
        let keys = Arc::new(Keys::create(&one).await);
        age(&postgres, &keys.overdue);
        // What is due is counted when an instance starts, and rarely afterwards.
        let two = start("two").await;
        let shadow = [("SIDEKEY__PROXY__MODE", "shadow")];
        let shadow = Arc::new(Sidekey::start_with(&alone, &shadow).await);
        let prometheus = Prometheus::start(&[one.admin, two.admin, shadow.admin]).await;
        World {
            prometheus,
            keys,
            one,
            two,
            shadow,
            postgres,
            redis,
            bao,
            _upstream: upstream,
            _silent: silent,
            _directory: directory,
        }
    }
}

/// Makes the key's secret two days older: its rotation, due after one, is overdue.
pub fn age(postgres: &Postgres, key: &Key) {
    let older = format!(
        "UPDATE api_keys SET secret_created_at = secret_created_at - 172800000 WHERE id = '{}'",
        key.id
    );
    let mut psql = Command::new("psql");
    psql.args(["-v", "ON_ERROR_STOP=1", "-d", &postgres.url(), "-c", &older]);
    let ended = run_command(psql);
    assert_eq!(ended.stdout.trim(), "UPDATE 1", "{ended:?}");
}
