//! What a run shows, one file a case.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::bare::BareArguments;
use crate::process::{Cpus, Programs, Running, on_cpus, start_on_free_port};
use crate::settings::{Case, Settings};
use crate::upstream;

pub mod cold;
pub mod compare;
pub mod create;
pub mod forged;
pub mod memory;
pub mod shared;
pub mod unknown;
pub mod warm;

/// What every case works with. The upstream serves all of them.
pub struct Bench {
    pub settings: Settings,
    pub programs: Programs,
    pub cpus: Cpus,
    pub upstream: SocketAddr,
    folder: TempDir,
    _nginx: Running,
}

impl Bench {
    /// Finds the programs, divides the CPUs and starts the upstream.
    pub fn prepare(settings: Settings, programs: Programs) -> Result<Self, String> {
        let cpus = Cpus::divide()?;
        let folder = TempDir::new().map_err(|error| format!("a temporary folder: {error}"))?;
        let (nginx, upstream) = upstream::start(&programs, folder.path())?;
        Ok(Self {
            settings,
            programs,
            cpus,
            upstream,
            folder,
            _nginx: nginx,
        })
    }

    /// An empty folder for a case: the gateway's store, keys and log.
    pub fn folder_for(&self, case: Case) -> Result<TempDir, String> {
        TempDir::with_prefix_in(format!("{}-", case.name()), self.folder.path())
            .map_err(|error| format!("a temporary folder: {error}"))
    }

    /// Starts a bare proxy on the proxy's CPU.
    pub fn start_bare(&self, lean: bool, folder: &Path) -> Result<(Running, SocketAddr), String> {
        let executable =
            std::env::current_exe().map_err(|error| format!("this executable: {error}"))?;
        start_on_free_port(|listen| {
            let arguments = BareArguments {
                listen,
                upstream: self.upstream,
                threads: PROXY_THREADS,
                lean,
            };
            let mut command = on_cpus(&self.programs, &self.cpus.proxy, &executable);
            command.args(arguments.to_command_line());
            let log = folder.join(format!("bare-{}.log", listen.port()));
            Running::start("the bare proxy", command, log)
        })
    }
}

/// Worker threads of each proxy in every comparison.
pub const PROXY_THREADS: usize = 1;
/// The gateway's default bcrypt cost.
pub const BCRYPT_COST: u32 = 10;
