//! The program, run to its end.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::sidekey::program;

/// What a process left behind.
#[derive(Debug)]
pub struct Ended {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `sidekey` in `directory` with `arguments` and `environment`; it has to end by itself.
pub fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(program());
    command
        .current_dir(directory)
        .args(arguments)
        .envs(environment.iter().copied());
    run_command(command)
}

/// Runs `sidekey health` with `arguments`, again for as long as its own few seconds pass without an answer: on
/// a busy machine that says nothing about who was asked.
pub fn run_health(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let arguments = [&["health"], arguments].concat();
    let start = Instant::now();
    loop {
        let ended = run(directory, &arguments, environment);
        if !ended.stderr.contains("no answer within") || start.elapsed() > DEADLINE {
            return ended;
        }
    }
}

/// `PATH` with the program's directory in front.
pub fn path_with_program() -> String {
    let directory = program()
        .parent()
        .expect("a directory")
        .display()
        .to_string();
    format!("{directory}:{}", std::env::var("PATH").unwrap_or_default())
}

/// Runs any command to its end.
pub fn run_command(command: Command) -> Ended {
    run_command_within(command, DEADLINE)
}

/// Runs a command that may take `limit`.
pub fn run_command_within(mut command: Command, limit: Duration) -> Ended {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    // Read beside the waiting: a full pipe would keep the process from ending.
    let stdout = reader(child.stdout.take().expect("stdout"));
    let stderr = reader(child.stderr.take().expect("stderr"));
    let code = wait(&mut child, &command, limit);
    Ended {
        code,
        stdout: stdout.join().expect("stdout"),
        stderr: stderr.join().expect("stderr"),
    }
}

fn reader(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, command: &Command, limit: Duration) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status.code();
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            panic!("{command:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
