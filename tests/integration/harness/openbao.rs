//! An OpenBao server for one test, in a directory of its own. It can be sealed, and a durable one keeps
//! its data over a restart.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use sidekey::config::settings::{SecretSource, VaultAuth, VaultSettings};
use tempfile::TempDir;

use super::ports::free_port;
use super::{DEADLINE, client_builder, eventually, send_signal, try_signal};

/// The role that tests log in with.
const ROLE: &str = "sidekey";
/// Lines of its log that a failed test shows.
const LOG_LINES_SHOWN: usize = 20;

pub struct OpenBao {
    directory: TempDir,
    port: u16,
    server: Option<Child>,
    client: reqwest::Client,
    root: String,
    unseal: String,
    kind: Kind,
}

/// What is special about a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
    Durable,
}

/// What a program logs in with.
#[derive(Debug, Clone)]
pub struct AppRole {
    pub role_id: String,
    pub secret_id: String,
}

impl AppRole {
    /// The lines of a configuration.
    pub fn lines(&self) -> String {
        format!(
            "auth = \"approle\"\nrole_id = \"{}\"\nsecret_id = \"{}\"\n",
            self.role_id, self.secret_id
        )
    }
}

fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv/bin/bao");
    assert!(
        path.is_file(),
        "OpenBao is not installed: run `tools/setup test` (make test does)"
    );
    path
}

impl OpenBao {
    /// A new server, unsealed, with a KV v2 engine at `secret`.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), Kind::Plain).await
    }

    /// The same; what it has acknowledged is there after a restart.
    pub async fn start_durable() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), Kind::Durable).await
    }

    /// The same behind TLS, with `leaf.pem` and `leaf.key` of `directory`.
    pub async fn start_tls(directory: TempDir) -> Self {
        Self::start_in(directory, Kind::Tls).await
    }

    async fn start_in(directory: TempDir, kind: Kind) -> Self {
        let port = free_port();
        let mut client = client_builder();
        if kind == Kind::Tls {
            // The test of TLS is Sidekey's; the harness talks to its own server.
            client = client.tls_danger_accept_invalid_certs(true);
        }
        let mut bao = OpenBao {
            directory,
            port,
            server: None,
            client: client.build().expect("a client"),
            root: String::new(),
            unseal: String::new(),
            kind,
        };
        bao.launch().await;
        let shares = json!({"secret_shares": 1, "secret_threshold": 1});
        let made = bao.ask(Method::PUT, "sys/init", Some(&shares)).await.1;
        bao.root = made["root_token"].as_str().expect("a token").to_owned();
        bao.unseal = made["keys"][0].as_str().expect("a key").to_owned();
        bao.unseal().await;
        bao.mount("secret", None).await;
        bao
    }

    /// Starts the server (again), sealed, on the same port and data.
    pub async fn launch(&mut self) {
        let directory = self.directory.path();
        let tls = if self.kind == Kind::Tls {
            "tls_cert_file = \"leaf.pem\"\n  tls_key_file = \"leaf.key\""
        } else {
            "tls_disable = true"
        };
        let cluster = format!("127.0.0.1:{}", free_port());
        let storage = if self.kind == Kind::Durable {
            std::fs::create_dir_all(directory.join("data")).expect("a directory");
            format!(
                "storage \"raft\" {{\n  path = \"data\"\n  node_id = \"one\"\n  performance_multiplier = 1\n}}\ncluster_addr = \"https://{cluster}\""
            )
        } else {
            "storage \"inmem\" {}".to_owned()
        };
        let config = format!(
            "{storage}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:{}\"\n  cluster_address = \"{cluster}\"\n  {tls}\n}}\napi_addr = \"{}\"\n",
            self.port,
            self.url()
        );
        std::fs::write(directory.join("bao.hcl"), config).expect("a file");
        let log = std::fs::File::create(directory.join("bao.log")).expect("a file");
        let server = Command::new(program())
            .args(["server", "-config", "bao.hcl"])
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("bao runs");
        self.server = Some(server);
        eventually("OpenBao answers", || async {
            let url = format!("{}/v1/sys/seal-status", self.url());
            self.client.get(url).send().await.is_ok()
        })
        .await;
    }

    /// Its address.
    pub fn url(&self) -> String {
        if self.kind == Kind::Tls {
            format!("https://localhost:{}", self.port)
        } else {
            format!("http://127.0.0.1:{}", self.port)
        }
    }

    /// What its own client needs to administrate it, and where that client is.
    pub fn client_environment(&self) -> [(&'static str, String); 4] {
        let folder = program().parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        [
            ("BAO_ADDR", self.url()),
            ("BAO_TOKEN", self.root.clone()),
            ("HOME", self.directory.path().display().to_string()),
            ("PATH", format!("{folder}:{path}")),
        ]
    }

    /// A part of Sidekey's configuration that uses this server, with `lines` for its login. Calls may take as
    /// long as they may at most, unless a line says otherwise.
    pub fn config(&self, lines: &str) -> String {
        let timeout = if lines.contains("timeout_ms") {
            ""
        } else {
            "timeout_ms = 5000\n"
        };
        format!(
            "[secrets]\nbackend = \"vault\"\n[secrets.vault]\naddress = \"{}\"\n{timeout}{lines}\n",
            self.url()
        )
    }

    /// Settings for a store in this process, with everything allowed.
    pub fn settings(&self) -> VaultSettings {
        VaultSettings {
            address: self.url(),
            mount: "secret".to_owned(),
            auth: VaultAuth::Token(SecretSource::Text(self.root.as_str().into())),
            auth_mount: "token".to_owned(),
            namespace: None,
            ca_file: None,
            timeout: DEADLINE,
        }
    }

    /// A call with the root token: its status, and its body or null.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.ask_in(None, method, path, body).await
    }

    /// A call in a namespace.
    pub async fn ask_in(
        &self,
        namespace: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let mut request = self
            .client
            .request(method, format!("{}/v1/{path}", self.url()))
            .header("X-Vault-Token", &self.root);
        if let Some(namespace) = namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A call that has to succeed.
    pub async fn must(&self, namespace: Option<&str>, path: &str, body: Value) -> Value {
        let (status, answer) = self
            .ask_in(namespace, Method::POST, path, Some(&body))
            .await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// A KV v2 engine.
    pub async fn mount(&self, name: &str, namespace: Option<&str>) {
        let kind = json!({"type": "kv", "options": {"version": "2"}});
        self.must(namespace, &format!("sys/mounts/{name}"), kind)
            .await;
        let config = format!("{name}/config");
        eventually("the engine is ready", || async {
            self.ask_in(namespace, Method::GET, &config, None).await.0 == 200
        })
        .await;
    }

    /// The policy `sidekey`: what `config/vault-policy.hcl` says, to the letter.
    pub async fn policy(&self, namespace: Option<&str>) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/vault-policy.hcl");
        let text = std::fs::read_to_string(file).expect("the policy");
        self.policy_of(&text, namespace).await;
    }

    /// The policy `sidekey` with another text.
    pub async fn policy_of(&self, text: &str, namespace: Option<&str>) {
        let body = json!({"policy": text});
        self.must(namespace, "sys/policies/acl/sidekey", body).await;
    }

    /// An AppRole with the policy and nothing else; `fields` say how long its tokens last.
    pub async fn app_role(&self, fields: Value, namespace: Option<&str>) -> AppRole {
        self.policy(namespace).await;
        let kind = json!({"type": "approle"});
        self.must(namespace, "sys/auth/approle", kind).await;
        let mut role = json!({"token_policies": ["sidekey"], "token_no_default_policy": true});
        for (name, value) in fields.as_object().expect("an object") {
            role[name] = value.clone();
        }
        let path = format!("auth/approle/role/{ROLE}");
        self.must(namespace, &path, role).await;
        let (_, id) = self
            .ask_in(namespace, Method::GET, &format!("{path}/role-id"), None)
            .await;
        AppRole {
            role_id: id["data"]["role_id"].as_str().expect("an id").to_owned(),
            secret_id: self.secret_id(namespace).await,
        }
    }

    /// Another secret id of the AppRole.
    pub async fn secret_id(&self, namespace: Option<&str>) -> String {
        let path = format!("auth/approle/role/{ROLE}/secret-id");
        let made = self.must(namespace, &path, json!({})).await;
        made["data"]["secret_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// A token with the policy and nothing else.
    pub async fn token(&self, fields: Value) -> String {
        self.policy(None).await;
        let mut body = json!({"policies": ["sidekey"], "no_default_policy": true});
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let made = self.must(None, "auth/token/create", body).await;
        let token = &made["auth"]["client_token"];
        token.as_str().expect("a token").to_owned()
    }

    /// The value at `path` of the engine `secret`, null where there is none.
    pub async fn value(&self, path: &str) -> Value {
        let (_, answer) = self
            .ask(Method::GET, &format!("secret/data/{path}"), None)
            .await;
        answer["data"]["data"].clone()
    }

    /// Writes a value by hand.
    pub async fn put(&self, path: &str, value: Value) {
        let body = json!({"data": value});
        self.must(None, &format!("secret/data/{path}"), body).await;
    }

    /// What lies in a folder of the engine `secret`.
    pub async fn list(&self, folder: &str) -> Vec<String> {
        let method = Method::from_bytes(b"LIST").expect("a method");
        let path = format!("secret/metadata/{folder}");
        let (_, answer) = self.ask(method, &path, None).await;
        let names = answer["data"]["keys"].as_array().cloned();
        let names = names.unwrap_or_default().into_iter();
        names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    }

    pub async fn seal(&self) {
        let (status, _) = self.ask(Method::PUT, "sys/seal", None).await;
        assert_eq!(status, 204);
    }

    pub async fn unseal(&self) {
        let key = json!({"key": self.unseal});
        let (_, answer) = self.ask(Method::PUT, "sys/unseal", Some(&key)).await;
        assert_eq!(answer["sealed"], false, "{answer}");
        // It answers 503 for a moment more.
        eventually("OpenBao is unsealed", || async {
            let health = self.ask(Method::GET, "sys/health", None).await;
            health.0 == 200
        })
        .await;
    }

    /// Sends `signal` (a name such as `STOP`) to the server.
    pub fn signal(&self, signal: &str) {
        send_signal(signal, &[self.server.as_ref().expect("running").id()]);
    }

    /// Ends the server without a warning.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            try_signal("CONT", &[server.id()]);
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("bao.log"));
            let log = log.unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
            eprintln!("---- OpenBao wrote at last:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
