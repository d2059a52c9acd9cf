//! The processes of a run: started on CPUs of their choice, measured through /proc, and killed
//! by id when their guard goes, a panic included. No other process is ever touched.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Linux reports process times in ticks of USER_HZ, which is 100 a second on every architecture
/// that this gateway runs on.
const TICK: Duration = Duration::from_millis(10);
/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);
/// A port that was free a moment ago may be taken: so many tries.
const START_TRIES_MAX: usize = 5;
/// Lines of a failed process's log that are worth showing.
const LOG_TAIL_LINES: usize = 12;
/// Debian keeps nginx where an ordinary user's PATH does not look.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"];

/// The programs that a run needs besides its own executables, by path.
pub struct Programs {
    /// The upstream.
    pub nginx: PathBuf,
    /// The load generator of the closed-loop measurements.
    pub wrk: PathBuf,
    /// Starts a process on given CPUs.
    pub taskset: PathBuf,
    /// Shared limits.
    pub redis: PathBuf,
}

impl Programs {
    /// Finds them all, or names every one that is missing.
    pub fn find() -> Result<Self, String> {
        let mut missing = Vec::new();
        let mut find = |name| {
            program(name).unwrap_or_else(|| {
                missing.push(name);
                PathBuf::new()
            })
        };
        let programs = Programs {
            nginx: find("nginx"),
            wrk: find("wrk"),
            taskset: find("taskset"),
            redis: find("redis-server"),
        };
        if missing.is_empty() {
            return Ok(programs);
        }
        let missing = missing.join(", ");
        Err(format!(
            "these programs are missing: {missing}; run `make setup` to install them"
        ))
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PROGRAM_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Which CPUs the parts of a run use.
///
/// The proxy under test has one CPU to itself; load and upstream share the others. Without that
/// the scheduler moves the three between CPUs, and one side of a comparison can be luckier than
/// the other for a whole round.
#[derive(Clone)]
pub struct Cpus {
    /// For the proxy that is measured.
    pub proxy: String,
    /// All that this process was given, for cases that measure no time.
    pub all: String,
    /// Whether load and proxy stay out of each other's way.
    pub apart: bool,
}

impl Cpus {
    /// Divides the CPUs and keeps this process, and so all that it starts, off the proxy's.
    pub fn divide() -> Result<Self, String> {
        let given = sched_getaffinity(None).map_err(|error| format!("CPU affinity: {error}"))?;
        let mut ids = (0..CpuSet::MAX_CPU).filter(|&id| given.is_set(id));
        let first = ids.next().ok_or("this process may use no CPU at all")?;
        let others: Vec<usize> = ids.collect();
        if !others.is_empty() {
            let mut set = CpuSet::new();
            others.iter().for_each(|&id| set.set(id));
            sched_setaffinity(None, &set).map_err(|error| format!("CPU affinity: {error}"))?;
        }
        let all: Vec<String> = std::iter::once(first)
            .chain(others.iter().copied())
            .map(|id| id.to_string())
            .collect();
        Ok(Self {
            proxy: first.to_string(),
            all: all.join(","),
            apart: !others.is_empty(),
        })
    }
}

/// A process that ends when this value does.
pub struct Running {
    child: Child,
    log: PathBuf,
    name: &'static str,
}

impl Running {
    /// Starts `command` and sends what it says on stderr to `log`.
    pub fn start(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self, String> {
        let stderr = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("{name} could not be started: {error}"))?;
        Ok(Self { child, log, name })
    }

    /// The process's standard output, once, if it was piped.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// CPU time of all its threads so far, user and system.
    pub fn cpu_time(&self) -> Result<Duration, String> {
        let stat = self.proc_file("stat")?;
        // The second field is the program's name in parentheses and may hold spaces; the fields
        // are counted from behind it, where the third is the first.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_ascii_whitespace().collect())
            .unwrap_or_default();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<u32>().ok();
        match (ticks(14), ticks(15)) {
            (Some(user), Some(system)) => Ok(TICK * (user + system)),
            _ => Err(format!("/proc has no CPU times for {}", self.name)),
        }
    }

    /// Memory in KiB by its name in /proc: `VmRSS` is what is resident, `VmHWM` its peak.
    pub fn memory_kib(&self, field: &str) -> Result<u64, String> {
        self.proc_file("status")?
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == field)
            .and_then(|(_, value)| value.split_ascii_whitespace().next()?.parse().ok())
            .ok_or_else(|| format!("/proc has no {field} for {}", self.name))
    }

    fn proc_file(&self, file: &str) -> Result<String, String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(path).map_err(|error| self.failure(&format!("is gone ({error})")))
    }

    /// A sentence on what went wrong, with the end of the process's log.
    pub fn failure(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n    ");
        let name = self.name;
        if tail.is_empty() {
            format!("{name} {what}; it logged nothing")
        } else {
            format!("{name} {what}; its log ends:\n    {tail}")
        }
    }

    /// Whether it is over, on its own.
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it accepts connections on `address`.
    fn wait_for_listener(&mut self, address: SocketAddr) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if self.has_ended() {
                return Err(self.failure("ended at once"));
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            thread::sleep(START_POLL);
        }
        Err(self.failure("accepts no connections"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs `program` on the CPUs `cpus`; the process keeps its id across taskset.
pub fn on_cpus(programs: &Programs, cpus: &str, program: &Path) -> Command {
    let mut command = Command::new(&programs.taskset);
    command.arg("-c").arg(cpus).arg(program);
    command
}

/// Starts a server that has to be told its port, on one that is free.
///
/// The port is free when it is looked up and may be taken when the server binds it, hence the
/// tries.
pub fn start_on_free_port(
    start: impl Fn(SocketAddr) -> Result<Running, String>,
) -> Result<(Running, SocketAddr), String> {
    let mut last = String::new();
    for _ in 0..START_TRIES_MAX {
        let address = free_address().map_err(|error| format!("no free port: {error}"))?;
        let mut running = start(address)?;
        match running.wait_for_listener(address) {
            Ok(()) => return Ok((running, address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
