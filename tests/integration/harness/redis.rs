//! A Redis server for one test, in a directory of its own. It keeps what it has acknowledged.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{eventually, send_signal};

pub struct Redis {
    directory: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Redis {
    /// A new, empty server.
    pub async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let mut redis = Redis {
            directory: tempfile::tempdir().expect("a directory"),
            port,
            server: None,
        };
        redis.launch().await;
        redis
    }

    /// Starts the server (again), on the same port and data.
    pub async fn launch(&mut self) {
        let server = Command::new("redis-server")
            .current_dir(self.directory.path())
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
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
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command.
    pub async fn ask(&self, name: &str, arguments: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(name)
            .arg(arguments)
            .query_async(&mut connection)
            .await
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
