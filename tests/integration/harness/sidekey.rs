//! The program under test, started as its users start it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DEADLINE, client_builder, send_signal};

/// The path of the key API.
pub const KEYS: &str = "/api/v1/platform/api-keys";

/// The program, with everything that it wrote.
pub struct Sidekey {
    child: Option<Child>,
    directory: Arc<TempDir>,
    config: String,
    environment: Vec<(String, String)>,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    output: Arc<Mutex<String>>,
    pub client: reqwest::Client,
}

/// A key that was created for a test.
#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub text: String,
}

/// A configuration with one upstream at `server` and one route `/` that needs a key, plus `more`.
/// Scopes `orders:read` and `orders:write` are in the catalogue.
pub fn config(server: SocketAddr, more: &str) -> String {
    format!(
        r#"
[[upstreams]]
name = "service"
servers = ["{server}"]

[[routes]]
name = "all"
path = "/"
upstream = "service"

[[scopes]]
name = "orders:read"
[[scopes]]
name = "orders:write"

{more}
"#
    )
}

impl Sidekey {
    /// Starts with `config` in a new directory, on free ports, with cheap hashes.
    pub async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// Starts with environment variables of its own.
    pub async fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let environment = environment
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Self::launch(directory, config.to_owned(), environment, Arc::default()).await
    }

    /// Starts in a directory that is there already, and adds to `output`.
    pub async fn launch(
        directory: Arc<TempDir>,
        config: String,
        environment: Vec<(String, String)>,
        output: Arc<Mutex<String>>,
    ) -> Self {
        let mut child = command(directory.path(), &config, &environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let ready = collect(child.stdout.take().expect("stdout"), output.clone());
        drop(collect(
            child.stderr.take().expect("stderr"),
            output.clone(),
        ));
        let line = ready.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!(
                "the program did not get ready:\n{}",
                output.lock().expect("output")
            );
        });
        sidekey::tls::use_ring();
        let address = |name: &str| -> SocketAddr {
            let part = line
                .split_whitespace()
                .find_map(|part| part.strip_prefix(name));
            part.and_then(|text| text.split(',').next()?.parse().ok())
                .expect("an address in the ready line")
        };
        Sidekey {
            proxy: address("proxy="),
            admin: address("admin="),
            child: Some(child),
            directory,
            config,
            environment,
            output,
            client: client_builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client"),
        }
    }

    /// The directory with the configuration, the store and the bootstrap key.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Everything that the program has written to stdout and stderr so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("output").clone()
    }

    /// The first admin key.
    pub fn admin_key(&self) -> String {
        let file = self.directory().join("data/admin.key");
        std::fs::read_to_string(file)
            .expect("the bootstrap key")
            .trim()
            .to_owned()
    }

    /// A request to the proxy, without a key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.proxy))
    }

    /// GET through the proxy with `key`.
    pub async fn get(&self, path: &str, key: &str) -> Response {
        self.request(Method::GET, path)
            .bearer_auth(key)
            .send()
            .await
            .expect("an answer")
    }

    /// The status of GET through the proxy with `key`.
    pub async fn status(&self, path: &str, key: &str) -> u16 {
        self.get(path, key).await.status().as_u16()
    }

    /// A request to the admin port with the bootstrap key.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.admin_as(&self.admin_key(), method, path)
    }

    /// A request to the admin port with `key`.
    pub fn admin_as(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.admin))
            .bearer_auth(key)
    }

    /// Creates a key; `fields` lie over sound defaults (tenant `acme`, scope `orders:*`).
    pub async fn create_key(&self, fields: Value) -> Key {
        let mut body = json!({
            "name": "a test's key", "tenant_id": "acme", "environment": "live", "scopes": ["orders:*"],
        });
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = self
            .admin(Method::POST, KEYS)
            .json(&body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(status, 201, "{answer}");
        Key {
            id: answer["api_key"]["id"].as_str().expect("an id").to_owned(),
            text: answer["key"].as_str().expect("a key").to_owned(),
        }
    }

    /// PATCHes a key and expects success.
    pub async fn change_key(&self, id: &str, fields: Value) -> Value {
        let answer = self
            .admin(Method::PATCH, &format!("{KEYS}/{id}"))
            .json(&fields)
            .send()
            .await;
        let answer = answer.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Revokes a key and expects success.
    pub async fn revoke_key(&self, id: &str) {
        let answer = self
            .admin(Method::DELETE, &format!("{KEYS}/{id}"))
            .send()
            .await;
        assert_eq!(answer.expect("an answer").status(), 204);
    }

    /// Regenerates a key; the new one.
    pub async fn regenerate_key(&self, id: &str, grace_period_seconds: u64) -> Key {
        let answer = self
            .admin(Method::POST, &format!("{KEYS}/{id}/regenerate"))
            .json(&json!({"grace_period_seconds": grace_period_seconds}))
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(status, 200, "{body}");
        Key {
            id: id.to_owned(),
            text: body["key"].as_str().expect("a key").to_owned(),
        }
    }

    /// The text of /metrics.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.admin);
        self.client
            .get(url)
            .send()
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text")
    }

    /// The value of one series of /metrics, 0 where it isn't there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Sends `signal` (a name such as `TERM`) to the process.
    pub fn signal(&self, signal: &str) {
        send_signal(signal, &[self.pid()]);
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("running");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a status") {
                self.child = None;
                return status;
            }
            if start.elapsed() > DEADLINE {
                let _ = child.kill();
                panic!("the program did not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the process without a warning (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Another configuration from the next start on.
    pub fn reconfigure(&mut self, config: String) {
        self.config = config;
    }

    /// The program again, in the same directory, on new ports. The old process must have ended.
    pub async fn restart(mut self) -> Self {
        self.kill();
        let (directory, output) = (self.directory.clone(), self.output.clone());
        Self::launch(
            directory,
            self.config.clone(),
            self.environment.clone(),
            output,
        )
        .await
    }
}

impl Drop for Sidekey {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- the program wrote:\n{}", self.output());
        }
    }
}

/// The binary under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sidekey"))
}

/// `sidekey serve` in `directory`.
pub fn command(directory: &Path, config: &str, environment: &[(String, String)]) -> Command {
    let file = directory.join("sidekey.toml");
    std::fs::write(&file, config).expect("the configuration is written");
    let mut command = Command::new(program());
    command
        .current_dir(directory)
        .args(["serve", "--config"])
        .arg(&file)
        .env("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0")
        .env("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0")
        .env("SIDEKEY__BCRYPT__COST", "4")
        .envs(environment.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    command
}

/// Collects what comes out of `stream`; its first `ready` line arrives in the channel.
fn collect(
    stream: impl Read + Send + 'static,
    output: Arc<Mutex<String>>,
) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            {
                let mut output = output.lock().expect("output");
                output.push_str(&line);
                output.push('\n');
            }
            if line.starts_with("ready ") {
                let _ = sender.send(line);
            }
        }
    });
    receiver
}
