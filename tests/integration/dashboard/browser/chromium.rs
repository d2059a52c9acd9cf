//! Chromium and its WebDriver server: a pair of their own for each test, in a directory of their own,
//! ended with it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use thirtyfour::{ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver};
use tokio::sync::SemaphorePermit;

use crate::harness::ports::free_port;
use crate::harness::service::Service;
use crate::harness::{DEADLINE, HEAVY, client_builder};

/// How large the window is, in CSS pixels.
const WINDOW: &str = "--window-size=1280,900";

/// A browser that does nothing of its own accord: it asks no host but those that a test visits.
const ARGUMENTS: &[&str] = &[
    "--headless=new",
    // Tests may run as root and in containers, where there is neither a sandbox nor much shared memory.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    // It ends when its driver is gone, for whatever reason: nobody is at the pipe's other end.
    "--remote-debugging-pipe",
    WINDOW,
];

/// Both processes, for as long as this is there.
pub struct Chromium {
    pub driver: WebDriver,
    server: Option<Service>,
    directory: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Chromium {
    pub async fn start() -> Self {
        let turn = HEAVY.acquire().await.expect("a turn");
        let directory = tempfile::tempdir().expect("a directory");
        let server = chromedriver(directory.path());
        // The driver's client is made like ours.
        drop(client_builder());
        let url = format!("http://{}", server.address);
        let driver = WebDriver::new(url, capabilities(directory.path()))
            .await
            .expect("a browser");
        let limited = driver.set_script_timeout(DEADLINE).await;
        limited.expect("scripts may take their time");
        let chromium = Chromium {
            driver,
            server: Some(server),
            directory,
            _turn: turn,
        };
        std::fs::create_dir(chromium.downloads()).expect("a directory");
        chromium.allow().await;
        chromium
    }

    /// Where files are saved.
    pub fn downloads(&self) -> std::path::PathBuf {
        self.directory.path().join("downloads")
    }

    /// What a person would be asked for.
    async fn allow(&self) {
        let saved = json!({"behavior": "allow", "downloadPath": self.downloads()});
        self.tell("Browser.setDownloadBehavior", saved).await;
        let clipboard = ["clipboardReadWrite", "clipboardSanitizedWrite"];
        let granted = json!({"permissions": clipboard});
        self.tell("Browser.grantPermissions", granted).await;
    }

    /// Sends a command of the DevTools protocol.
    pub async fn tell(&self, command: &str, parameters: serde_json::Value) -> serde_json::Value {
        let answer = self.driver.cdp().send_raw(command, &parameters).await;
        answer.unwrap_or_else(|error| panic!("{command} {parameters}: {error}"))
    }
}

impl Drop for Chromium {
    /// Ends both processes: the browser ends with its driver. Waits until it has let go of its files.
    fn drop(&mut self) {
        let _ = self.driver.clone().leak();
        self.server = None;
        let directory = self.directory.path().display().to_string();
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            let found = Command::new("pgrep").args(["-f", &directory]).output();
            if found.is_ok_and(|found| found.stdout.is_empty()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("Chromium goes on in {directory}");
    }
}

fn chromedriver(directory: &Path) -> Service {
    // It says on stdout what other servers say on stderr; and it ends with the test, even a killed one.
    // Its own choice is free for one family of addresses, and it wants both.
    let port = free_port();
    let line = format!("exec setpriv --pdeathsig KILL chromedriver --port={port} >&2");
    let mut command = Command::new("sh");
    command.args(["-c", &*line]).env("LANG", "C.UTF-8");
    for name in ["TMPDIR", "HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env(name, directory);
    }
    Service::start("chromedriver", command, |line| {
        let port = line.split_once("started successfully on port ")?.1;
        let port: u16 = port.trim_end_matches('.').parse().ok()?;
        Some(([127, 0, 0, 1], port).into())
    })
}

fn capabilities(directory: &Path) -> thirtyfour::Capabilities {
    let mut wanted = DesiredCapabilities::chrome();
    let profile = format!("--user-data-dir={}", directory.join("profile").display());
    for argument in ARGUMENTS.iter().copied().chain([&*profile]) {
        wanted.add_arg(argument).expect("an argument");
    }
    // What the page says to its developers, all of it.
    wanted
        .set_browser_log_level(LoggingPrefsLogLevel::All)
        .expect("a level");
    let mut wanted: thirtyfour::Capabilities = wanted.into();
    // A question of the browser that no test expects has to fail it.
    wanted
        .set("unhandledPromptBehavior", "ignore")
        .expect("a capability");
    wanted
}
