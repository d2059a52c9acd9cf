//! A Redis server of the run's own, on the CPUs that are not the proxy's, and what it counts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Programs, Running, start_on_free_port};

/// A server that keeps nothing on disk.
pub struct Redis {
    _running: Running,
    pub address: SocketAddr,
}

impl Redis {
    pub fn start(programs: &Programs, folder: &Path) -> Result<Self, String> {
        let (running, address) = start_on_free_port(|address| {
            let mut command = Command::new(&programs.redis);
            command
                .args(["--port", &address.port().to_string()])
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .arg("--dir")
                .arg(folder)
                .stdout(Stdio::null());
            Running::start("redis-server", command, folder.join("redis.log"))
        })?;
        Ok(Self {
            _running: running,
            address,
        })
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn connect(&self) -> Result<redis::Connection, String> {
        redis::Client::open(self.url())
            .and_then(|client| client.get_connection())
            .map_err(|error| format!("Redis: {error}"))
    }

    /// Loads a script and returns its digest.
    pub fn load_script(&self, script: &str) -> Result<String, String> {
        redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(script)
            .query(&mut self.connect()?)
            .map_err(|error| format!("Redis: {error}"))
    }

    /// How many scripts have been run so far, by whoever.
    pub fn scripts_run(&self) -> Result<u64, String> {
        let statistics: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut self.connect()?)
            .map_err(|error| format!("Redis: {error}"))?;
        let line = statistics
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.map_or(Ok(0), |line| {
            let count = line.split(',').next().and_then(|text| text.parse().ok());
            count.ok_or_else(|| "Redis: its statistics can't be read".to_owned())
        })
    }
}
