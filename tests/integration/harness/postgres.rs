//! A PostgreSQL server for one test, in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use sidekey::store::SqlStore;
use tempfile::TempDir;

use super::ports::free_port;
use super::{DEADLINE, eventually, send_signal, try_signal};

/// The account that Debian's package makes; the server refuses to run as root.
const ACCOUNT: &str = "postgres";

pub struct Postgres {
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
}

/// Where Debian keeps the server's programs; elsewhere they are on the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter();
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// `name`, run as somebody who may run it.
fn command(name: &str, directory: &Path) -> Command {
    let is_root = Command::new("id").arg("-u").output().expect("id runs");
    let mut command = if is_root.stdout == b"0\n" {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={ACCOUNT}"))
            .arg(format!("--regid={ACCOUNT}"))
            .args(["--clear-groups", "--"])
            .arg(program(name));
        let owned = Command::new("chown")
            .args(["-R", ACCOUNT])
            .arg(directory)
            .status()
            .expect("chown runs");
        assert!(owned.success(), "the directory becomes {ACCOUNT}'s");
        command
    } else {
        Command::new(program(name))
    };
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The processes that `parent` has made.
fn children_of(parent: u32) -> Vec<u32> {
    let found = Command::new("pgrep")
        .args(["-P", &parent.to_string()])
        .output()
        .expect("pgrep runs");
    let ids = String::from_utf8(found.stdout).expect("numbers");
    let ids = ids.split_whitespace();
    ids.filter_map(|id| id.parse().ok()).collect()
}

/// Whether a process is there, and has not ended.
fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

impl Postgres {
    /// A new, empty server.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), &[]).await
    }

    /// A new, empty server in `directory`, with settings (such as `ssl=on`) of its own.
    pub async fn start_in(directory: TempDir, settings: &[&str]) -> Self {
        let made = command("initdb", directory.path())
            .args(["--pgdata=data", "--username=postgres", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .status()
            .expect("initdb runs: run `tools/setup test` (make test does)");
        assert!(made.success(), "initdb made a database");
        let mut postgres = Postgres {
            directory,
            port: free_port(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            server: None,
        };
        postgres.launch().await;
        postgres
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server (again), on the same port and data.
    pub async fn launch(&mut self) {
        let server = command("postgres", self.directory.path())
            .args(["-D", "data", "-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .spawn()
            .expect("postgres runs");
        self.server = Some(server);
        let url = SecretString::from(self.url());
        eventually("PostgreSQL answers", || async {
            match SqlStore::open(&url).await {
                Ok(store) => {
                    store.close().await;
                    true
                }
                Err(_) => false,
            }
        })
        .await;
    }

    /// Sends `signal` (a name such as `STOP`) to the server and all its processes.
    pub fn signal(&self, signal: &str) {
        let parent = self.server.as_ref().expect("running").id();
        // First, so that it makes no more of them meanwhile.
        send_signal(signal, &[parent]);
        // One that has ended since has heard it too.
        try_signal(signal, &children_of(parent));
    }

    /// Ends the server without a warning, and all its processes: as long as one of them is there, no other
    /// server starts on the same data.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let mut all = Vec::new();
        if matches!(server.try_wait(), Ok(None)) {
            // It makes no more of them meanwhile, and none of their numbers is given to others.
            try_signal("STOP", &[server.id()]);
            all = children_of(server.id());
            all.push(server.id());
            try_signal("KILL", &all);
        }
        let _ = server.kill();
        let _ = server.wait();
        let start = Instant::now();
        while start.elapsed() < DEADLINE && all.iter().any(|id| is_running(*id)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        // A fast shutdown; a server that was stopped has to go on for that.
        for signal in ["CONT", "INT"] {
            try_signal(signal, &[server.id()]);
        }
        let start = Instant::now();
        while start.elapsed() < DEADLINE && !matches!(server.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}
