//! Real servers that nobody here wrote, started for one test and ended with it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use super::DEADLINE;

/// A server's process.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
    name: &'static str,
    log: Arc<Mutex<String>>,
}

/// What `tools/setup test` installs in the project's own folder.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv/bin");
    let path = path.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `tools/setup test` (make test does)",
        path.display()
    );
    path
}

/// The address in the line with which Prometheus and its kin say that they listen.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let rest = line.split_once("msg=\"Listening on\"")?.1;
    let address = rest.split_once("address=")?.1;
    address.split_whitespace().next()?.parse().ok()
}

impl Service {
    /// Starts `command` and reads its address from its log: what `find` makes of a line.
    pub fn start(
        name: &'static str,
        mut command: Command,
        find: fn(&str) -> Option<SocketAddr>,
    ) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} does not start ({error}): run `tools/setup test` (make test does)")
            });
        let stream = child.stderr.take().expect("stderr");
        let log: Arc<Mutex<String>> = Arc::default();
        let (found, address) = mpsc::channel();
        let written = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                {
                    let mut log = written.lock().expect("the log");
                    log.push_str(&line);
                    log.push('\n');
                }
                if let Some(address) = find(&line) {
                    let _ = found.send(address);
                }
            }
        });
        let Ok(address) = address.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "{name} did not say where it listens:\n{}",
                log.lock().expect("the log")
            );
        };
        Service {
            child,
            address,
            name,
            log,
        }
    }

    /// Prometheus in `directory`, with its configuration there.
    pub fn prometheus(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).expect("the configuration is written");
        let mut command = Command::new("prometheus");
        command
            .current_dir(directory)
            .arg("--web.listen-address=127.0.0.1:0")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("tsdb").display()
            ));
        Service::start("prometheus", command, listening_on)
    }

    /// Alertmanager in `directory`, with its configuration there, and no others of its kind.
    pub fn alertmanager(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("alertmanager.yml");
        std::fs::write(&file, configuration).expect("the configuration is written");
        let mut command = Command::new("prometheus-alertmanager");
        command
            .current_dir(directory)
            .args([
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ])
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.path={}",
                directory.join("alertmanager").display()
            ));
        Service::start("prometheus-alertmanager", command, listening_on)
    }

    /// httpbin, run by gunicorn.
    pub fn httpbin() -> Self {
        let mut command = Command::new(tool("gunicorn"));
        command.args([
            "--bind",
            "127.0.0.1:0",
            "--worker-class",
            "gthread",
            "--threads",
            "16",
            "--keep-alive",
            "75",
            "--no-control-socket",
            "httpbin:app",
        ]);
        Service::start("httpbin", command, |line| {
            let rest = line.split_once("Listening at: http://")?.1;
            rest.split_whitespace().next()?.parse().ok()
        })
    }
}

impl Drop for Service {
    /// Asks the process to end: gunicorn takes its workers with it only then.
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let start = std::time::Instant::now();
        while start.elapsed() < DEADLINE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().map(|log| log.clone());
            eprintln!("---- {} wrote:\n{}", self.name, log.unwrap_or_default());
        }
    }
}
