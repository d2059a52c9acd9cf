//! What the containers of `deploy/compose.yaml` do, without containers: the secrets are made by the script
//! that makes them, OpenBao, PostgreSQL and Redis are set up by the files that set them up, and Sidekey
//! runs with its configuration. Only places and ports are others.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::{document, path, succeed, text, texts};
use crate::harness::ports::free_port;
use crate::harness::postgres::Postgres;
use crate::harness::run::{Ended, run_command, run_command_within, run_health};
use crate::harness::service::tool;
use crate::harness::sidekey::Sidekey;
use crate::harness::upstream::Upstream;
use crate::harness::{HEAVY, eventually};

/// How long the job that sets OpenBao up may take: it runs OpenBao's client a dozen times.
const INIT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command`, and waits until it takes connections.
async fn serve(mut command: Command, port: u16) -> Server {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server runs: run `tools/setup test` (make test does)");
    let server = Server(child);
    eventually("the server listens", || async {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    server
}

/// Secrets and data of the stack.
struct Stack {
    directory: TempDir,
    bao_port: u16,
    redis_port: u16,
}

impl Stack {
    fn new() -> Self {
        let stack = Stack {
            directory: tempfile::tempdir().unwrap(),
            bao_port: free_port(),
            redis_port: free_port(),
        };
        for name in ["bao", "state", "login"] {
            std::fs::create_dir(stack.file(name)).unwrap();
        }
        succeed(stack.make_secrets());
        stack
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    fn secret(&self, name: &str) -> String {
        std::fs::read_to_string(self.file("secrets").join(name)).unwrap()
    }

    fn make_secrets(&self) -> Ended {
        let mut script = Command::new(path("deploy/secrets.sh"));
        script.arg(self.file("secrets"));
        run_command(script)
    }

    fn bao_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.bao_port)
    }

    async fn openbao(&self) -> Server {
        let config = text("deploy/openbao/openbao.hcl")
            .replace("/openbao/file", &self.shown("bao"))
            .replace("/run/secrets", &self.shown("secrets"))
            .replace("https://openbao:8200", &self.bao_url())
            .replace("0.0.0.0:8200", &format!("127.0.0.1:{}", self.bao_port))
            .replace("127.0.0.1:8201", &format!("127.0.0.1:{}", free_port()));
        std::fs::write(self.file("bao.hcl"), config).unwrap();
        let mut command = Command::new(tool("bao"));
        command
            .args(["server", "-config"])
            .arg(self.file("bao.hcl"))
            .env("HOME", self.directory.path());
        serve(command, self.bao_port).await
    }

    /// The job that sets OpenBao up.
    fn init(&self, attempts: &str) -> Ended {
        let folder = tool("bao").parent().unwrap().display().to_string();
        let search = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .arg(path("deploy/openbao/init.sh"))
            .env("PATH", format!("{folder}:{search}"))
            .env("HOME", self.directory.path())
            .env("BAO_ADDR", self.bao_url())
            .env("BAO_CACERT", self.file("secrets/openbao-ca.pem"))
            .env("STATE", self.file("state"))
            .env("LOGIN", self.file("login"))
            .env("POLICY", path("config/vault-policy.hcl"))
            .env("ATTEMPTS_MAX", attempts);
        run_command_within(command, INIT_TIMEOUT)
    }

    /// Redis with the command of its container.
    async fn redis(&self) -> Server {
        let compose = document("deploy/compose.yaml");
        let words = texts(&compose["services"]["redis"]["command"]);
        let mut command = Command::new(&words[0]);
        let secrets = self.shown("secrets");
        command
            .args(
                words[1..]
                    .iter()
                    .map(|word| word.replace("/run/secrets", &secrets)),
            )
            .args([
                "--port",
                &self.redis_port.to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .current_dir(self.directory.path());
        serve(command, self.redis_port).await
    }

    /// The script that PostgreSQL's image runs once.
    fn database(&self, postgres: &Postgres) {
        let mut command = Command::new(path("deploy/postgres.sh"));
        command
            .env("POSTGRES_USER", "postgres")
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", postgres.port().to_string())
            .env(
                "DATABASE_PASSWORD_FILE",
                self.file("secrets/database-password"),
            );
        succeed(run_command(command));
    }

    /// Sidekey's own configuration, with this machine's places.
    async fn sidekey(&self, postgres: &Postgres, upstream: &Upstream) -> Sidekey {
        let here = |name: &str, from: &str, to: String| {
            let url = self.secret(name).replace(from, &to);
            std::fs::write(self.file(name), url).unwrap();
            self.shown(name)
        };
        let database = format!("@127.0.0.1:{}/", postgres.port());
        let redis = format!("@127.0.0.1:{}", self.redis_port);
        let environment = [
            (
                "SIDEKEY__STORE__URL_FILE",
                here("database-url", "@postgres/", database),
            ),
            (
                "SIDEKEY__REDIS__URL_FILE",
                here("redis-url", "@redis:6379", redis),
            ),
            ("SIDEKEY__SECRETS__VAULT__ADDRESS", self.bao_url()),
            // On a busy machine OpenBao may take its time.
            ("SIDEKEY__SECRETS__VAULT__TIMEOUT_MS", "5000".to_owned()),
            (
                "SIDEKEY__SECRETS__VAULT__SECRET_ID_FILE",
                self.shown("login/secret-id"),
            ),
            (
                "SIDEKEY__SECRETS__VAULT__CA_FILE",
                self.shown("secrets/openbao-ca.pem"),
            ),
            (
                "SIDEKEY__UPSTREAMS__0__SERVERS",
                format!("[\"{}\"]", upstream.address),
            ),
        ];
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Sidekey::start_with(&text("deploy/sidekey.toml"), &environment).await
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn secrets_are_made_once_and_are_what_compose_asks_for() {
    use std::os::unix::fs::PermissionsExt;

    let stack = Stack::new();
    let made = files(&stack.file("secrets"));
    let folder = std::fs::metadata(stack.file("secrets")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let compose = document("deploy/compose.yaml");
    for (name, secret) in compose["secrets"].as_object().unwrap() {
        assert_eq!(secret["file"], format!("./secrets/{name}"));
        assert!(
            made.iter().any(|(made, _)| made == name),
            "{name} is not made"
        );
    }
    let password = stack.secret("redis-password");
    let users = stack.secret("redis-users");
    assert!(!users.contains(password.trim()), "Redis gets a hash");
    let again = succeed(stack.make_secrets());
    assert_eq!((&*again.stdout, &*again.stderr), ("", ""));
    assert_eq!(files(&stack.file("secrets")), made);
    let other = Stack::new();
    assert_ne!(other.secret("redis-password"), password);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_stack_serves_and_comes_back_after_a_restart() {
    let _turn = HEAVY.acquire().await.expect("a turn");
    let stack = Stack::new();
    let (postgres, upstream) = tokio::join!(Postgres::start(), Upstream::start());
    stack.database(&postgres);
    let bao = stack.openbao().await;
    let redis = stack.redis().await;
    succeed(stack.init("240"));
    let state = std::fs::read_to_string(stack.file("state/init.txt")).unwrap();
    assert!(state.contains("Recovery Key 1:"), "{state}");
    assert!(
        !state.contains("Root Token"),
        "revoked and forgotten: {state}"
    );

    // The health check of Redis: a server is there, and lets nobody in.
    let compose = document("deploy/compose.yaml");
    let check = texts(&compose["services"]["redis"]["healthcheck"]["test"]).remove(1);
    let port = format!("redis-cli -p {}", stack.redis_port);
    let mut shell = Command::new("sh");
    shell.args(["-c", &check.replace("redis-cli", &port)]);
    succeed(run_command(shell));

    let sidekey = stack.sidekey(&postgres, &upstream).await;
    let ready = run_health(
        sidekey.directory(),
        &["--ready", "--address", &sidekey.admin.to_string()],
        &[],
    );
    assert_eq!(ready.code, Some(0), "{ready:?}");
    let key = sidekey.create_key(json!({"scopes": ["orders:read"]})).await;
    assert_eq!(sidekey.status("/", &key.text).await, 200);
    let denied = sidekey
        .request(Method::POST, "/")
        .bearer_auth(&key.text)
        .send()
        .await;
    assert_eq!(denied.unwrap().status(), 403);
    assert_eq!(sidekey.metric("sidekey_redis_up").await, 1.0);
    assert_eq!(sidekey.metric("sidekey_vault_up").await, 1.0);

    // OpenBao starts again: it unseals itself, and the job finds everything done.
    let secret_id = std::fs::read(stack.file("login/secret-id")).unwrap();
    drop(bao);
    let _bao = stack.openbao().await;
    let again = succeed(stack.init("240"));
    assert!(!again.stderr.contains("initialising"), "{again:?}");
    assert_eq!(
        std::fs::read(stack.file("login/secret-id")).unwrap(),
        secret_id
    );
    eventually("new keys are verified", || async {
        let made = sidekey
            .admin(Method::POST, crate::harness::sidekey::KEYS)
            .json(&json!({"name": "n", "tenant_id": "acme", "environment": "live", "scopes": ["orders:read"]}))
            .send()
            .await;
        made.is_ok_and(|answer| answer.status() == 201)
    })
    .await;
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_openbao_the_job_says_so_and_ends() {
    let stack = Stack::new();
    let ended = stack.init("2");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("OpenBao is not there"), "{ended:?}");
}
