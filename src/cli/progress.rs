//! How far long work has come: a line on stderr, where that is a terminal and a person is looking.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the line moves where nothing else does.
const TICK: Duration = Duration::from_millis(200);

pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` bytes, where that is known. Hidden from scripts.
    pub fn of_bytes(is_for_scripts: bool, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{bar:30} {percent:>3} %  {elapsed}, {eta} left  {msg}",
            None => "{spinner} {bytes}  {elapsed}  {msg}",
        };
        Progress::start(is_for_scripts, total, template)
    }

    /// Of entries; how many there are is said later.
    pub fn of_entries(is_for_scripts: bool) -> Self {
        let template = "{bar:30} {pos} of {len} entries  {elapsed}, {eta} left";
        Progress::start(is_for_scripts, Some(0), template)
    }

    fn start(is_for_scripts: bool, total: Option<u64>, template: &str) -> Self {
        let target = if is_for_scripts {
            ProgressDrawTarget::hidden()
        } else {
            // Hidden too, where stderr is no terminal.
            ProgressDrawTarget::stderr()
        };
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::with_draw_target(total, target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    /// So much more is done.
    pub fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// So much is done in all.
    pub fn reach(&self, bytes: u64, message: String) {
        self.0.set_position(bytes);
        self.0.set_message(message);
    }

    /// So much is done of what is known to be all.
    pub fn reach_of(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    /// Does `work`, which writes to the terminal, without the line being in its way.
    pub fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }

    /// Takes the line away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
